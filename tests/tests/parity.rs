//! What people who come from Docker or Podman look for first: verbs, flags, variables and names that have no
//! larger subject of their own.

use rrun_tests::Host;
use rrun_tests::host::{HOST_LAN, NEIGHBOUR, eventually};
use rrun_tests::peer::{PROGRAM, Server, call, mount, serve};

const SWITCH: &str = "DOCKER_KEEP_DEPRECATED_LEGACY_LINKS_ENV_VARS";

/// Docker 29 sets the variables of `--link` only for who asks, because they show one container's to the other.
#[test]
fn variables_of_links_for_who_asks() {
    let host = Host::new();
    let db = ["run", "-d", "--name", "db", "--expose", "5432", "--expose", "80-81", "-e", "PASSWORD=secret"];
    host.ok(&[&db[..], &["busybox", "sleep", "1000"]].concat());
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "db"]);
    let asked = |flags: &[&str]| {
        let mut c = host
            .command(&[&["run", "--rm", "--name", "app", "--link", "db:my-db"], flags, &["busybox", "env"]].concat());
        c.env(SWITCH, "1");
        rrun_tests::host::run(c).expect(0).stdout
    };
    let env = asked(&[]);
    for line in [
        format!("MY_DB_PORT=tcp://{ip}:80"),
        format!("MY_DB_PORT_5432_TCP=tcp://{ip}:5432"),
        format!("MY_DB_PORT_5432_TCP_ADDR={ip}"),
        "MY_DB_PORT_5432_TCP_PORT=5432".into(),
        "MY_DB_PORT_5432_TCP_PROTO=tcp".into(),
        format!("MY_DB_PORT_80_TCP_END=tcp://{ip}:81"),
        "MY_DB_NAME=/app/my-db".into(),
        "MY_DB_ENV_PASSWORD=secret".into(),
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    assert!(!env.contains("MY_DB_ENV_PATH"), "{env}");
    assert!(asked(&["-e", "MY_DB_NAME=mine"]).contains("MY_DB_NAME=mine\n"), "the user's own win");
    let env = host.ok(&["run", "--rm", "--link", "db:my-db", "busybox", "env"]);
    assert!(!env.contains("MY_DB"), "{env}");
}

/// On Docker Desktop and with Podman the host has a name; here it has both, over IPv4 and IPv6.
#[test]
fn the_host_has_a_name_in_containers() {
    let host = Host::new().with_lan();
    host.ok(&["network", "create", "--ipv6", "six"]);
    host.ok(&["network", "create", "--internal", "inside"]);
    host.ok(&["network", "create", "-o", "inhibit_ipv4=true", "elsewhere"]);
    let _server = Server::on_host(&host, "tcp", "::", 7000, "host");
    let reach = |network: &str, name: &str| {
        let script = format!("for ip in $(awk '/{name}/ {{ print $1 }}' /etc/hosts); do {PROGRAM} call $ip 7000; done");
        host.ok(&["run", "--rm", "--network", network, "-v", &mount(), "busybox", "sh", "-ec", &script])
    };
    for name in ["host.docker.internal", "host.containers.internal"] {
        assert_eq!(reach("bridge", name).lines().filter(|l| l.starts_with("host ")).count(), 1);
        assert_eq!(reach("six", name).lines().filter(|l| l.starts_with("host ")).count(), 2, "in both families");
        // Where the gateway is not the host, or there is none, the name would lie.
        assert_eq!(reach("elsewhere", name), "");
        assert_eq!(reach("inside", name), "");
    }
    let own = ["run", "--rm", "--add-host", "host.docker.internal:192.0.2.9", "busybox", "cat", "/etc/hosts"];
    let hosts = host.ok(&own);
    assert!(hosts.contains("192.0.2.9\thost.docker.internal\n"), "{hosts}");
    assert_eq!(hosts.matches("host.docker.internal").count(), 1, "the user's own wins: {hosts}");
}

/// Podman's flags for images that bring these files themselves.
#[test]
fn files_of_the_image_are_left_alone() {
    let host = Host::new();
    let files = "/etc/hosts /etc/hostname /etc/resolv.conf";
    host.ok(&[
        "run",
        "--name",
        "maker",
        "--no-hosts",
        "--no-hostname",
        "--dns",
        "none",
        "busybox",
        "sh",
        "-c",
        &format!("for f in {files}; do echo own > $f; done"),
    ]);
    host.ok(&["commit", "maker", "own"]);
    let all = ["run", "--rm", "--no-hosts", "--no-hostname", "--dns", "none", "own", "sh", "-c"];
    assert_eq!(host.ok(&[&all[..], &[&format!("cat {files}")]].concat()), "own\nown\nown");
    let hosts = host.ok(&["run", "--rm", "--no-hosts", "own", "sh", "-c", &format!("cat {files}")]);
    assert!(hosts.starts_with("own\n") && !hosts.ends_with("own"), "the others are rrun's: {hosts}");
    let e = host.fails(125, &["run", "--rm", "--dns", "none", "--dns", "192.0.2.1", "own", "true"]);
    assert!(e.contains("conflicting options: --dns none and other DNS settings") && e.contains("hint:"), "{e}");
    host.fails(125, &["run", "--rm", "--no-hosts", "--add-host", "a:192.0.2.1", "own", "true"]);
}

/// Podman's verb for the hook that runs when a firewall manager has reloaded.
#[test]
fn reload_puts_everything_back() {
    let host = Host::new().with_lan();
    serve(&host, &["--name", "web", "-p", "8080:80"], 80, "web");
    let works = || host.try_neighbour(&call(HOST_LAN, 8080)).stdout.trim() == format!("web {NEIGHBOUR}");
    assert_eq!(host.ok(&["network", "reload"]), "", "nothing to do");
    host.sh("nft delete element inet rrun publish4_any '{ 6 . 8080 }'");
    assert!(!works());
    let ran = host.rrun(&["network", "reload", "web"]).expect(0);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("container web"), "{}{}", ran.stdout, ran.stderr);
    assert!(works());
    host.sh("nft flush ruleset");
    assert!(!works());
    host.ok(&["network", "reload", "-a"]);
    assert!(works());
    assert!(host.fails(1, &["network", "reload", "nobody"]).contains("No such container: nobody"));
    // What others drop is told, and is not for the reload to answer for.
    host.sh(
        "nft add table ip other; nft add chain ip other gate '{ type filter hook forward priority 0; policy drop; }'",
    );
    let ran = host.rrun(&["network", "reload"]).expect(0);
    assert!(ran.stdout.contains("problem") && ran.stdout.contains("other"), "{}", ran.stdout);
    assert_eq!(host.rrun(&["network", "check"]).code, 1);
    host.sh("nft delete table ip other");
}

/// "Why does my packet not arrive?", where the answer is a rule of rrun's.
#[test]
fn drops_are_counted_with_their_reason() {
    let host = Host::new().with_lan();
    serve(&host, &["--name", "web"], 80, "web");
    assert_eq!(host.ok(&["network", "check", "--drops"]), "");
    let ip = host.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "web"]);
    host.neighbour(&format!("ip route add {ip} via {HOST_LAN}"));
    assert_ne!(host.try_neighbour(&call(&ip, 80)).code, 0, "nobody has a way in by a route");
    let said = host.ok(&["network", "check", "--drops"]);
    assert!(said.contains("chain raw_prerouting: containers are reached through published ports only"), "{said}");
    let list: serde_json::Value =
        serde_json::from_str(&host.ok(&["network", "check", "--drops", "--format", "json"])).expect("JSON");
    assert!(list[0]["Packets"].as_u64().is_some_and(|n| n > 0), "{list}");
    host.fails(125, &["network", "check", "--drops", "--repair"]);
}

/// What a template may ask for although rrun has no swarm, and times that scripts parse.
#[test]
fn fields_as_docker_prints_them() {
    let host = Host::new();
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{json .Peers}} {{len .Services}}", "bridge"]), "[] 0");
    assert!(!host.ok(&["network", "inspect", "bridge"]).contains("Peers"));
    host.ok(&["network", "create", "net"]);
    host.ok(&["create", "--name", "cc", "busybox"]);
    for list in [&["network", "ls", "-f", "name=net"][..], &["ps", "-a"], &["images"]] {
        let time = host.ok(&[list, &["--format", "{{.CreatedAt}}"]].concat());
        // GNU date reads what Go prints.
        assert!(time.ends_with(" +0000 UTC"), "{time}");
        host.sh(&format!("date -d '{}' +%s", time.trim_end_matches(" +0000 UTC")));
    }
    let e = host.fails(125, &["network", "prune", "-f", "--filter", "colour=red"]);
    assert!(e.contains("invalid filter 'colour'") && e.contains("until=, label= and label!="), "{e}");
}

/// Podman's flag: no embedded resolver, as on the default bridge, with everything else of a user-defined network.
#[test]
fn a_network_may_do_without_names() {
    let host = Host::new();
    host.sh(&format!("echo nameserver 192.0.2.53 > {}/tmp/resolv.conf", host.dir.display()));
    host.ok(&["network", "create", "--disable-dns", "--subnet", "10.9.0.0/24", "mute"]);
    host.ok(&["network", "create", "named"]);
    assert_eq!(host.ok(&["network", "inspect", "-f", "{{.DisableDNS}}", "mute"]), "true");
    host.ok(&["run", "-d", "--name", "web", "--network", "mute", "--ip", "10.9.0.9", "busybox", "sleep", "1000"]);
    let resolv = |id: &str| host.ok(&["exec", id, "cat", "/etc/resolv.conf"]);
    assert!(resolv("web").contains("nameserver 192.0.2.53\n"), "{}", resolv("web"));
    assert_ne!(host.rrun(&["run", "--rm", "--network", "mute", "busybox", "nslookup", "web", "127.0.0.11"]).code, 0);
    host.ok(&["run", "--rm", "--network", "mute", "busybox", "ping", "-c", "1", "10.9.0.9"]);
    // Another network brings names, and only its own.
    host.ok(&["network", "connect", "named", "web"]);
    eventually("the resolver is there", || resolv("web").contains("nameserver 127.0.0.11").then_some(()));
    host.ok(&["run", "--rm", "--network", "named", "busybox", "nslookup", "web"]);
    let e = host.refuses(&["run", "--rm", "--network", "mute", "--network-alias", "w", "busybox", "true"]);
    assert!(e.contains("network mute has no DNS") && e.contains("hint:"), "{e}");
    host.fails(125, &["network", "create", "--disable-dns", "--dns", "192.0.2.1", "bad"]);
}
