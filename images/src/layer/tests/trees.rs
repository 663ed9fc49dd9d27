//! Removing trees.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn symlinks_are_removed_and_not_followed() {
    let s = Scratch::new();
    fs::create_dir_all(s.path("keep/sub")).unwrap();
    fs::write(s.path("keep/sub/file"), b"").unwrap();
    fs::create_dir_all(s.path("tree/a/b")).unwrap();
    symlink(s.path("keep"), s.path("tree/a/link")).unwrap();
    symlink("../../keep/sub", s.path("tree/a/b/link")).unwrap();
    remove_tree(&s.path("tree")).unwrap();
    assert!(!s.path("tree").exists() && s.path("keep/sub/file").exists());
    symlink(s.path("keep"), s.path("top")).unwrap();
    remove_tree(&s.path("top")).unwrap();
    assert!(s.path("keep/sub/file").exists() && fs::symlink_metadata(s.path("top")).is_err());
}

#[test]
fn what_is_not_there_is_fine_and_files_go_too() {
    let s = Scratch::new();
    remove_tree(&s.path("none")).unwrap();
    remove_tree(&s.path("none/at/all")).unwrap();
    fs::write(s.path("file"), b"").unwrap();
    remove_tree(&s.path("file")).unwrap();
    assert!(!s.path("file").exists());
    assert!(remove_tree(Path::new("/")).is_err());
    assert!(remove_tree(&s.path("a/..")).is_err());
}

#[test]
fn depth_is_no_limit() {
    let s = Scratch::new();
    fs::create_dir(s.path("tree")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut dir = rustix::fs::open(s.path("tree"), flags, Mode::empty()).unwrap();
    for level in 0..600 {
        rustix::fs::mkdirat(&dir, "dddd", Mode::from_raw_mode(0o755)).unwrap();
        if level % 100 == 0 {
            rustix::fs::mkdirat(&dir, ".removing-1", Mode::from_raw_mode(0o755)).unwrap();
        }
        dir = rustix::fs::openat(&dir, "dddd", flags, Mode::empty()).unwrap();
    }
    drop(dir);
    measure(&s.path("tree")).unwrap();
    remove_tree(&s.path("tree")).unwrap();
    assert!(!s.path("tree").exists());
}

#[test]
fn wide_directories_are_emptied() {
    let s = Scratch::new();
    fs::create_dir_all(s.path("tree/sub")).unwrap();
    for i in 0..1000 {
        fs::write(s.path(&format!("tree/sub/{i}-{}", "n".repeat(100))), b"x").unwrap();
    }
    assert_eq!(measure(&s.path("tree")).unwrap(), (1001, 1000));
    remove_tree(&s.path("tree")).unwrap();
    assert!(!s.path("tree").exists());
}
