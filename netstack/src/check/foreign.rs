//! Other programs' rules that will drop our packets.
//!
//! In nftables an `accept` is only the word of its own chain: one drop at the same hook is enough, and
//! rrun never touches a table that is not its own. So all it can do is to see it coming, and to say
//! which line would let the packets through. Each base chain is read as the kernel would for two packets:
//! a new connection out of a bridge of ours, and one into it.

use super::Finding;
use serde_json::Value;
use std::collections::HashMap;

/// Chains within chains: the kernel allows 16.
const DEPTH: usize = 16;

/// One packet in thought.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Out,
    In,
}

/// What a match, or a whole chain, says about the packet.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Yes,
    No,
    Perhaps,
}

enum Verdict {
    Accept,
    /// The rule's handle; the chain's policy, if none.
    Drop(String),
    Continue,
}

struct Chain<'a> {
    rules: Vec<&'a Value>,
    base: Option<Base<'a>>,
}

struct Base<'a> {
    kind: &'a str,
    hook: &'a str,
    policy: &'a str,
}

type Key<'a> = (&'a str, &'a str, &'a str);

/// `ruleset` as `nft -j list ruleset` prints it.
pub fn find(ruleset: &Value, bridges: &[String]) -> Vec<Finding> {
    let mut chains: HashMap<Key<'_>, Chain<'_>> = HashMap::new();
    let mut order: Vec<Key<'_>> = Vec::new();
    for item in ruleset["nftables"].as_array().into_iter().flatten() {
        if let Some(c) = item.get("chain") {
            let key = (text(c, "family"), text(c, "table"), text(c, "name"));
            let base =
                c.get("hook").map(|_| Base { kind: text(c, "type"), hook: text(c, "hook"), policy: text(c, "policy") });
            chains.insert(key, Chain { rules: Vec::new(), base });
            order.push(key);
        }
        if let Some(r) = item.get("rule")
            && let Some(chain) = chains.get_mut(&(text(r, "family"), text(r, "table"), text(r, "chain")))
        {
            chain.rules.push(r);
        }
    }
    let mut findings = Vec::new();
    for key in order {
        let ours = key.0 == "inet" && key.1 == crate::firewall::TABLE;
        let Some(base) = chains[&key].base.as_ref().filter(|_| !ours && matches!(key.0, "ip" | "ip6" | "inet")) else {
            continue;
        };
        if base.kind != "filter" || !matches!(base.hook, "prerouting" | "forward" | "postrouting") {
            continue;
        }
        // Per bridge and direction: what drops it.
        let mut dropped: Vec<(&String, Way, String)> = Vec::new();
        for bridge in bridges {
            for way in [Way::Out, Way::In] {
                let walk = Walk { chains: &chains, hook: base.hook, bridge, way };
                let verdict = match walk.chain(key, DEPTH) {
                    Verdict::Continue if base.policy == "drop" => Verdict::Drop("its policy is drop".into()),
                    verdict => verdict,
                };
                if let Verdict::Drop(why) = verdict {
                    dropped.push((bridge, way, why));
                }
            }
        }
        if !dropped.is_empty() {
            findings.push(finding(key, &chains, &dropped));
        }
    }
    findings
}

fn finding(key: Key<'_>, chains: &HashMap<Key<'_>, Chain<'_>>, dropped: &[(&String, Way, String)]) -> Finding {
    let (family, table, chain) = key;
    let mut names: Vec<&str> = dropped.iter().map(|(bridge, ..)| bridge.as_str()).collect();
    names.dedup();
    let ways = match (dropped.iter().any(|d| d.1 == Way::Out), dropped.iter().any(|d| d.1 == Way::In)) {
        (true, true) => "from and to",
        (true, false) => "from",
        _ => "to",
    };
    Finding {
        code: "foreign-drop",
        thing: format!("table {family} {table}, chain {chain}"),
        problem: format!("packets {ways} {} end here: {}", names.join(", "), dropped[0].2),
        fix: Some(fix(key, chains, dropped)),
        ours: false,
        repaired: false,
    }
}

/// In the words of whoever owns the chain: what is put into another's table by hand is gone at its
/// next reload.
fn fix(key: Key<'_>, chains: &HashMap<Key<'_>, Chain<'_>>, dropped: &[(&String, Way, String)]) -> String {
    let (family, table, chain) = key;
    let has = |name: &str| chains.keys().any(|(f, t, c)| (*f, *t) == (family, table) && *c == name);
    let iptables = if family == "ip6" { "ip6tables" } else { "iptables" };
    let mut lines: Vec<String> = Vec::new();
    for (bridge, way, _) in dropped {
        let out = *way == Way::Out;
        lines.push(if table == "firewalld" {
            format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload")
        } else if has("ufw-before-forward") || has("ufw6-before-forward") {
            format!("ufw route allow {} on {bridge}", if out { "in" } else { "out" })
        } else if has("DOCKER-USER") && chain == "FORWARD" {
            format!("{iptables} -I DOCKER-USER {} {bridge} -j ACCEPT", if out { "-i" } else { "-o" })
        } else if family != "inet" && table == "filter" && chain == "FORWARD" {
            format!("{iptables} -I FORWARD {} {bridge} -j ACCEPT", if out { "-i" } else { "-o" })
        } else {
            let interface = if out { "iifname" } else { "oifname" };
            format!("nft insert rule {family} {table} {chain} {interface} {bridge} accept")
        });
    }
    lines.dedup();
    lines.join(" && ")
}

struct Walk<'a> {
    chains: &'a HashMap<Key<'a>, Chain<'a>>,
    hook: &'a str,
    bridge: &'a str,
    way: Way,
}

impl<'a> Walk<'a> {
    /// Only what is certain counts: a rule that might let the packet through or might not does neither.
    fn chain(&self, key: Key<'a>, depth: usize) -> Verdict {
        let Some(chain) = self.chains.get(&key).filter(|_| depth > 0) else { return Verdict::Continue };
        for rule in &chain.rules {
            let Some(statements) = rule["expr"].as_array() else { continue };
            let matched = statements.iter().filter_map(|s| self.says(s)).fold(Says::Yes, |all, one| match (all, one) {
                (Says::No, _) | (_, Says::No) => Says::No,
                (Says::Yes, Says::Yes) => Says::Yes,
                _ => Says::Perhaps,
            });
            if matched != Says::Yes {
                continue;
            }
            let handle = || format!("rule with handle {} drops them", rule["handle"]);
            for s in statements {
                let jump = |kind: &str| s.get(kind).and_then(|j| j["target"].as_str());
                if s.get("accept").is_some() {
                    return Verdict::Accept;
                }
                if s.get("drop").is_some() || s.get("reject").is_some() {
                    return Verdict::Drop(handle());
                }
                if s.get("return").is_some() {
                    return Verdict::Continue;
                }
                if let Some(target) = jump("jump") {
                    match self.chain((key.0, key.1, target), depth - 1) {
                        Verdict::Continue => {}
                        verdict => return verdict,
                    }
                }
                if let Some(target) = jump("goto") {
                    return self.chain((key.0, key.1, target), depth - 1);
                }
            }
        }
        Verdict::Continue
    }

    /// What one statement asks of the packet; `None`: nothing.
    fn says(&self, statement: &Value) -> Option<Says> {
        if let Some(m) = statement.get("match") {
            return Some(self.compares(m));
        }
        // What iptables knows and nft does not, and what depends on more packets than one.
        let opaque = statement.get("xt").is_some_and(|xt| xt["type"] != "target") || statement.get("limit").is_some();
        opaque.then_some(Says::Perhaps)
    }

    fn compares(&self, m: &Value) -> Says {
        let left = &m["left"];
        let known = |holds: bool| if holds { Says::Yes } else { Says::No };
        let equal = if let Some(key) = left["meta"]["key"].as_str() {
            // In postrouting the kernel has forgotten where a bridged packet came from, not a routed one.
            let (own, other) = match self.way {
                Way::Out => ("iifname", "oifname"),
                Way::In => ("oifname", "iifname"),
            };
            match key {
                _ if key == own && !(self.hook == "prerouting" && self.way == Way::In) => {
                    known(any(&m["right"], |name| is_name(name, self.bridge)))
                }
                // Before routing there is no way out yet.
                _ if self.hook == "prerouting" && key == "oifname" => known(false),
                // It may be any interface, but hardly one of loopback.
                _ if key == other && any(&m["right"], |name| name == "lo") => known(false),
                "l4proto" => known(any(&m["right"], |p| p == "tcp")),
                _ => Says::Perhaps,
            }
        } else if left["ct"]["key"] == "state" {
            known(any(&m["right"], |state| state == "new"))
        } else if left["ct"]["key"] == "status" && self.hook == "forward" {
            known(any(&m["right"], |status| status == "dnat") && self.way == Way::In)
        } else {
            Says::Perhaps
        };
        match (m["op"].as_str(), equal) {
            (Some("!="), Says::Yes) => Says::No,
            (Some("!="), Says::No) => Says::Yes,
            (Some("==" | "in" | "!="), says) => says,
            _ => Says::Perhaps,
        }
    }
}

/// A value, or one of an anonymous set or list of values.
fn any(right: &Value, is: impl Fn(&str) -> bool + Copy) -> bool {
    match right {
        Value::String(one) => is(one),
        Value::Array(all) => all.iter().any(|one| any(one, is)),
        Value::Object(o) => o.get("set").is_some_and(|set| any(set, is)),
        _ => false,
    }
}

/// `eth*` is any interface whose name begins so.
fn is_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(family: &str, table: &str, name: &str, policy: Option<&str>) -> Value {
        match policy {
            Some(policy) => json!({"chain": {"family": family, "table": table, "name": name, "type": "filter",
                "hook": "forward", "prio": 0, "policy": policy}}),
            None => json!({"chain": {"family": family, "table": table, "name": name}}),
        }
    }

    fn rule(family: &str, table: &str, chain: &str, handle: u32, expr: Value) -> Value {
        json!({"rule": {"family": family, "table": table, "chain": chain, "handle": handle, "expr": expr}})
    }

    fn meets(key: &str, op: &str, right: &str) -> Value {
        json!({"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}})
    }

    fn findings(items: Vec<Value>) -> Vec<String> {
        let found = find(&json!({ "nftables": items }), &["rrun0".to_string()]);
        found.iter().map(|f| format!("{}: {} -> {}", f.thing, f.problem, f.fix.as_deref().unwrap_or("-"))).collect()
    }

    #[test]
    fn a_forward_policy_of_drop() {
        let both = "iptables -I FORWARD -i rrun0 -j ACCEPT && iptables -I FORWARD -o rrun0 -j ACCEPT";
        let policy = chain("ip", "filter", "FORWARD", Some("drop"));
        assert_eq!(
            findings(vec![policy.clone()]),
            [format!(
                "table ip filter, chain FORWARD: packets from and to rrun0 end here: its policy is drop -> {both}"
            )]
        );
        let accept = |n, key| rule("ip", "filter", "FORWARD", n, json!([meets(key, "==", "rrun*"), {"accept": null}]));
        assert_eq!(findings(vec![policy.clone(), accept(1, "iifname"), accept(2, "oifname")]), [""; 0]);
        let found = findings(vec![policy.clone(), accept(1, "iifname")]);
        assert!(
            found[0]
                .ends_with("packets to rrun0 end here: its policy is drop -> iptables -I FORWARD -o rrun0 -j ACCEPT"),
            "{found:?}"
        );
        // Docker's, with what it lets through for itself, and the chain it leaves to its user.
        let docker = vec![
            policy,
            chain("ip", "filter", "DOCKER-USER", None),
            rule("ip", "filter", "FORWARD", 3, json!([{"jump": {"target": "DOCKER-USER"}}])),
            rule(
                "ip",
                "filter",
                "FORWARD",
                4,
                json!([{"xt": {"type": "match", "name": "conntrack"}}, {"accept": null}]),
            ),
            rule("ip", "filter", "FORWARD", 5, json!([meets("iifname", "==", "docker0"), {"accept": null}])),
        ];
        assert!(
            findings(docker)[0]
                .ends_with("iptables -I DOCKER-USER -i rrun0 -j ACCEPT && iptables -I DOCKER-USER -o rrun0 -j ACCEPT")
        );
    }

    #[test]
    fn chains_of_ufw_and_firewalld_are_followed() {
        let ufw = vec![
            chain("ip6", "filter", "FORWARD", Some("drop")),
            chain("ip6", "filter", "ufw6-before-forward", None),
            rule("ip6", "filter", "FORWARD", 1, json!([{"jump": {"target": "ufw6-before-forward"}}])),
        ];
        assert!(findings(ufw)[0].ends_with("ufw route allow in on rrun0 && ufw route allow out on rrun0"));
        let firewalld = vec![
            chain("inet", "firewalld", "filter_FORWARD", Some("accept")),
            rule(
                "inet",
                "firewalld",
                "filter_FORWARD",
                7,
                json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]),
            ),
            rule(
                "inet",
                "firewalld",
                "filter_FORWARD",
                8,
                json!([{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]),
            ),
        ];
        let found = findings(firewalld.clone());
        assert!(found[0].contains("rule with handle 8 drops them"), "{found:?}");
        assert!(found[0].contains("--zone=trusted --add-interface=rrun0"), "{found:?}");
        let mut let_through = firewalld;
        let_through.insert(
            1,
            rule(
                "inet",
                "firewalld",
                "filter_FORWARD",
                6,
                json!([{"match": {"op": "==", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}]),
            ),
        );
        assert!(findings(let_through)[0].contains("packets from rrun0"));
    }

    #[test]
    fn what_is_not_certain_or_not_ours_is_no_finding() {
        let fine = vec![
            chain("inet", "rrun", "forward", Some("drop")),
            chain("inet", "mine", "fwd", Some("accept")),
            rule("inet", "mine", "fwd", 1, json!([meets("iifname", "==", "eth0"), {"drop": null}])),
            rule(
                "inet",
                "mine",
                "fwd",
                2,
                json!([meets("oifname", "!=", "rrun0"), meets("iifname", "!=", "rrun0"), {"drop": null}]),
            ),
            rule("inet", "mine", "fwd", 3, json!([{"limit": {"rate": 1}}, {"drop": null}])),
            chain("bridge", "l2", "fwd", Some("drop")),
        ];
        assert_eq!(findings(fine), [""; 0]);
    }
}
