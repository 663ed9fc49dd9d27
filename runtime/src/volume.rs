//! Volumes with options: file systems of their own, on a directory of the host while containers use them.
//!
//! mount(2) and not fsconfig(2), as the options are a string that the file system reads itself, and
//! fsconfig takes 256 bytes a value.

use plan::{Error, HostThing, Result, ResultExt};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One volume as one container uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The kind of file system; `none` or empty for a bind mount.
    pub kind: String,
    pub device: String,
    /// As fstab has them: words for the mount itself among words for the file system.
    pub options: String,
    /// The directory that it is mounted on.
    pub target: PathBuf,
    /// The file that says that `owner` uses it.
    pub lease: PathBuf,
    pub owner: String,
}

impl VolumeMount {
    pub fn thing(&self) -> HostThing {
        HostThing::VolumeMount { target: self.target.clone(), lease: self.lease.clone(), owner: self.owner.clone() }
    }

    /// The options for people: without the password of a share.
    pub fn shown_options(&self) -> String {
        without_password(&self.options)
    }

    /// Mounts it on its directory, unconditionally. `device` and `options` are this volume's with the names
    /// of hosts made addresses.
    ///
    /// # Errors
    /// Docker's text, with the cause in the kernel's words.
    pub fn mount(&self, device: &str, options: &str) -> Result<()> {
        let (flags, propagation, data) = sort(options);
        let text = |s: &str| CString::new(s).map_err(|_| self.failed("a zero byte in its options"));
        let (source, kind, words) = (text(device)?, text(&self.kind)?, text(&data)?);
        let words = (!data.is_empty()).then_some(words.as_c_str());
        let own = flags - (MountFlags::BIND | MountFlags::REC);
        rustix::mount::mount(&source, &self.target, &kind, flags, words)
            .and_then(|()| match propagation.is_empty() {
                true => Ok(()),
                false => rustix::mount::mount_change(&self.target, propagation),
            })
            // The first mount(2) of a bind mount takes no words of its own.
            .and_then(|()| match flags.contains(MountFlags::BIND) && !own.is_empty() {
                true => rustix::mount::mount_remount(&self.target, MountFlags::BIND | own, ""),
                false => Ok(()),
            })
            .map_err(|e| {
                let mut what = format!("mount {device}:{}", self.target.display());
                if !flags.is_empty() {
                    let _ = write!(what, ", flags: {:#x}", flags.bits());
                }
                if !data.is_empty() {
                    let _ = write!(what, ", data: {}", without_password(&data));
                }
                let error =
                    Error::os(self.failed(&format!("failed to mount local volume: {what}")).message, e.raw_os_error());
                error.with_hint(self.remedy(e, device, &data))
            })
    }

    /// Docker's beginning of what went wrong.
    pub fn failed(&self, why: &str) -> Error {
        Error::system(format!("error while mounting volume '{}': {why}", self.target.display()))
    }

    fn remedy(&self, e: Errno, device: &str, data: &str) -> String {
        let kind = self.kind.as_str();
        let network = matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3");
        match e {
            Errno::NOENT if network => format!("the server has no {device}"),
            Errno::NOENT if self.target.exists() => format!("{device} must be there first"),
            Errno::NODEV => format!("the kernel has no file system \"{kind}\": modprobe it, see /proc/filesystems"),
            Errno::NOTBLK => {
                format!("{device} is no block device: for a directory type=none and o=bind, for an image file losetup")
            }
            Errno::INVAL if kind.starts_with("nfs") && !data.split(',').any(|o| o.starts_with("addr=")) => {
                "say the server's address: o=addr=ADDRESS".into()
            }
            Errno::INVAL if !data.is_empty() => {
                format!(
                    "an option is refused, see dmesg: {} (fstab's own, as nofail and _netdev, are none)",
                    without_password(data)
                )
            }
            Errno::INVAL => format!("no {kind} file system on {device}? `blkid {device}` tells, and dmesg why"),
            Errno::ACCESS | Errno::PERM if network => format!("the server does not let this machine have {device}"),
            Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::TIMEDOUT | Errno::HOSTDOWN => {
                "is the server reachable from this machine, and its firewall open?".into()
            }
            _ => "`rrun volume inspect` shows its options; dmesg may say more".into(),
        }
    }
}

fn without_password(options: &str) -> String {
    let hide = |o: &str| if o.starts_with("password=") { "password=********".into() } else { o.to_owned() };
    options.split(',').map(hide).collect::<Vec<String>>().join(",")
}

/// The words of a mount (name, whether they are taken away, bits); the rest is the file system's.
const WORDS: [(&str, bool, MountFlags); 24] = [
    ("defaults", false, MountFlags::empty()),
    ("ro", false, MountFlags::RDONLY),
    ("rw", true, MountFlags::RDONLY),
    ("nosuid", false, MountFlags::NOSUID),
    ("suid", true, MountFlags::NOSUID),
    ("nodev", false, MountFlags::NODEV),
    ("dev", true, MountFlags::NODEV),
    ("noexec", false, MountFlags::NOEXEC),
    ("exec", true, MountFlags::NOEXEC),
    ("sync", false, MountFlags::SYNCHRONOUS),
    ("async", true, MountFlags::SYNCHRONOUS),
    ("dirsync", false, MountFlags::DIRSYNC),
    ("mand", false, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
    ("nomand", true, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
    ("noatime", false, MountFlags::NOATIME),
    ("atime", true, MountFlags::NOATIME),
    ("nodiratime", false, MountFlags::NODIRATIME),
    ("diratime", true, MountFlags::NODIRATIME),
    ("relatime", false, MountFlags::RELATIME),
    ("norelatime", true, MountFlags::RELATIME),
    ("strictatime", false, MountFlags::STRICTATIME),
    ("nostrictatime", true, MountFlags::STRICTATIME),
    ("bind", false, MountFlags::BIND),
    ("rbind", false, MountFlags::BIND.union(MountFlags::REC)),
];

fn sort(options: &str) -> (MountFlags, MountPropagationFlags, String) {
    let mut flags = MountFlags::empty();
    let mut propagation = MountPropagationFlags::empty();
    let mut data = Vec::new();
    for option in options.split(',').filter(|o| !o.is_empty()) {
        if let Some((_, taken, bits)) = WORDS.iter().find(|(word, ..)| *word == option) {
            flags.set(*bits, !taken);
            continue;
        }
        let plain = option.strip_prefix('r').filter(|rest| *rest != "o" && *rest != "w").unwrap_or(option);
        let of = match plain {
            "shared" => MountPropagationFlags::SHARED,
            "slave" => MountPropagationFlags::DOWNSTREAM,
            "private" => MountPropagationFlags::PRIVATE,
            "unbindable" => MountPropagationFlags::UNBINDABLE,
            _ => {
                data.push(option);
                continue;
            }
        };
        propagation = if plain == option { of } else { of | MountPropagationFlags::REC };
    }
    (flags, propagation, data.join(","))
}

/// Whether something is mounted on this directory. Asks no server: one that is away must not make this hang.
///
/// # Errors
/// Of statx(2).
pub fn is_mounted(dir: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match rustix::fs::statx(CWD, dir, flags, StatxFlags::empty()) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT) => Ok(false),
        // Only what is mounted there can be broken like that.
        Err(Errno::STALE | Errno::IO | Errno::TIMEDOUT | Errno::HOSTDOWN) => Ok(true),
        Err(e) => Err(Error::os(format!("stat {}", dir.display()), e.raw_os_error())),
    }
}

/// Unmounts whatever is mounted on this directory. What still uses it keeps it; nobody else finds it any more.
///
/// # Errors
/// Of umount2(2).
pub fn unmount(dir: &Path) -> Result<()> {
    while is_mounted(dir)? {
        rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .doing(|| format!("unmount {}", dir.display()))?;
    }
    Ok(())
}

/// What is mounted on a directory or below it.
///
/// # Errors
/// The kernel's list cannot be read.
pub fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    // The list has no symbolic links.
    let dir = std::fs::canonicalize(dir).doing(|| format!("find {}", dir.display()))?;
    let list = std::fs::read("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo")?;
    let points = list.split(|b| *b == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    let paths = points.map(|p| PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(p))));
    Ok(paths.filter(|p| p.starts_with(&dir)).collect())
}

/// `\040` is a space: so the kernel writes what would end a field.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..3).filter(|_| *first == b'\\').and_then(|c| std::str::from_utf8(c).ok());
        (rest, _) = match code.and_then(|c| u8::from_str_radix(c, 8).ok()) {
            Some(byte) => (&more[3..], out.push(byte)),
            None => (more, out.push(*first)),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_mounts_and_the_file_systems() {
        let (flags, propagation, data) = sort("addr=192.0.2.7,nolock,soft,rw,nosuid,noatime,rslave");
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NOATIME);
        assert_eq!(propagation, MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC);
        assert_eq!(data, "addr=192.0.2.7,nolock,soft");
        assert_eq!(sort("ro,rw").0, MountFlags::empty());
        assert_eq!(sort("rbind,ro").0.bits(), 0x5001);
        assert_eq!(sort("ro,rsize=8192,relatime,defaults").2, "rsize=8192");
        assert_eq!(without_password("user=u,password=hunter2,vers=3"), "user=u,password=********,vers=3");
    }

    #[test]
    fn mount_points_are_told() {
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
        assert!(!is_mounted(Path::new("/no/such/directory")).unwrap());
        assert!(mounts_below(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
        assert_eq!(unescape(br"/a\040b\134c\0"), b"/a b\\c\\0");
    }
}
