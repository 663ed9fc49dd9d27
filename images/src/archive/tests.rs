//! Archives made by hand, sound and hostile.

use super::*;
use crate::manifest::OCI_MANIFEST;
use crate::progress::Silent;
use crate::testing::{Scratch, gzip, header, image, tar_of};
use std::path::Path;
use tar::{Builder, EntryType};

fn layers() -> Vec<Vec<u8>> {
    vec![tar_of(&[("a", &[7; 5000])]), tar_of(&[]), tar_of(&[("b", b"bee")]), tar_of(&[])]
}

/// An archive in the making.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Archive {
        Archive(Builder::new(Vec::new()))
    }

    fn file(mut self, name: &str, data: &[u8]) -> Archive {
        let mut header = header(data.len() as u64);
        // The name as it is: the builder would refuse what a hostile archive may say.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    fn link(mut self, name: &str, kind: EntryType, target: &str) -> Archive {
        let mut header = header(0);
        header.set_entry_type(kind);
        self.0.append_link(&mut header, name, target).unwrap();
        self
    }

    fn load(self, scratch: &Scratch) -> Result<Vec<Loaded>> {
        load_bytes(scratch, &self.0.into_inner().unwrap())
    }
}

fn load_bytes(scratch: &Scratch, bytes: &[u8]) -> Result<Vec<Loaded>> {
    let path = scratch.dir.join("archive");
    std::fs::write(&path, bytes).unwrap();
    load(&scratch.store, Input::Path(path), &Silent)
}

fn manifest_json(config: &str, tags: &[&str], layers: &[&str]) -> Vec<u8> {
    serde_json::json!([{"Config": config, "RepoTags": tags, "Layers": layers}]).to_string().into_bytes()
}

/// As docker wrote until v24: duplicate layers are links, here both kinds.
fn docker_archive(tag: &str) -> Vec<u8> {
    let l = layers();
    let (config, _) = image(&l, &l);
    let names = ["one/layer.tar", "two/layer.tar", "./three/layer.tar", "four/layer.tar"];
    Archive::new()
        .file("one/layer.tar", &l[0])
        .file("two/layer.tar", &l[1])
        .file("three/layer.tar", &gzip(&l[2]))
        .link("four/layer.tar", EntryType::Symlink, "../five/layer.tar")
        .link("five/layer.tar", EntryType::Link, "two/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", &manifest_json("c.json", &[tag], &names))
        .0
        .into_inner()
        .unwrap()
}

fn check(scratch: &Scratch, name: &str) {
    let image = scratch.store.find(name).unwrap().unwrap();
    let (base, lower) = scratch.store.lower(&image);
    assert_eq!(lower.len(), 4);
    assert_eq!(std::fs::read(base.join(&lower[1]).join("b")).unwrap(), b"bee");
    assert_eq!(std::fs::read(base.join(&lower[3]).join("a")).unwrap().len(), 5000);
    assert_eq!(scratch.store.manifest_json(&image).unwrap()["layers"].as_array().unwrap().len(), 4);
    assert_eq!(scratch.store.config_json(&image).unwrap()["config"]["Cmd"][0], "/a");
}

#[test]
fn a_docker_archive_in_every_wrapping() {
    let plain = docker_archive("x:1");
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for bytes in [&plain, &gzip(&plain), &zstd] {
        let scratch = Scratch::new();
        assert_eq!(load_bytes(&scratch, bytes).unwrap(), [Loaded::Tagged("x:1".into())]);
        check(&scratch, "x:1");
    }
}

#[test]
fn a_name_that_moves_is_told() {
    let scratch = Scratch::new();
    load_bytes(&scratch, &docker_archive("x:1")).unwrap();
    let old_id = scratch.store.find("x:1").unwrap().unwrap().id;
    let l = vec![layers().remove(0)];
    let (config, _) = image(&l, &l);
    let loaded = Archive::new()
        .file("l", &l[0])
        .file("c", &config)
        .file("manifest.json", &manifest_json("c", &["x:1"], &["l"]))
        .load(&scratch)
        .unwrap();
    assert_eq!(loaded, [Loaded::Renamed { name: "x:1".into(), old_id: old_id.clone() }, Loaded::Tagged("x:1".into())]);
    assert!(scratch.store.find(&old_id).unwrap().unwrap().repo_tags.is_empty());
    // The lowest layer is shared: removing the old image leaves it.
    scratch.store.remove(&old_id, false, &|_| None).unwrap();
    let image = scratch.store.find("x:1").unwrap().unwrap();
    let (base, lower) = scratch.store.lower(&image);
    assert!(base.join(&lower[0]).join("a").exists());
}

/// An OCI layout, with the annotations of its index entry.
fn oci(dir: &Path, annotations: serde_json::Value) {
    let l = layers();
    let blobs: Vec<Vec<u8>> = l.iter().map(|l| zstd::encode_all(l.as_slice(), 1).unwrap()).collect();
    let (config, manifest) = image(&blobs, &l);
    let at = dir.join("blobs/sha256");
    std::fs::create_dir_all(&at).unwrap();
    for blob in blobs.iter().chain([&config, &manifest]) {
        std::fs::write(at.join(Digest::of(blob).hex()), blob).unwrap();
    }
    let entry = serde_json::json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(&manifest), "size": manifest.len(),
        "annotations": annotations});
    let foreign = serde_json::json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(b""), "size": 0,
        "platform": {"os": "unknown", "architecture": "unknown"}});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [foreign, entry]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn an_oci_layout_as_directory_and_archive() {
    for (annotations, names) in [
        (serde_json::json!({"org.opencontainers.image.ref.name": "a/b:c"}), vec!["a/b:c"]),
        (
            serde_json::json!({"io.containerd.image.name": "docker.io/library/x:1", "org.opencontainers.image.ref.name": "1"}),
            vec!["x:1"],
        ),
        (serde_json::json!({"org.opencontainers.image.ref.name": "latest"}), vec![]),
        (serde_json::json!({}), vec![]),
    ] {
        let scratch = Scratch::new();
        let dir = scratch.dir.join("layout");
        oci(&dir, annotations);
        let loaded = load(&scratch.store, Input::Path(dir.clone()), &Silent).unwrap();
        let id = scratch.store.images().unwrap()[0].id.clone();
        let want: Vec<Loaded> = match names.as_slice() {
            [] => vec![Loaded::Untagged(id.clone())],
            names => names.iter().map(|n| Loaded::Tagged(n.to_string())).collect(),
        };
        assert_eq!(loaded, want);
        check(&scratch, &id);

        let mut builder = Builder::new(Vec::new());
        builder.append_dir_all(".", &dir).unwrap();
        let again = Scratch::new();
        assert_eq!(load_bytes(&again, &builder.into_inner().unwrap()).unwrap(), want);
        check(&again, &id);
    }
}

#[test]
fn hostile_archives_leave_nothing() {
    let l = vec![layers().remove(0)];
    let (config, _) = image(&l, &l);
    let with = |layer: &str, tag: &str| {
        Archive::new().file("c", &config).file("l", &l[0]).file("manifest.json", &manifest_json("c", &[tag], &[layer]))
    };
    let other = tar_of(&[("a", b"other")]);
    let mut cut = docker_archive("x:1");
    cut.truncate(6000);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (with("../../l", "x:1").0.into_inner().unwrap(), "outside of itself"),
        (with("nope", "x:1").0.into_inner().unwrap(), "is missing"),
        (with("l", "X:1").0.into_inner().unwrap(), "must be lowercase"),
        (with("l", &format!("x@{}", Digest::of(b""))).0.into_inner().unwrap(), "by digest"),
        (
            with("s", "x:1").link("s", EntryType::Symlink, "../../../etc/passwd").0.into_inner().unwrap(),
            "link to the outside",
        ),
        (with("s", "x:1").link("s", EntryType::Symlink, "s").0.into_inner().unwrap(), "link to itself"),
        (with("l2", "x:1").file("l2", &other).0.into_inner().unwrap(), "does not match the digest"),
        (
            Archive::new()
                .file("c", &config)
                .file("l", &gzip(&other))
                .file("manifest.json", &manifest_json("c", &[], &["l"]))
                .0
                .into_inner()
                .unwrap(),
            "does not match the diff ID",
        ),
        (
            Archive::new()
                .file("c", &config)
                .file("manifest.json", &manifest_json("c", &[], &[]))
                .0
                .into_inner()
                .unwrap(),
            "expected 1, got 0",
        ),
        (Archive::new().file("manifest.json", b"[]").0.into_inner().unwrap(), "no images"),
        (Archive::new().file("manifest.json", b"{").0.into_inner().unwrap(), "manifest.json in the archive is invalid"),
        (Archive::new().file("../manifest.json", b"[]").0.into_inner().unwrap(), "not an image archive"),
        (cut, "cut short"),
        (b"hello".repeat(500), "not a tar archive"),
        (gzip(b"hello")[..12].to_vec(), "damaged"),
        (b"\xfd7zXZ\0".to_vec(), "gzip or zstd"),
        (Vec::new(), "not an image archive"),
    ];
    for (bytes, words) in cases {
        let scratch = Scratch::new();
        let e = load_bytes(&scratch, &bytes).expect_err(words).to_string();
        assert!(e.contains(words) && !e.contains('\n'), "{words}: {e}");
        assert!(scratch.store.images().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(scratch.store.root().join("tmp")).unwrap().count(), 1, "{words}");
    }
}

#[test]
fn a_fifo_in_a_directory_does_not_hang() {
    let scratch = Scratch::new();
    let dir = scratch.dir.join("layout");
    std::fs::create_dir(&dir).unwrap();
    let fifo = dir.join("index.json");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let e = load(&scratch.store, Input::Path(dir), &Silent).unwrap_err();
    assert!(e.message.contains("is not a file"), "{e}");
}

#[test]
fn an_import_and_its_changes() {
    let scratch = Scratch::new();
    let tar = tar_of(&[("bin/sh", b"#!")]);
    let options = ImportOptions {
        reference: Some(Reference::parse("root:fs").unwrap()),
        message: Some("by hand".into()),
        changes: vec!["CMD [\"/bin/sh\"]".into(), "ENV A=b".into()],
        platform: Some("linux/arm64".into()),
    };
    let image = import(&scratch.store, gzip(&tar).as_slice(), &options).unwrap();
    assert_eq!(image.repo_tags, ["root:fs"]);
    assert_eq!(image.diff_ids, [Digest::of(&tar).to_string()]);
    assert_eq!((image.comment.as_str(), image.architecture.as_str()), ("by hand", "arm64"));
    assert_eq!(image.config.cmd, Some(vec!["/bin/sh".to_owned()]));
    let layer = &scratch.store.manifest_json(&image).unwrap()["layers"][0];
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    assert_eq!(layer["digest"], Digest::of(&gzip(&tar)).as_str());
    // Removal leaves nothing of it.
    let removed = scratch.store.remove("root:fs", false, &|_| None).unwrap();
    assert_eq!(removed.len(), 3);
    assert_eq!(std::fs::read_dir(scratch.store.root().join("blobs/sha256")).unwrap().count(), 0);

    for (input, words) in [(&b""[..], "empty"), (b"hello", ""), (&gzip(&tar)[..40], "damaged")] {
        let e = import(&scratch.store, input, &ImportOptions::default()).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
    }
    assert!(scratch.store.images().unwrap().is_empty());
}

#[test]
fn what_is_saved_loads_again_byte_for_byte() {
    let (from, to) = (Scratch::new(), Scratch::new());
    let rootfs = tar_of(&[("etc/passwd", b"root"), ("bin/x", &[1; 100_000])]);
    let options = |name: &str, message: &str| ImportOptions {
        reference: Some(Reference::parse(name).unwrap()),
        message: Some(message.to_owned()),
        changes: Vec::new(),
        platform: None,
    };
    let one = import(&from.store, &rootfs[..], &options("a/b:1", "one")).unwrap();
    let two = import(&from.store, &gzip(&tar_of(&[("c", b"see")]))[..], &options("c", "two")).unwrap();
    from.store.tag(&one, &Reference::parse("a/b:2").unwrap()).unwrap();
    for (format, names) in [(Format::Docker, vec!["a/b", "c:latest"]), (Format::Oci, vec!["a/b:2", &two.id])] {
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let mut archive = Vec::new();
        save(&from.store, &names, format, &mut archive).unwrap();
        let path = to.dir.join("archive.tar");
        std::fs::write(&path, &archive).unwrap();
        load(&to.store, Input::Path(path), &Silent).unwrap();
        assert_eq!(to.store.find("a/b:2").unwrap().unwrap().id, one.id);
        assert_eq!(to.store.find(&two.id).unwrap().unwrap().id, two.id);
        assert_eq!(to.store.find("a/b:1").unwrap().is_some(), format == Format::Docker);
        // Saved from there, it is the same archive.
        let mut again = Vec::new();
        save(&to.store, &names, format, &mut again).unwrap();
        assert!(again == archive);
        for name in ["a/b:2", "a/b:1", &two.id] {
            let _ = to.store.remove(name, true, &|_| None);
        }
        assert!(to.store.images().unwrap().is_empty());
    }
    let e = save(&from.store, &["nope".to_owned()], Format::Docker, &mut Vec::new()).unwrap_err();
    assert_eq!(e.message, "No such image: nope:latest");
}

/// The second image's layer was here, otherwise compressed; the first goes, and the second can still be
/// saved.
#[test]
fn a_shared_layer_keeps_an_archive() {
    let scratch = Scratch::new();
    let rootfs = tar_of(&[("f", b"x")]);
    let options = |name: &str| ImportOptions {
        reference: Some(Reference::parse(name).unwrap()),
        message: Some(name.to_owned()),
        changes: Vec::new(),
        platform: None,
    };
    import(&scratch.store, &rootfs[..], &options("one")).unwrap();
    let mut archive = Vec::new();
    save(&scratch.store, &["one".to_owned()], Format::Oci, &mut archive).unwrap();
    let blobs = vec![gzip(&rootfs)];
    let (config, manifest) = image(&blobs, &[rootfs]);
    let path = scratch.dir.join("oci");
    let blob_dir = path.join("blobs/sha256");
    std::fs::create_dir_all(&blob_dir).unwrap();
    for bytes in [&config, &manifest, &blobs[0]] {
        std::fs::write(blob_dir.join(Digest::of(bytes).hex()), bytes).unwrap();
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{"mediaType": crate::manifest::OCI_MANIFEST,
        "digest": Digest::of(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "two:latest"}}]});
    std::fs::write(path.join("index.json"), index.to_string()).unwrap();
    std::fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    load(&scratch.store, Input::Path(path), &Silent).unwrap();
    scratch.store.remove("one", false, &|_| None).unwrap();
    let mut archive = Vec::new();
    save(&scratch.store, &["two".to_owned()], Format::Docker, &mut archive).unwrap();
    let other = Scratch::new();
    let file = other.dir.join("a.tar");
    std::fs::write(&file, archive).unwrap();
    load(&other.store, Input::Path(file), &Silent).unwrap();
    assert_eq!(other.store.find("two").unwrap().unwrap().id, Digest::of(&config).to_string());
}
