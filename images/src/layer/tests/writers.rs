//! Archives by other programs, and our result against `tar -x`. A program that is missing here is
//! passed over; GNU tar is needed.

use std::process::{Command, Stdio};

use super::*;

fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh").arg("-ec").arg(script).current_dir(dir).status().unwrap();
    assert!(status.success(), "{script}");
}

fn have(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A tree with everything a tar writer may stumble over.
fn make_tree(dir: &Path) {
    fs::create_dir(dir).unwrap();
    sh(
        dir,
        r#"umask 022
        mkdir -p usr/bin etc sticky empty deep/$(printf 'd%.0s' $(seq 90))/$(printf 'e%.0s' $(seq 90))/$(printf 'f%.0s' $(seq 90))
        chmod 1777 sticky; chmod 0555 empty
        echo hello > usr/bin/x; chmod 4755 usr/bin/x
        echo two > "etc/with space"; printf 'n' > "$(printf 'etc/not-utf8-\377\376')"; printf 'l' > "$(printf 'etc/new\nline')"
        D=$(echo deep/*/*/*); echo long > $D/$(printf 'g%.0s' $(seq 200))
        ln usr/bin/x usr/bin/hard; ln -s ../bin/x usr/bin/soft; ln -s /no/where dangling
        ln -s $(printf 'T%.0s' $(seq 180)) longlink; ln deep/*/*/*/g* deep/hardlong
        mkfifo fifo; : > zero
        head -c 300000 /dev/urandom > big
        truncate -s 5M sparse; printf A | dd of=sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null; printf B | dd of=sparse bs=1 seek=4000000 conv=notrunc 2>/dev/null
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do printf x | dd of=shreds bs=1 seek=$((i*100000)) conv=notrunc 2>/dev/null; done
        truncate -s 4M hole
        touch -d '2001-02-03 04:05:06.123456789' usr/bin/x; touch -d '1965-01-01 00:00:00.5' zero; touch -h -d '2011-01-01' dangling
        touch -d '1999-09-09' empty usr/bin usr etc
        "#,
    );
}

/// Applies `archive` and compares with what `tar -x` makes of it.
fn compare(scratch: &Scratch, archive: &Path, label: &str) {
    let (ours, theirs) = (scratch.path(&format!("ours-{label}")), scratch.path(&format!("theirs-{label}")));
    fs::create_dir(&ours).unwrap();
    fs::create_dir(&theirs).unwrap();
    let tar = fs::read(archive).unwrap();
    apply(&mut &tar[..], &ours, &Limits::default()).unwrap_or_else(|e| panic!("{label}: {e}"));
    let status = Command::new("tar")
        .args([
            "-x",
            "--numeric-owner",
            "-p",
            "--xattrs",
            "--xattrs-include=user.*",
            "--xattrs-include=security.capability",
            "-f",
        ])
        .arg(archive)
        .current_dir(&theirs)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "{label}");
    let (ours, theirs) = (listing(&ours), listing(&theirs));
    // Of a bsdtar archive GNU tar loses the times of directories that get a hard link later.
    let timeless = |line: &String| match line.split_once(" mtime ") {
        Some((head, tail)) if label == "bsdtar" && head.contains("\" 4") => {
            format!("{head} {}", tail.split_once(' ').map_or("", |(_, rest)| rest))
        }
        _ => line.clone(),
    };
    for (a, b) in ours.iter().zip(&theirs) {
        assert_eq!(timeless(a), timeless(b), "{label}");
    }
    assert_eq!(ours.len(), theirs.len(), "{label}");
}

#[test]
fn gnu_tar_in_all_its_formats() {
    let scratch = Scratch::new();
    make_tree(&scratch.path("tree"));
    for (label, options) in [
        ("gnu", "--format=gnu"),
        ("gnu-sparse", "--format=gnu --sparse"),
        ("pax", "--format=pax"),
        ("pax-sparse-0.0", "--format=pax --sparse --sparse-version=0.0"),
        ("pax-sparse-0.1", "--format=pax --sparse --sparse-version=0.1"),
        ("pax-sparse-1.0", "--format=pax --sparse --sparse-version=1.0"),
        ("ustar", "--format=ustar --exclude=./longlink --exclude=./deep --exclude=./zero"),
        ("oldgnu", "--format=oldgnu --sparse"),
        ("v7", "--format=v7 --exclude=./longlink --exclude=./deep --exclude=./fifo --exclude=./zero"),
    ] {
        let archive = scratch.path(&format!("{label}.tar"));
        sh(&scratch.path("tree"), &format!("tar -c {options} -f {} .", archive.display()));
        compare(&scratch, &archive, label);
    }
}

#[test]
fn gnu_sparse_files_keep_their_holes() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    make_tree(&scratch.path("tree"));
    for version in ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"] {
        let (archive, out) = (scratch.path("s.tar"), scratch.path("out"));
        sh(&scratch.path("tree"), &format!("tar -c --format={version} --sparse -f {} sparse hole", archive.display()));
        fs::create_dir(&out).unwrap();
        apply(&mut &fs::read(&archive).unwrap()[..], &out, &Limits::default()).unwrap();
        assert_eq!(fs::metadata(out.join("hole")).unwrap().size(), 4 << 20);
        assert_eq!(fs::metadata(out.join("hole")).unwrap().blocks(), 0, "{version}");
        assert!(fs::metadata(out.join("sparse")).unwrap().blocks() * 512 < 200_000, "{version}");
        remove_tree(&out).unwrap();
    }
}

#[test]
fn xattrs_survive_as_gnu_tar_writes_them() {
    let scratch = Scratch::new();
    make_tree(&scratch.path("tree"));
    let x = scratch.path("tree/usr/bin/x");
    let none = rustix::fs::XattrFlags::empty();
    if rustix::fs::lsetxattr(&x, "user.note", b"a\nb\0c", none).is_err() {
        return; // no user xattrs on this file system
    }
    rustix::fs::lsetxattr(scratch.path("tree/etc"), "user.dir", b"d", none).unwrap();
    if is_root() {
        // cap_net_raw=ep, version 2; holds newlines nowhere, but 0x0a in the next one does
        let capability = [1, 0, 0, 2, 0x0a, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::lsetxattr(&x, "security.capability", &capability, none).unwrap();
    }
    let archive = scratch.path("x.tar");
    sh(&scratch.path("tree"), &format!("tar -c --format=pax --xattrs --xattrs-include='*' -f {} .", archive.display()));
    compare(&scratch, &archive, "xattrs");
}

#[test]
fn python_busybox_and_bsdtar() {
    let scratch = Scratch::new();
    make_tree(&scratch.path("tree"));
    let tree = scratch.path("tree");
    // python3-minimal has no tarfile.
    if Command::new("python3").args(["-c", "import tarfile"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    {
        for format in ["PAX", "GNU", "USTAR"] {
            let archive = scratch.path(&format!("python-{format}.tar"));
            let skip = if format == "USTAR" {
                "None if ('longlink' in t.name or 'deep' in t.name or 'zero' in t.name) else t"
            } else {
                "t"
            };
            let script = format!(
                "import tarfile\nt=tarfile.open({archive:?},'w',format=tarfile.{format}_FORMAT)\nt.add('.',filter=lambda t: {skip})\nt.close()"
            );
            let status = Command::new("python3").arg("-c").arg(script).current_dir(&tree).status().unwrap();
            assert!(status.success());
            compare(&scratch, &archive, &format!("python-{format}"));
        }
    }
    for (program, script) in
        [("busybox", "busybox tar -c -f ../busybox.tar ."), ("bsdtar", "bsdtar -c -f ../bsdtar.tar .")]
    {
        if have(program) {
            sh(&tree, script);
            compare(&scratch, &scratch.path(&format!("{program}.tar")), program);
        }
    }
}

/// A real root file system where one lies on this machine, else this machine's own small tree.
#[test]
fn a_real_tree_comes_out_as_from_tar() {
    let scratch = Scratch::new();
    let archive = scratch.path("real.tar");
    let mut alpine = fs::read_dir("/work/shared/images").into_iter().flatten().flatten().map(|e| e.path());
    match alpine.find(|p| p.to_string_lossy().ends_with(".tar.gz")) {
        Some(gz) if is_root() => sh(&scratch.0, &format!("gzip -dc {} > {}", gz.display(), archive.display())),
        _ => sh(
            &scratch.0,
            &format!("tar -c --owner={} --group={} -f {} -C /etc/alternatives .", me().0, me().1, archive.display()),
        ),
    }
    compare(&scratch, &archive, "real");
}
