//! `--change`: Dockerfile instructions that make up an image's configuration. Variables are not
//! expanded: there is no build they could come from.

use crate::config::Config;
use crate::manifest::printable;
use plan::{Error, Result};
use serde_json::Value;

/// The configuration that the instructions make of another one.
pub(super) fn apply(mut config: Config, changes: &[String]) -> Result<Config> {
    let mut cmd_is_new = false;
    for change in changes {
        instruction(&mut config, change.trim()).map_err(|e| {
            let e = e.context(format!("change {:?}", printable(change)));
            if e.hint.is_some() {
                e
            } else {
                e.with_hint("changes are Dockerfile instructions, such as CMD [\"nginx\"] or ENV A=b")
            }
        })?;
        match change.split_whitespace().next() {
            Some(name) if name.eq_ignore_ascii_case("CMD") => cmd_is_new = true,
            // What another entrypoint took as its arguments means nothing to this one.
            Some(name) if name.eq_ignore_ascii_case("ENTRYPOINT") && !cmd_is_new => config.cmd = None,
            _ => {}
        }
    }
    config.exposed_ports.sort();
    config.exposed_ports.dedup();
    config.volumes.sort();
    config.volumes.dedup();
    Ok(config)
}

fn instruction(config: &mut Config, text: &str) -> Result<()> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let name = name.to_ascii_uppercase();
    let known = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ];
    if !known.contains(&name.as_str()) {
        return Err(Error::invalid(format!("{} is not a valid change command", printable(&name)))
            .with_hint(format!("valid are {}", known.join(", "))));
    }
    if rest.is_empty() {
        return Err(Error::invalid(format!("{name} requires at least one argument")));
    }
    match name.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (name, value) in pairs(rest)? {
                // A variable set again keeps its place.
                let entry = format!("{name}={value}");
                let same = |e: &&mut String| e.split_once('=').is_some_and(|(n, _)| n == name);
                match config.env.iter_mut().find(same) {
                    Some(old) => *old = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                config.exposed_ports.extend(ports(&port)?);
            }
        }
        "VOLUME" => match json_list(rest) {
            Some(paths) => config.volumes.extend(paths),
            None => config.volumes.extend(words(rest)?),
        },
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        "USER" => config.user = single(rest)?,
        "STOPSIGNAL" => config.stop_signal = Some(single(rest)?),
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        _ => {
            let dir = single(rest)?;
            let base = if dir.starts_with('/') { "" } else { config.working_dir.as_str() };
            config.working_dir = clean(&format!("{base}/{dir}"));
        }
    }
    Ok(())
}

/// `[--interval=30s …] CMD …` or `NONE`, as Docker's object.
fn healthcheck(text: &str) -> Result<Value> {
    let mut check = serde_json::Map::new();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("Missing a value on flag: {}", printable(option))))?;
        let wrong = || Error::invalid(format!("invalid value of --{name}: {:?}", printable(value)));
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(Error::invalid(format!("Unknown flag: {}", printable(name)))),
        };
        let number = if name == "retries" { value.parse::<i64>().ok() } else { nanoseconds(value) };
        check.insert(key.into(), number.filter(|n| *n >= 0).ok_or_else(wrong)?.into());
        rest = after.trim_start();
    }
    let (kind, line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let line = line.trim();
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if line.is_empty() && check.is_empty() => vec!["NONE".to_owned()],
        "NONE" => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        "CMD" if line.is_empty() => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        "CMD" => match json_list(line) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec!["CMD-SHELL".to_owned(), line.to_owned()],
        },
        other => {
            let shown = printable(other);
            return Err(Error::invalid(format!("Unknown type {shown:?} in HEALTHCHECK (try CMD)")));
        }
    };
    check.insert("Test".into(), test.into());
    Ok(Value::Object(check))
}

/// Go's durations: `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let scale = match unit {
            "ns" => 1.0,
            "us" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    // Beyond 2^63 nanoseconds (292 years) nobody checks anything.
    (!text.is_empty() && total < 9e18).then_some(total as i64)
}

/// The exec form as it stands, anything else through the shell.
fn command(text: &str) -> Vec<String> {
    json_list(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn single(text: &str) -> Result<String> {
    match words(text)?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::invalid("exactly one argument is wanted")),
    }
}

/// `a=b c="d e"`, or the old form `a rest of line`.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let first = text.split(char::is_whitespace).next().unwrap_or("");
    if !first.contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{} must have two arguments", printable(text))))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::invalid(format!("Can't find = in {:?}. Must be of the form: name=value", printable(&word)))),
    };
    words(text)?.into_iter().map(pair).collect()
}

/// Words as in a shell: quotes and backslashes are taken away.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            // Inside double quotes a backslash escapes only what would mean something.
            (Some('"'), '\\') if matches!(chars.peek(), Some('"' | '\\' | '$')) => {
                word.get_or_insert_default().extend(chars.next())
            }
            (None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// `80`, `80/udp` or `8000-8010/tcp`, one entry each.
fn ports(text: &str) -> Result<Vec<String>> {
    let bad = || Error::invalid(format!("invalid port {:?}", printable(text)));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(bad());
    }
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let number = |s: &str| s.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(bad);
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(bad());
    }
    Ok((from..=to).map(|port| format!("{port}/{protocol}")).collect())
}

/// The path without `.`, `..` and doubled slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[&str]) -> Result<Config> {
        apply(Config::default(), &changes.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn every_instruction() {
        let c = config(&[
            r#"CMD ["nginx", "-g", "daemon off;"]"#,
            "entrypoint  exec foo \"$X\" ",
            r#"ENV A=b C="d e" F=g\ h"#,
            "ENV OLD form with spaces",
            "ENV A=again",
            "EXPOSE 443 53/udp 80/tcp 443/TCP",
            "EXPOSE 8000-8002",
            "LABEL a.b='x y' c=",
            "USER www-data:www",
            r#"VOLUME ["/data", "/b c"]"#,
            "VOLUME /x /data",
            "WORKDIR /srv/./www",
            "WORKDIR ../html",
            "STOPSIGNAL SIGQUIT",
            "ONBUILD RUN x",
        ])
        .unwrap();
        assert_eq!(c.cmd.unwrap(), ["nginx", "-g", "daemon off;"]);
        assert_eq!(c.entrypoint.unwrap(), ["/bin/sh", "-c", "exec foo \"$X\""]);
        assert_eq!(c.env, ["A=again", "C=d e", "F=g h", "OLD=form with spaces"]);
        assert_eq!(c.exposed_ports, ["443/tcp", "53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!(c.labels.into_iter().collect::<Vec<_>>(), [("a.b".into(), "x y".into()), ("c".into(), "".into())]);
        assert_eq!((c.user.as_str(), c.working_dir.as_str()), ("www-data:www", "/srv/html"));
        assert_eq!(c.volumes, ["/b c", "/data", "/x"]);
        assert_eq!((c.stop_signal.unwrap(), c.on_build.unwrap()), ("SIGQUIT".to_owned(), vec!["RUN x".to_owned()]));
    }

    /// As a Dockerfile: a command that stood before is for the entrypoint that stood before.
    #[test]
    fn an_entrypoint_drops_the_command_it_did_not_come_with() {
        let base = || Config { cmd: Some(vec!["old".into()]), ..Config::default() };
        let change = |changes: &[&str]| apply(base(), &changes.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!(change(&["ENTRYPOINT [\"x\"]"]).unwrap().cmd, None);
        for both in [["CMD [\"new\"]", "ENTRYPOINT [\"x\"]"], ["ENTRYPOINT [\"x\"]", "CMD [\"new\"]"]] {
            assert_eq!(change(&both).unwrap().cmd, Some(vec!["new".into()]));
        }
        assert_eq!(change(&["USER x"]).unwrap().cmd, base().cmd);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "CMD",
            "FROM x",
            "RUN x",
            "ENV A",
            "ENV A=b C",
            "EXPOSE 0",
            "EXPOSE 80/icmp",
            "EXPOSE 9-8",
            "USER a b",
            "LABEL a=\"b",
            "EXPOSE x",
        ] {
            assert!(config(&[bad]).is_err(), "{bad}");
        }
        let check = |text: &str| config(&[&format!("HEALTHCHECK {text}")]).map(|c| c.healthcheck.unwrap());
        let full =
            check("--interval=1m30s --timeout=500ms --retries=5 CMD curl -f http://localhost/ || exit 1").unwrap();
        assert_eq!(full["Test"], serde_json::json!(["CMD-SHELL", "curl -f http://localhost/ || exit 1"]));
        assert_eq!((full["Interval"].as_i64(), full["Timeout"].as_i64()), (Some(90_000_000_000), Some(500_000_000)));
        assert_eq!(full["Retries"], 5);
        assert_eq!(check("CMD [\"a\", \"b\"]").unwrap()["Test"], serde_json::json!(["CMD", "a", "b"]));
        assert_eq!(check("NONE").unwrap()["Test"], serde_json::json!(["NONE"]));
        for bad in ["CMD", "NONE x", "foo", "--interval CMD x", "--interval=x CMD x", "--foo=1s CMD x"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(config(&["RUN x"]).unwrap_err().message.contains("RUN is not a valid change command"));
    }
}
