//! `--log-driver` and `--log-opt`, and what the configuration says of them.

use super::size;
use crate::config::Config;
use crate::container::record::LogConfig;
use plan::{Error, Result};
use regex_lite::Regex;
use std::collections::BTreeMap;

/// The log drivers there are.
pub const DRIVERS: [&str; 4] = ["json-file", "local", "journald", "none"];

/// What a container is kept in that says nothing, on a machine whose owner says nothing.
pub const DEFAULT_DRIVER: &str = "json-file";

/// Docker's default of `max-buffer-size`.
const BUFFER: usize = 1 << 20;

/// Names of labels and environment variables that are recorded with each line, and the line's own.
const ATTRIBUTES: [&str; 5] = ["tag", "labels", "labels-regex", "env", "env-regex"];

/// What drivers do with the lines.
const OPTIONS: [&str; 9] = [
    "max-size",
    "max-file",
    "compress",
    "mode",
    "max-buffer-size",
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];

/// The driver and its options: the flags, over those of the configuration if they are of the same driver.
///
/// # Errors
/// Docker's texts.
pub fn decide(config: &Config, driver: Option<&str>, options: &[String]) -> Result<LogConfig> {
    let default = config.log_driver.as_deref().unwrap_or(DEFAULT_DRIVER);
    let driver = driver.filter(|d| !d.is_empty()).unwrap_or(default);
    let mut log = LogConfig { driver: driver.to_owned(), options: BTreeMap::new() };
    for option in options.iter().flat_map(|o| apart(o)) {
        let (key, value) = option.split_once('=').unwrap_or((&option, ""));
        log.options.insert(key.to_owned(), value.to_owned());
    }
    if driver == "none" && !options.is_empty() {
        return Err(Error::invalid("invalid logging opts for driver none").with_hint("leave --log-opt out"));
    }
    if driver == default {
        for (key, value) in &config.log_opts {
            log.options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    check(&log)?;
    Ok(log)
}

/// `max-size=10m,max-file=3`, as converters of compose files write it, is two options. A comma before anything that
/// is no option belongs to the value.
fn apart(text: &str) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for part in text.split(',') {
        let key = part.split_once('=').map(|(key, _)| key);
        match options.last_mut() {
            Some(last) if !key.is_some_and(|k| OPTIONS.contains(&k) || ATTRIBUTES.contains(&k)) => {
                last.push(',');
                last.push_str(part);
            }
            _ => options.push(part.to_owned()),
        }
    }
    options
}

/// # Errors
/// Docker's texts for a driver or an option that there is not, or a value that means nothing.
pub fn check(log: &LogConfig) -> Result<()> {
    let driver = log.driver.as_str();
    let of_files: &[&str] = &["max-size", "max-file", "compress"];
    let own = match driver {
        "json-file" | "local" => of_files,
        "journald" | "none" => &[],
        other => {
            return Err(Error::invalid(format!(
                "logger: no log driver named '{}' is registered",
                other.escape_debug()
            ))
            .with_hint(format!(
                "rrun has {}; whatever reads the journal or files can send them on",
                DRIVERS.join(", ")
            )));
        }
    };
    for (key, value) in &log.options {
        let wrong = |words: &str| Err(Error::invalid(words).with_hint(format!("--log-opt {key}={}", example(key))));
        match key.as_str() {
            "mode" if matches!(value.as_str(), "" | "blocking" | "non-blocking") => {}
            "mode" => return wrong(&format!("logger: logging mode not supported: {value}")),
            "max-buffer-size" if log.options.get("mode").map(String::as_str) != Some("non-blocking") => {
                return wrong("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
            }
            "max-buffer-size" | "cache-max-size" | "max-size" if key != "max-size" || own.contains(&"max-size") => {
                let unlimited = key == "max-size" && value == "-1";
                if !unlimited && !size::bytes(value).is_ok_and(|n| n > 0) {
                    return wrong(&format!("invalid value for {key}: invalid size: '{}'", value.escape_debug()));
                }
            }
            "max-file" | "cache-max-file" if key != "max-file" || own.contains(&"max-file") => {
                match value.parse::<u32>() {
                    Ok(0) => return wrong(&format!("{key} cannot be less than 1")),
                    Ok(_) => {}
                    Err(_) => return wrong(&format!("invalid value for {key}: {}", value.escape_debug())),
                }
            }
            "compress" | "cache-compress" | "cache-disabled" if key != "compress" || own.contains(&"compress") => {
                if boolean(value).is_none() {
                    return wrong(&format!("invalid value for {key}: {}", value.escape_debug()));
                }
            }
            "labels-regex" | "env-regex" if driver != "none" => {
                if let Err(e) = Regex::new(value) {
                    return wrong(&format!("error parsing regexp for {key}: {e}"));
                }
            }
            key if driver != "none" && ATTRIBUTES.contains(&key) => {}
            _ => {
                let all = [own, &ATTRIBUTES[..], &["mode", "max-buffer-size"]].concat();
                let known = if driver == "none" { "it takes none".to_owned() } else { all.join(", ") };
                return Err(Error::invalid(format!(
                    "unknown log opt '{}' for {driver} log driver",
                    key.escape_debug()
                ))
                .with_hint(format!("{driver}: {known}")));
            }
        }
    }
    let files = Files::of(log);
    if driver == "json-file" && files.compress && (files.max_files < 2 || files.max_size.is_none()) {
        return Err(Error::invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
            .with_hint("--log-opt max-size=10m --log-opt max-file=3 --log-opt compress=true"));
    }
    Ok(())
}

fn example(key: &str) -> &'static str {
    match key {
        "mode" => "non-blocking",
        "max-file" | "cache-max-file" => "3",
        "compress" | "cache-compress" | "cache-disabled" => "true",
        "max-buffer-size" => "4m --log-opt mode=non-blocking",
        "labels-regex" | "env-regex" => "^(os|customer)",
        _ => "10m",
    }
}

/// As Go reads it.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// How a driver that writes files keeps them small.
pub struct Files {
    pub max_size: Option<u64>,
    pub max_files: u32,
    pub compress: bool,
}

impl Files {
    /// Docker's defaults where nothing is said: json-file grows for ever, local has five of 20 MiB.
    pub fn of(log: &LogConfig) -> Files {
        let option = |name: &str| log.options.get(name).map(String::as_str);
        let local = log.driver == "local";
        let max_size = match option("max-size") {
            Some(text) => size::bytes(text).ok().and_then(|n| u64::try_from(n).ok()),
            None => local.then_some(20 << 20),
        };
        let max_files = option("max-file").and_then(|n| n.parse().ok());
        Files {
            max_size,
            max_files: max_files.unwrap_or(if local { 5 } else { 1 }),
            compress: option("compress").and_then(boolean).unwrap_or(local),
        }
    }
}

/// How much may wait before output is dropped; `None`: it is never dropped, the container waits.
pub fn buffer(log: &LogConfig) -> Option<usize> {
    (log.options.get("mode").map(String::as_str) == Some("non-blocking")).then(|| {
        let size = log.options.get("max-buffer-size").and_then(|text| size::bytes(text).ok());
        size.and_then(|n| usize::try_from(n).ok()).unwrap_or(BUFFER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(driver: Option<&str>, options: &[&str]) -> Result<LogConfig> {
        let mut config = Config { log_driver: Some("local".into()), ..Config::default() };
        config.log_opts.insert("max-size".into(), "1m".into());
        decide(&config, driver, &options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn commas_part_options_from_options() {
        assert_eq!(apart("max-size=5m,max-file=2,compress=true"), ["max-size=5m", "max-file=2", "compress=true"]);
        assert_eq!(apart("labels=a,b,c=d,tag=x"), ["labels=a,b,c=d", "tag=x"]);
        assert_eq!(apart("nonsense"), ["nonsense"]);
    }

    #[test]
    fn the_configuration_speaks_for_its_own_driver() {
        let log = decided(None, &["max-file=2"]).unwrap();
        let files = Files::of(&log);
        assert_eq!(
            (log.driver.as_str(), files.max_size, files.max_files, files.compress),
            ("local", Some(1 << 20), 2, true)
        );
        assert_eq!(Files::of(&decided(Some("local"), &["max-size=5k"]).unwrap()).max_size, Some(5 << 10));
        let json = Files::of(&decided(Some("json-file"), &[]).unwrap());
        assert_eq!((json.max_size, json.max_files, json.compress), (None, 1, false));
        assert_eq!(
            buffer(&decided(Some("journald"), &["mode=non-blocking", "max-buffer-size=2k"]).unwrap()),
            Some(2048)
        );
        assert_eq!(buffer(&decided(Some("journald"), &["mode=non-blocking"]).unwrap()), Some(1 << 20));
        assert_eq!(buffer(&decided(Some("journald"), &[]).unwrap()), None);
        assert!(decided(None, &["cache-disabled=true", "env=A,B", "labels-regex=^x"]).is_ok());
    }

    #[test]
    fn nonsense_in_dockers_words() {
        for (driver, options, says) in [
            ("syslog", &[][..], "logger: no log driver named 'syslog' is registered"),
            ("local", &["labes=x"], "unknown log opt 'labes' for local log driver"),
            ("journald", &["max-size=1m"], "unknown log opt 'max-size' for journald log driver"),
            ("none", &["max-size=1m"], "invalid logging opts for driver none"),
            ("local", &["max-size=0"], "invalid value for max-size"),
            ("local", &["max-file=0"], "max-file cannot be less than 1"),
            ("local", &["compress=maybe"], "invalid value for compress: maybe"),
            ("local", &["mode=fast"], "logger: logging mode not supported: fast"),
            ("local", &["max-buffer-size=1m"], "only supported with 'mode=non-blocking'"),
            ("json-file", &["compress=true"], "compress cannot be true when max-file is less than 2"),
            ("json-file", &["labels-regex=("], "error parsing regexp"),
            ("json-file", &["cache-max-file=x"], "invalid value for cache-max-file: x"),
        ] {
            let e = decided(Some(driver), options).unwrap_err();
            assert!(e.message.contains(says) && e.hint.is_some(), "{driver} {options:?}: {e}");
        }
    }
}
