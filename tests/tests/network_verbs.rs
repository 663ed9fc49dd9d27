//! `network create|ls|inspect|rm|prune|exists`: every flag, filter and format, and what is wrong with
//! what cannot be.

use rrun_tests::Host;
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

fn inspect(host: &Host, name: &str) -> Value {
    serde_json::from_str::<Value>(&host.ok(&["network", "inspect", name])).expect("JSON")[0].clone()
}

fn create(host: &Host, flags: &[&str]) -> String {
    host.ok(&[&["network", "create"], flags].concat())
}

fn names(host: &Host, flags: &[&str]) -> String {
    host.ok(&[&["network", "ls", "--format", "{{.Name}}"], flags].concat()).replace('\n', " ")
}

#[test]
fn a_network_as_the_api_shows_it() {
    let host = Host::new();
    let id = create(
        &host,
        &[
            "-d",
            "bridge",
            "-o",
            "com.docker.network.driver.mtu=1400",
            "--label",
            "tier=web",
            "--label",
            "bare",
            "--attachable",
            "--internal",
            "--ipv6",
            "--subnet",
            "10.9.0.0/24",
            "--ip-range",
            "10.9.0.128/25",
            "--gateway",
            "10.9.0.254",
            "--aux-address",
            "router=10.9.0.129",
            "--subnet",
            "fd00:9::/64",
            "--scope",
            "local",
            "--ipam-driver",
            "default",
            "full",
        ],
    );
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    host.ok(&["run", "-d", "--name", "one", "--network", "full", "busybox", "sleep", "1000"]);
    let n = inspect(&host, "full");
    let keys: Vec<&str> = n.as_object().expect("an object").keys().map(String::as_str).collect();
    for key in [
        "Name",
        "Id",
        "Created",
        "Scope",
        "Driver",
        "EnableIPv4",
        "EnableIPv6",
        "IPAM",
        "Internal",
        "Attachable",
        "Ingress",
        "ConfigFrom",
        "ConfigOnly",
        "Containers",
        "Options",
        "Labels",
        "Status",
    ] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    assert_eq!((&n["Id"], &n["Scope"], &n["Driver"]), (&Value::from(id), &"local".into(), &"bridge".into()));
    for (key, want) in [
        ("EnableIPv4", true),
        ("EnableIPv6", true),
        ("Internal", true),
        ("Attachable", true),
        ("Ingress", false),
        ("ConfigOnly", false),
    ] {
        assert_eq!(n[key], want, "{key}");
    }
    assert_eq!(n["IPAM"]["Driver"], "default");
    let v4 = &n["IPAM"]["Config"][0];
    assert_eq!((&v4["IPRange"], &v4["Gateway"]), (&"10.9.0.128/25".into(), &"10.9.0.254".into()));
    assert_eq!(v4["AuxiliaryAddresses"]["router"], "10.9.0.129");
    assert_eq!((&n["Labels"]["tier"], &n["Labels"]["bare"]), (&"web".into(), &"".into()));
    assert_eq!(n["ConfigFrom"]["Network"], "");
    let (cid, c) = n["Containers"].as_object().expect("an object").iter().next().expect("one container");
    assert_eq!(cid, &host.ok(&["inspect", "-f", "{{.Id}}", "one"]));
    assert_eq!(
        (&c["Name"], &c["IPv4Address"], &c["IPv6Address"]),
        (&"one".into(), &"10.9.0.128/24".into(), &"fd00:9::2/64".into())
    );
    assert_eq!(c["EndpointID"].as_str().map(str::len), Some(64));
    assert_eq!(c["MacAddress"], host.ok(&["exec", "one", "cat", "/sys/class/net/eth0/address"]));
    // Network, broadcast, gateway and router beside the container; of the range what is left of 128.
    let status = &n["Status"]["IPAM"]["Subnets"]["10.9.0.0/24"];
    assert_eq!((&status["IPsInUse"], &status["DynamicIPsAvailable"]), (&5.into(), &124.into()));
    host.ok(&["stop", "-t", "0", "one"]);
    let n = inspect(&host, "full");
    assert_eq!(n["Containers"], serde_json::json!({}), "who has stopped holds nothing");
    assert_eq!(n["Status"]["IPAM"]["Subnets"]["10.9.0.0/24"]["IPsInUse"], 4);
    // A container's half.
    host.ok(&["start", "one"]);
    let text = host.ok(&["inspect", "-f", "{{json .NetworkSettings}}", "one"]);
    let settings: Value = serde_json::from_str(&text).expect("JSON");
    let e = &settings["Networks"]["full"];
    for key in [
        "IPAMConfig",
        "Links",
        "Aliases",
        "DriverOpts",
        "GwPriority",
        "NetworkID",
        "EndpointID",
        "Gateway",
        "IPAddress",
        "MacAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "DNSNames",
    ] {
        assert!(e.get(key).is_some(), "{key} in {e}");
    }
    assert_eq!((&e["IPPrefixLen"], &e["GlobalIPv6PrefixLen"], &e["NetworkID"]), (&24.into(), &64.into(), &n["Id"]));
    assert_eq!(e["DNSNames"], serde_json::json!(["one", &cid[..12]]));
    for key in ["SandboxID", "SandboxKey", "Ports"] {
        assert!(settings.get(key).is_some(), "{key}");
    }
}

#[test]
fn listing() {
    let host = Host::bare();
    create(&host, &["--label", "a=1", "--label", "com.x.tier=web", "net10"]);
    create(&host, &["--label", "a=2", "--internal", "net2"]);
    create(&host, &["--ipv6", "other"]);
    assert_eq!(names(&host, &[]), "bridge host net2 net10 none other", "numbers by their value");
    let id = host.ok(&["network", "inspect", "-f", "{{.Id}}", "net2"]);
    for (filters, want) in [
        (&["driver=bridge"][..], "bridge net2 net10 other"),
        (&["driver=null", "driver=host"], "host none"),
        (&["driver=brid"], ""),
        (&["name=net"], "net2 net10"),
        (&["label=a"], "net2 net10"),
        (&["label=a", "label=com.x.tier=web"], "net10"),
        (&["label=a=2"], "net2"),
        (&["scope=local", "name=net2"], "net2"),
        (&["scope=swarm"], ""),
        (&["type=builtin"], "bridge host none"),
        (&["type=custom", "name=other", "name=net2"], "net2 other"),
        (&["dangling=true"], "net2 net10 other"),
        (&["dangling=false"], "bridge host none"),
    ] {
        let args: Vec<&str> = filters.iter().flat_map(|f| ["-f", f]).collect();
        assert_eq!(names(&host, &args), want, "{filters:?}");
    }
    assert_eq!(names(&host, &["--filter", &format!("id={}", &id[3..20])]), "net2", "a part of the ID");
    assert_eq!(host.ok(&["network", "ls", "-q", "--no-trunc", "-f", "name=net2"]), id);
    assert_eq!(host.ok(&["network", "list", "-q", "-f", "name=net2"]), id[..12]);
    let format = "{{.ID}} {{.Driver}} {{.Scope}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.Label \"a\"}}";
    let row = host.ok(&["network", "ls", "--no-trunc", "-f", "name=net2", "--format", format]);
    assert_eq!(row, format!("{id} bridge local true false true a=2 2"));
    let row: Value =
        serde_json::from_str(&host.ok(&["network", "ls", "-f", "name=net10", "--format", "json"])).expect("JSON");
    assert_eq!((&row["Name"], &row["IPv6"], &row["Scope"]), (&"net10".into(), &"false".into(), &"local".into()));
    let table =
        host.ok(&["network", "ls", "-f", "name=net10", "--format", "table {{.Name}}\t{{.Label \"com.x.tier\"}}"]);
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["NAME", "tier", "net10", "web"]);
    for (filter, text) in [
        ("type=x", "invalid filter: 'type'='x'"),
        ("colour=red", "invalid filter: 'colour'='red'"),
        ("name", "bad format of filter (expected name=value)"),
    ] {
        let e = host.refuses(&["network", "ls", "-f", filter]);
        assert!(e.contains(text) && e.contains("hint:"), "{e}");
    }
    let e = host.refuses(&["network", "ls", "-f", "dangling=true", "-f", "dangling=false"]);
    assert!(e.contains("got more than one value for filter key \"dangling\""), "{e}");
}

#[test]
fn looked_up_by_id_name_and_prefix() {
    let host = Host::bare();
    let id = create(&host, &["one"]);
    // A name may be another's ID prefix: the name counts.
    let clash = &id[..6];
    let other = create(&host, &[clash]);
    let find = |what: &str| host.ok(&["network", "inspect", "-f", "{{.Id}}", what]);
    assert_eq!((find(&id), find("one"), find(&id[..10])), (id.clone(), id.clone(), id.clone()));
    assert_eq!(find(clash), other);
    // Seventeen IDs share at least one first digit.
    for i in 0..17 {
        create(&host, &[&format!("n{i}")]);
    }
    let ids = host.ok(&["network", "ls", "-q"]);
    let shared =
        "0123456789abcdef".chars().find(|c| ids.lines().filter(|i| i.starts_with(*c)).count() > 1).expect("pigeons");
    let count = ids.lines().filter(|i| i.starts_with(shared)).count();
    let e = host.fails(1, &["network", "inspect", &shared.to_string()]);
    assert!(e.contains(&format!("network {shared} is ambiguous ({count} matches found based on ID prefix)")), "{e}");
    // What is found is printed, what is not is told, and the exit code says so.
    let ran = host.rrun(&["network", "inspect", "-v", "-f", "{{.Name}}", "one", "nothing", clash]).expect(1);
    assert_eq!(ran.stdout, format!("one\n{clash}\n"));
    assert!(ran.stderr.contains("network nothing not found"), "{}", ran.stderr);
    let ran = host.rrun(&["network", "inspect", "nothing"]).expect(1);
    assert_eq!(ran.stdout, "[]\n");
    assert_eq!(
        (host.rrun(&["network", "exists", "one"]).code, host.rrun(&["network", "exists", "nothing"]).code),
        (0, 1)
    );
}

#[test]
fn removing_several() {
    let host = Host::new();
    for n in ["one", "two", "last"] {
        create(&host, &[n]);
    }
    host.ok(&["run", "-d", "--name", "user", "--network", "two", "busybox", "sleep", "1000"]);
    let ran = host.rrun(&["network", "rm", "one", "two", "zero", "bridge", "last"]).expect(1);
    assert_eq!(ran.stdout, "one\nlast\n", "it goes on after what it cannot remove");
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "user"]);
    for text in [
        format!("error while removing network: network two has active endpoints (name:\"user\" id:\"{}\")", &id[..12]),
        "network zero not found".into(),
        "bridge is a pre-defined network and cannot be removed".into(),
    ] {
        assert!(ran.stderr.contains(&text), "{text} in {}", ran.stderr);
    }
    let ran = host.rrun(&["network", "remove", "-f", "zero", "gone"]).expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert_eq!(host.rrun(&["network", "rm", "-f", "two"]).code, 1, "-f does not tear out what is in use");
    // Who has stopped does not hold it; it then cannot start.
    host.ok(&["stop", "-t", "0", "user"]);
    host.ok(&["network", "rm", "two"]);
    let e = host.fails(1, &["start", "user"]);
    assert!(e.contains("network two not found"), "{e}");
    host.ok(&["network", "disconnect", "-f", "two", "user"]);
    host.ok(&["network", "connect", "bridge", "user"]);
    host.ok(&["start", "user"]);
}

#[test]
fn pruning_asks_first() {
    let host = Host::bare();
    create(&host, &["--label", "keep=1", "old"]);
    create(&host, &["--config-only", "settings"]);
    let answer = |flags: &[&str], text: &str| {
        let mut c = host.command(&[&["network", "prune"], flags].concat());
        let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("rrun");
        child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
        String::from_utf8(child.wait_with_output().expect("rrun").stdout).expect("UTF-8")
    };
    let warning = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] ";
    assert_eq!(answer(&[], "n\n"), warning);
    assert_eq!(answer(&[], ""), warning);
    assert_eq!(host.ok(&["network", "prune", "-f", "--filter", "until=1h"]), "");
    assert_eq!(host.ok(&["network", "prune", "-f", "--filter", "label!=keep"]), "");
    assert_eq!(host.ok(&["network", "prune", "-f", "--filter", "label=keep=2"]), "");
    let e = host.refuses(&["network", "prune", "-f", "--filter", "driver=bridge"]);
    assert!(e.contains("invalid filter 'driver'"), "{e}");
    assert_eq!(answer(&["--filter", "label=keep"], "y\n"), format!("{warning}Deleted Networks:\nold\n\n"));
    assert_eq!(names(&host, &["-f", "type=custom"]), "settings", "settings are not pruned");
    host.ok(&["network", "rm", "settings"]);
}

#[test]
fn settings_shared_by_networks() {
    let host = Host::new();
    let flags = [
        "--config-only",
        "--subnet",
        "10.9.0.0/24",
        "--gateway",
        "10.9.0.9",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "--label",
        "of=settings",
        "settings",
    ];
    create(&host, &flags);
    let n = inspect(&host, "settings");
    assert_eq!((&n["ConfigOnly"], &n["Driver"]), (&true.into(), &"null".into()));
    assert_eq!(host.ip("link").as_array().map(Vec::len), Some(1), "settings are no bridge");
    // Settings clash with nothing.
    create(&host, &["--config-only", "--subnet", "10.9.0.0/16", "others"]);
    create(&host, &["--config-from", "settings", "real"]);
    let n = inspect(&host, "real");
    assert_eq!(
        (&n["ConfigFrom"]["Network"], &n["ConfigOnly"], &n["Driver"]),
        (&"settings".into(), &false.into(), &"bridge".into())
    );
    assert_eq!((&n["IPAM"]["Config"][0]["Gateway"], &n["Labels"]["of"]), (&"10.9.0.9".into(), &"settings".into()));
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "real",
        "busybox",
        "sh",
        "-c",
        "cat /sys/class/net/eth0/mtu; ip route | grep default",
    ]);
    assert!(out.starts_with("1400\ndefault via 10.9.0.9"), "{out}");
    let e = host.fails(1, &["network", "rm", "settings"]);
    assert!(e.contains("configuration network \"settings\" is in use"), "{e}");
    let operator = "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.";
    let own = "user-specified configurations are not supported if the network depends on a configuration network";
    for (flags, text) in [
        (&["--config-only", "--internal"][..], operator),
        (&["--config-only", "--attachable"], operator),
        (&["--config-only", "--scope", "local"], operator),
        (&["--config-only", "--ingress"], operator),
        (&["--config-from", "settings", "--subnet", "10.8.0.0/24"], own),
        (&["--config-from", "settings", "--label", "x"], own),
        (&["--config-from", "settings", "--ipv6"], own),
        (&["--config-from", "settings", "-o", "com.docker.network.driver.mtu=1500"], own),
        (&["--config-from", "nothing"], "configuration network \"nothing\" does not exist"),
        (&["--config-from", "real"], "configuration network \"real\" does not exist"),
        (
            &["--config-from", "settings", "--config-only"],
            "a configuration network cannot depend on another configuration network",
        ),
        (&["--config-from", "settings"], "Pool overlaps with other one on this address space"),
    ] {
        let e = host.refuses(&[&["network", "create"], flags, &["x"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{flags:?}: {e}");
    }
    let e = host.refuses(&["run", "--rm", "--network", "settings", "busybox", "true"]);
    assert!(e.contains("cannot create endpoint on configuration-only network"), "{e}");
    host.ok(&["network", "rm", "real", "settings", "others"]);
}

#[test]
fn what_belongs_to_a_swarm_is_said_to() {
    let host = Host::bare();
    for (flags, text) in [
        (
            &["-d", "overlay"][..],
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        ),
        (&["--scope", "swarm"], "cannot create a swarm scoped network when swarm is not active"),
        (&["--scope", "global"], "cannot create a global scoped network when swarm is not active"),
        (&["--scope", "moon"], "invalid network scope \"moon\""),
        (&["--ingress"], "Ingress network can only be global scope network"),
        (&["-d", "host"], "only one instance of \"host\" network is allowed"),
        (&["-d", "null"], "only one instance of \"null\" network is allowed"),
        (&["--ipam-driver", "weave"], "could not resolve driver \"weave\" in registry"),
        (
            &["--ipam-driver", "null", "--subnet", "10.9.0.0/24"],
            "null ipam driver does not handle specific address pool requests",
        ),
        (&["--ipam-opt", "a=b"], "unknown option \"a\" of address manager default"),
        (&["--subnet", "10.9.0.0/24", "--aux-address", "banana"], "invalid auxiliary address"),
        (&["--subnet", "10.9.0.0/24", "--aux-address", "r=10.8.0.1"], "invalid auxiliary address"),
        (
            &["--subnet", "10.9.0.0/24", "--subnet", "fd00::/64", "--gateway", "10.9.0.1", "--gateway", "10.9.0.2"],
            "cannot configure multiple gateways (10.9.0.2, 10.9.0.1) for the same subnet (10.9.0.0/24)",
        ),
        (
            &["--subnet", "10.9.0.0/24", "--subnet", "fd00::/64", "--gateway", "10.8.0.1"],
            "no matching subnet for gateway 10.8.0.1",
        ),
    ] {
        let e = host.refuses(&[&["network", "create"], flags, &["x"]].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{flags:?}: {e}");
    }
    assert_eq!(host.rrun(&["network", "exists", "x"]).code, 1);
}

#[test]
fn a_network_without_addresses() {
    let host = Host::new();
    create(&host, &["--ipam-driver", "null", "bare"]);
    assert_eq!(inspect(&host, "bare")["IPAM"]["Driver"], "null");
    let out = host.ok(&[
        "run",
        "--rm",
        "--network",
        "bare",
        "busybox",
        "sh",
        "-c",
        "cat /sys/class/net/eth0/carrier; ip -o addr show eth0; ip route",
    ]);
    assert_eq!(out, "1", "a cable that works, and nothing on it");
}

#[test]
fn made_once_is_enough_with_ignore() {
    let host = Host::bare();
    let id = create(&host, &["--ignore", "n"]);
    assert_eq!(create(&host, &["--ignore", "n"]), id);
    let e = host.fails(1, &["network", "create", "n"]);
    assert!(e.contains("network with name n already exists"), "{e}");
}

#[test]
fn joining_and_leaving_in_dockers_words() {
    let host = Host::new();
    create(&host, &["--subnet", "10.9.0.0/24", "n"]);
    let run = |name: &str, flags: &[&str]| {
        host.ok(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat())
    };
    run("plain", &[]);
    run("hosted", &["--network", "host"]);
    run("alone", &["--network", "none"]);
    run("joined", &["--network", "container:plain"]);
    let id = host.ok(&["inspect", "-f", "{{.Id}}", "plain"]);
    for (args, text) in [
        (
            &["connect", "n", "hosted"][..],
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (
            &["connect", "n", "joined"],
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ),
        (
            &["connect", "n", "alone"],
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            &["connect", "none", "plain"],
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ),
        (
            &["connect", "host", "plain"],
            "cannot connect container to host network - container must be created in host network mode",
        ),
        (
            &["disconnect", "host", "hosted"],
            "cannot disconnect container from host network - container was created in host network mode",
        ),
        (&["disconnect", "n", "plain"], "is not connected to network n"),
        (&["connect", "bridge", "plain"], "endpoint with name plain already exists in network bridge"),
        (&["connect", "nothing", "plain"], "network nothing not found"),
        (&["connect", "n", "nobody"], "No such container: nobody"),
        (
            &["connect", "--ip", "10.8.0.1", "n", "plain"],
            "invalid endpoint settings:\nno configured subnet contains IP address 10.8.0.1",
        ),
        (&["connect", "--ip", "10.9.0.1", "n", "plain"], "Address already in use"),
        (
            &["connect", "--mac-address", "03:00:00:00:00:01", "n", "plain"],
            "03:00:00:00:00:01 is not a valid mac address",
        ),
        (&["connect", "--driver-opt", "x", "n", "plain"], "invalid key value pair format in driver options"),
        (&["connect", "--link", "a:b:c", "n", "plain"], "bad format for links: a:b:c"),
    ] {
        let e = host.refuses(&[&["network"], args].concat());
        assert!(e.contains(text) && e.contains("hint:"), "{args:?}: {e}");
    }
    assert!(host.refuses(&["network", "disconnect", "n", "plain"]).contains(&id[..12]));
    // A container that is gone leaves nothing that -f would not forget.
    host.ok(&["network", "disconnect", "-f", "n", "nobody"]);
    // Every flag at once, on a container that runs.
    host.ok(&[
        "network",
        "connect",
        "--ip",
        "10.9.0.77",
        "--alias",
        "aka",
        "--alias",
        "AlsoKnown",
        "--mac-address",
        "02:42:00:00:00:01",
        "--link-local-ip",
        "169.254.9.9",
        "--gw-priority",
        "7",
        "--interface-name",
        "wan",
        "--link",
        "plain:self",
        "n",
        "plain",
    ]);
    let shown = host.ok(&["exec", "plain", "ip", "addr", "show", "wan"]);
    for text in ["10.9.0.77/24", "169.254.9.9/16", "02:42:00:00:00:01"] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    assert!(host.ok(&["exec", "plain", "ip", "route"]).contains("default via 10.9.0.1 dev wan"));
    let got = host.ok(&["inspect", "-f", "{{json .NetworkSettings.Networks.n}}", "plain"]);
    let got: Value = serde_json::from_str(&got).expect("JSON");
    assert_eq!((&got["Aliases"], &got["GwPriority"]), (&serde_json::json!(["aka", "AlsoKnown"]), &7.into()));
    assert_eq!(got["IPAMConfig"], serde_json::json!({"IPv4Address": "10.9.0.77", "LinkLocalIPs": ["169.254.9.9"]}));
    assert_eq!(host.ok(&["ps", "--filter", "name=plain", "--format", "{{.Networks}}"]), "bridge,n");
    assert_eq!(host.ok(&["ps", "-q", "--filter", "network=n"]), id[..12]);
}
