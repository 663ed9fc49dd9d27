//! Images: pulled from a real registry, loaded, imported, listed, tagged and removed.

use rrun_tests::Host;
use rrun_tests::fixture::{Compression, LayerTar, Registry, busybox_layer, oci_dir};
use serde_json::json;

/// Puts an OCI directory on the host and returns its path there.
fn layout(
    host: &Host,
    name: &str,
    reference: &str,
    layers: &[(Vec<u8>, Compression)],
    config: serde_json::Value,
) -> std::path::PathBuf {
    let dir = host.dir.join(name);
    oci_dir(&host.outside(&dir), reference, layers, config);
    dir
}

fn hello(how: Compression) -> Vec<(Vec<u8>, Compression)> {
    let top = LayerTar::new().dir("greeting/", 0o755).file("greeting/hello", 0o644, b"hello from a layer\n").finish();
    vec![(busybox_layer(), how), (top, how)]
}

#[test]
fn pull_run_and_pull_again() {
    let host = Host::bare();
    let registry = Registry::start(&host).expect("docker-registry is installed by vagrant/provision.sh tests");
    for (how, repository) in
        [(Compression::Gzip, "lib/gz:1"), (Compression::Zstd, "lib/zst:1"), (Compression::None, "lib/plain:1")]
    {
        let dir = layout(&host, "out", "1", &hello(how), json!({"Cmd": ["cat", "/greeting/hello"], "Env": ["A=b"]}));
        registry.push(&dir, repository);
        let name = registry.reference(repository);
        // `run` pulls what is missing, and says so on standard error only.
        let ran = host.rrun(&["run", "--rm", "--network", "none", &name]).expect(0);
        assert_eq!(ran.stdout, "hello from a layer\n");
        assert!(ran.stderr.contains(&format!("Unable to find image '{name}' locally")), "{}", ran.stderr);
        assert_eq!(host.rrun(&["run", "--rm", "--network", "none", &name]).expect(0).stderr, "");
        let again = host.ok(&["pull", &name]);
        assert!(again.contains("Status: Image is up to date for"), "{again}");
        host.sh(&format!("rm -rf {}", dir.display()));
    }
    // By digest.
    let digest = host.ok(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", &registry.reference("lib/gz:1")]);
    assert!(digest.contains("@sha256:"), "{digest}");
    host.ok(&["pull", &digest]);
    // What is not there.
    let e = host.fails(1, &["pull", &registry.reference("lib/none:1")]);
    assert!(e.contains("lib/none") && e.contains("hint:"), "{e}");
    let e = host.fails(125, &["run", "--rm", &registry.reference("lib/gz:9")]);
    assert!(e.contains("not found"), "{e}");
}

#[test]
fn layers_are_shared_and_nothing_is_copied() {
    let host = Host::bare();
    let dir = layout(&host, "a", "a:1", &hello(Compression::Gzip), json!({}));
    host.ok(&["load", "-i", dir.to_str().expect("UTF-8")]);
    let other =
        vec![hello(Compression::Gzip).remove(0), (LayerTar::new().file("x", 0o644, b"x").finish(), Compression::Zstd)];
    let dir = layout(&host, "b", "b:1", &other, json!({}));
    host.ok(&["load", "-i", dir.to_str().expect("UTF-8")]);
    let layers = host.sh(&format!("ls -d {}/layers/????????????????", host.root().display()));
    assert_eq!(layers.lines().count(), 3, "two images, one layer in common:\n{layers}");
    let used =
        |host: &Host| host.sh(&format!("du -sk {} | cut -f1", host.root().display())).parse::<u64>().expect("kB");
    let before = used(&host);
    for _ in 0..10 {
        host.ok(&["create", "--network", "none", "a:1", "true"]);
    }
    assert!(used(&host) - before < 1000, "ten containers copy nothing of the image");
    host.ok(&["rmi", "b:1"]);
    assert_eq!(host.sh(&format!("ls -d {}/layers/????????????????", host.root().display())).lines().count(), 2);
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "a:1", "cat", "/greeting/hello"]), "hello from a layer");
}

#[test]
fn load_every_format() {
    let host = Host::bare();
    let dir = layout(&host, "src", "formats:1", &hello(Compression::Gzip), json!({"Cmd": ["cat", "/greeting/hello"]}));
    let d = host.dir.display();
    host.sh(&format!("cd {d}; skopeo copy -q --insecure-policy oci:src docker-archive:docker.tar:formats:1"));
    host.sh(&format!("cd {d}; skopeo copy -q --insecure-policy oci:src oci-archive:oci.tar:formats:1"));
    host.sh(&format!("cd {d}; gzip -k docker.tar; cp oci.tar o.tar; python3 -c 'import sys' ; gzip o.tar"));
    for input in [
        dir.to_str().expect("UTF-8").to_string(),
        format!("{d}/docker.tar"),
        format!("{d}/oci.tar"),
        format!("{d}/docker.tar.gz"),
        format!("{d}/o.tar.gz"),
    ] {
        let out = host.ok(&["load", "-i", &input]);
        assert!(out.contains("Loaded image: formats:1") || out.contains("Loaded image:"), "{input}: {out}");
        assert_eq!(host.ok(&["run", "--rm", "--network", "none", "formats:1"]), "hello from a layer", "{input}");
        host.ok(&["rmi", "-f", "formats:1"]);
        assert_eq!(host.ok(&["images", "-q"]), "", "{input}");
    }
    // Through standard input.
    host.sh(&format!("{} load < {d}/docker.tar", rrun_tests::host::env("RRUN_BIN")));
    assert_eq!(host.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]), "formats:1");
    let e = host.refuses(&["load", "-i", "/nonexistent.tar"]);
    assert!(e.contains("/nonexistent.tar") && e.contains("hint:"), "{e}");
    host.sh(&format!("head -c 100000 {d}/docker.tar > {d}/cut.tar; echo nonsense > {d}/text"));
    for broken in ["cut.tar", "text"] {
        host.refuses(&["load", "-i", &format!("{d}/{broken}")]);
    }
}

#[test]
fn import_tag_list_inspect_and_remove() {
    let host = Host::bare();
    let rootfs = rrun_tests::host::env("RRUN_ROOTFS");
    let id = host.ok(&[
        "import",
        "-c",
        "CMD [\"echo\",\"imported\"]",
        "-c",
        "ENV A=b",
        "-c",
        "WORKDIR /tmp",
        "-m",
        "by hand",
        &rootfs,
        "mine:1",
    ]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "mine:1"]), "imported");
    assert_eq!(host.ok(&["run", "--rm", "--network", "none", "mine:1", "sh", "-c", "pwd; echo $A"]), "/tmp\nb");
    host.ok(&["tag", "mine:1", "yours:2"]);
    let table = host.ok(&["images"]);
    let head: Vec<&str> = table.lines().next().expect("a header").split_whitespace().collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(table.lines().count(), 3);
    assert_eq!(host.ok(&["images", "-q", "--no-trunc"]), id, "one image, two names");
    assert_eq!(
        host.ok(&["image", "inspect", "-f", "{{.Id}} {{json .Config.Cmd}} {{.Os}}", "yours:2"]),
        format!("{id} [\"echo\",\"imported\"] linux")
    );
    assert_eq!(host.ok(&["rmi", "mine:1"]), "Untagged: mine:1");
    let c = host.ok(&["create", "--network", "none", "yours:2"]);
    let e = host.fails(1, &["rmi", "yours:2"]);
    assert!(e.contains("conflict: unable to remove repository reference \"yours:2\" (must force) - container"), "{e}");
    assert!(e.contains(&c[..12]), "{e}");
    host.ok(&["rm", &c]);
    let out = host.ok(&["rmi", &id[7..19]]);
    assert!(out.contains("Untagged: yours:2") && out.contains(&format!("Deleted: {id}")), "{out}");
    let e = host.fails(1, &["rmi", "mine:1"]);
    assert!(e.contains("No such image: mine:1"), "{e}");
    assert_eq!(host.sh(&format!("find {} -path '*layers/*' -name 'passwd' | wc -l", host.root().display())), "0");
    let e = host.fails(125, &["pull", "Upper/Case"]);
    assert!(e.contains("must be lowercase"), "{e}");
}

#[test]
fn many_layers_and_the_last_word() {
    let host = Host::bare();
    let mut layers = vec![(busybox_layer(), Compression::Gzip)];
    for n in 0..126 {
        let t = LayerTar::new().file("counter", 0o644, n.to_string().as_bytes()).file(&format!("only{n}"), 0o644, b"");
        layers.push((t.finish(), Compression::Gzip));
    }
    let dir = layout(&host, "deep", "deep:1", &layers, json!({}));
    host.ok(&["load", "-i", dir.to_str().expect("UTF-8")]);
    assert_eq!(
        host.ok(&["run", "--rm", "--network", "none", "deep:1", "sh", "-c", "cat counter; ls -d /only* | wc -l"]),
        "125126"
    );
}

#[test]
fn whiteouts_and_opaque_directories() {
    let host = Host::bare();
    let below = LayerTar::new()
        .dir("d/", 0o755)
        .file("d/old", 0o644, b"")
        .file("gone", 0o644, b"")
        .dir("o/", 0o755)
        .file("o/hidden", 0o644, b"");
    let above = LayerTar::new()
        .file(".wh.gone", 0o644, b"")
        .file("d/new", 0o644, b"")
        .dir("o/", 0o755)
        .file("o/.wh..wh..opq", 0o644, b"")
        .file("o/seen", 0o644, b"");
    let layers = vec![
        (busybox_layer(), Compression::Gzip),
        (below.finish(), Compression::Gzip),
        (above.finish(), Compression::Zstd),
    ];
    let dir = layout(&host, "w", "w:1", &layers, json!({}));
    host.ok(&["load", "-i", dir.to_str().expect("UTF-8")]);
    assert_eq!(
        host.ok(&["run", "--rm", "--network", "none", "w:1", "sh", "-c", "ls /d /o; ls /gone 2>/dev/null || echo no"]),
        "/d:\nnew\nold\n\n/o:\nseen\nno"
    );
}

#[test]
fn hostile_images_leave_nothing_and_reach_nothing() {
    let host = Host::bare();
    host.sh(&format!("mkdir {0}/canary; echo untouched > {0}/canary/file; chmod 700 {0}/canary", host.dir.display()));
    let canary = format!("{}/canary", host.dir.display());
    let before = host.sh(&format!("find {canary} -printf '%p %y %m %s\\n' | sha256sum"));
    let link = tar::EntryType::Symlink;
    let escapes: Vec<(&str, LayerTar)> = vec![
        ("dotdot", LayerTar::new().file(&format!("../../../../../../../..{canary}/pwn"), 0o644, b"x")),
        ("absolute", LayerTar::new().file(&format!("{canary}/pwn"), 0o644, b"x")),
        ("symlink", LayerTar::new().entry("out", link, 0o777, &canary, b"").file("out/pwn", 0o644, b"x")),
        ("chmod", LayerTar::new().entry("out", link, 0o777, &canary, b"").dir("out/", 0o777)),
        ("hardlink", LayerTar::new().hard_link("stolen", &format!("{canary}/file"))),
        ("whiteout", LayerTar::new().file(".wh...", 0o644, b"")),
    ];
    for (name, tar) in escapes {
        let dir = layout(&host, name, &format!("{name}:1"), &[(tar.finish(), Compression::Gzip)], json!({}));
        // Contained or refused: both are fine, as long as nothing outside changes.
        let ran = host.rrun(&["load", "-i", dir.to_str().expect("UTF-8")]);
        assert!(ran.code == 0 || ran.stderr.contains(name) || ran.stderr.contains("hint:"), "{name}: {}", ran.stderr);
        assert_eq!(host.sh(&format!("find {canary} -printf '%p %y %m %s\\n' | sha256sum")), before, "{name}");
    }
    // A layer that is not what its digest says, and one whose diff ID lies.
    let dir = layout(
        &host,
        "liar",
        "liar:1",
        &[(LayerTar::new().file("a", 0o644, b"a").finish(), Compression::Gzip)],
        json!({}),
    );
    host.sh(&format!("cd {}/blobs/sha256; big=$(ls -S | head -n1); printf x >> $big", dir.display()));
    let e = host.refuses(&["load", "-i", dir.to_str().expect("UTF-8")]);
    assert!(e.contains("hint:"), "{e}");
    assert_eq!(
        host.try_sh(&format!("ls -A {}/layers 2>/dev/null | grep -v lock", host.root().display()))
            .stdout
            .lines()
            .filter(|l| l.contains("tmp"))
            .count(),
        0
    );
}
