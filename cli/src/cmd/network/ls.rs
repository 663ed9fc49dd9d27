//! `rrun network ls`.

use crate::args::NetworkLsArgs;
use crate::cmd::filter::{has_label, split};
use crate::context::Context;
use crate::render::table::{go_time, short_id};
use crate::render::template::{self, Column, Row};
use netstack::model::Network;
use netstack::networks::is_predefined;
use plan::{Error, Result};
use serde_json::{Value, json};
use std::cmp::Ordering;

const COLUMNS: &[Column] = &[("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];

pub fn run(ctx: &Context, args: &NetworkLsArgs) -> Result<i32> {
    let netstack = ctx.netstack();
    let mut networks = netstack.networks()?;
    networks.sort_by(|a, b| natural(&a.name, &b.name));
    let filters = parse(&args.filter)?;
    let mut rows = Vec::new();
    for n in &networks {
        let mut keep = true;
        for (key, values) in &filters {
            // Several values of one key are alternatives; labels must all be there.
            let mut hits = Vec::new();
            for v in values {
                hits.push(matches(n, key, v, || Ok(netstack.endpoints(n)?.is_empty()))?);
            }
            keep &= if key == "label" { hits.iter().all(|h| *h) } else { hits.iter().any(|h| *h) };
        }
        if keep {
            rows.push(row(n, args.no_trunc));
        }
    }
    if args.quiet {
        for r in &rows {
            println!("{}", r["ID"].as_str().unwrap_or_default());
        }
        return Ok(0);
    }
    print!("{}", template::list(args.format.as_deref(), COLUMNS, &rows)?);
    Ok(0)
}

fn row(n: &Network, no_trunc: bool) -> Row {
    let labels: Vec<String> = n.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let row = json!({
        "CreatedAt": go_time(&n.created, true),
        "Driver": n.driver,
        "ID": if no_trunc { n.id.as_str() } else { short_id(&n.id) },
        "IPv4": n.enable_ipv4.to_string(),
        "IPv6": n.enable_ipv6.to_string(),
        "Internal": n.internal.to_string(),
        "Labels": labels.join(","),
        "Name": n.name,
        "Scope": "local",
    });
    match row {
        Value::Object(o) => o,
        _ => Row::new(),
    }
}

/// `key=value` filters by key, with Docker's complaints.
///
/// # Errors
/// Not `key=value`; an unknown key; a value that the key does not have.
pub fn parse(filters: &[String]) -> Result<Vec<(String, Vec<String>)>> {
    let mut out: Vec<(String, Vec<String>)> = Vec::new();
    for f in filters {
        let (key, value) = split(f, "-f, --filter")?;
        let (key, value) = (key.as_str(), value.as_str());
        let bad = || Error::invalid(format!("invalid filter: '{key}'='{value}'"));
        match key {
            "driver" | "id" | "name" | "label" | "scope" | "until" => {}
            // `label!=x` splits into `label!` and `x`.
            "label!" => {}
            "dangling" if matches!(value, "true" | "false" | "1" | "0") => {}
            "type" if matches!(value, "custom" | "builtin") => {}
            "dangling" => return Err(bad().with_hint("dangling is true or false")),
            "type" => return Err(bad().with_hint("type is custom or builtin")),
            _ => return Err(bad().with_hint("networks have dangling, driver, id, name, label, scope and type")),
        }
        match out.iter_mut().find(|(k, _)| k == key) {
            Some((_, values)) if key == "dangling" && !values.contains(&value.to_string()) => {
                return Err(Error::invalid("got more than one value for filter key \"dangling\"")
                    .with_hint("ask for one of true and false"));
            }
            Some((_, values)) => values.push(value.to_string()),
            None => out.push((key.to_string(), vec![value.to_string()])),
        }
    }
    Ok(out)
}

/// Whether a network passes one filter; `unused` is only asked when the filter wants to know.
///
/// # Errors
/// Of `unused`.
pub fn matches(n: &Network, key: &str, value: &str, unused: impl Fn() -> Result<bool>) -> Result<bool> {
    Ok(match key {
        "driver" => n.driver == value,
        "id" => n.id.contains(value),
        "name" => n.name.contains(value),
        "scope" => value == "local",
        "type" => is_predefined(&n.name) == (value == "builtin"),
        "label" => has_label(&n.labels, value),
        "label!" => !has_label(&n.labels, value),
        "dangling" => (!is_predefined(&n.name) && unused()?) == matches!(value, "true" | "1"),
        _ => true,
    })
}

/// Docker's natural order: `net2` before `net10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (a.chars().next(), b.chars().next());
        let (Some(x), Some(y)) = (x, y) else { return x.cmp(&y) };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let digits = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
            let (da, db) = (digits(a), digits(b));
            let (na, nb) = (a[..da].trim_start_matches('0'), b[..db].trim_start_matches('0'));
            let order = na.len().cmp(&nb.len()).then_with(|| na.cmp(nb));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (&a[da..], &b[db..]);
        } else {
            if x != y {
                return x.cmp(&y);
            }
            (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_sort_by_value() {
        let mut names = ["net10", "net2", "bridge", "net1", "net02b"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["bridge", "net1", "net2", "net02b", "net10"]);
    }

    #[test]
    fn filters_complain_as_docker_does() {
        let parse = |f: &str| parse(&[f.to_string()]);
        assert_eq!(parse("type=x").unwrap_err().message, "invalid filter: 'type'='x'");
        assert_eq!(parse("colour=red").unwrap_err().message, "invalid filter: 'colour'='red'");
        let twice = super::parse(&["dangling=true".into(), "dangling=false".into()]).unwrap_err();
        assert_eq!(twice.message, "got more than one value for filter key \"dangling\"");
    }
}
