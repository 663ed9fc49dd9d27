//! Our own table: the rules as this program would write them, the elements as the records say.

use super::{Damage, Finding, Wanted};
use crate::firewall::{self, Element, TABLE};
use crate::networks::Netstack;
use crate::nl::{self, Socket};
use plan::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Everything nftables has.
pub fn ruleset() -> Result<Value> {
    list(&["-j", "list", "ruleset"])
}

fn list(args: &[&str]) -> Result<Value> {
    let output = firewall::run_nft(args, "")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Error::system(format!("nft {}", args.join(" "))).with_cause(words.trim().to_string()));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| Error::system("read nft's JSON").with_cause(e.to_string()))
}

fn own() -> Result<Value> {
    list(&["-j", "list", "table", "inet", TABLE])
}

/// The table as this very nft and kernel would show it, had it just been loaded: loaded into a network
/// namespace that nobody else is in. The calling process must be single-threaded.
fn pristine() -> Result<Value> {
    nl::in_empty_netns(|| {
        firewall::load(&mut Socket::netfilter()?)?;
        own()
    })
}

/// Chains with their hook, rules, and sets with their type, without what changes by itself.
#[derive(Default, PartialEq)]
struct Shape {
    chains: BTreeMap<String, String>,
    rules: BTreeMap<String, Vec<(String, String)>>,
    sets: BTreeMap<String, String>,
}

impl Shape {
    fn of(listing: &Value) -> Shape {
        let mut shape = Shape::default();
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_string();
        for item in listing["nftables"].as_array().into_iter().flatten() {
            if let Some(c) = item.get("chain") {
                let hook = ["type", "hook", "prio", "policy"].map(|key| c[key].to_string()).join(" ");
                shape.chains.insert(text(c, "name"), hook);
            } else if let Some(r) = item.get("rule") {
                let mut expr = r["expr"].clone();
                settle(&mut expr);
                shape.rules.entry(text(r, "chain")).or_default().push((expr.to_string(), text(r, "comment")));
            } else if let Some(s) = item.get("set").or_else(|| item.get("map")) {
                let kind = ["type", "map", "flags"].map(|key| s[key].to_string()).join(" ");
                shape.sets.insert(text(s, "name"), kind);
            }
        }
        shape
    }

    /// Chains that nobody has written who knew this table.
    fn strays(&self, wanted: &Shape) -> Vec<String> {
        self.chains.keys().filter(|name| !wanted.chains.contains_key(*name)).cloned().collect()
    }
}

/// Counters count.
fn settle(v: &mut Value) {
    match v {
        Value::Object(o) => {
            if let Some(counter) = o.get_mut("counter") {
                *counter = Value::Null;
            }
            o.values_mut().for_each(settle);
        }
        Value::Array(a) => a.iter_mut().for_each(settle),
        _ => {}
    }
}

/// What a rule of ours has dropped, and its comment, which says why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Dropped {
    pub chain: String,
    pub reason: String,
    pub packets: u64,
    pub bytes: u64,
}

/// Of every rule that has dropped something since the table was loaded; nothing where there is no table.
///
/// # Errors
/// `nft` is not there, or says what cannot be understood.
pub fn drops() -> Result<Vec<Dropped>> {
    if firewall::is_loaded(&mut Socket::netfilter()?)? == Some(false) {
        return Ok(Vec::new());
    }
    Ok(dropped(&own()?))
}

fn dropped(listing: &Value) -> Vec<Dropped> {
    let rules = listing["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("rule"));
    let found = rules.filter_map(|rule| {
        let expressions = rule["expr"].as_array()?;
        expressions.iter().find(|e| e.get("drop").is_some())?;
        let counter = expressions.iter().find_map(|e| e.get("counter"))?;
        Some(Dropped {
            chain: rule["chain"].as_str()?.to_string(),
            reason: rule["comment"].as_str().unwrap_or("no comment").to_string(),
            packets: counter["packets"].as_u64()?,
            bytes: counter["bytes"].as_u64()?,
        })
    });
    found.filter(|d| d.packets > 0).collect()
}

pub fn check(wanted: &Wanted, findings: &mut Vec<Finding>, damage: &mut Damage) -> Result<()> {
    let table = format!("table inet {TABLE}");
    let mut nft = Socket::netfilter()?;
    let Ok(listing) = own() else {
        if !wanted.elements.is_empty() {
            findings.push(Finding::ours(
                "table-missing",
                &table,
                "it is gone: published ports are closed, and containers are open to whoever has a route to them",
            ));
        }
        return Ok(());
    };
    let (now, should) = (Shape::of(&listing), Shape::of(&pristine()?));
    if firewall::is_loaded(&mut nft)? == Some(false) {
        findings.push(Finding::ours("table-outdated", &table, "its rules are not those of this version of rrun"));
    }
    differences(&now, &should, findings);
    (damage.missing, damage.stale) = elements(&listing, wanted);
    Ok(())
}

pub fn element_findings(damage: &Damage) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (what, elements, code) in [
        ("missing: what it stands for does not work", &damage.missing, "element-missing"),
        ("nobody's: its owner is gone", &damage.stale, "element-stale"),
    ] {
        // A flushed map of thousands is one thing that happened.
        let mut sets: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        elements.iter().for_each(|e| sets.entry(e.set()).or_default().push(e.to_string()));
        for (set, elements) in sets {
            let more = if elements.len() > 1 { format!(" (and {} more)", elements.len() - 1) } else { String::new() };
            let first = elements.iter().min().map_or("", String::as_str);
            let thing = format!("table inet {TABLE}, {set}");
            findings.push(Finding::ours(code, thing, format!("{{ {first} }}{more} is {what}")));
        }
    }
    findings
}

fn differences(now: &Shape, should: &Shape, findings: &mut Vec<Finding>) {
    let mut found = |thing: String, problem: String| {
        findings.push(Finding::ours("table-altered", format!("table inet {TABLE}, {thing}"), problem));
    };
    for (name, kind) in &should.sets {
        match now.sets.get(name) {
            None => found(format!("set {name}"), "it is missing".into()),
            Some(other) if other != kind => found(format!("set {name}"), "it is of another type".into()),
            Some(_) => {}
        }
    }
    for (name, hook) in &should.chains {
        match now.chains.get(name) {
            None => found(format!("chain {name}"), "it is missing".into()),
            Some(other) if other != hook => {
                found(format!("chain {name}"), "its hook, priority or policy is another".into())
            }
            Some(_) => {}
        }
    }
    for name in now.strays(should) {
        found(format!("chain {name}"), "rrun has not written it".into());
    }
    let nothing = Vec::new();
    for name in should.chains.keys() {
        let (have, want) = (now.rules.get(name).unwrap_or(&nothing), should.rules.get(name).unwrap_or(&nothing));
        let before = |rules: &[(String, String)]| rules.iter().cloned().collect::<BTreeSet<_>>();
        let (has, wants) = (before(have), before(want));
        for (_, about) in wants.difference(&has) {
            found(format!("chain {name}"), format!("a rule is missing or altered: {about}"));
        }
        for (expr, about) in has.difference(&wants) {
            let what = if about.is_empty() { expr } else { about };
            found(format!("chain {name}"), format!("a rule is not rrun's, or altered: {what}"));
        }
        if has == wants && have != want {
            found(format!("chain {name}"), "its rules are in another order, or repeated".into());
        }
    }
}

/// What is missing of the wanted elements, and what is there without anybody wanting it.
fn elements(listing: &Value, wanted: &Wanted) -> (HashSet<Element>, HashSet<Element>) {
    let mut there: HashSet<Element> = HashSet::new();
    for item in listing["nftables"].as_array().into_iter().flatten() {
        let Some(s) = item.get("set").or_else(|| item.get("map")) else { continue };
        let Some(name) = s["name"].as_str().filter(|name| *name != "layout") else { continue };
        for elem in s["elem"].as_array().into_iter().flatten() {
            there.extend(text(elem, s.get("map").is_some()).and_then(|text| Element::parse(name, &text).ok()));
        }
    }
    let foreign = others(&there, wanted);
    let missing = wanted.elements.iter().filter(|e| !there.contains(e));
    let stale = there.iter().filter(|e| !wanted.known.contains(e) && !foreign.contains(e));
    (missing.cloned().collect(), stale.cloned().collect())
}

/// Elements of another rrun on this host, with a root of its own: whatever has to do with a bridge that
/// is there and not ours.
fn others<'a>(there: &'a HashSet<Element>, wanted: &Wanted) -> HashSet<&'a Element> {
    let own: HashSet<&str> = wanted.known.iter().filter_map(Element::interface).collect();
    let is_there =
        |name: &str| Socket::route().and_then(|route| route.ifindex(name)).is_ok_and(|index| index.is_some());
    let bridges: HashSet<&str> = there
        .iter()
        .filter(|e| e.set() == "bridges")
        .filter_map(Element::interface)
        .filter(|name| !own.contains(name) && is_there(name))
        .collect();
    if bridges.is_empty() {
        return HashSet::new();
    }
    let subnets: Vec<_> = there
        .iter()
        .filter(|e| e.interface().is_some_and(|i| bridges.contains(i)))
        .filter_map(Element::subnet)
        .collect();
    let concerns = |e: &&Element| {
        e.interface().is_some_and(|i| bridges.contains(i))
            || e.subnet().is_some_and(|net| subnets.contains(&net))
            || e.translation().is_some_and(|(_, _, to)| subnets.iter().any(|net| net.contains(to)))
            // The port beside the address.
            || e.set().ends_with("_port")
    };
    there.iter().filter(concerns).collect()
}

/// An element as `nft -j` prints it, in nft's own syntax.
fn text(elem: &Value, is_map: bool) -> Option<String> {
    match elem.as_array() {
        Some(pair) if is_map => Some(format!("{} : {}", part(pair.first()?)?, part(pair.get(1)?)?)),
        _ => part(elem),
    }
}

fn part(v: &Value) -> Option<String> {
    if let Some(inner) = v.get("elem") {
        return part(inner.get("val")?);
    }
    if let Some(parts) = v.get("concat").and_then(Value::as_array) {
        return parts.iter().map(part).collect::<Option<Vec<_>>>().map(|parts| parts.join(" . "));
    }
    if let Some(p) = v.get("prefix") {
        return Some(format!("{}/{}", part(p.get("addr")?)?, p.get("len")?));
    }
    if let Some([from, to]) = v.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Some(format!("{}-{}", part(from)?, part(to)?));
    }
    match v {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// From the records, without closing anything that is open meanwhile.
pub fn repair(netstack: &Netstack, wanted: &Wanted, damage: &Damage) -> Result<()> {
    if wanted.in_use().next().is_none() && own().is_err() {
        return Ok(());
    }
    let mut nft = Socket::netfilter()?;
    let mut written = firewall::load(&mut nft)?;
    let (now, should) = (Shape::of(&own()?), Shape::of(&pristine()?));
    if now != should {
        firewall::rewrite(&now.strays(&should))?;
        written = true;
    }
    // What is there with another value is in the way.
    firewall::withdraw(&mut nft, &damage.stale.iter().cloned().collect::<Vec<_>>())?;
    match written {
        true => netstack.restore_elements(&mut nft, true).map(drop),
        false => firewall::publish(&mut nft, &damage.missing.iter().cloned().collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn elements_are_read_back_from_json() {
        for (set, elem, want) in [
            ("bridges", json!("rrun0"), "\"rrun0\""),
            ("masquerade4", json!({"prefix": {"addr": "172.17.0.0", "len": 16}}), "172.17.0.0/16"),
            (
                "publish4_any_range",
                json!([{"elem": {"val": {"concat": ["tcp", {"range": [8000, 8499]}]}, "counter": {"packets": 1}}}, "172.17.0.2"]),
                "tcp . 8000-8499 : 172.17.0.2",
            ),
            (
                "publish4_from",
                json!([{"concat": ["192.0.2.1", {"prefix": {"addr": "0.0.0.0", "len": 0}}, "udp", 53]}, "172.17.0.2"]),
                "192.0.2.1/32 . 0.0.0.0/0 . udp . 53 : 172.17.0.2",
            ),
        ] {
            let element = Element::parse(set, &text(&elem, elem.is_array()).expect("readable")).expect("an element");
            assert_eq!(element.to_string(), want);
        }
    }

    #[test]
    fn a_changed_rule_is_told_by_its_comment() {
        let listing = |expr: Value, prio: i32| {
            Shape::of(&json!({"nftables": [
                {"chain": {"name": "forward", "type": "filter", "hook": "forward", "prio": prio, "policy": "accept"}},
                {"rule": {"chain": "forward", "handle": 9, "comment": "drops", "expr": [{"counter": {"packets": 7}}, expr]}},
            ]}))
        };
        let should = listing(json!({"drop": null}), 0);
        let told = |now: &Shape| {
            let mut findings = Vec::new();
            differences(now, &should, &mut findings);
            findings.into_iter().map(|f| f.problem).collect::<Vec<_>>()
        };
        assert_eq!(told(&listing(json!({"drop": null}), 0)), [""; 0]);
        assert_eq!(told(&listing(json!({"drop": null}), 5)), ["its hook, priority or policy is another"]);
        assert_eq!(
            told(&listing(json!({"accept": null}), 0)),
            ["a rule is missing or altered: drops", "a rule is not rrun's, or altered: drops"]
        );
    }
}
