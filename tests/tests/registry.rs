//! Images that leave: saved, pushed, with a login; and registries as the machine's owner sets them up.

use rrun_tests::Host;
use rrun_tests::fixture::Registry;
use rrun_tests::host::env;

/// The busybox image, and a second one that shares its layer.
fn two_images(host: &Host) {
    host.ok(&["import", "-c", "LABEL kind=two", "-m", "second", &env("RRUN_ROOTFS"), "two:1"]);
    host.ok(&["tag", "busybox", "two:2"]);
}

fn id_of(host: &Host, image: &str) -> String {
    host.ok(&["image", "inspect", "-f", "{{.Id}}", image])
}

#[test]
fn saved_archives_are_read_by_others_and_by_rrun() {
    let host = Host::new();
    two_images(&host);
    let (d, id) = (host.dir.display().to_string(), id_of(&host, "two:1"));
    host.ok(&["save", "-o", &format!("{d}/docker.tar"), "busybox", "two:1"]);
    host.ok(&["save", "--format", "oci-archive", "-o", &format!("{d}/oci.tar"), "two"]);
    host.sh(&format!("{} save two:1 > {d}/pipe.tar", env("RRUN_BIN")));
    // skopeo checks every digest on its way.
    for source in
        ["docker-archive:docker.tar:busybox:latest", "docker-archive:docker.tar:two:1", "oci-archive:oci.tar:1"]
    {
        host.sh(&format!("cd {d}; rm -rf copy; skopeo copy -q --insecure-policy {source} dir:copy"));
    }
    let tags = host.sh(&format!("tar -xOf {d}/docker.tar manifest.json"));
    assert!(tags.contains(r#""RepoTags":["busybox:latest"]"#) && tags.contains(r#""RepoTags":["two:1"]"#), "{tags}");
    assert!(!tags.contains("two:2"), "only the tag that was named: {tags}");
    for (archive, name) in [("docker.tar", "two:1"), ("oci.tar", "two:2"), ("pipe.tar", "two:1")] {
        host.ok(&["rmi", "-f", "busybox", "two:1", "two:2"]
            .iter()
            .copied()
            .filter(|n| has(&host, n))
            .collect::<Vec<_>>());
        assert_eq!(host.ok(&["images", "-q"]), "");
        host.ok(&["load", "-i", &format!("{d}/{archive}")]);
        assert_eq!(host.ok(&["run", "--rm", "--network", "none", name, "echo", "back"]), "back", "{archive}");
    }
    assert_eq!(id_of(&host, "two:1"), id);
    let e = host.fails(1, &["save", "-o", &format!("{d}/none.tar"), "nope"]);
    assert!(e.contains("No such image: nope:latest") && e.contains("hint:"), "{e}");
    assert_eq!(host.try_sh(&format!("ls {d} | grep none.tar")).stdout, "", "a failure leaves no file");
    let e = host.refuses(&["save", "--format", "zip", "two:1"]);
    assert!(e.contains("docker-archive or oci-archive"), "{e}");
}

/// `rmi` takes its verb and flags as they are, and of the names those there are.
fn has(host: &Host, word: &str) -> bool {
    ["rmi", "-f"].contains(&word) || host.rrun(&["image", "inspect", word]).code == 0
}

#[test]
fn push_and_pull_back() {
    let host = Host::new();
    let registry = Registry::start(&host).expect("docker-registry is installed by vagrant/provision.sh tests");
    let (one, two) = (registry.reference("a/b:1"), registry.reference("a/b:2"));
    host.ok(&["tag", "busybox", &one]);
    let pushed = host.rrun(&["push", &one]).expect(0);
    assert!(pushed.stderr.starts_with("The push refers to repository [127.0.0.1:5000/a/b]\n"), "{}", pushed.stderr);
    assert!(pushed.stderr.contains(": Pushed"), "{}", pushed.stderr);
    assert!(pushed.stdout.starts_with("1: digest: sha256:") && pushed.stdout.contains(" size: "), "{}", pushed.stdout);
    host.ok(&["tag", "busybox", &two]);
    let again = host.rrun(&["push", "--all-tags", &registry.reference("a/b")]).expect(0);
    assert!(again.stderr.contains(": Layer already exists") && again.stdout.lines().count() == 2, "{again:?}");
    // Another reader sees the same image.
    let seen = host.sh(&format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{two}"));
    assert!(pushed.stdout.contains(&seen), "{seen}: {}", pushed.stdout);
    let id = id_of(&host, &one);
    host.ok(&["rmi", "-f", &id]);
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "-q", &one, "echo", "back"]), "back");
    assert_eq!(id_of(&host, &one), id);
    let e = host.fails(1, &["push", &registry.reference("a/c:1")]);
    assert!(e.contains("An image does not exist locally with the tag: 127.0.0.1:5000/a/c"), "{e}");
    let e = host.refuses(&["push", "-a", &one]);
    assert!(e.contains("tag can't be used with --all-tags/-a"), "{e}");
}

#[test]
fn login_opens_a_private_registry_and_logout_closes_it() {
    let host = Host::new();
    // me:sesame
    let htpasswd = host.dir.join("htpasswd");
    std::fs::write(host.outside(&htpasswd), "me:$2b$04$sy4J7UwxjZbRwRwd9R3PKO.6ajgDH9xFXsZUkPXOyJmXjDL8breH2\n")
        .expect("htpasswd");
    let more = format!("auth:\n  htpasswd:\n    realm: private\n    path: {}\n", htpasswd.display());
    let registry = Registry::start_at(&host, "127.0.0.1:5000", &more).expect("docker-registry");
    let name = registry.reference("private:1");
    let config = host.dir.join("docker");
    let rrun =
        |args: &str| host.try_sh(&format!("export DOCKER_CONFIG={}; {} {args}", config.display(), env("RRUN_BIN")));
    host.ok(&["tag", "busybox", &name]);
    let e = rrun(&format!("push {name}")).expect(1).stderr;
    assert!(e.contains("push access denied to") && e.contains("rrun login 127.0.0.1:5000"), "{e}");
    let e = rrun("login -u me -p wrong 127.0.0.1:5000").expect(1).stderr;
    assert!(e.contains("unauthorized: incorrect username or password"), "{e}");
    assert_eq!(rrun("login --password-stdin 127.0.0.1:5000 </dev/null").code, 125);
    let ran = host.try_sh(&format!(
        "echo sesame | DOCKER_CONFIG={} {} login -u me --password-stdin 127.0.0.1:5000",
        config.display(),
        env("RRUN_BIN")
    ));
    assert_eq!(ran.expect(0).stdout, "Login Succeeded\n");
    let mode = host.sh(&format!("stat -c %a {0} {0}/config.json", config.display()));
    assert_eq!(mode, "700\n600");
    rrun(&format!("push {name}")).expect(0);
    host.ok(&["rmi", "-f", &id_of(&host, &name)]);
    rrun(&format!("pull {name}")).expect(0);
    // skopeo uses the same file, and so the same login.
    host.sh(&format!(
        "skopeo inspect --authfile {}/config.json --tls-verify=false docker://{name} > {}/inspect",
        config.display(),
        host.dir.display()
    ));
    // A credential helper instead of the file.
    host.sh(&format!(
        "mkdir {0}/bin; printf '#!/bin/sh\\nread key; [ \"$1\" = get ] && echo \"{{\\\"Username\\\":\\\"me\\\",\\\"Secret\\\":\\\"sesame\\\"}}\"\\n' > {0}/bin/docker-credential-toy; chmod 755 {0}/bin/docker-credential-toy; \
         mkdir {0}/helped; echo '{{\"credsStore\":\"toy\"}}' > {0}/helped/config.json",
        host.dir.display()
    ));
    host.sh(&format!(
        "PATH={0}/bin:$PATH DOCKER_CONFIG={0}/helped {1} pull {name}",
        host.dir.display(),
        env("RRUN_BIN")
    ));
    assert!(rrun("logout 127.0.0.1:5000").expect(0).stdout.contains("Removing login credentials for 127.0.0.1:5000"));
    assert!(rrun("logout 127.0.0.1:5000").expect(0).stdout.contains("Not logged in to 127.0.0.1:5000"));
    let e = rrun(&format!("pull {name}")).expect(1).stderr;
    assert!(e.contains("pull access denied for"), "{e}");
    assert!(rrun("search nginx").expect(125).stderr.contains("rrun does not search"));
}

#[test]
fn mirrors_own_authorities_and_insecure_registries() {
    let host = Host::new().with_lan();
    let d = host.dir.display().to_string();
    host.sh(&format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=toy \
         -addext subjectAltName=IP:198.51.100.1 -addext basicConstraints=critical,CA:FALSE -keyout {d}/key.pem -out {d}/cert.pem 2>/dev/null"
    ));
    let tls = format!("  tls:\n    certificate: {d}/cert.pem\n    key: {d}/key.pem\n");
    let secure = Registry::start_at(&host, "198.51.100.1:5443", &tls).expect("docker-registry");
    let plain = Registry::start_at(&host, "198.51.100.1:5000", "").expect("docker-registry");
    let config = |text: &str| std::fs::write(host.outside(host.dir.join("c.toml")), text).expect("configuration");
    let rrun = |args: &str| host.try_sh(&format!("{} --config {d}/c.toml {args}", env("RRUN_BIN")));
    let (s, p) = (secure.reference("x:1"), plain.reference("x:1"));
    host.ok(&["tag", "busybox", &s]);
    host.ok(&["tag", "busybox", &p]);
    config("");
    let e = rrun(&format!("push {s}")).expect(125).stderr;
    assert!(e.contains("certificate") && e.contains("hint:"), "{e}");
    rrun(&format!("push {p}")).expect(125);
    config(&format!(
        "[registries.\"198.51.100.1:5443\"]\nca = \"{d}/cert.pem\"\n[registries.\"198.51.100.1:5000\"]\ninsecure = true\n"
    ));
    rrun(&format!("push {s}")).expect(0);
    rrun(&format!("push {p}")).expect(0);
    // docker.io through a mirror; the first one is down.
    config(&format!(
        "[registries.\"docker.io\"]\nmirrors = [\"http://127.0.0.1:9\", \"https://198.51.100.1:5443\"]\n\
         [registries.\"198.51.100.1:5443\"]\nca = \"{d}/cert.pem\"\n"
    ));
    host.ok(&["tag", "busybox", &secure.reference("library/alpine:3")]);
    rrun(&format!("push {}", secure.reference("library/alpine:3"))).expect(0);
    host.ok(&["rmi", "-f", &id_of(&host, "busybox")]);
    let ran = rrun("run --rm --network none alpine:3 echo mirrored").expect(0);
    assert_eq!(ran.stdout, "mirrored\n");
    assert!(ran.stderr.contains("mirror 127.0.0.1:9 passed over"), "{}", ran.stderr);
    assert_eq!(host.ok(&["images", "--format", "{{.Repository}}"]), "alpine");
    config("[registries.\"docker.io\"]\nmirror = []\n");
    let e = rrun("pull alpine:3").expect(125).stderr;
    assert!(e.contains("c.toml, line 2") && e.contains("mirror"), "{e}");
}

#[test]
fn history_and_prune() {
    let host = Host::new();
    two_images(&host);
    let table = host.ok(&["history", "two:1"]);
    let head: Vec<&str> = table.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(head, ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]);
    assert!(table.contains("second"), "{table}");
    let size: u64 = host.ok(&["history", "--human=false", "--format", "{{.Size}}", "two:1"]).parse().expect("bytes");
    assert!(size > 1_000_000, "{size}");
    assert_eq!(host.ok(&["history", "-q", "--no-trunc", "two:1"]), id_of(&host, "two:1"));
    host.fails(1, &["history", "nope"]);

    let id = id_of(&host, "two:1");
    // The name goes to another image: the first one dangles.
    host.ok(&["tag", "busybox", "two:1"]);
    assert!(host.ok(&["image", "prune", "-f", "--filter", "until=1h"]).contains("reclaimed space: 0B"));
    assert!(!host.ok(&["image", "prune", "-f", "--filter", "label!=kind"]).contains(&id));
    let asked = host.sh(&format!("echo n | {} image prune", env("RRUN_BIN")));
    assert!(asked.starts_with("WARNING! This will remove all dangling images."), "{asked}");
    let out = host.ok(&["image", "prune", "-f", "--filter", "label=kind=two"]);
    assert!(out.starts_with("Deleted Images:\n") && out.contains(&format!("deleted: {id}")), "{out}");
    assert!(out.ends_with("Total reclaimed space: 0B"), "its layer is busybox's: {out}");
    // All that no container uses.
    host.ok(&["import", &env("RRUN_ROOTFS"), "three"]);
    host.ok(&["create", "--name", "keeps", "--network", "none", "busybox"]);
    let out = host.ok(&["image", "prune", "-af"]);
    assert!(out.contains("untagged: three:latest") && !out.contains("busybox"), "{out}");
    host.ok(&["rm", "keeps"]);
    let out = host.ok(&["image", "prune", "-af"]);
    assert!(out.contains("untagged: busybox:latest") && !out.ends_with(": 0B"), "{out}");
    assert_eq!(host.ok(&["images", "-q"]), "");
    host.refuses(&["image", "prune", "-f", "--filter", "dangling=maybe"]);
}
