//! How fast a container may receive and send: `--net-rate in=10mbit,out=5mbit`.
//!
//! A token bucket (`tbf`) at both ends of each cable, since a queue shapes what leaves an
//! interface: at the host's end what the container receives, at the container's own what it sends.
//! It is in every stock kernel, delays instead of dropping (so that TCP finds its pace), slows the
//! sender down at its own socket, and dies with the cable. Policing on arrival would need no queue
//! inside the container, but loses packets, and is not in every kernel. A container that may
//! administer its network could remove its own end's: rrun warns of that.

use plan::{Error, Result};
use serde::{Deserialize, Serialize};

/// Bits per second; `None`: as fast as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rate {
    /// To the container.
    pub inbound: Option<u64>,
    /// From the container.
    pub outbound: Option<u64>,
}

const HINT: &str = "for example --net-rate in=10mbit,out=512kbit";
/// Less is no network; the kernel counts in bytes.
const LEAST: u64 = 8_000;

impl Rate {
    /// From the values of `--net-rate`.
    ///
    /// # Errors
    /// What means nothing, or is said twice.
    pub fn parse(values: &[String]) -> Result<Rate> {
        let mut rate = Rate::default();
        for item in values.iter().flat_map(|v| v.split(',')).map(str::trim) {
            let bad = || Error::invalid(format!("invalid net-rate \"{}\"", item.escape_debug())).with_hint(HINT);
            let (way, text) = item.split_once('=').ok_or_else(bad)?;
            let place = match way {
                "in" => &mut rate.inbound,
                "out" => &mut rate.outbound,
                _ => return Err(bad()),
            };
            if place.replace(bits(text).ok_or_else(bad)?).is_some() {
                return Err(Error::invalid(format!("net-rate {way} is given twice")).with_hint("say it once"));
            }
        }
        Ok(rate)
    }
}

/// `10mbit`, `1.5gbit`, `64kbit`, `2000000` (bits) per second.
fn bits(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" | "bit" => 1.0,
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        _ => return None,
    };
    let bits = number.parse::<f64>().ok()? * unit;
    (bits >= LEAST as f64 && bits <= 1e13).then_some(bits as u64)
}

/// `10mbit`, as `tc` takes and shows it.
pub fn text(bits: u64) -> String {
    match bits {
        b if b % 1_000_000_000 == 0 => format!("{}gbit", b / 1_000_000_000),
        b if b % 1_000_000 == 0 => format!("{}mbit", b / 1_000_000),
        b if b % 1_000 == 0 => format!("{}kbit", b / 1_000),
        b => format!("{b}bit"),
    }
}

/// The bucket of a rate: how many bytes may go at once, and how many may wait.
pub(crate) fn bucket(bits: u64) -> (u32, u32) {
    let bytes = bits / 8;
    let of =
        |milliseconds: u64, least: u64| u32::try_from((bytes * milliseconds / 1000).max(least)).unwrap_or(u32::MAX);
    // Ten milliseconds' worth, and ten large packets; a queue of fifty milliseconds.
    let burst = of(10, 16 * 1024);
    (burst, of(50, 32 * 1024).saturating_add(burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rate> {
        Rate::parse(&[text.to_string()])
    }

    #[test]
    fn rates_in_and_out() {
        assert_eq!(
            parse("in=10mbit,out=512kbit").unwrap(),
            Rate { inbound: Some(10_000_000), outbound: Some(512_000) }
        );
        assert_eq!(parse("out=1.5gbit").unwrap(), Rate { inbound: None, outbound: Some(1_500_000_000) });
        assert_eq!(parse("in=64000").unwrap().inbound.map(text), Some("64kbit".into()));
        assert_eq!(text(8_001), "8001bit");
        for bad in [
            "",
            "in",
            "in=",
            "in=x",
            "in=10mbps",
            "in=10mb",
            "both=1mbit",
            "in=1mbit,in=2mbit",
            "in=-1mbit",
            "in=1",
            "in=9999999gbit",
        ] {
            assert!(parse(bad).unwrap_err().hint.is_some(), "{bad}");
        }
    }

    #[test]
    fn buckets_hold_a_packet_and_fit_their_fields() {
        assert_eq!(bucket(8_000), (16 * 1024, 48 * 1024));
        assert_eq!(bucket(1_000_000_000), (1_250_000, 7_500_000));
        assert_eq!(bucket(10_000_000_000_000), (u32::MAX, u32::MAX));
    }
}
