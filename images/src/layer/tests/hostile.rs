//! What hostile layers try: row by row of the policy. `Bench` checks after each that nothing beside
//! the root has changed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

#[test]
fn names_that_climb_are_held_at_the_root() {
    let b = Bench::new();
    b.apply(Tar::new().file("../../canary", b"!").file("/abs", b"").file("a/../../../b", b"").dir("../d/")).unwrap();
    for name in ["canary", "abs", "b", "d"] {
        assert!(b.at(name).exists(), "{name}");
    }
    refused(Tar::new().file("..", b"x"), "a name for the root directory");
}

#[test]
fn symlinks_do_not_lead_out() {
    for target in ["..", "../..", "/..", "../root/..", "/proc/self/root/.."] {
        let b = Bench::new();
        let tar = Tar::new()
            .symlink("out", target)
            .file("out/canary", b"!")
            .dir("out/sub/")
            .hard_link("out/h", "out/canary")
            .raw(b'0', b"out/.wh.canary2", b"", |_| {})
            .raw(b'5', b"out/", b"", |h| h.mode = *b"0000000\0");
        if let Err(e) = b.apply(tar) {
            assert!(!is_root() && e.errno == Some(1), "only making `out` opaque may need root: {e}");
        }
    }
    // Through two layers of links, and back through `..` after one.
    let b = Bench::new();
    b.apply(Tar::new().symlink("a", "../../../..").symlink("b", "a/../a").file("b/canary", b"!")).unwrap();
    assert_eq!(fs::read(b.at("canary")).unwrap(), b"!");
}

#[test]
fn a_file_does_not_go_through_a_symlink_of_its_own_name() {
    let b = Bench::new();
    let outside = b.scratch.path("canary");
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
    let target = outside.to_str().unwrap();
    let tar = Tar::new()
        .symlink("f", target)
        .raw(b'0', b"f", b"!", |h| h.mode = *b"0000777\0")
        .symlink("d", target)
        .raw(b'5', b"d", b"", |h| h.mode = *b"0000777\0")
        .symlink("e", target)
        .raw(b'6', b"e", b"", |h| h.mode = *b"0000777\0");
    match b.apply(tar) {
        Ok(_) => assert!(b.at("d").is_dir()),
        Err(e) => assert!(!is_root() && e.errno == Some(1), "opaque needs root: {e}"),
    }
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn hard_links_stay_inside() {
    refused(Tar::new().hard_link("h", "../canary"), "h: hard link to ../canary leaves the image");
    refused(Tar::new().hard_link("h", "a/../../canary"), "leaves the image");
    refused(Tar::new().hard_link("h", "/etc/passwd"), "h: hard link to /etc/passwd, which is not in this layer");
    refused(Tar::new().symlink("up", "..").hard_link("h", "up/canary"), "not in this layer");
    refused(Tar::new().dir("d/").hard_link("h", "d"), "a directory");
    refused(Tar::new().hard_link("h", "/"), "the root directory");
    refused(Tar::new().file("lower/.wh.gone", b"").hard_link("h", "lower/gone"), "not in this layer");
}

#[test]
fn malformed_whiteouts() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh...", ".wh.a/b"] {
        refused(Tar::new().file(name, b""), "malformed whiteout");
    }
}

#[test]
fn whiteouts_through_symlinks_stay_inside() {
    let b = Bench::new();
    b.apply(Tar::new().symlink("up", "..").file("up/.wh.canary", b"")).unwrap();
    let made = fs::symlink_metadata(b.at("canary")).unwrap();
    assert_eq!((made.mode() & 0o170000, made.rdev()), (0o020000, 0));
    if is_root() {
        let b = Bench::new();
        let above = || rustix::fs::lgetxattr(b.root().parent().unwrap(), OPAQUE, &mut [0; 8][..]);
        b.apply(Tar::new().symlink("up", "..").file("up/.wh..wh..opq", b"")).unwrap();
        assert!(above().is_err() && rustix::fs::lgetxattr(b.root(), OPAQUE, &mut [0; 8][..]).is_ok());
    }
}

#[test]
fn devices_that_would_be_whiteouts() {
    refused(Tar::new().device(b'3', "c", b"0", b"0"), "c: character device 0:0");
    // The kernel keeps 12 and 20 bits: these would be cut to 0:0.
    refused(Tar::new().device(b'3', "c", b"10000", b"0"), "device number out of range");
    refused(Tar::new().device(b'3', "c", b"0", b"4000000"), "device number out of range");
    refused(Tar::new().device(b'3', "c", b"\x80\0\0\x01\0\0\0\0", b"0"), "device number out of range");
}

#[test]
fn owners_out_of_range() {
    for value in ["4294967295", "4294967296", "18446744073709551615"] {
        refused(Tar::new().pax(&[("uid", value.as_bytes())]).file("f", b""), "uid");
        refused(Tar::new().pax(&[("gid", value.as_bytes())]).file("f", b""), "gid");
    }
    refused(Tar::new().pax(&[("uid", b"-1")]).file("f", b""), "uid");
    refused(Tar::new().raw(b'0', b"f", b"", |h| h.uid = [0xff; 8]), "f: uid");
    refused(Tar::new().raw(b'0', b"f", b"", |h| h.gid = [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), "f: gid");
    refused(Tar::new().raw(b'0', b"f", b"", |h| h.uid = *b"00x0000\0"), "f: uid");
}

#[test]
fn sizes_out_of_range() {
    refused(Tar::new().raw(b'0', b"f", b"", |h| h.size = [0xff; 12]), "f: size");
    refused(Tar::new().raw(b'0', b"f", b"", |h| h.size = [0x80, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]), "f: size");
    refused(
        Tar::new().pax(&[("size", b"18446744073709551615")]).file("f", b""),
        "size 18446744073709551615 out of range",
    );
    refused(Tar::new().pax(&[("size", b"-1")]).file("f", b""), "PAX record size has the value -1");
}

#[test]
fn more_than_the_disk_holds_is_refused_at_once() {
    let b = Bench::new();
    let tar = Tar::new().raw(b'0', b"bomb", b"x", |h| h.size = [0x80, 0, 0, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0]);
    let error = b.apply(tar).unwrap_err();
    assert!(error.message.starts_with("bomb: unpacks to more than the "), "{error}");
    assert!(error.hint.unwrap().contains("disk space"));
    let limits = Limits { bytes: Some(100), ..Limits::default() };
    assert!(b.apply_with(&Tar::new().file("a", &[1; 60]).file("b", &[1; 41]).end(), &limits).is_err());
    let mut trailing = Tar::new().end();
    trailing.resize(5000, 0);
    assert!(b.apply_with(&trailing, &limits).is_err(), "bytes behind the archive count too");
}

#[test]
fn a_huge_hole_costs_nothing() {
    let b = Bench::new();
    let size = (100u64 << 30).to_string();
    let map = format!("{},1", (100u64 << 30) - 1);
    let tar = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", size.as_bytes()),
        ])
        .file("huge", b"x");
    b.apply(tar).unwrap();
    let m = fs::metadata(b.at("huge")).unwrap();
    assert_eq!(m.size(), 100 << 30);
    assert!(m.blocks() < 1000);
    // More than the file system can address is the archive's fault.
    let most = i64::MAX.to_string();
    let tar = Tar::new()
        .pax(&[("GNU.sparse.major", b"0"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.size", most.as_bytes())])
        .file("beyond", b"");
    if let Err(e) = Bench::new().apply(tar) {
        assert!(e.message.contains("beyond"), "{e}");
    }
}

#[test]
fn sparse_maps_that_lie() {
    let sparse = |map: &str, size: &str| {
        Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.minor", b"1"),
                ("GNU.sparse.map", map.as_bytes()),
                ("GNU.sparse.size", size.as_bytes()),
            ])
            .file("f", b"1234")
    };
    refused(sparse("0,4", "3"), "ends beyond the file");
    refused(sparse("0,2,1,2", "10"), "overlaps");
    refused(sparse("0,3", "10"), "wants 3 bytes");
    refused(sparse("0,4,18446744073709551615,1", "10"), "64 bits");
    refused(sparse("0,4", "9999999999999999999"), "without a valid size");
    refused(Tar::new().pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0")]).file("f", b""), "unknown format");
    refused(
        Tar::new()
            .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
            .file("f", b"x"),
        "malformed sparse map",
    );
    refused(Tar::new().raw(b'S', b"f", b"", |_| {}), "without a GNU header");
}

#[test]
fn deep_trees_are_refused_fast() {
    let deep = "d/".repeat(3000);
    let long = Tar::new().raw(b'L', b"././@LongLink", deep.as_bytes(), |_| {}).file("x", b"");
    refused(long, "name too long");
    let within_path_max = "d/".repeat(1100);
    refused(Tar::new().pax(&[("path", within_path_max.as_bytes())]).file("x", b""), "name too deep");
}

#[test]
fn too_many_entries() {
    let b = Bench::new();
    let tar = (0..11).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), b""));
    let limits = Limits { entries: 10, ..Limits::default() };
    assert!(b.apply_with(&tar.clone().end(), &limits).unwrap_err().message.contains("more than 10 entries"));
    assert!(Bench::new().apply_with(&tar.end(), &Limits { entries: 11, ..Limits::default() }).is_ok());
}

#[test]
fn headers_that_two_readers_would_read_differently() {
    // A PAX size hidden behind a value with a newline: a parser that splits lines takes the ustar
    // size, and reads the smuggled header as a member.
    let smuggled = Tar::new().file("smuggled", b"").bytes;
    let b = Bench::new();
    let size = smuggled.len().to_string();
    let tar =
        Tar::new()
            .pax(&[("comment", b"a\nb"), ("size", size.as_bytes())])
            .raw(b'0', b"carrier", &smuggled, |h| h.size = *b"00000000000\0");
    b.apply(tar).unwrap();
    assert!(!b.at("smuggled").exists());
    assert_eq!(fs::read(b.at("carrier")).unwrap(), smuggled);

    let two = Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b"");
    refused(two, "two extended tar headers");
    refused(Tar::new().raw(b'g', b"g", b"10 size=1\n", |_| {}).file("c", b"x"), "global PAX header sets size");
    refused(Tar::new().pax(&[("path", b"a")]), "ends in an extended header");
    refused(Tar::new().raw(b'x', b"x", b"5 a=b\n", |_| {}).file("c", b""), "malformed PAX record");
    refused(Tar::new().pax(&[("path", b"a\0b")]).file("c", b""), "PAX record path");
    refused(Tar::new().raw(b'V', b"volume", b"", |_| {}), "unknown type V");
}

#[test]
fn extended_headers_are_bounded() {
    for flag in [b'x', b'g', b'L', b'K'] {
        let tar = Tar::new().raw(flag, b"big", b"", |h| h.size = *b"77777777777\0");
        refused(tar, "larger than 1048576 bytes");
    }
    let names: Vec<String> = (0..300).map(|i| format!("SCHILY.xattr.user.{i}")).collect();
    let records: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"v"[..])).collect();
    refused(Tar::new().pax(&records).file("f", b""), "extended attributes");
}

#[test]
fn damaged_archives() {
    let good = Tar::new().file("f", &[7; 2000]).end();
    let words = |tar: &[u8]| Bench::new().apply_with(tar, &Limits::default()).unwrap_err().to_string();
    assert!(words(&good[..1000]).contains("cut short"));
    assert!(words(&good[..100]).contains("cut short"));
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    assert!(words(&flipped).contains("checksum"));
    assert!(
        words(b"<html>not a layer at all, but long enough to be one block</html>".repeat(20).as_slice())
            .contains("not a tar archive")
    );
    let lone = [&[0; 512][..], &good].concat();
    assert!(words(&lone).contains("lone zero block"));
}

#[test]
fn files_cannot_be_directories() {
    refused(Tar::new().file("f", b"").file("f/x", b""), "f: a file where a directory must be");
    refused(Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b""), "ELOOP");
    refused(Tar::new().symlink("s", ""), "symlink without a target");
}

#[test]
fn messages_carry_no_control_characters() {
    let error = Bench::new().apply(Tar::new().file("\x1b]0;pwned\x07/.wh.", b"")).unwrap_err().to_string();
    assert!(!error.contains('\x1b') && error.contains("\\u{1b}]0;pwned"), "{error}");
    assert!(shown(&[b'a'; 5000]).len() < 300);
    assert_eq!(shown(b"\xffa"), "\\xffa");
}
