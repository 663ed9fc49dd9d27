//! Images whose directories are symbolic links to the host, files, or what nobody expects there: a container of
//! such an image starts confined, or not at all, and the host stays as it was.

use rrun_tests::Host;
use rrun_tests::canary::{CONFINED, Canary, are_confined};
use rrun_tests::fixture::{Compression, LayerTar, busybox_layer, oci_dir};
use serde_json::{Value, json};

/// Busybox with this layer over it.
fn image(host: &Host, name: &str, layer: LayerTar, config: Value) {
    let dir = host.dir.join(format!("oci-{name}"));
    let layers = [(busybox_layer(), Compression::None), (layer.finish(), Compression::None)];
    oci_dir(&host.outside(&dir), &format!("{name}:latest"), &layers, config);
    host.ok(&["load", "-i", dir.to_str().expect("UTF-8")]);
}

/// The ways in which mounts differ.
const WAYS: [&[&str]; 3] = [&["-v", "data:/data"], &["--read-only", "--tmpfs", "/run"], &["--privileged"]];

/// Runs it in these ways; whether it has started in any.
fn try_out(host: &Host, canary: &Canary, name: &str, ways: &[&[&str]]) -> bool {
    let mut started = false;
    for &flags in ways {
        // A privileged container sees what others do not.
        let script = if flags.contains(&"--privileged") { "echo 1" } else { CONFINED };
        let ran = host.rrun(&[&["run", "--rm"], flags, &[name, "sh", "-c", script]].concat());
        assert!(matches!(ran.code, 0 | 125..=127), "{name} {flags:?}: {} {}", ran.code, ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        if ran.code == 0 {
            started = true;
            are_confined(&[ran.stdout]);
        } else {
            assert!(ran.stderr.contains("rrun: "), "{name}: {}", ran.stderr);
        }
        canary.is_untouched();
    }
    started
}

/// S14, S15, S17, S18 (CVE-2026-47766, CVE-2025-31133, CVE-2019-16884 and kin).
#[test]
fn directories_of_the_image_that_lead_to_the_host() {
    let host = Host::bare();
    let canary = Canary::new(&host);
    let to = |name: &str| format!("{}/{name}", canary.dir);
    for name in ["dev", "sys", "etc", "tmp", "data", "run"] {
        let target = if name < "r" { canary.dir.clone() } else { format!("../../../../../../../..{}", canary.dir) };
        image(&host, name, LayerTar::new().symlink(name, &target), json!({}));
        try_out(&host, &canary, name, &WAYS);
    }
    for name in ["null", "console", "pts", "shm", "ptmx", "mqueue", "fd"] {
        let layer = LayerTar::new().dir("dev", 0o755).symlink(&format!("dev/{name}"), &to("key"));
        image(&host, "node", layer, json!({}));
        assert!(try_out(&host, &canary, "node", &[&[]]), "/dev is rrun's own: {name}");
    }
    for name in ["hosts", "hostname", "resolv.conf"] {
        let layer = LayerTar::new().dir("etc", 0o755).symlink(&format!("etc/{name}"), &to("key"));
        image(&host, "file", layer, json!({}));
        try_out(&host, &canary, "file", &[&[]]);
    }
}

/// procfs is a directory of that name, and nothing else.
#[test]
fn proc_is_the_kernels_or_there_is_no_container() {
    let host = Host::bare();
    let canary = Canary::new(&host);
    let fakes = [
        LayerTar::new().symlink("proc", &canary.dir),
        LayerTar::new().symlink("proc", "sys"),
        LayerTar::new().file("proc", 0o644, b"no directory"),
    ];
    for fake in fakes {
        image(&host, "fake", fake, json!({}));
        assert!(!try_out(&host, &canary, "fake", &WAYS));
        let e = host.fails(125, &["run", "--rm", "fake", "true"]);
        assert!(e.contains("/proc") && e.contains("hint:"), "{e}");
    }
    // Files that pose as masked ones are covered by the real thing.
    let layer = LayerTar::new().dir("proc", 0o755).file("proc/keys", 0o644, b"mine").dir("proc/sys", 0o755);
    image(&host, "content", layer, json!({}));
    assert!(try_out(&host, &canary, "content", &[&[]]));
}

/// S20 and S21 (CVE-2026-55686, CVE-2022-23648): what the image's configuration names.
#[test]
fn working_directories_and_volumes_that_lead_to_the_host() {
    let host = Host::bare();
    let canary = Canary::new(&host);
    let link = || LayerTar::new().symlink("w", &canary.dir);
    for directory in ["/w/made/here", "/w/../../../../made", "/proc/self/fd/3", "/proc/self/cwd/made"] {
        image(&host, "work", link(), json!({ "WorkingDir": directory }));
        try_out(&host, &canary, "work", &[&[]]);
        assert_ne!(host.rrun(&["run", "--rm", "work", "cat", "/w/key", "key"]).stdout.trim(), "secret");
    }
    for volume in ["/w", "/w/sub", "/../../w/x", "/proc/sys", "/"] {
        image(&host, "vol", link(), json!({ "Volumes": { volume: {} } }));
        try_out(&host, &canary, "vol", &[&[], &["--privileged"]]);
        let ran = host.rrun(&["run", "--rm", "vol", "sh", "-c", "cat /w/key /w/sub/key 2>/dev/null"]);
        assert!(!ran.stdout.contains("secret"), "{volume}: nothing of the host is copied up");
        canary.is_untouched();
    }
}
