use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::layer::Limits;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("rrun-snapshot-{}-{name}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        layer::remove_tree(&self.0).unwrap();
    }
}

/// A made-up digest; distinct in its first 16 digits.
fn id(n: u64) -> String {
    format!("sha256:{n:016x}{:048x}", 7)
}

fn wanted(n: u64) -> Wanted {
    Wanted { chain_id: id(n), diff_id: id(1000 + n) }
}

/// A tar of files with their modes, owned by the caller; a name ending in `/` is a directory.
fn tar(files: &[(&str, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(12345);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_size(0);
        builder.append_data(&mut header, name, &[][..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpack(dir: &Path, files: &[(&str, u32)]) -> Applied {
    layer::apply(&mut &tar(files)[..], dir, &Limits::default()).unwrap()
}

fn install(root: &Path, wanted: &[Wanted], files: &[&[(&str, u32)]]) {
    let slots = reserve(root, wanted, &mut |_| panic!("nobody else is here")).unwrap();
    for (slot, files) in slots.into_iter().zip(files) {
        if let Some(slot) = slot {
            let applied = unpack(slot.dir(), files);
            slot.commit(&applied).unwrap();
        }
    }
}

fn names(root: &Path) -> Vec<String> {
    let mut names = names_in(&layers_dir(root)).unwrap();
    names.sort();
    names
}

#[test]
fn a_layer_appears_whole_or_not_at_all() {
    let s = Scratch::new("whole");
    let root = &s.0;
    let mut slots = reserve(root, &[wanted(1), wanted(2)], &mut |_| {}).unwrap();
    let (two, one) = (slots.pop().unwrap().unwrap(), slots.pop().unwrap().unwrap());
    let applied = unpack(one.dir(), &[("a", 0o644)]);
    assert!(!exists(root, &id(1)) && list(root).unwrap().is_empty());
    let too_early = unpack(two.dir(), &[("b", 0o644)]);
    assert!(two.commit(&too_early).unwrap_err().message.contains("is not installed"));
    one.commit(&applied).unwrap();
    assert!(exists(root, &id(1)) && !exists(root, &id(2)));
    let hex = |n: u64| format!("{n:016x}");
    assert_eq!(names(root), [hex(1), hex(1) + ".json"], "no temporary directory, no lock");
    let record = record(root, &id(1)).unwrap().unwrap();
    assert_eq!((record.diff_id, record.parent, record.size), (id(1001), None, 0));
    assert_eq!(fs::metadata(layers_dir(root)).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn installed_layers_are_not_unpacked_again() {
    let s = Scratch::new("again");
    let one: &[(&str, u32)] = &[("./", 0o755), ("a", 0o644)];
    install(&s.0, &[wanted(1)], &[one]);
    let slots = reserve(&s.0, &[wanted(1), wanted(2)], &mut |_| {}).unwrap();
    assert!(slots[0].is_none() && slots[1].is_some());
}

#[test]
fn two_installers_of_one_layer_take_turns() {
    let s = Scratch::new("turns");
    let root = s.0.clone();
    let slot = reserve(&root, &[wanted(1)], &mut |_| {}).unwrap().pop().unwrap().unwrap();
    let (heard, hears) = mpsc::channel();
    let other = {
        let root = root.clone();
        thread::spawn(move || {
            reserve(&root, &[wanted(1)], &mut |chain| heard.send(chain.to_owned()).unwrap()).unwrap().pop().unwrap()
        })
    };
    assert_eq!(hears.recv_timeout(Duration::from_secs(60)).unwrap(), id(1));
    let applied = unpack(slot.dir(), &[("a", 0o644)]);
    slot.commit(&applied).unwrap();
    assert!(other.join().unwrap().is_none(), "the one that waited finds it installed");

    // When the first gives up, the second takes over.
    let slot = reserve(&root, &[wanted(2)], &mut |_| {}).unwrap().pop().unwrap().unwrap();
    let (heard, hears) = mpsc::channel();
    let other = {
        let root = root.clone();
        thread::spawn(move || {
            let slot = reserve(&root, &[wanted(2)], &mut |_| heard.send(()).unwrap()).unwrap().pop().unwrap().unwrap();
            assert!(slot.dir().read_dir().unwrap().next().is_none(), "starts from nothing");
            let applied = unpack(slot.dir(), &[("b", 0o644)]);
            slot.commit(&applied).unwrap();
        })
    };
    hears.recv_timeout(Duration::from_secs(60)).unwrap();
    unpack(slot.dir(), &[("half", 0o644)]);
    drop(slot);
    other.join().unwrap();
    let dir = layers_dir(&root).join(dir_name(&id(2)));
    assert!(dir.join("b").exists() && !dir.join("half").exists());
}

#[test]
fn many_installers_make_one_layer() {
    let s = Scratch::new("many");
    let unpacked = std::sync::atomic::AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for slot in
                    reserve(&s.0, &[wanted(1), wanted(2), wanted(3)], &mut |_| {}).unwrap().into_iter().flatten()
                {
                    unpacked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let applied = unpack(slot.dir(), &[("a", 0o644)]);
                    slot.commit(&applied).unwrap();
                }
            });
        }
    });
    assert_eq!(unpacked.into_inner(), 3);
    assert_eq!(names(&s.0).len(), 6);
}

#[test]
fn what_the_dead_left_is_swept_and_the_living_are_left_alone() {
    let s = Scratch::new("sweep");
    let layers = layers_dir(&s.0);
    install(&s.0, &[wanted(1)], &[&[("a", 0o644)]]);
    let living = reserve(&s.0, &[wanted(2)], &mut |_| {}).unwrap().pop().unwrap().unwrap();
    for (name, is_dir) in [
        (".tmp-00000000000000aa", true),
        (".lock-00000000000000aa", false),
        ("00000000000000bb", true),
        (".tmp-00000000000000cc.json", false),
    ] {
        if is_dir {
            fs::create_dir_all(layers.join(name).join("sub")).unwrap();
        } else {
            fs::write(layers.join(name), b"").unwrap();
        }
    }
    fs::write(layers.join("a user's note"), b"").unwrap();
    sweep(&s.0).unwrap();
    assert!(living.dir().exists());
    drop(living);
    let one = format!("{:016x}", 1);
    assert_eq!(names(&s.0), [one.clone(), one + ".json", "a user's note".into()]);
}

#[test]
fn layers_nobody_keeps_are_removed() {
    let s = Scratch::new("retain");
    install(&s.0, &[wanted(1), wanted(2), wanted(3)], &[&[("a", 0o644)], &[("b", 0o644)], &[("c", 0o644)]]);
    let mut removed = retain(&s.0, &|chain| chain == id(1)).unwrap();
    removed.sort();
    assert_eq!(removed, [id(2), id(3)]);
    assert_eq!(names(&s.0).len(), 2);
    assert!(!remove(&s.0, &id(2)).unwrap());
    assert!(remove(&s.0, &id(1)).unwrap());
    assert!(names(&s.0).is_empty());
}

#[test]
fn records_are_checked() {
    let s = Scratch::new("records");
    install(&s.0, &[wanted(1)], &[&[("a", 0o644)]]);
    let alike = format!("sha256:{:016x}{:048x}", 1, 8);
    assert!(!exists(&s.0, &alike));
    let error = reserve(&s.0, &[Wanted { chain_id: alike, diff_id: id(5) }], &mut |_| {}).unwrap_err();
    assert_eq!(error.kind, Kind::Conflict);

    let path = record_path(&layers_dir(&s.0), &id(1));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"version\":1", "\"version\":1,\"colour\":\"blue\"")).unwrap();
    write_record(&layers_dir(&s.0), &record(&s.0, &id(1)).unwrap().unwrap()).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("\"colour\":\"blue\""), "unknown fields survive");
    fs::write(&path, r#"{"version":2}"#).unwrap();
    assert!(record(&s.0, &id(1)).unwrap_err().to_string().contains("newer rrun"));
    fs::write(&path, "{").unwrap();
    assert!(record(&s.0, &id(1)).unwrap_err().hint.is_some());
    assert!(list(&s.0).unwrap().is_empty());
    for bad in ["", "sha256:../../../../x", "sha256:zz"] {
        assert!(reserve(&s.0, &[Wanted { chain_id: bad.into(), diff_id: bad.into() }], &mut |_| {}).is_err());
        assert!(!remove(&s.0, bad).unwrap());
    }
}

#[test]
fn after_a_boot_layers_are_counted_through() {
    let s = Scratch::new("boot");
    let files: &[(&str, u32)] = &[("a", 0o644), ("b", 0o644)];
    install(&s.0, &[wanted(1)], &[files]);
    let path = record_path(&layers_dir(&s.0), &id(1));
    let earlier = |path: &Path| {
        let text = fs::read_to_string(path).unwrap().replace(&boot_id().unwrap(), "an earlier boot");
        fs::write(path, text).unwrap();
    };
    earlier(&path);
    assert!(reserve(&s.0, &[wanted(1)], &mut |_| {}).unwrap()[0].is_none());
    assert!(fs::read_to_string(&path).unwrap().contains(&boot_id().unwrap()));
    earlier(&path);
    fs::remove_file(layers_dir(&s.0).join(dir_name(&id(1))).join("b")).unwrap();
    install(&s.0, &[wanted(1)], &[files]);
    assert!(layers_dir(&s.0).join(dir_name(&id(1))).join("b").exists(), "unpacked anew");
}

#[test]
fn unmentioned_directories_take_after_those_below() {
    let s = Scratch::new("implied");
    let lowest: &[(&str, u32)] = &[("./", 0o711), ("tmp/", 0o1777), ("var/", 0o750), ("var/sub/", 0o700)];
    install(
        &s.0,
        &[wanted(1), wanted(2), wanted(3)],
        &[lowest, &[("var/x", 0o644)], &[("tmp/x", 0o644), ("var/sub/new/y", 0o644)]],
    );
    let at = |n: u64, path: &str| fs::metadata(layers_dir(&s.0).join(dir_name(&id(n))).join(path)).unwrap();
    for (layer, path, mode) in [
        (2, "var", 0o750),
        (3, "tmp", 0o1777),
        (3, "var", 0o750),
        (3, "var/sub", 0o700),
        (3, "var/sub/new", 0o755),
        (3, "", 0o711),
        (2, "", 0o711),
    ] {
        assert_eq!(at(layer, path).mode() & 0o7777, mode, "{layer} {path}");
    }
    assert_eq!(at(3, "tmp").mtime(), 12345);
}

#[test]
fn an_import_learns_its_digest_last() {
    let s = Scratch::new("import");
    for _ in 0..2 {
        let staged = stage(&s.0).unwrap();
        let applied = unpack(staged.dir(), &[("a", 0o644)]);
        staged.commit(&id(9), &applied).unwrap();
    }
    let dropped = stage(&s.0).unwrap();
    unpack(dropped.dir(), &[("a", 0o644)]);
    drop(dropped);
    assert_eq!(names(&s.0).len(), 2);
    assert_eq!(record(&s.0, &id(9)).unwrap().unwrap().diff_id, id(9));
}

#[test]
fn the_lower_list_is_topmost_first_and_ends_at_an_opaque_root() {
    let s = Scratch::new("lower");
    let chains: Vec<String> = (1..=3).map(id).collect();
    install(&s.0, &[wanted(1), wanted(2), wanted(3)], &[&[], &[], &[]]);
    let lower_of = || lower(&s.0, &chains).1.iter().map(|p| p.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(lower_of(), [dir_name(&id(3)), dir_name(&id(2)), dir_name(&id(1))]);
    if rustix::process::geteuid().is_root() {
        let two = layers_dir(&s.0).join(dir_name(&id(2)));
        layer::apply(&mut &tar(&[(".wh..wh..opq", 0o644)])[..], &two, &Limits::default()).unwrap();
        assert_eq!(lower_of(), [dir_name(&id(3)), dir_name(&id(2))]);
    }
}

/// A mount has one page for its options: 127 layers, Docker's most, must fit.
#[test]
fn images_of_127_layers_can_be_mounted() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let s = Scratch::new("127");
    let all: Vec<Wanted> = (1..=127).map(wanted).collect();
    let slots = reserve(&s.0, &all, &mut |_| {}).unwrap();
    for (i, slot) in slots.into_iter().flatten().enumerate() {
        let applied = unpack(slot.dir(), &[(&format!("file{i}"), 0o644)]);
        slot.commit(&applied).unwrap();
    }
    let chains: Vec<String> = (1..=127).map(id).collect();
    let (base, layers) = lower(&s.0, &chains);
    let list = layers.iter().map(|p| p.to_str().unwrap()).collect::<Vec<_>>().join(":");
    for dir in ["upper", "work", "merged"] {
        fs::create_dir(s.0.join(dir)).unwrap();
    }
    let script = format!(
        "mount -t overlay o -o lowerdir={list},upperdir=../upper,workdir=../work ../merged && ls ../merged | wc -l"
    );
    let out = Command::new("unshare").args(["-m", "sh", "-ec", &script]).current_dir(base).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "127", "{}", String::from_utf8_lossy(&out.stderr));
}
