//! Compose-shaped work: `docker run` lines as a converter makes them of compose files of well-known applications
//! (`compose.lines`) run unchanged, and each flag reaches the kernel.

use rrun_tests::Host;
use rrun_tests::host::env;

/// A host with what the lines mount, and one image under all the names that they have. It does nothing, whatever
/// command comes behind its name.
fn host() -> Host {
    let host = Host::new();
    // The lines name directories of the machine, and -v makes those that are not there.
    host.sh(&format!(
        "mkdir {0}/etc {0}/work {0}/compose; mount -t overlay -o lowerdir=/etc,upperdir={0}/etc,workdir={0}/work none /etc
         mount -t tmpfs none /srv; mount -t tmpfs none /run; mount -t tmpfs none /var/lib
         mkdir -p /srv/media /srv/modules /srv/nextcloud /run/dbus; echo UTC > /etc/timezone; : > /etc/localtime
         cd {0}/compose; echo A=b > nextcloud.env; : > acme.json; : > uploads.ini",
        host.dir.display()
    ));
    let script = "mkdir -p /opt/keycloak/bin; cd /opt/keycloak/bin; printf '#!/bin/sh\\nexec sleep 1000\\n' > kc.sh; chmod 755 kc.sh";
    host.ok(&["run", "--name", "build", "--network", "none", "busybox", "sh", "-ec", script]);
    host.ok(&["commit", "-c", r#"ENTRYPOINT ["/opt/keycloak/bin/kc.sh"]"#, "build", "any"]);
    host.ok(&["rm", "build"]);
    // The LAN is there for its picture of the host, which these mounts are part of.
    host.with_lan()
}

fn lines(section: &str) -> Vec<&'static str> {
    let all = include_str!("compose.lines").lines().skip_while(|l| *l != format!("## {section}")).skip(1);
    let lines: Vec<_> = all.take_while(|l| !l.starts_with("##")).collect();
    assert!(!lines.is_empty(), "no section {section}");
    lines
}

/// The image in a line: its first word behind `-d` that looks like one of `NAMES` in `compose.lines`.
fn image(line: &str) -> Option<&str> {
    const NAMES: [&str; 28] = [
        "quay.io/minio/minio",
        "rabbitmq:3-management",
        "docker.elastic.co/elasticsearch/elasticsearch:8.14.1",
        "docker.elastic.co/kibana/kibana:8.14.1",
        "quay.io/keycloak/keycloak:25.0",
        "bitnami/kafka:3.7",
        "mongo:7",
        "gitea/gitea:1.22",
        "postgres:14",
        "jellyfin/jellyfin",
        "vaultwarden/server:latest",
        "pihole/pihole:latest",
        "ghcr.io/home-assistant/home-assistant:stable",
        "lscr.io/linuxserver/wireguard",
        "itzg/minecraft-server",
        "prom/prometheus:v2.53.0",
        "grafana/grafana:11.1.0",
        "grafana/loki:3.1.0",
        "prom/node-exporter:v1.8.1",
        "gcr.io/cadvisor/cadvisor:v0.49.1",
        "postgres:16-alpine",
        "redis:7-alpine",
        "nextcloud:29-fpm",
        "nginx:alpine",
        "nginxproxy/nginx-proxy:1.6",
        "nginxproxy/acme-companion",
        "ghcr.io/example/app:1.2.3",
        "traefik:v3.1",
    ];
    const MORE: [&str; 4] =
        ["traefik/whoami", "mysql:8.4", "wordpress:6-php8.3-apache", "lscr.io/linuxserver/qbittorrent"];
    NAMES.into_iter().chain(MORE).find(|name| line.split(' ').any(|word| word == *name))
}

/// A line as it stands, in a shell whose `docker` is rrun.
fn shell(host: &Host, line: &str) -> rrun_tests::Ran {
    if line.starts_with("docker run") {
        host.ok(&["tag", "any", image(line).unwrap_or_else(|| panic!("no image in {line}"))]);
    }
    host.try_sh(&format!("cd {}/compose; docker() {{ {} \"$@\"; }}; {line}", host.dir.display(), env("RRUN_BIN")))
}

/// All lines of a section; every container runs.
#[track_caller]
fn up(host: &Host, section: &str) {
    let mut containers = 0;
    for line in lines(section) {
        let ran = shell(host, line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        containers += usize::from(line.starts_with("docker run"));
    }
    assert_eq!(host.ok(&["ps", "-q"]).lines().count(), containers, "{}", host.ok(&["ps", "-a"]));
}

/// What `sh -c` prints in a container.
#[track_caller]
fn inside(host: &Host, name: &str, script: &str) -> String {
    host.ok(&["exec", name, "sh", "-c", script])
}

fn facts(host: &Host, name: &str, format: &str) -> String {
    host.ok(&["inspect", "-f", format, name])
}

/// The container of an image, for lines without `--name`.
fn of(host: &Host, image: &str) -> String {
    let ids = host.ok(&["ps", "-q", "--no-trunc"]);
    let found = ids.lines().find(|id| facts(host, id, "{{.Config.Image}}") == image);
    found.unwrap_or_else(|| panic!("no container of {image}")).to_owned()
}

#[test]
fn data_stores() {
    let host = host();
    up(&host, "data");
    assert_eq!(inside(&host, "rabbit", "hostname; ulimit -n"), "rabbit\n4096");
    let kibana = of(&host, "docker.elastic.co/kibana/kibana:8.14.1");
    assert_eq!(inside(&host, &kibana, "readlink /proc/1/ns/net"), inside(&host, "rabbit", "readlink /proc/1/ns/net"));
    let kafka = of(&host, "bitnami/kafka:3.7");
    assert_eq!(inside(&host, &kafka, "cat /proc/1/oom_score_adj"), "300");
    assert_eq!(facts(&host, &kafka, "{{.HostConfig.Memory}} {{len .HostConfig.PortBindings}}"), "1073741824 4");
    let elastic = of(&host, "docker.elastic.co/elasticsearch/elasticsearch:8.14.1");
    assert!(inside(&host, &elastic, "cat /proc/1/limits").contains("Max locked memory         32768 "));
    assert_eq!(inside(&host, &elastic, "echo $ES_JAVA_OPTS"), "-Xms512m -Xmx512m");
    let keycloak = of(&host, "quay.io/keycloak/keycloak:25.0");
    assert_eq!(
        inside(&host, &keycloak, "pwd; echo $KC_DB_URL"),
        "/opt/keycloak\njdbc:postgresql://pg/keycloak?ssl=false"
    );
    let mongo = of(&host, "mongo:7");
    assert_eq!(inside(&host, &mongo, "stat -fc %T /scratch /data/configdb"), "tmpfs\ntmpfs");
    assert_eq!(host.ok(&["volume", "ls", "-q"]), "es\nminio\nmongo\nmongo-data");
}

#[test]
fn forge_and_blog() {
    let host = host();
    up(&host, "gitea");
    assert!(inside(&host, "gitea-db", "ip addr show eth0").contains("172.28.0.55/24"));
    for name in ["database", "pg", "gitea-db"] {
        assert!(inside(&host, "gitea", &format!("nslookup {name}")).contains("172.28.0.55"), "{name}");
    }
    assert_eq!(facts(&host, "gitea", "{{.HostConfig.RestartPolicy.Name}}"), "always");
    assert_eq!(
        inside(&host, "gitea", "cat /etc/timezone; echo x > /data/x; echo x 2>&1 > /etc/timezone || :"),
        "UTC\nsh: can't create /etc/timezone: Read-only file system"
    );
    host.sh(&format!("grep x {}/compose/gitea/x", host.dir.display()));
    host.sh(&format!("{0} rm -f $({0} ps -q)", env("RRUN_BIN")));

    up(&host, "wordpress");
    let wordpress = of(&host, "wordpress:6-php8.3-apache");
    assert_eq!(
        inside(&host, &wordpress, "ls /sys/class/net; echo $WORDPRESS_DB_PASSWORD"),
        "eth0\neth1\nlo\npass word"
    );
    assert_eq!(facts(&host, "wp-db", "{{index .Config.Healthcheck.Test 1}}"), "CMD,mysqladmin,ping,-h,localhost");
    assert!(inside(&host, "wp-db", "ip route").lines().all(|l| !l.starts_with("default")), "back is internal");
}

#[test]
fn at_home() {
    let host = host();
    let mut refused = Vec::new();
    for line in lines("homelab") {
        let ran = shell(&host, line);
        if ran.code != 0 {
            refused.push((line, ran.stderr));
        }
    }
    // Of compose alone, and in no Docker either: which container that is only compose knows.
    let [(line, said)] = &refused[..] else { panic!("{refused:?}") };
    assert!(line.contains("--net service:wireguard") && said.contains("--network container:NAME"), "{line}: {said}");
    assert_eq!(host.ok(&["ps", "-q"]).lines().count(), 6);
    let jellyfin = of(&host, "jellyfin/jellyfin");
    assert_eq!(inside(&host, &jellyfin, "id -u; id -G; test -c /dev/dri/renderD128"), "1000\n1000 5 109");
    assert!(inside(&host, &jellyfin, "grep host.docker.internal /etc/hosts").contains("172.17.0.1"));
    assert_eq!(inside(&host, "pihole", "cat /sys/class/net/eth0/address; hostname"), "02:42:ac:11:65:43\npihole");
    assert_eq!(
        inside(&host, "pihole", "grep ^nameserver /etc/resolv.conf; ip link set lo mtu 1400"),
        "nameserver 127.0.0.1"
    );
    assert_eq!(inside(&host, "wireguard", "cat /proc/sys/net/ipv4/conf/all/src_valid_mark; ls /lib/modules"), "1");
    assert_eq!(host.ok(&["port", "wireguard"]), "51820/udp -> 0.0.0.0:51820\n51820/udp -> [::]:51820");
    assert_eq!(host.ok(&["port", "vaultwarden"]), "80/tcp -> 127.0.0.1:8222");
    assert_eq!(
        facts(
            &host,
            "vaultwarden",
            "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"
        ),
        "on-failure 5"
    );
    assert_eq!(facts(&host, &of(&host, "itzg/minecraft-server"), "{{.Config.Tty}} {{.Config.OpenStdin}}"), "true true");
}

#[test]
fn monitoring() {
    let host = host();
    up(&host, "monitoring");
    assert_eq!(inside(&host, "prometheus", "id -u; cat /proc/1/oom_score_adj"), "65534\n500");
    let limits = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.PidsLimit}}";
    assert_eq!(facts(&host, "prometheus", limits), "1073741824 2147483648 268435456 500000000 512 500");
    let grafana = of(&host, "grafana/grafana:11.1.0");
    assert_eq!(
        facts(&host, &grafana, "{{.HostConfig.LogConfig.Type}} {{json .HostConfig.LogConfig.Config}}"),
        r#"local {"compress":"true","max-file":"2","max-size":"5m"}"#
    );
    assert_eq!(facts(&host, &of(&host, "grafana/loki:3.1.0"), "{{.Config.StopTimeout}}"), "10");
    let exporter = of(&host, "prom/node-exporter:v1.8.1");
    assert_eq!(inside(&host, &exporter, "readlink /proc/self/ns/pid"), host.sh("readlink /proc/self/ns/pid"));
    assert_eq!(inside(&host, &exporter, "ls /host/srv"), "media\nmodules\nnextcloud");
    assert_eq!(
        inside(&host, &of(&host, "gcr.io/cadvisor/cadvisor:v0.49.1"), "test -c /dev/kmsg; ls /rootfs/srv | wc -l"),
        "3"
    );
}

#[test]
fn a_cloud_of_ones_own() {
    let host = host();
    up(&host, "nextcloud");
    assert_eq!(
        facts(&host, "nc-db", "{{.Config.StopSignal}} {{.Config.StopTimeout}} {{.HostConfig.ShmSize}}"),
        "SIGINT 90 268435456"
    );
    assert_eq!(inside(&host, "nc-db", "id -u; df /dev/shm | awk 'END {print $2}'"), "70\n262144");
    let redis = "cat /proc/sys/net/core/somaxconn; ulimit -n; ulimit -Hn; stat -c %a /tmp; df /tmp | awk 'END {print $2}'; touch /x 2>&1 || :";
    assert_eq!(inside(&host, "nc-redis", redis), "1024\n2048\n4096\n1777\n16384\ntouch: /x: Read-only file system");
    assert_eq!(facts(&host, "nc-redis", "{{json .Config.Cmd}}"), r#"["redis-server","--save","","--appendonly","no"]"#);
    let hosts = inside(&host, "nc-app", "cat /etc/hosts");
    assert!(hosts.contains("192.168.1.20\toffice.local") && hosts.contains("\tcache "), "{hosts}");
    let resolver = inside(&host, "nc-app", "cat /etc/resolv.conf; echo $A");
    for part in ["nameserver 1.1.1.1", "nameserver 9.9.9.9", "search home.arpa", "use-vc", "ndots:2", "\nb"] {
        assert!(resolver.contains(part), "{part}: {resolver}");
    }
    assert_eq!(inside(&host, "nc-app", "ping -c 1 -w 5 cache >/dev/null && echo linked"), "linked");
    let web = of(&host, "nginx:alpine");
    assert_eq!(
        inside(&host, &web, "hostname -f; touch /etc/nginx/conf.d/x 2>&1 || :"),
        "cloud.example.org\ntouch: /etc/nginx/conf.d/x: Read-only file system"
    );
}

#[test]
fn reverse_proxies() {
    let host = host();
    up(&host, "proxy");
    assert_eq!(inside(&host, "nginx-proxy", "ls /sys/class/net"), "eth0\neth1\nlo");
    let addresses = inside(&host, "app", "ip addr show eth0");
    for address in ["10.5.0.10/16", "169.254.8.8/16", "2001:db8:5::10/64"] {
        assert!(addresses.contains(address), "{address}: {addresses}");
    }
    assert_eq!(inside(&host, "nginx-proxy", "nslookup www | grep -c 10.5.0.10"), "1");
    assert_eq!(inside(&host, "app", "echo \"$QUOTED\"; grep Seccomp: /proc/1/status"), "it's one\nSeccomp:\t0");
    assert_eq!(facts(&host, "app", "{{index .Config.Labels \"com.example.description\"}}"), "The app, with spaces");
    host.sh("ip link show br-apps");
    host.sh(&format!("{0} rm -f $({0} ps -q)", env("RRUN_BIN")));

    up(&host, "traefik");
    let rule = facts(&host, "traefik", "{{index .Config.Labels \"traefik.http.routers.api.rule\"}}");
    assert_eq!(rule, "Host(`traefik.example.org`) && (PathPrefix(`/api`) || PathPrefix(`/dashboard`))");
    assert_eq!(inside(&host, "traefik", "grep NoNewPrivs /proc/1/status"), "NoNewPrivs:\t1");
    assert_eq!(
        facts(&host, "traefik", "{{json .HostConfig.LogConfig.Config}}"),
        r#"{"max-file":"3","max-size":"10m"}"#
    );
    let whoami = of(&host, "traefik/whoami");
    assert_eq!(
        facts(&host, &whoami, "{{len .Config.ExposedPorts}} {{.HostConfig.PidsLimit}} {{.HostConfig.Memory}}"),
        "8 100 52428800"
    );
}
