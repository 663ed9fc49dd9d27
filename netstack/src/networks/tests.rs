//! Records on disk; the kernel is only asked for its routes, which anyone may.

use super::*;

struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Root {
    fn new(name: &str) -> Root {
        Root(std::env::temp_dir().join(format!("rrun-networks-{}-{name}", std::process::id())))
    }

    fn net(&self) -> Netstack {
        Netstack::new(&self.0.join("root"), &self.0.join("state"), Config::default())
    }

    fn create(&self, name: &str, subnet: &str) -> Result<Network> {
        let request = NetworkRequest { name: name.into(), subnets: vec![subnet.into()], ..Default::default() };
        self.net().create(request)
    }
}

#[test]
fn the_predefined_are_there_before_anything_is_written() {
    let root = Root::new("predefined");
    let names: Vec<String> = root.net().networks().unwrap().into_iter().map(|n| n.name).collect();
    assert_eq!(names, ["bridge", "host", "none"]);
    let bridge = root.net().network("bridge").unwrap();
    assert_eq!(BridgeOptions::of(&bridge).bridge_name(&bridge.id), "rrun0");
    assert!(bridge.pools[0].gateway.is_some());
    assert!(!root.0.exists(), "asking writes nothing");
    let settled = root.net().settle(bridge).unwrap();
    assert_ne!(settled.created, plan::time::ZERO);
    assert_eq!(root.net().network(&settled.id[..9]).unwrap(), settled);
}

#[test]
fn a_network_is_found_by_name_id_and_prefix() {
    let root = Root::new("lookup");
    let made = root.create("front", "10.211.0.0/24").unwrap();
    for wanted in ["front", &made.id, &made.id[..12]] {
        assert_eq!(root.net().network(wanted).unwrap(), made);
    }
    for wanted in ["fron", "../front", "", ".", "bridge2"] {
        assert_eq!(root.net().network(wanted).unwrap_err().to_string(), format!("network {wanted} not found"));
    }
    // Two IDs that begin alike.
    for digit in ["a", "b"] {
        let mut twin = made.clone();
        twin.id = format!("{:0<63}{digit}", "cafe");
        twin.name = format!("twin-{digit}");
        root.net().save(&twin).unwrap();
    }
    assert_eq!(
        root.net().network("cafe").unwrap_err().to_string(),
        "network cafe is ambiguous (2 matches found based on ID prefix)"
    );
    // One broken record hides nothing else.
    std::fs::write(root.net().record("dead"), "{").unwrap();
    assert_eq!(root.net().network("front").unwrap(), made);
    assert_eq!(root.net().networks().unwrap().len(), 6);
}

#[test]
fn clashes_are_refused_in_dockers_words() {
    let root = Root::new("clash");
    root.create("front", "10.212.0.0/24").unwrap();
    let text = |name: &str, subnet: &str| root.create(name, subnet).unwrap_err().to_string();
    assert_eq!(text("front", "10.213.0.0/24"), "network with name front already exists");
    assert_eq!(
        text("back", "10.212.0.128/25"),
        "invalid pool request: Pool overlaps with other one on this address space"
    );
    let named = |name: &str| {
        let mut request = NetworkRequest { name: name.into(), ..Default::default() };
        request.options.insert(options::NAME.into(), "rrun-test-br".into());
        root.net().create(request)
    };
    named("one").unwrap();
    assert!(named("two").unwrap_err().to_string().ends_with("networks have same bridge name"));
}

#[test]
fn ipv6_alone_is_enough() {
    let root = Root::new("ula");
    let request = |name: &str| NetworkRequest { name: name.into(), enable_ipv6: Some(true), ..Default::default() };
    let (a, b) = (root.net().create(request("a")).unwrap(), root.net().create(request("b")).unwrap());
    let v6 = |n: &Network| n.pools.iter().find(|p| p.subnet.is_ipv6()).unwrap().subnet;
    assert_eq!((v6(&a).prefix(), v6(&b).prefix()), (64, 64));
    assert!(v6(&a).to_string().starts_with("fd"));
    let bits = |n: &Network| ipam::bounds(v6(n)).0 >> 64;
    assert_eq!(bits(&a) + 1, bits(&b), "from one prefix of this root");
}

#[test]
fn unknown_fields_survive_a_rewrite() {
    let root = Root::new("extra");
    let made = root.create("front", "10.214.0.0/24").unwrap();
    let path = root.net().record(&made.id);
    let text = std::fs::read_to_string(&path).unwrap().replacen('{', "{\n  \"colour\": \"red\",", 1);
    std::fs::write(&path, text).unwrap();
    let read = root.net().network("front").unwrap();
    root.net().save(&read).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"colour\": \"red\""));
}
