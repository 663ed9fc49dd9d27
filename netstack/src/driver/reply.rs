//! Several ways out of one container: answers take the one that their question came in by.
//!
//! A rule by source address is enough, and stateless: an answer over TCP, and to a ping, comes from the
//! address that was called. (A mark of the connection would do no more for UDP: a server on `0.0.0.0` that
//! does not say which address it answers from gets that of the default route, and its answer belongs to no
//! connection.)

use super::bridge::gateway_endpoint;
use crate::model::Endpoint;
use crate::step::{Reply, Step};
use std::net::IpAddr;

/// What a container with these endpoints needs: nothing with one way out. The endpoint of the default route
/// needs none of its own, and a network without a default route is not given one by this door.
pub fn replies(endpoints: &[Endpoint]) -> Vec<Step> {
    if endpoints.len() < 2 {
        return Vec::new();
    }
    let mut all = Vec::new();
    for ipv6 in [false, true] {
        let Some(main) = gateway_endpoint(endpoints, ipv6) else { continue };
        let others = endpoints.iter().filter(|e| e.network_id != main.network_id);
        let own: Vec<Reply> = others.filter_map(|e| from(e, ipv6)).collect();
        if !own.is_empty() {
            all.push(Step::Reply(Reply::Exact { ipv6 }));
            all.extend(own.into_iter().map(Step::Reply));
        }
    }
    all
}

fn from(e: &Endpoint, ipv6: bool) -> Option<Reply> {
    let (source, gateway) = match ipv6 {
        false => (e.ipv4.map(IpAddr::V4)?, e.gateway4.map(IpAddr::V4)),
        true => (e.ipv6.map(IpAddr::V6)?, e.gateway6.map(IpAddr::V6)),
    };
    // Containers that an older rrun started have no tables.
    let has = e.leads_out(ipv6) && !e.no_default_route && e.table != 0;
    has.then(|| Reply::From { source, gateway, ifname: e.ifname.clone(), table: e.table })
}

/// From one state of a container to the next: the rules that go, the steps that come.
pub fn difference(before: &[Endpoint], after: &[Endpoint]) -> (Vec<Reply>, Vec<Step>) {
    let (old, new) = (replies(before), replies(after));
    let gone = old.iter().filter(|s| !new.contains(s)).filter_map(|s| match s {
        Step::Reply(reply) => Some(reply.clone()),
        _ => None,
    });
    let gone = gone.collect();
    (gone, new.into_iter().filter(|s| !old.contains(s)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::tests::endpoint;
    use plan::Action;

    fn two() -> [Endpoint; 2] {
        let mut a = endpoint("a", "10.1.0.2", Some("fd00:1::2"));
        let mut b = endpoint("b", "10.2.0.2", Some("fd00:2::2"));
        (a.table, b.table) = (1000, 1001);
        (b.ifname, b.gateway4, b.gateway6) = ("eth1".into(), "10.2.0.1".parse().ok(), "fd00:2::1".parse().ok());
        [a, b]
    }

    fn words(steps: &[Step]) -> String {
        steps.iter().map(|s| format!("{}\n{}\n", s.line(), s.shell().unwrap_or_default())).collect()
    }

    #[test]
    fn the_second_way_out_has_a_table() {
        let [a, b] = two();
        assert_eq!(replies(std::slice::from_ref(&b)), []);
        let text = words(&replies(&[a.clone(), b.clone()]));
        for line in [
            "send what 10.2.0.2 answers to 10.2.0.1 through eth1",
            "ip -n \"$NETNS\" route add default via 10.2.0.1 dev eth1 table 1001",
            "ip -n \"$NETNS\" rule add from 10.2.0.2 lookup 1001 priority 30001",
            "ip -6 -n \"$NETNS\" rule add lookup main suppress_prefixlength 0 priority 30000",
            "ip -6 -n \"$NETNS\" rule add from fd00:2::2 lookup 1001 priority 30001",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        // Nobody asked for one through these.
        for other in [Endpoint { internal: true, ..b.clone() }, Endpoint { no_default_route: true, ..b }] {
            assert_eq!(replies(&[a.clone(), other]), []);
        }
    }

    #[test]
    fn the_other_one_when_priorities_change() {
        let [a, mut b] = two();
        let before = [a.clone(), b.clone()];
        b.gw_priority = 1;
        let (gone, new) = difference(&before, &[a.clone(), b]);
        assert_eq!((gone.len(), new.len()), (2, 2), "the first rule of each family stays");
        assert!(words(&new).contains("send what 10.1.0.2 answers to 172.17.0.1 through eth0"));
        let (gone, new) = difference(&before, &[a]);
        assert_eq!((gone.len(), new), (4, vec![]));
    }
}
