use super::*;

const PASSWD_FILE: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:2:2:daemon:/sbin:/sbin/nologin
broken:x::
evil\n1000:x:0:0:a number as a name:/evil:/bin/sh
2147483648:x:0:0::/evil:
-1:x:0:0::/evil:
+0:x:0:0::/evil:
alice:x:1000:1000:Alice,,,:/home/alice:/bin/bash
bob:x:1001:100::relative:
bob:x:0:0:again::
huge:x:4294967296:0::/:
minus:x:-5:0::/:
  spaced:x:77:77::/sp:
nohome:x:78:78:::
";
const GROUP_FILE: &str = "\
root:x:0:root
bin:x:1:root,bin,daemon
wheel:x:10:alice,root
users:x:100:
alice:x:1000:
docker:x:2000:bob,alice
docker:x:2001:
dup:x:1000:alice
broken:x:
2000:x:5:alice
";

fn find(spec: &str, additional: &[&str]) -> Result<Ids> {
    let additional: Vec<String> = additional.iter().map(|g| g.to_string()).collect();
    lookup(&Wish::parse(spec)?, &additional, || Ok(Some(PASSWD_FILE.as_bytes())), || Ok(Some(GROUP_FILE.as_bytes())))
}

fn ids(uid: u32, gid: u32, groups: &[u32], home: Option<&str>) -> Ids {
    Ids { uid, gid, groups: groups.to_vec(), home: home.map(str::to_string) }
}

#[test]
fn the_matrix_of_spellings() {
    let alice = ids(1000, 1000, &[1000, 10, 2000, 5], Some("/home/alice"));
    for (spec, expected) in [
        ("", ids(0, 0, &[0, 1, 10], Some("/root"))),
        ("0", ids(0, 0, &[0, 1, 10], Some("/root"))),
        ("00", ids(0, 0, &[0, 1, 10], Some("/root"))),
        ("root", ids(0, 0, &[0, 1, 10], Some("/root"))),
        ("alice", alice.clone()),
        ("1000", alice.clone()),
        ("1000:", alice.clone()),
        ("alice:", alice),
        (":1000", ids(0, 1000, &[1000], Some("/root"))),
        (":docker", ids(0, 2000, &[2000], Some("/root"))),
        ("alice:docker", ids(1000, 2000, &[2000], Some("/home/alice"))),
        ("alice:2000", ids(1000, 2000, &[2000], Some("/home/alice"))),
        ("1000:0", ids(1000, 0, &[0], Some("/home/alice"))),
        ("4000", ids(4000, 0, &[0], None)),
        ("4000:4001", ids(4000, 4001, &[4001], None)),
        ("2147483647:2147483647", ids(2147483647, 2147483647, &[2147483647], None)),
        ("bob", ids(1001, 100, &[100, 2000], Some("relative"))),
        ("daemon", ids(2, 2, &[2, 1], Some("/sbin"))),
        ("spaced", ids(77, 77, &[77], Some("/sp"))),
        ("nohome", ids(78, 78, &[78], None)),
    ] {
        assert_eq!(find(spec, &[]).unwrap(), expected, "{spec:?}");
    }
}

#[test]
fn what_is_no_user_is_refused_and_never_becomes_root() {
    for (spec, expected) in [
        ("nobody", "unable to find user nobody: no matching entries in passwd file"),
        ("broken", "unable to find user broken: no matching entries in passwd file"),
        ("huge", "unable to find user huge: no matching entries in passwd file"),
        ("minus", "unable to find user minus: no matching entries in passwd file"),
        ("alice:nogroup", "unable to find group nogroup: no matching entries in group file"),
        ("alice:broken", "unable to find group broken: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647: 2147483648 is not"),
        ("4294967296", "uids and gids must be in range 0-2147483647: 4294967296 is not"),
        (
            "99999999999999999999999999",
            "uids and gids must be in range 0-2147483647: 99999999999999999999999999 is not",
        ),
        ("0:4294967295", "uids and gids must be in range 0-2147483647: 4294967295 is not"),
        ("-1", "invalid user or group \"-1\": neither a plain number nor a name"),
        ("+0", "invalid user or group \"+0\": neither a plain number nor a name"),
        (" 0", "invalid user or group \" 0\": neither a plain number nor a name"),
        ("0 ", "invalid user or group \"0 \": neither a plain number nor a name"),
        ("0:-1", "invalid user or group \"-1\": neither a plain number nor a name"),
        ("a:b:c", "invalid user \"a:b:c\""),
        ("::", "invalid user \"::\""),
        ("a\nb", "invalid user \"a\\nb\""),
    ] {
        let e = find(spec, &[]).unwrap_err();
        assert_eq!(e.to_string(), expected, "{spec:?}");
        assert!(e.hint.is_some(), "{spec:?}");
        assert_eq!(check(spec).is_err(), !expected.starts_with("unable"), "{spec:?}");
    }
}

#[test]
fn group_add_takes_names_and_numbers() {
    assert_eq!(find("alice:0", &["docker", "12", "0", "docker"]).unwrap().groups, [0, 2000, 12]);
    assert_eq!(find("4000", &["users"]).unwrap().groups, [0, 100]);
    assert_eq!(
        find("alice", &["nope"]).unwrap_err().to_string(),
        "unable to find group nope: no matching entries in group file"
    );
    assert!(find("alice", &["2147483648"]).is_err());
}

#[test]
fn files_may_be_missing() {
    let none = || Ok(None::<&[u8]>);
    let look = |spec: &str| lookup(&Wish::parse(spec).unwrap(), &[], none, none);
    assert_eq!(look("").unwrap(), ids(0, 0, &[0], None));
    assert_eq!(look("5:6").unwrap(), ids(5, 6, &[6], None));
    assert!(look("alice").unwrap_err().to_string().ends_with("no matching entries in passwd file"));
    assert!(look("5:users").unwrap_err().to_string().ends_with("no matching entries in group file"));
}

#[test]
fn the_group_file_is_opened_only_when_it_can_matter() {
    let unread = || -> Result<Option<&[u8]>> { panic!("opened") };
    let passwd = || Ok(Some(PASSWD_FILE.as_bytes()));
    let found = lookup(&Wish::parse("1000:5").unwrap(), &["9".to_string()], passwd, unread).unwrap();
    assert_eq!(found.groups, [5, 9]);
}

/// A reader that hands out a few bytes at a time, then pretends to be endless.
struct Drip<'a>(&'a [u8], usize, bool);

impl Read for Drip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.0.is_empty() && self.2 {
            buf.fill(b'x');
            return Ok(buf.len());
        }
        let n = self.1.min(buf.len()).min(self.0.len());
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

#[test]
fn lines_are_found_across_reads_and_without_a_last_newline() {
    for step in [1, 3, 7, 4096] {
        let mut lines = Vec::new();
        let text = b"one\n\n  two \nthree";
        each_line("f", Drip(text, step, false), |l| {
            lines.push(String::from_utf8_lossy(l).into_owned());
            true
        })
        .unwrap();
        assert_eq!(lines, ["one", "", "two", "three"], "{step} bytes at a time");
    }
}

#[test]
fn giants_are_bounded() {
    let endless_line = each_line("/etc/group", Drip(b"", 1, true), |_| true).unwrap_err();
    assert_eq!(
        endless_line.to_string(),
        "the image's /etc/group cannot be used: one of its lines is longer than 4 MiB"
    );
    let lines = "a:x:1:\n".repeat(1 << 20);
    let endless_file = each_line("/etc/group", Endless(lines.as_bytes()), |_| true).unwrap_err();
    assert_eq!(endless_file.to_string(), "the image's /etc/group cannot be used: it is larger than 32 MiB");
    // But a match ends the reading.
    let mut seen = 0;
    each_line("/etc/group", Endless(lines.as_bytes()), |_| {
        seen += 1;
        seen < 10
    })
    .unwrap();
    assert_eq!(seen, 10);
    let crowd: String = (0..70_000).map(|n| format!("g{n}:x:{n}:alice\n")).collect();
    let wish = Wish::parse("alice").unwrap();
    let passwd = || Ok(Some(PASSWD_FILE.as_bytes()));
    let e = lookup(&wish, &[], passwd, || Ok(Some(crowd.as_bytes()))).unwrap_err();
    assert_eq!(e.to_string(), "the user is in more than 65536 groups");
}

struct Endless<'a>(&'a [u8]);

impl Read for Endless<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(self.0.len());
        buf[..n].copy_from_slice(&self.0[..n]);
        Ok(n)
    }
}

#[test]
fn an_oci_user_is_taken_as_it_is() {
    let user = User::Ids { uid: 3_000_000_000, gid: 5, additional_gids: vec![7, 7] };
    assert_eq!(resolve(&user).unwrap(), ids(3_000_000_000, 5, &[7, 7], None));
    let unchanged = User::Ids { uid: u32::MAX, gid: 0, additional_gids: vec![] };
    assert!(resolve(&unchanged).is_err());
}

#[test]
fn only_regular_files_are_read() {
    let dir = std::env::temp_dir().join(format!("rrun-user-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let fifo = dir.join("passwd");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let open = |p: &std::path::Path| super::open(p.to_str().unwrap());
    // Would hang for ever if opened for reading in the ordinary way.
    let e = open(&fifo).unwrap_err();
    assert!(e.to_string().ends_with("it is not a regular file"), "{e}");
    let link = dir.join("link");
    std::os::unix::fs::symlink("/proc/self/fd/0", &link).unwrap();
    assert!(open(&link).is_err(), "a magic link");
    assert!(open("/proc/self/status".as_ref()).unwrap_err().to_string().ends_with("it is not a regular file"));
    assert!(open("/dev/null".as_ref()).is_err());
    assert!(open(&dir).is_err());
    assert!(open(&dir.join("missing")).unwrap().is_none());
    assert!(open(&fifo.join("below")).unwrap().is_none());
    let good = dir.join("good");
    std::fs::write(&good, "root:x:0:0:::").unwrap();
    std::os::unix::fs::symlink("good", dir.join("alias")).unwrap();
    assert!(open(&dir.join("alias")).unwrap().is_some());
    let sparse = std::fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    assert!(open(&dir.join("sparse")).unwrap_err().to_string().ends_with("it is larger than 32 MiB"));
    std::fs::remove_dir_all(&dir).unwrap();
}
