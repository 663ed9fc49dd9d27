//! Leases on plain directories; no privilege needed.

use super::*;
use crate::networks::VERSION;
use std::collections::BTreeMap;

struct Bed {
    state: PathBuf,
    network: Network,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

impl Bed {
    fn new(name: &str, subnet: &str) -> Bed {
        let state = std::env::temp_dir().join(format!("rrun-ipam-{}-{name}", std::process::id()));
        let subnet: IpNetwork = subnet.parse().unwrap();
        let pool = Pool { subnet, ip_range: None, gateway: default_gateway(subnet), aux: BTreeMap::new() };
        let network = Network {
            version: VERSION,
            id: "abc".into(),
            name: "net".into(),
            driver: "bridge".into(),
            enable_ipv4: true,
            pools: vec![pool],
            ..Network::default()
        };
        std::fs::create_dir_all(state.join("containers")).unwrap();
        Bed { state, network }
    }

    fn leases(&self) -> Leases {
        Leases::new(&self.state.join("root"), &self.state, &self.network.id)
    }

    fn live(&self, owner: &str) {
        std::fs::create_dir_all(self.state.join("containers").join(owner)).unwrap();
    }

    fn die(&self, owner: &str) {
        std::fs::remove_dir_all(self.state.join("containers").join(owner)).unwrap();
    }

    /// It has a record, so that it can be started again.
    fn record(&self, owner: &str) {
        std::fs::create_dir_all(self.state.join("root/containers").join(owner)).unwrap();
    }

    fn lease(&self, owner: &str, wanted: Option<&str>) -> Result<String> {
        self.lease_like(owner, wanted, None)
    }

    fn lease_like(&self, owner: &str, wanted: Option<&str>, last: Option<&str>) -> Result<String> {
        self.live(owner);
        let leases = self.leases();
        let (wanted, last) = (wanted.map(|ip| ip.parse().unwrap()), last.map(|ip| ip.parse().unwrap()));
        let got = leases.lock()?.lease(&self.network, &self.network.pools[0], wanted, last, owner);
        got.map(|ip| ip.to_string())
    }

    fn release(&self, ip: &str, owner: &str) {
        self.leases().lock().unwrap().release(ip.parse().unwrap(), owner).unwrap();
    }
}

#[test]
fn the_lowest_free_address_first() {
    let bed = Bed::new("lowest", "10.0.0.0/8");
    assert_eq!(bed.lease("a", None).unwrap(), "10.0.0.2");
    assert_eq!(bed.lease("b", None).unwrap(), "10.0.0.3");
    assert_eq!(bed.lease("c", None).unwrap(), "10.0.0.4");
    bed.release("10.0.0.3", "b");
    bed.release("10.0.0.2", "not the owner");
    assert_eq!(bed.lease("d", None).unwrap(), "10.0.0.3", "a hole");
    assert_eq!(bed.lease("e", None).unwrap(), "10.0.0.5");
}

#[test]
fn a_full_subnet_says_so_and_a_freed_address_is_free() {
    let bed = Bed::new("full", "10.0.0.0/29");
    for i in 2..=6 {
        assert_eq!(bed.lease(&format!("c{i}"), None).unwrap(), format!("10.0.0.{i}"));
    }
    let e = bed.lease("late", None).unwrap_err();
    assert_eq!(e.to_string(), "no available IPv4 addresses on this network's address pools: net (abc)");
    assert_eq!(available(&bed.network.pools[0], 5), 0);
    bed.release("10.0.0.4", "c4");
    assert_eq!(bed.lease("late", None).unwrap(), "10.0.0.4");
}

#[test]
fn leases_of_the_dead_are_free() {
    let bed = Bed::new("dead", "10.0.0.0/29");
    for i in 2..=6 {
        bed.lease(&format!("c{i}"), None).unwrap();
    }
    bed.die("c3");
    bed.die("c5");
    // Written halfway when its writer was killed.
    std::fs::write(bed.leases().path("10.0.0.6".parse().unwrap()), "").unwrap();
    assert_eq!(bed.lease("x", None).unwrap(), "10.0.0.3");
    assert_eq!(bed.lease("y", Some("10.0.0.5")).unwrap(), "10.0.0.5");
    assert_eq!(bed.lease("z", None).unwrap(), "10.0.0.6");
    assert!(bed.lease("late", None).is_err());
}

#[test]
fn stopped_containers_are_spared_until_nothing_else_is_free() {
    let bed = Bed::new("sticky", "10.0.0.0/29");
    for i in 2..=4 {
        bed.lease(&format!("c{i}"), None).unwrap();
    }
    bed.record("c3");
    bed.die("c3");
    assert_eq!(bed.lease("x5", None).unwrap(), "10.0.0.5");
    assert_eq!(bed.lease_like("c3", None, Some("10.0.0.3")).unwrap(), "10.0.0.3", "it finds its own again");
    bed.die("c3");
    assert_eq!(bed.lease("x6", None).unwrap(), "10.0.0.6");
    assert_eq!(bed.leases().preview(&bed.network, &bed.network.pools[0]).unwrap().to_string(), "10.0.0.3");
    assert_eq!(bed.lease("x3", None).unwrap(), "10.0.0.3", "better somebody has it than nobody");
    assert!(bed.lease_like("c3", None, Some("10.0.0.3")).is_err());
    bed.release("10.0.0.5", "x5");
    assert_eq!(bed.lease_like("c3", None, Some("10.0.0.3")).unwrap(), "10.0.0.5", "another one, then");
    // Told of a stopped container after a reboot, when no lease says so.
    let leases = bed.leases();
    bed.release("10.0.0.5", "c3");
    bed.record("c9");
    leases.lock().unwrap().remember("10.0.0.5".parse().unwrap(), "c9").unwrap();
    leases.lock().unwrap().remember("10.0.0.6".parse().unwrap(), "c9").unwrap();
    assert!(leases.is_remembered("c9") && leases.owner("10.0.0.6".parse().unwrap()).is_some_and(|o| o == "x6"));
}

#[test]
fn explicit_addresses_are_exact() {
    let bed = Bed::new("exact", "10.0.0.0/24");
    let taken = |ip: &str| bed.lease("b", Some(ip)).map_err(|e| e.to_string());
    assert_eq!(taken("10.0.0.2"), Ok("10.0.0.2".into()));
    assert_eq!(taken("10.0.0.2"), Ok("10.0.0.2".into()), "its own, left from a crash");
    for ip in ["10.0.0.0", "10.0.0.1", "10.0.0.255"] {
        assert_eq!(taken(ip), Err("Address already in use".into()), "{ip}");
    }
    let e = bed.lease("c", Some("10.0.0.2")).unwrap_err();
    assert_eq!(e.to_string(), "Address already in use");
    assert!(e.hint.unwrap().contains("held by container b"));
    assert_eq!(bed.lease("c", None).unwrap(), "10.0.0.3", "the automatic choice steps over it");
}

#[test]
fn ranges_gateways_and_reserved_addresses_are_kept() {
    let mut bed = Bed::new("range", "10.0.0.0/24");
    bed.network.pools[0].ip_range = Some("10.0.0.128/30".parse().unwrap());
    bed.network.pools[0].aux.insert("router".into(), "10.0.0.129".parse().unwrap());
    let got: Vec<String> = (0..3).map(|i| bed.lease(&format!("c{i}"), None).unwrap()).collect();
    assert_eq!(got, ["10.0.0.128", "10.0.0.130", "10.0.0.131"]);
    assert!(bed.lease("late", None).is_err());
    assert_eq!(bed.lease("late", Some("10.0.0.9")).unwrap(), "10.0.0.9", "an explicit one may be outside");
    assert!(bed.lease("later", Some("10.0.0.129")).unwrap_err().hint.unwrap().contains("router"));
}

#[test]
fn ipv6_and_the_smallest_subnets() {
    let bed = Bed::new("six", "fd00:1::/64");
    assert_eq!(bed.lease("a", None).unwrap(), "fd00:1::2");
    assert_eq!(available(&bed.network.pools[0], 1), u64::MAX - 2);
    let bed = Bed::new("p2p", "10.0.0.0/31");
    assert_eq!(default_gateway(bed.network.pools[0].subnet), Some("10.0.0.0".parse().unwrap()));
    assert_eq!(bed.lease("a", None).unwrap(), "10.0.0.1");
    assert!(bed.lease("b", None).is_err());
    assert_eq!(usable("10.0.0.0/32".parse().unwrap()), None);
}

#[test]
fn a_hundred_at_once_get_a_hundred() {
    let bed = Bed::new("hundred", "10.0.0.0/16");
    let mut got: Vec<String> = std::thread::scope(|scope| {
        let bed = &bed;
        let all: Vec<_> = (0..100).map(|i| scope.spawn(move || bed.lease(&format!("c{i}"), None).unwrap())).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 100);
    assert!(got.contains(&"10.0.0.101".to_string()));
}

#[test]
fn a_lost_or_forged_hint_costs_time_not_addresses() {
    let bed = Bed::new("hint", "10.0.0.0/28");
    for i in 2..=14 {
        bed.lease(&format!("c{i}"), None).unwrap();
    }
    bed.release("10.0.0.7", "c7");
    let lock = bed.leases().dir().join("lock");
    for hint in ["", "10.0.0.0/28 15", "10.0.0.0/28 99999999999", "nonsense\n\0", "10.0.0.0/28 2 1 1 1"] {
        std::fs::write(&lock, hint).unwrap();
        assert_eq!(bed.lease("x", None).unwrap(), "10.0.0.7", "{hint:?}");
        bed.release("10.0.0.7", "x");
    }
}
