//! Names, IDs and removal, on images made by import.

use super::*;
use crate::archive::{ImportOptions, import};
use crate::testing::{Scratch, tar_of};

fn make(scratch: &Scratch, name: &str) -> Image {
    let tar = tar_of(&[("name", name.as_bytes())]);
    let reference = (!name.is_empty()).then(|| Reference::parse(name).unwrap());
    import(&scratch.store, tar.as_slice(), &ImportOptions { reference, ..Default::default() }).unwrap()
}

fn remove(scratch: &Scratch, name: &str, force: bool, user: Option<&str>) -> Result<Vec<String>> {
    let removed = scratch.store.remove(name, force, &|_| user.map(str::to_owned))?;
    Ok(removed.iter().map(|r| r.to_string()).collect())
}

fn tag(scratch: &Scratch, image: &Image, name: &str) {
    scratch.store.tag(image, &Reference::parse(name).unwrap()).unwrap();
}

#[test]
fn names_and_ids() {
    let scratch = Scratch::new();
    assert!(scratch.store.find("x").unwrap().is_none());
    let image = make(&scratch, "x");
    let hex = &image.id[7..];
    for name in ["x", "x:latest", "docker.io/library/x", &image.id, hex, &hex[..12], &hex[..4]] {
        assert_eq!(scratch.store.find(name).unwrap().unwrap().id, image.id, "{name}");
    }
    assert!(scratch.store.find("y").unwrap().is_none());
    assert!(scratch.store.find(&hex[..3]).unwrap().is_none());
    assert!(scratch.store.find("X").is_err());
    // Two images whose IDs begin alike: only their records matter.
    let twin = format!("{}{}", &hex[..8], if hex.ends_with("00") { "1" } else { "0" }.repeat(56));
    let records = scratch.store.root.join("refs/images");
    std::fs::copy(records.join(format!("{hex}.json")), records.join(format!("{twin}.json"))).unwrap();
    let e = scratch.store.find(&hex[..8]).unwrap_err();
    assert_eq!(e.message, format!("multiple IDs found with provided prefix: {}", &hex[..8]));
    assert_eq!(scratch.store.find(&hex[..12]).map(|i| i.unwrap().id).unwrap(), image.id);
    // The twin's configuration is missing: it is listed all the same.
    assert_eq!(scratch.store.images().unwrap().len(), 2);
}

#[test]
fn the_last_name_takes_the_image_along() {
    let scratch = Scratch::new();
    let image = make(&scratch, "x");
    tag(&scratch, &image, "reg.example/y:2");
    assert_eq!(scratch.store.find("x").unwrap().unwrap().repo_tags, ["x:latest", "reg.example/y:2"]);
    assert_eq!(remove(&scratch, "x", false, None).unwrap(), ["Untagged: x:latest"]);
    let lines = remove(&scratch, "reg.example/y:2", false, None).unwrap();
    assert_eq!(
        lines,
        [
            "Untagged: reg.example/y:2".to_owned(),
            format!("Deleted: {}", image.id),
            format!("Deleted: {}", image.chain_ids[0])
        ]
    );
    let e = remove(&scratch, "x", false, None).unwrap_err();
    assert_eq!((e.message.as_str(), e.kind), ("No such image: x:latest", plan::Kind::NotFound));
}

#[test]
fn dockers_conflicts() {
    let scratch = Scratch::new();
    let image = make(&scratch, "x");
    let id = image.id[7..19].to_owned();
    let container = "c0ffee".repeat(10);
    let user = Some(container.as_str());
    let e = remove(&scratch, "x", false, user).unwrap_err();
    assert_eq!(
        e.message,
        format!(
            "conflict: unable to remove repository reference \"x\" (must force) - container c0ffeec0ffee is using its referenced image {id}"
        )
    );
    let e = remove(&scratch, &id, false, user).unwrap_err();
    assert!(
        e.message.starts_with(&format!("conflict: unable to delete {id} (must be forced) - image is being used by")),
        "{e}"
    );
    tag(&scratch, &image, "y");
    let e = remove(&scratch, &id, false, None).unwrap_err();
    assert_eq!(
        e.message,
        format!("conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories")
    );
    // One of two names may go although a container runs.
    assert_eq!(remove(&scratch, "y", false, user).unwrap(), ["Untagged: y:latest"]);
    // By force the last one too; the container keeps its layers.
    assert_eq!(remove(&scratch, "x", true, user).unwrap(), ["Untagged: x:latest"]);
    let (base, lower) = scratch.store.lower(&image);
    assert!(base.join(&lower[0]).join("name").exists());
    let e = remove(&scratch, &id, true, user).unwrap_err();
    assert!(e.message.contains("(cannot be forced)"), "{e}");
    assert_eq!(remove(&scratch, &id, false, None).unwrap().len(), 2);
    assert!(!base.join(&lower[0]).exists());
}

#[test]
fn a_digest_goes_with_the_last_tag_of_its_repository() {
    let scratch = Scratch::new();
    let image = make(&scratch, "x");
    let id = Digest::parse(&image.id).unwrap();
    let mut names = Names::load(&scratch.store.root).unwrap();
    let digest = Digest::of(b"manifest");
    names.insert(format!("docker.io/library/x@{digest}"), id.clone());
    names.insert("docker.io/library/y:1".to_owned(), id);
    names.save(&scratch.store.root).unwrap();
    assert_eq!(
        remove(&scratch, "x", false, None).unwrap(),
        ["Untagged: x:latest".to_owned(), format!("Untagged: x@{digest}")]
    );
    assert_eq!(scratch.store.find("y:1").unwrap().unwrap().repo_digests.len(), 0);
}

#[test]
fn files_of_another_time_are_left_alone() {
    let scratch = Scratch::new();
    let image = make(&scratch, "x");
    let path = scratch.store.root.join("refs/names.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen('{', "{\"future\": [1],", 1)).unwrap();
    tag(&scratch, &image, "y");
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"future\""));
    std::fs::write(&path, "{\"version\": 2, \"names\": []}").unwrap();
    let e = scratch.store.tag(&image, &Reference::parse("z").unwrap()).unwrap_err();
    assert!(e.message.contains("newer rrun"), "{e}");
    std::fs::write(&path, "").unwrap();
    assert!(scratch.store.find("x").unwrap_err().message.contains("is damaged"));
}

#[test]
fn garbage_is_collected_but_not_under_a_pull() {
    let scratch = Scratch::new();
    let image = make(&scratch, "x");
    let store = &scratch.store;
    let stray = store.root.join("blobs/sha256").join("0".repeat(64));
    let left = store.root.join("tmp/blob-1-1");
    std::fs::write(&stray, "x").unwrap();
    std::fs::write(&left, "x").unwrap();
    let hold = store.hold().unwrap();
    assert!(store.collect().unwrap().is_empty());
    assert!(stray.exists());
    drop(hold);
    drop(store.hold_swept().unwrap());
    assert!(stray.exists() && !left.exists());
    store.collect().unwrap();
    assert!(!stray.exists());
    assert_eq!(store.find("x").unwrap().unwrap().id, image.id);
}

#[test]
fn concurrent_writers_lose_no_name() {
    let scratch = Scratch::new();
    let image = make(&scratch, "x");
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (scratch, image) = (&scratch, &image);
            scope.spawn(move || (0..5).for_each(|j| tag(scratch, image, &format!("n{i}:{j}"))));
        }
    });
    assert_eq!(scratch.store.find("x").unwrap().unwrap().repo_tags.len(), 41);
}
