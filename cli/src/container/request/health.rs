//! HEALTHCHECK of the image, and `--health-*` over it.

use super::size;
use crate::args::HealthFlags;
use plan::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// Docker's object; durations in nanoseconds, 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// Empty: the image's. `["NONE"]`: none. Else `CMD` and a program, or `CMD-SHELL` and a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// What the container is checked by.
///
/// # Errors
/// Docker's texts.
pub fn config(flags: &HealthFlags, image: Option<&Value>) -> Result<Option<Value>> {
    let texts = [
        ("interval", &flags.health_interval),
        ("timeout", &flags.health_timeout),
        ("start-period", &flags.health_start_period),
        ("start-interval", &flags.health_start_interval),
    ];
    let given = flags.health_cmd.is_some() || flags.health_retries.is_some() || texts.iter().any(|(_, t)| t.is_some());
    if flags.no_healthcheck {
        if given {
            return Err(Error::invalid("--no-healthcheck conflicts with --health-* options")
                .with_hint("leave the one or the others out"));
        }
        return Ok(Some(serde_json::json!({"Test": ["NONE"]})));
    }
    if !given {
        return Ok(image.cloned());
    }
    let mut durations = [0i64; 4];
    for ((name, text), slot) in texts.iter().zip(&mut durations) {
        if let Some(text) = text {
            *slot = duration(name, text)?;
        }
    }
    let [interval, timeout, start_period, start_interval] = durations;
    let retries = flags.health_retries.unwrap_or(0);
    if retries < 0 {
        return Err(Error::invalid("--health-retries cannot be negative").with_hint("write --health-retries 3"));
    }
    let test = flags.health_cmd.as_ref().filter(|c| !c.is_empty());
    let test = test.map(|c| vec!["CMD-SHELL".to_string(), c.clone()]).unwrap_or_default();
    let mut config = HealthConfig { test, interval, timeout, start_period, start_interval, retries };
    if let Some(image) = image.and_then(|v| serde_json::from_value::<HealthConfig>(v.clone()).ok()) {
        if config.test.is_empty() {
            config.test = image.test;
        }
        for (own, theirs) in [
            (&mut config.interval, image.interval),
            (&mut config.timeout, image.timeout),
            (&mut config.start_period, image.start_period),
            (&mut config.start_interval, image.start_interval),
            (&mut config.retries, image.retries),
        ] {
            if *own == 0 {
                *own = theirs;
            }
        }
    }
    serde_json::to_value(config)
        .map(Some)
        .map_err(|e| Error::system("encode the health check").with_cause(e.to_string()))
}

fn duration(name: &str, text: &str) -> Result<i64> {
    if text.starts_with('-') {
        return Err(Error::invalid(format!("--health-{name} cannot be negative")).with_hint("write 30s, 1m30s"));
    }
    // Go reads a bare zero.
    let parsed = size::duration(if text == "0" { "0s" } else { text }).ok_or_else(|| {
        Error::invalid(format!("invalid argument \"{}\" for \"--health-{name}\" flag", text.escape_debug()))
            .with_cause(format!("time: invalid duration \"{}\"", text.escape_debug()))
            .with_hint("write 30s, 1m30s, 500ms")
    })?;
    if !parsed.is_zero() && parsed < Duration::from_millis(1) {
        let field = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            _ => "StartInterval",
        };
        return Err(Error::invalid(format!("{field} in Healthcheck cannot be less than 1ms")).with_hint("write 30s"));
    }
    Ok(i64::try_from(parsed.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flags_go_over_the_image() {
        let image = json!({"Test": ["CMD", "check"], "Interval": 5_000_000_000_i64, "Retries": 7});
        assert_eq!(config(&HealthFlags::default(), Some(&image)).unwrap(), Some(image.clone()));
        let flags = HealthFlags { health_interval: Some("1m".into()), ..HealthFlags::default() };
        let merged = config(&flags, Some(&image)).unwrap().unwrap();
        assert_eq!(merged, json!({"Test": ["CMD", "check"], "Interval": 60_000_000_000_i64, "Retries": 7}));
        let off = HealthFlags { no_healthcheck: true, ..HealthFlags::default() };
        assert_eq!(config(&off, Some(&image)).unwrap(), Some(json!({"Test": ["NONE"]})));
    }

    #[test]
    fn nonsense_is_refused() {
        let says = |change: fn(&mut HealthFlags)| {
            let mut flags = HealthFlags::default();
            change(&mut flags);
            config(&flags, None).unwrap_err().message
        };
        assert_eq!(says(|f| f.health_interval = Some("-1s".into())), "--health-interval cannot be negative");
        assert_eq!(says(|f| f.health_timeout = Some("1us".into())), "Timeout in Healthcheck cannot be less than 1ms");
        assert!(says(|f| f.health_timeout = Some("soon".into())).contains("\"--health-timeout\" flag"));
        assert_eq!(says(|f| f.health_retries = Some(-1)), "--health-retries cannot be negative");
        assert!(
            says(|f| (f.no_healthcheck, f.health_retries) = (true, Some(1))).starts_with("--no-healthcheck conflicts")
        );
    }
}
