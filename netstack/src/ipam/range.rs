//! `--ip-range`: the part of a subnet that addresses are given out from, as a block or from one to another.

use super::{bounds, number};
use ipnetwork::IpNetwork;
use plan::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Text in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum IpRange {
    /// Docker's: `10.0.0.128/25`.
    Block(IpNetwork),
    /// Podman's: `10.0.0.10-10.0.0.99`, both included.
    Span(IpAddr, IpAddr),
}

impl IpRange {
    /// First and last address, as numbers.
    pub fn bounds(self) -> (u128, u128) {
        match self {
            IpRange::Block(net) => bounds(net),
            IpRange::Span(first, last) => (number(first), number(last)),
        }
    }

    pub fn first(self) -> IpAddr {
        match self {
            IpRange::Block(net) => net.ip(),
            IpRange::Span(first, _) => first,
        }
    }

    pub fn contains(self, ip: IpAddr) -> bool {
        let (first, last) = self.bounds();
        ip.is_ipv4() == self.first().is_ipv4() && (first..=last).contains(&number(ip))
    }

    /// Does all of it lie in this subnet, which its first address does?
    pub fn fits(self, subnet: IpNetwork) -> bool {
        self.bounds().1 <= bounds(subnet).1
    }

    /// The same with every address put elsewhere.
    pub fn moved(self, place: impl Fn(IpAddr) -> IpAddr) -> IpRange {
        match self {
            IpRange::Block(net) => IpRange::Block(IpNetwork::new(place(net.ip()), net.prefix()).unwrap_or(net)),
            IpRange::Span(first, last) => IpRange::Span(place(first), place(last)),
        }
    }

    /// `FIRST-LAST`; `None` where it is written as a block.
    pub fn parse_span(text: &str) -> Option<Result<IpRange>> {
        let (first, last) = text.split_once('-')?;
        let wrong = |what: &str| {
            Error::invalid(format!("invalid network config:\ninvalid ip-range {text}: {what}"))
                .with_hint("write --ip-range 10.9.0.10-10.9.0.99, or a block: 10.9.0.64/26")
        };
        let ip = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong("not two addresses with a dash between"));
        Some(ip(first).and_then(|first| match ip(last)? {
            last if last.is_ipv4() != first.is_ipv4() => Err(wrong("the addresses are of different families")),
            last if last < first => Err(wrong("it ends before it begins")),
            last => Ok(IpRange::Span(first, last)),
        }))
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpRange::Block(net) => net.fmt(f),
            IpRange::Span(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl From<IpNetwork> for IpRange {
    fn from(net: IpNetwork) -> IpRange {
        IpRange::Block(net)
    }
}

impl FromStr for IpRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<IpRange> {
        IpRange::parse_span(text).unwrap_or_else(|| {
            text.parse().map(IpRange::Block).map_err(|_| {
                Error::invalid(format!("invalid ip-range {text}"))
                    .with_hint("as in 10.9.0.64/26 or 10.9.0.10-10.9.0.99")
            })
        })
    }
}

impl From<IpRange> for String {
    fn from(range: IpRange) -> String {
        range.to_string()
    }
}

impl TryFrom<String> for IpRange {
    type Error = Error;

    fn try_from(text: String) -> Result<IpRange> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_blocks() {
        for text in ["10.0.0.64/26", "10.0.0.10-10.0.0.99", "fd00::10-fd00::ff"] {
            let range: IpRange = text.parse().unwrap();
            assert_eq!(serde_json::to_string(&range).unwrap(), format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<IpRange>(&format!("\"{text}\"")).unwrap(), range);
        }
        let span: IpRange = "10.0.0.10-10.0.0.99".parse().unwrap();
        let inside = |ip: &str| span.contains(ip.parse().unwrap());
        assert!(inside("10.0.0.10") && inside("10.0.0.99") && !inside("10.0.0.100") && !inside("::a00:10"));
        assert!(span.fits("10.0.0.0/24".parse().unwrap()) && !span.fits("10.0.0.0/27".parse().unwrap()));
        let wrong = |text: &str| text.parse::<IpRange>().unwrap_err().to_string();
        assert!(wrong("10.0.0.9-10.0.0.1").contains("it ends before it begins"));
        assert!(wrong("10.0.0.9-fd00::1").contains("different families"));
        assert!(wrong("10.0.0.9-x").contains("not two addresses"));
    }
}
