//! Who the program runs as: `user[:group]` looked up in the image's own /etc/passwd and /etc/group.
//!
//! The image is hostile input and the lookup runs as root in the child, after pivot_root: a FIFO in
//! place of the file must not hang the start, a giant must not fill the memory, a number must never
//! be taken for a name (CVE-2016-3697, CVE-2024-40635, CVE-2026-47262). Nothing here goes through
//! NSS, which would load libraries out of the image.

use std::fs::File;
use std::io::{ErrorKind, Read};

use plan::{Error, Result, ResultExt};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::spec::User;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Larger than any directory service ever exported, small enough to read in a blink.
const MAX_FILE: u64 = 32 << 20;
const MAX_LINE: usize = 4 << 20;
/// Read at once: all there is, in most images.
const PIECE: usize = 4 << 10;
/// The kernel's NGROUPS_MAX.
const MAX_GROUPS: usize = 65536;
/// Ids above this are refused, as in Docker: programs that hold a uid in an int would see -1, "no
/// change", in some of them.
const MAX_ID: u64 = i32::MAX as u64;

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// The numbers behind a [`User`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the primary one first, without repetition: a process whose group list
    /// lacks its own primary group slips through mode bits that deny that group (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// From the passwd entry, if there is one; Docker's `HOME` is `/` otherwise.
    pub home: Option<String>,
}

/// Looks `user` up in the files of the *current* root directory.
///
/// Errors: Docker's texts for unknown names and for ids out of range; a user file that is no regular
/// file, is too large or cannot be read.
pub fn resolve(user: &User) -> Result<Ids> {
    match user {
        User::Ids { uid, gid, additional_gids } => exactly(*uid, *gid, additional_gids),
        User::Named { spec, additional_groups } => {
            let wish = Wish::parse(spec)?;
            lookup(&wish, additional_groups, || open(PASSWD), || open(GROUP))
        }
    }
}

/// An OCI `process.user`: taken as it is, but for -1, which the system calls read as "unchanged".
fn exactly(uid: u32, gid: u32, additional_gids: &[u32]) -> Result<Ids> {
    if [uid, gid].iter().chain(additional_gids).any(|id| *id == u32::MAX) {
        return Err(out_of_range("4294967295"));
    }
    Ok(Ids { uid, gid, groups: additional_gids.to_vec(), home: None })
}

/// One side of `user:group` as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Unsaid,
    Id(u32),
    Name(String),
}

impl Who {
    fn parse(part: &str) -> Result<Who> {
        if part.is_empty() {
            return Ok(Who::Unsaid);
        }
        if part.bytes().all(|b| b.is_ascii_digit()) {
            // Longer than any u64 is out of range too.
            return match part.parse::<u64>() {
                Ok(n) if n <= MAX_ID => Ok(Who::Id(n as u32)),
                _ => Err(out_of_range(part)),
            };
        }
        // `-1`, `+0`, ` 0`: never a name, even if a hostile passwd has an entry of that name.
        let digits = part.trim().trim_start_matches(['+', '-']);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::invalid(format!("invalid user or group \"{part}\""))
                .with_cause("neither a plain number nor a name")
                .with_hint("write digits only, from 0 to 2147483647"));
        }
        Ok(Who::Name(part.to_string()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    user: Who,
    group: Who,
}

impl Wish {
    fn parse(spec: &str) -> Result<Wish> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        if group.contains(':') || spec.contains(['\n', '\0']) {
            return Err(Error::invalid(format!("invalid user \"{}\"", spec.escape_debug()))
                .with_hint("write USER, UID, USER:GROUP or UID:GID"));
        }
        Ok(Wish { user: Who::parse(user)?, group: Who::parse(group)? })
    }
}

/// Checks a `--user` or image `User` value without any file, so that nonsense is refused before a
/// container is made.
pub fn check(spec: &str) -> Result<()> {
    Wish::parse(spec).map(|_| ())
}

fn out_of_range(given: &str) -> Error {
    Error::invalid("uids and gids must be in range 0-2147483647")
        .with_cause(format!("{given} is not"))
        .with_hint("use a smaller number, or a user name")
}

struct Entry {
    name: Vec<u8>,
    uid: u32,
    gid: u32,
    home: Option<String>,
}

/// The lookup itself; `passwd` and `group` are opened only when needed, and `None` is a missing file.
fn lookup<R: Read>(
    wish: &Wish,
    additional: &[String],
    passwd: impl FnOnce() -> Result<Option<R>>,
    group: impl FnOnce() -> Result<Option<R>>,
) -> Result<Ids> {
    let entry = find_user(&wish.user, passwd()?)?;
    let mut ids = match (&entry, &wish.user) {
        (Some(e), _) => Ids { uid: e.uid, gid: e.gid, groups: Vec::new(), home: e.home.clone() },
        // A number needs no entry; the group is then root's, as in Docker.
        (None, Who::Id(uid)) => Ids { uid: *uid, ..Ids::default() },
        (None, Who::Unsaid) => Ids::default(),
        (None, Who::Name(name)) => {
            return Err(Error::invalid(format!("unable to find user {name}: no matching entries in passwd file"))
                .with_hint("name a user of the image's /etc/passwd, or give a number: --user UID[:GID]"));
        }
    };
    let additional = additional.iter().map(|g| Who::parse(g)).collect::<Result<Vec<_>>>()?;
    // Memberships count only where no group was asked for, as in Docker.
    let member = if wish.group == Who::Unsaid { entry.map(|e| e.name) } else { None };
    let mut found = Groups::wanted(&wish.group, &additional, member);
    if found.needs_file()
        && let Some(file) = group()?
    {
        found.scan(file)?;
    }
    if let Some(gid) = found.id_of(&wish.group)? {
        ids.gid = gid;
    }
    ids.groups.push(ids.gid);
    ids.groups.extend(&found.memberships);
    for g in &additional {
        ids.groups.extend(found.id_of(g)?);
    }
    let mut seen = std::collections::HashSet::new();
    ids.groups.retain(|g| seen.insert(*g));
    if ids.groups.len() > MAX_GROUPS {
        return Err(Error::invalid(format!("the user is in more than {MAX_GROUPS} groups")).with_hint(SHORTEN));
    }
    Ok(ids)
}

const SHORTEN: &str = "shorten the image's /etc/group, or give numbers: --user UID:GID";

/// The first matching entry wins. Without a wish it is uid 0's.
fn find_user<R: Read>(who: &Who, passwd: Option<R>) -> Result<Option<Entry>> {
    let Some(passwd) = passwd else {
        return Ok(None);
    };
    let mut found = None;
    each_line(PASSWD, passwd, |line| {
        // name:password:uid:gid:gecos:home:shell
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next().unwrap_or_default();
        // A line with no proper ids is nobody's: libcontainer reads it as uid 0.
        let (Some(uid), Some(gid)) = (fields.nth(1).and_then(id), fields.next().and_then(id)) else {
            return true;
        };
        let matches = match who {
            Who::Unsaid => uid == 0,
            Who::Id(wanted) => uid == *wanted,
            Who::Name(wanted) => name == wanted.as_bytes(),
        };
        if matches {
            let home = fields.nth(1).and_then(|h| std::str::from_utf8(h).ok()).filter(|h| !h.is_empty());
            found = Some(Entry { name: name.to_vec(), uid, gid, home: home.map(str::to_string) });
        }
        !matches
    })?;
    Ok(found)
}

/// What one pass over /etc/group has to find.
struct Groups {
    names: Vec<(String, Option<u32>)>,
    member: Option<Vec<u8>>,
    memberships: Vec<u32>,
}

impl Groups {
    fn wanted(primary: &Who, additional: &[Who], member: Option<Vec<u8>>) -> Groups {
        let names = std::iter::once(primary).chain(additional).filter_map(|who| match who {
            Who::Name(name) => Some((name.clone(), None)),
            _ => None,
        });
        Groups { names: names.collect(), member, memberships: Vec::new() }
    }

    fn needs_file(&self) -> bool {
        self.member.is_some() || !self.names.is_empty()
    }

    fn scan(&mut self, file: impl Read) -> Result<()> {
        let Groups { names, member, memberships } = self;
        each_line(GROUP, file, |line| {
            // name:password:gid:member,member…
            let mut fields = line.split(|b| *b == b':');
            let name = fields.next().unwrap_or_default();
            let Some(gid) = fields.nth(1).and_then(id) else {
                return true;
            };
            for (wanted, found) in names.iter_mut() {
                if found.is_none() && wanted.as_bytes() == name {
                    *found = Some(gid);
                }
            }
            if let (Some(member), Some(list)) = (member.as_deref(), fields.next())
                && list.split(|b| *b == b',').any(|m| m == member)
            {
                memberships.push(gid);
            }
            memberships.len() <= MAX_GROUPS
        })
    }

    fn id_of(&self, who: &Who) -> Result<Option<u32>> {
        match who {
            Who::Unsaid => Ok(None),
            Who::Id(id) => Ok(Some(*id)),
            Who::Name(name) => match self.names.iter().find(|(n, _)| n == name) {
                Some((_, Some(id))) => Ok(Some(*id)),
                _ => Err(Error::invalid(format!("unable to find group {name}: no matching entries in group file"))
                    .with_hint("name a group of the image's /etc/group, or give its number")),
            },
        }
    }
}

fn id(field: &[u8]) -> Option<u32> {
    if field.is_empty() || field.len() > 10 || !field.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n = field.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
    (n <= MAX_ID).then_some(n as u32)
}

/// Calls `f` with each line, spaces around it stripped, until it answers false.
fn each_line(path: &str, mut file: impl Read, mut f: impl FnMut(&[u8]) -> bool) -> Result<()> {
    let mut buf = vec![0; PIECE];
    let (mut start, mut end, mut total) = (0, 0, 0u64);
    loop {
        if let Some(n) = buf[start..end].iter().position(|b| *b == b'\n') {
            if !f(buf[start..start + n].trim_ascii()) {
                return Ok(());
            }
            start += n + 1;
            continue;
        }
        // No whole line: move what there is to the front, make room, read on.
        buf.copy_within(start..end, 0);
        (start, end) = (0, end - start);
        if end == buf.len() {
            if end >= MAX_LINE {
                return Err(unusable(path, "one of its lines is longer than 4 MiB"));
            }
            buf.resize(end * 2, 0);
        }
        let n = match file.read(&mut buf[end..]) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e).doing(|| format!("read the image's {path}")),
        };
        if n == 0 {
            f(buf[..end].trim_ascii());
            return Ok(());
        }
        end += n;
        total += n as u64;
        if total > MAX_FILE {
            return Err(too_large(path));
        }
    }
}

fn unusable(path: &str, cause: &str) -> Error {
    Error::invalid(format!("the image's {path} cannot be used"))
        .with_cause(cause)
        .with_hint("repair the image, or mount a good file over it: -v FILE:".to_string() + path + ":ro")
}

fn too_large(path: &str) -> Error {
    unusable(path, "it is larger than 32 MiB")
}

/// Opens one of the two files, if it exists. Symbolic links are followed (the root is the image's, so
/// they cannot leave it), but not /proc's magic ones, which could name what rrun has open.
fn open(path: &str) -> Result<Option<File>> {
    let how = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let fd = match rustix::fs::openat2(rustix::fs::CWD, path, how, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(e).doing(|| format!("open the image's {path}")),
    };
    let stat = rustix::fs::fstat(&fd).doing(|| format!("stat the image's {path}"))?;
    let fs = rustix::fs::fstatfs(&fd).doing(|| format!("stat the image's {path}"))?;
    // Files of /proc call themselves regular, and some block or act when read.
    let pseudo = [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&(fs.f_type as i64));
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || pseudo {
        return Err(unusable(path, "it is not a regular file"));
    }
    if stat.st_size as u64 > MAX_FILE {
        return Err(too_large(path));
    }
    Ok(Some(File::from(fd)))
}

#[cfg(test)]
mod tests;
