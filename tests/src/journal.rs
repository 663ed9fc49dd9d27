//! A journal of the test's own: it listens where systemd's would, takes entries in its native protocol, and
//! a `journalctl` of its own shows them.

use crate::Host;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Fields by name.
pub type Entry = BTreeMap<String, Vec<u8>>;

pub struct Journal {
    pub entries: Arc<Mutex<Vec<Entry>>>,
    /// How many came as a sealed file rather than as a datagram.
    pub files: Arc<Mutex<usize>>,
    over: Arc<AtomicBool>,
    reader: Option<std::thread::JoinHandle<()>>,
    socket: Option<UnixDatagram>,
    lines: PathBuf,
}

/// Prints what is in the file beside it as far as a real one would: a place in the journal is the number of its line.
const JOURNALCTL: &str = r#"#!/bin/sh
n=0 lines=all follow= id= file=${0%/*}/entries
for a; do case $a in
  --after-cursor=*) n=${a#*=} ;; --lines=*) lines=${a#*=} ;; --follow) follow=1 ;; --sync) exit 0 ;;
  CONTAINER_ID_FULL=*) id=${a#*=} ;; --all|--output=json|--no-pager|--quiet|--since=*) ;;
  *) echo "unknown option $a" >&2; exit 1 ;;
esac; done
[ "$follow" ] && echo $$ >> ${0%/*}/followers
show() {
  while :; do
    total=$(wc -l < $file)
    [ $total -gt $n ] && sed -n "$((n + 1)),${total}p" $file | grep "$id"
    n=$total
    [ "$follow" ] || break
    sleep 0.05
  done
}
if [ "$follow" ] || [ $lines = all ]; then show; else show | tail -n $lines; fi
"#;

impl Journal {
    /// Where [`JOURNALCTL`] is.
    pub fn bin(host: &Host) -> String {
        format!("{}/journal", host.dir.display())
    }

    /// Binds the socket; nobody reads from it before [`Journal::listen`].
    pub fn bind(host: &Host) -> Journal {
        host.sh("mount -t tmpfs run /run; mkdir -p /run/systemd/journal");
        let socket = UnixDatagram::bind(host.outside("/run/systemd/journal/socket")).expect("the journal's socket");
        let bin = host.outside(Journal::bin(host));
        std::fs::create_dir(&bin).expect("a directory");
        std::fs::write(bin.join("journalctl"), JOURNALCTL).expect("journalctl");
        std::fs::set_permissions(bin.join("journalctl"), PermissionsExt::from_mode(0o755)).expect("chmod");
        let lines = bin.join("entries");
        File::create(&lines).expect("entries");
        File::create(bin.join("followers")).expect("followers");
        let (entries, files, over) = Default::default();
        Journal { entries, files, over, reader: None, socket: Some(socket), lines }
    }

    pub fn listen(&mut self) {
        let socket = self.socket.take().expect("listens once");
        let (entries, files, over) = (self.entries.clone(), self.files.clone(), self.over.clone());
        let mut out = std::fs::OpenOptions::new().append(true).open(&self.lines).expect("entries");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        self.reader = Some(std::thread::spawn(move || {
            let mut buffer = vec![0u8; 1 << 20];
            while !over.load(Ordering::SeqCst) {
                let Some((bytes, is_file)) = receive(&socket, &mut buffer) else { continue };
                let entry = parse(&bytes);
                let mut all = entries.lock().expect("entries");
                writeln!(out, "{}", shown(&entry, all.len() + 1)).expect("entries");
                *files.lock().expect("files") += usize::from(is_file);
                all.push(entry);
            }
        }));
    }

    /// What there is of one container's messages, as text.
    pub fn messages(&self, id: &str) -> Vec<String> {
        let entries = self.entries.lock().expect("entries");
        let own = entries.iter().filter(|e| e.get("CONTAINER_ID_FULL").is_some_and(|v| v == id.as_bytes()));
        own.map(|e| String::from_utf8_lossy(&e["MESSAGE"]).into_owned()).collect()
    }

    pub fn end(mut self, host: &Host) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the journal's thread");
        }
        host.sh("umount /run");
    }
}

/// A datagram, or the contents of the file that came in its place.
fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> Option<(Vec<u8>, bool)> {
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut iov = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC).ok()?;
    let length = message.bytes;
    let fd = message.cmsgs().ok()?.find_map(|c| match c {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let Some(fd) = fd else {
        return Some((buffer[..length].to_vec(), false));
    };
    let mut file = File::open(format!("/proc/self/fd/{fd}")).expect("the file that came");
    nix::unistd::close(fd).expect("close");
    // As the real one: only what nobody can change any more is mapped.
    let seals = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GET_SEALS).expect("it can be sealed");
    let all = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    assert_eq!(seals & all, all, "sealed");
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    Some((bytes, true))
}

/// `NAME=value`, or a name, eight bytes of length, and so many bytes; each with a newline at its end.
fn parse(bytes: &[u8]) -> Entry {
    let mut entry = Entry::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| *b == b'\n').expect("a newline ends each line");
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let (name, value) = match line.iter().position(|b| *b == b'=') {
            Some(at) => (&line[..at], line[at + 1..].to_vec()),
            None => {
                let (length, after) = rest.split_first_chunk::<8>().expect("a length");
                let (value, after) = after.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("a length"));
                assert_eq!(after[0], b'\n', "a newline ends each value");
                rest = &after[1..];
                (line, value.to_vec())
            }
        };
        let name = String::from_utf8(name.to_vec()).expect("names are ASCII");
        assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert!(!name.starts_with('_'), "{name}: only the journal itself may say that");
        entry.insert(name, value);
    }
    entry
}

/// As `journalctl -o json` prints it.
fn shown(entry: &Entry, place: usize) -> serde_json::Value {
    let value = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c.is_control()) => serde_json::Value::from(text),
        _ => serde_json::Value::from(bytes.clone()),
    };
    let mut out: serde_json::Map<_, _> = entry.iter().map(|(k, v)| (k.clone(), value(v))).collect();
    out.insert("__CURSOR".into(), place.to_string().into());
    out.insert("__REALTIME_TIMESTAMP".into(), "1700000000000000".into());
    out.insert("_PID".into(), "1".into());
    serde_json::Value::Object(out)
}
