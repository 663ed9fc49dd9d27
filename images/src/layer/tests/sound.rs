//! What honest layers ask for.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;

#[test]
fn attributes_come_as_they_are_written() {
    let b = Bench::new();
    let (mtime, early) = (&b"1234567890.123456789"[..], &b"-86400.25"[..]);
    let tar = Tar::new()
        .dir("d/")
        .raw(b'5', b"sticky", b"", |h| h.mode = *b"0001777\0")
        .pax(&[("mtime", mtime)])
        .raw(b'0', b"d/suid", b"x", |h| h.mode = *b"0006755\0")
        .pax(&[("mtime", early)])
        .file("d/early", b"")
        .raw(b'0', b"d/\xff\xfe", b"bytes", |_| {})
        .raw(b'0', b"base256", b"", |h| h.mtime = *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    let applied = b.apply(tar).unwrap();
    assert_eq!((applied.entries, applied.bytes), (6, 6));
    let m = |name: &str| fs::metadata(b.at(name)).unwrap();
    assert_eq!(m("sticky").mode(), 0o041777);
    assert_eq!(m("d/suid").mode(), 0o106755);
    assert_eq!((m("d/suid").mtime(), m("d/suid").mtime_nsec()), (1234567890, 123456789));
    assert_eq!((m("d/early").mtime(), m("d/early").mtime_nsec()), (-86401, 750_000_000));
    assert_eq!(m("base256").mtime(), -2);
    assert_eq!(m("d").mtime(), 1, "files made in a directory must not change its time");
    assert_eq!(fs::read(b.at("d").join(OsStr::from_bytes(b"\xff\xfe"))).unwrap(), b"bytes");
}

#[test]
fn owners_need_root() {
    let b = Bench::new();
    let tar = Tar::new().pax(&[("uid", b"3000000000"), ("gid", b"7")]).file("other", b"x");
    match b.apply(tar) {
        Ok(_) => {
            assert!(is_root());
            let m = fs::metadata(b.at("other")).unwrap();
            assert_eq!((m.uid(), m.gid()), (3_000_000_000, 7));
        }
        Err(e) => {
            assert!(!is_root(), "{e}");
            assert_eq!(e.to_string(), "unpack other: operation not permitted (EPERM)");
            assert!(e.hint.unwrap().contains("root"));
        }
    }
}

#[test]
fn devices_need_root() {
    let b = Bench::new();
    match b.apply(Tar::new().device(b'3', "null", b"0000001", b"0000003").device(b'4', "disk", b"377", b"2000000")) {
        Ok(_) => {
            let (null, disk) = (fs::metadata(b.at("null")).unwrap(), fs::metadata(b.at("disk")).unwrap());
            assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
            assert!(disk.file_type().is_block_device() && disk.rdev() == rustix::fs::makedev(0o377, 0o2000000));
            assert_eq!(null.mode() & 0o7777, 0o644);
        }
        Err(e) => assert!(!is_root() && e.errno == Some(1) && e.hint.is_some(), "{e}"),
    }
}

#[test]
fn fifos_are_made_and_sockets_skipped() {
    let b = Bench::new();
    b.apply(Tar::new().raw(b'6', b"fifo", b"", |_| {}).raw(b's', b"socket", b"", |_| {})).unwrap();
    assert!(fs::symlink_metadata(b.at("fifo")).unwrap().file_type().is_fifo());
    assert!(!b.at("socket").exists());
}

#[test]
fn the_last_member_of_a_name_wins() {
    let b = Bench::new();
    let tar = Tar::new()
        .file("a", b"longer than the second")
        .file("a", b"2")
        .file("dir/in", b"")
        .symlink("dir", "a")
        .dir("full/sub/")
        .file("full/sub/x", b"")
        .file("full", b"a file now")
        .symlink("link", "a")
        .file("link", b"not through it")
        .symlink("kept", "nowhere")
        .hard_link("kept", "a")
        .dir("twice/")
        .file("twice/x", b"stays")
        .raw(b'5', b"twice/", b"", |h| h.mode = *b"0000700\0");
    b.apply(tar).unwrap();
    assert_eq!(fs::read(b.at("a")).unwrap(), b"2");
    assert_eq!(fs::read_link(b.at("dir")).unwrap(), Path::new("a"));
    assert_eq!(fs::read(b.at("full")).unwrap(), b"a file now");
    assert_eq!(fs::read(b.at("link")).unwrap(), b"not through it");
    assert_eq!(fs::read(b.at("kept")).unwrap(), b"2");
    assert_eq!(fs::read(b.at("twice/x")).unwrap(), b"stays");
    assert_eq!(fs::metadata(b.at("twice")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_directory_in_place_of_a_file_hides_what_is_below() {
    let b = Bench::new();
    let tar = Tar::new().file("d", b"").dir("d/");
    match b.apply(tar) {
        Ok(_) => assert!(confined::is_opaque(fs::File::open(b.at("d")).unwrap()).unwrap()),
        Err(e) => assert!(!is_root() && e.errno == Some(1), "{e}"),
    }
}

#[test]
fn hard_links_share_the_inode() {
    let b = Bench::new();
    let tar = Tar::new()
        .file("bin/x", b"x")
        .hard_link("y", "bin/x")
        .hard_link("z", "/bin/x")
        .hard_link("z", "./bin/../bin/x")
        .symlink("s", "bin/x")
        .hard_link("hard-to-s", "s")
        .symlink("usrbin", "bin")
        .hard_link("w", "usrbin/x")
        .raw(b'1', b"v", b"", |h| {
            h.linkname[..5].copy_from_slice(b"bin/x");
            h.size = *b"00000000001\0"; // some writers repeat the size of the file
        })
        .file("after", b"read from the right place");
    b.apply(tar).unwrap();
    let ino = |name: &str| fs::symlink_metadata(b.at(name)).unwrap().ino();
    for name in ["y", "z", "w", "v"] {
        assert_eq!(ino(name), ino("bin/x"), "{name}");
    }
    assert_eq!(ino("hard-to-s"), ino("s"), "the symlink itself");
    assert_eq!(fs::read(b.at("after")).unwrap(), b"read from the right place");
}

#[test]
fn symlinks_of_the_layer_are_parents_within_the_root() {
    let b = Bench::new();
    let tar = Tar::new()
        .symlink("lib", "usr/lib")
        .file("lib/early", b"target made for it")
        .dir("usr/lib/")
        .symlink("abs", "/usr/lib")
        .file("abs/a", b"")
        .symlink("up", "../../../usr/new")
        .file("up/u", b"");
    let applied = b.apply(tar).unwrap();
    assert_eq!(fs::read(b.at("usr/lib/early")).unwrap(), b"target made for it");
    assert!(b.at("usr/lib/a").exists() && b.at("usr/new/u").exists());
    assert_eq!(applied.implied, ["", "usr", "usr/lib", "usr/new"].map(PathBuf::from));
}

#[test]
fn unmentioned_parents_are_made_and_named() {
    let b = Bench::new();
    let applied = b.apply(Tar::new().dir("./").file("a/b/c", b"").file("a/b/d", b"").file("e", b"")).unwrap();
    assert_eq!(applied.implied, ["a", "a/b"].map(PathBuf::from));
    assert_eq!(fs::metadata(b.at("a/b")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn attributes_of_the_root_are_the_layers() {
    let b = Bench::new();
    let applied = b.apply(Tar::new().raw(b'5', b"./", b"", |h| h.mode = *b"0000711\0").file("x", b"")).unwrap();
    assert_eq!(applied.implied, [] as [PathBuf; 0]);
    let root = fs::metadata(b.root()).unwrap();
    assert_eq!((root.mode() & 0o7777, root.mtime()), (0o711, 1));
}

#[test]
fn long_runs_of_zeros_become_holes() {
    let b = Bench::new();
    let mut data = vec![0; 3 << 20];
    data[1 << 20] = 1;
    data[(2 << 20) - 1] = 2;
    b.apply(
        Tar::new()
            .file("f", &data)
            .file("all-zero", &vec![0; 1 << 20])
            .file("tail", &[&data[..1 << 20], b"end"].concat()),
    )
    .unwrap();
    let m = fs::metadata(b.at("f")).unwrap();
    assert!(fs::read(b.at("f")).unwrap() == data);
    assert!(m.blocks() * 512 <= 256 << 10, "{} blocks", m.blocks());
    assert_eq!(fs::metadata(b.at("all-zero")).unwrap().blocks(), 0);
    assert_eq!(fs::read(b.at("all-zero")).unwrap().len(), 1 << 20);
    assert!(fs::read(b.at("tail")).unwrap().ends_with(b"\0end"));
}

#[test]
fn only_xattrs_of_the_files_own_are_kept() {
    let b = Bench::new();
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.user.note", b"a\nb"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"unconfined"),
        ])
        .dir("d/")
        .pax(&[("SCHILY.xattr.user.note", b"symlinks cannot have it")])
        .symlink("s", "d");
    b.apply(tar).unwrap();
    let mut names = [0; 1024];
    let n = rustix::fs::llistxattr(b.at("d"), &mut names[..]).unwrap();
    let names: Vec<&[u8]> =
        names[..n].split(|b| *b == 0).filter(|n| !n.is_empty() && *n != b"security.selinux").collect();
    assert!(names.is_empty() || names == [b"user.note"], "none where the file system has none");
}

#[test]
fn file_capabilities_survive_the_change_of_owner() {
    let b = Bench::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    match b.apply(Tar::new().pax(&[("SCHILY.xattr.security.capability", &capability)]).file("ping", b"")) {
        Ok(_) => {
            let mut value = [0; 64];
            let n = rustix::fs::lgetxattr(b.at("ping"), "security.capability", &mut value[..]).unwrap();
            assert_eq!(value[..n], capability);
        }
        Err(e) => assert!(!is_root() && e.errno == Some(1), "{e}"),
    }
}

#[test]
fn headers_of_every_age_are_read() {
    let b = Bench::new();
    let long = "n".repeat(200);
    let tar = Tar::new()
        .raw(b'g', b"pax_global_header", b"16 comment=abcd\n", |_| {})
        .raw(0, b"v7dir/", b"", |h| (h.magic, h.mode) = ([0; 6], *b"0000755\0"))
        .raw(0, b"v7file", b"7", |h| h.magic = [0; 6])
        .raw(b'7', b"contiguous", b"c", |_| {})
        .raw(b'L', b"././@LongLink", format!("{long}\0").as_bytes(), |_| {})
        .file("short", b"GNU")
        .raw(b'0', b"name", b"ustar", |h| h.prefix[..6].copy_from_slice(b"prefix"))
        .pax(&[("path", "пакс/имя".as_bytes()), ("size", b"4")])
        .raw(b'0', b"ignored", b"data", |h| h.size = *b"00000000000\0");
    b.apply(tar).unwrap();
    assert!(b.at("v7dir").is_dir());
    for (name, data) in
        [("v7file", "7"), ("contiguous", "c"), (&long, "GNU"), ("prefix/name", "ustar"), ("пакс/имя", "data")]
    {
        assert_eq!(fs::read_to_string(b.at(name)).unwrap(), data, "{name}");
    }
}

#[test]
fn archives_may_end_in_three_ways() {
    let plain = Tar::new().file("x", b"1").bytes;
    for end in [&[0; 1024][..], &[0; 512], &[]] {
        Bench::new().apply_with(&[&plain[..], end].concat(), &Limits::default()).unwrap();
    }
    Bench::new().apply_with(&plain[..513], &Limits::default()).unwrap();
}

/// A source that fails in the middle, as one whose digest turns out wrong.
struct Failing<'d>(&'d [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other(Error::conflict("its own words").with_hint("its own hint"))),
            n => Ok(n),
        }
    }
}

#[test]
fn errors_of_the_source_keep_their_words() {
    let b = Bench::new();
    let tar = Tar::new().file("x", &[1; 5000]).bytes;
    let error = apply(&mut Failing(&tar[..2000]), &b.root(), &Limits::default()).unwrap_err();
    assert_eq!((error.message.as_str(), error.hint.as_deref()), ("its own words", Some("its own hint")));
}

#[test]
fn the_source_is_read_to_its_end() {
    let b = Bench::new();
    let mut tar = Tar::new().file("x", b"1").end();
    tar.extend_from_slice(b"trailing bytes belong to the digest too");
    let mut source = &tar[..];
    apply(&mut source, &b.root(), &Limits::default()).unwrap();
    assert!(source.is_empty());
}
