//! What overlayfs makes of our layers: mounted for real, in a mount namespace of its own. Needs root.

use std::process::Command;

use super::*;

/// Unpacks `layers`, lowest first, and lists the merged tree: one `path kind[ content]` a line.
fn merged(layers: &[Tar]) -> Vec<String> {
    let scratch = Scratch::new();
    for (i, tar) in layers.iter().enumerate() {
        let dir = scratch.path(&i.to_string());
        fs::create_dir(&dir).unwrap();
        apply(&mut &tar.clone().end()[..], &dir, &Limits::default()).unwrap();
    }
    let mut lower: Vec<String> = (0..layers.len()).rev().map(|i| i.to_string()).collect();
    lower.push("empty".into());
    for dir in ["empty", "merged"] {
        fs::create_dir(scratch.path(dir)).unwrap();
    }
    let script = format!(
        "mount -t overlay overlay -o lowerdir={} merged && cd merged && find . -mindepth 1 | sort | \
         while read -r f; do if [ -d $f ]; then echo $f/; else echo $f=$(cat $f); fi; done",
        lower.join(":")
    );
    let out = Command::new("unshare").args(["-m", "sh", "-ec", &script]).current_dir(&scratch.0).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn base() -> Tar {
    Tar::new().file("etc/a", b"1").file("etc/b", b"1").file("var/x", b"1").file("var/sub/y", b"1").file("f", b"1")
}

#[test]
fn whiteouts_hide_the_layers_below_only() {
    if !is_root() {
        return;
    }
    let top = Tar::new()
        .file("etc/.wh.a", b"")
        .file(".wh.var", b"")
        .file("etc/b", b"2")
        .file("etc/.wh.b", b"") // the same layer has b: it stays
        .file(".wh.f", b"")
        .file("f", b"2");
    assert_eq!(merged(&[base(), top]), ["./etc/", "./etc/b=2", "./f=2"]);
}

#[test]
fn a_directory_made_anew_shows_nothing_of_the_old_one() {
    if !is_root() {
        return;
    }
    let expected = ["./etc/", "./etc/a=1", "./etc/b=1", "./f=1", "./var/", "./var/new=2"];
    // whiteout first, directory first, only implied, and an opaque mark before and after the files
    for top in [
        Tar::new().file(".wh.var", b"").dir("var/").file("var/new", b"2"),
        Tar::new().dir("var/").file("var/new", b"2").file(".wh.var", b""),
        Tar::new().file(".wh.var", b"").file("var/new", b"2"),
        Tar::new().dir("var/").file("var/.wh..wh..opq", b"").file("var/new", b"2"),
        Tar::new().file("var/new", b"2").file("var/.wh..wh..opq", b""),
        Tar::new().file("var", b"in between").dir("var/").file("var/new", b"2"),
    ] {
        assert_eq!(merged(&[base(), top]), expected);
    }
}

#[test]
fn a_symlink_below_becomes_a_directory_above() {
    if !is_root() {
        return;
    }
    let lower = Tar::new().dir("real/").symlink("lib", "/etc").file("etc/passwd", b"1");
    let upper = Tar::new().file("lib/passwd", b"2");
    assert_eq!(merged(&[lower, upper]), ["./etc/", "./etc/passwd=1", "./lib/", "./lib/passwd=2", "./real/"]);
}

#[test]
fn marks_of_overlayfs_in_the_archive_have_no_effect() {
    if !is_root() {
        return;
    }
    let marks: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
    ];
    let top = Tar::new().pax(marks).dir("var/");
    assert_eq!(merged(&[base(), top]).len(), base_merged().len());
    assert_eq!(merged(&[base(), Tar::new().pax(marks).dir("./")]), base_merged());
}

fn base_merged() -> Vec<String> {
    merged(&[base()])
}
