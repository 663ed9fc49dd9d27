//! `--route DESTINATION,GATEWAY[,METRIC]`, and destinations that lead nowhere on purpose.

use ipnetwork::IpNetwork;
use plan::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A route in a container, as `ip route` would show it. Text in records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StaticRoute {
    pub destination: IpNetwork,
    pub via: Via,
    pub metric: Option<u32>,
}

/// Where packets for it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Gateway(IpAddr),
    /// Dropped in silence.
    Blackhole,
    /// The sender is told: host unreachable.
    Unreachable,
    /// The sender is told: administratively prohibited.
    Prohibit,
}

impl Via {
    /// The kind of route in `ip route`'s words; a gateway has none.
    pub fn keyword(self) -> Option<&'static str> {
        match self {
            Via::Gateway(_) => None,
            Via::Blackhole => Some("blackhole"),
            Via::Unreachable => Some("unreachable"),
            Via::Prohibit => Some("prohibit"),
        }
    }
}

impl StaticRoute {
    /// From the text of the flag.
    pub fn parse(text: &str) -> Result<StaticRoute> {
        const HINT: &str = "write --route 10.20.0.0/16,10.9.0.254[,METRIC], or blackhole, unreachable or prohibit in place of the gateway";
        let wrong = |what: String| Error::invalid(format!("invalid route {text:?}: {what}")).with_hint(HINT);
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let (destination, via, metric) = match parts.as_slice() {
            [destination, via] => (*destination, *via, None),
            [destination, via, metric] => (*destination, *via, Some(*metric)),
            _ => return Err(wrong("not a destination, a gateway and perhaps a metric".into())),
        };
        let net: IpNetwork = Some(destination)
            .filter(|d| d.contains('/'))
            .and_then(|d| d.parse().ok())
            .ok_or_else(|| wrong(format!("invalid CIDR address: {destination}")))?;
        if net.ip() != net.network() {
            return Err(wrong(format!("the destination should be {}/{}", net.network(), net.prefix())));
        }
        let via = match via {
            "blackhole" => Via::Blackhole,
            "unreachable" => Via::Unreachable,
            "prohibit" => Via::Prohibit,
            gateway => Via::Gateway(gateway.parse().map_err(|_| wrong(format!("invalid gateway address: {gateway}")))?),
        };
        if matches!(via, Via::Gateway(gw) if gw.is_ipv4() != net.is_ipv4()) {
            return Err(wrong("destination and gateway are of different address families".into()));
        }
        let metric = metric
            .map(|m| m.parse::<u32>().map_err(|_| wrong(format!("invalid metric: {m}"))))
            .transpose()?
            .filter(|m| *m != 0);
        Ok(StaticRoute { destination: net, via, metric })
    }
}

impl fmt::Display for StaticRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},", self.destination)?;
        match self.via {
            Via::Gateway(gateway) => gateway.fmt(f)?,
            other => f.write_str(other.keyword().unwrap_or_default())?,
        }
        self.metric.map_or(Ok(()), |m| write!(f, ",{m}"))
    }
}

impl FromStr for StaticRoute {
    type Err = Error;

    fn from_str(text: &str) -> Result<StaticRoute> {
        StaticRoute::parse(text)
    }
}

impl From<StaticRoute> for String {
    fn from(route: StaticRoute) -> String {
        route.to_string()
    }
}

impl TryFrom<String> for StaticRoute {
    type Error = Error;

    fn try_from(text: String) -> Result<StaticRoute> {
        StaticRoute::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_written() {
        for text in
            ["10.20.0.0/16,10.9.0.254", "10.20.0.0/16,10.9.0.254,50", "fd00::/8,blackhole", "0.0.0.0/0,10.0.0.1"]
        {
            assert_eq!(StaticRoute::parse(text).unwrap().to_string(), text);
        }
        let json = serde_json::to_string(&StaticRoute::parse("10.0.0.0/8,prohibit,7").unwrap()).unwrap();
        assert_eq!(json, "\"10.0.0.0/8,prohibit,7\"");
        assert_eq!(serde_json::from_str::<StaticRoute>(&json).unwrap().via, Via::Prohibit);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = |t: &str| StaticRoute::parse(t).unwrap_err().to_string();
        assert!(text("10.0.0.0").ends_with("not a destination, a gateway and perhaps a metric"));
        assert!(text("10.0.0.0,10.0.0.1").ends_with("invalid CIDR address: 10.0.0.0"));
        assert!(text("10.0.0.1/8,10.0.0.1").ends_with("the destination should be 10.0.0.0/8"));
        assert!(text("10.0.0.0/8,nowhere").ends_with("invalid gateway address: nowhere"));
        assert!(text("10.0.0.0/8,fd00::1").ends_with("of different address families"));
        assert!(text("10.0.0.0/8,10.1.0.1,-1").ends_with("invalid metric: -1"));
    }
}
