//! The walk over a tar stream: one [`Member`] after the other, each with all its headers merged.
//!
//! The `tar` crate lends its header layouts; the walk is ours. Its own `entries()` cuts PAX records
//! at newlines (so a binary xattr hides a `size`), expands holes to zeros, reads long names of any
//! length into memory, takes negative numbers for huge ones and knows neither PAX sparse form.
//! Where readers disagree, Go's archive/tar decides: docker, containerd and podman are built on it,
//! and a layer must not read as two different trees (GHSA-3cv2-h65g-fgmm, CVE-2025-62518).

use std::io::{self, BufReader, Read};

use plan::{Error, Result};
use tar::Header;

use super::number::{self, Moment};
use super::pax::{self, Pax};
use super::sparse::{self, Extent};
use super::{broken, shown};

const BLOCK: usize = 512;

/// The most an extended header may hold: a few xattrs of 64 KiB, the kernel's limit for one.
const MAX_EXTENDED: u64 = 1 << 20;

/// What a member is, as far as an image layer can hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// A socket (GNU tar never writes one, star does): skipped, it means nothing without its owner.
    Socket,
}

/// One member: the plain header with every extension applied.
#[derive(Debug)]
pub struct Member {
    pub kind: Kind,
    pub name: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky; no type bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Moment,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Where the stored bytes go, in order.
    pub extents: Vec<Extent>,
}

/// Headers seen ahead of the member that they describe.
#[derive(Default)]
struct Ahead {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.long_name.is_none() && self.long_link.is_none() && self.pax.is_none()
    }
}

/// A tar stream being read. `budget` bounds the bytes of data it may carry, headers not counted.
pub struct Members<'a> {
    input: BufReader<&'a mut dyn Read>,
    /// Data of the current member not read yet, and the padding behind it.
    remaining: u64,
    padding: usize,
    budget: u64,
    spent: u64,
}

impl<'a> Members<'a> {
    pub fn new(input: &'a mut dyn Read, budget: u64) -> Members<'a> {
        Members { input: BufReader::with_capacity(64 << 10, input), remaining: 0, padding: 0, budget, spent: 0 }
    }

    /// The next member; its data is then read with [`Members::read`]. `None` at the end.
    pub fn next(&mut self) -> Result<Option<Member>> {
        let mut ahead = Ahead::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header_block()? else {
                if !ahead.is_empty() {
                    return Err(broken("the tar archive ends in an extended header"));
                }
                return Ok(None);
            };
            let header = Header::from_byte_slice(&block);
            check_sum(header)?;
            match header.as_old().linkflag[0] {
                b'g' => pax::check_global(&self.extended(header)?).map_err(broken)?,
                b'x' => {
                    let pax = Pax::parse(&self.extended(header)?).map_err(broken)?;
                    refuse_second(ahead.pax.replace(pax).is_some())?;
                }
                b'L' => refuse_second(ahead.long_name.replace(until_nul(&self.extended(header)?)).is_some())?,
                b'K' => refuse_second(ahead.long_link.replace(until_nul(&self.extended(header)?)).is_some())?,
                flag => return self.member(header, flag, ahead).map(Some),
            }
        }
    }

    /// Bytes of the current member as stored in the archive; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let n = read_some(&mut self.input, &mut buffer[..most])?;
        if n == 0 && most > 0 {
            return Err(truncated());
        }
        self.remaining -= n as u64;
        Ok(n)
    }

    /// Reads what follows the archive, so that a digest taken over the stream covers all of it.
    pub fn drain(&mut self) -> Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match read_some(&mut self.input, &mut buffer)? {
                0 => return Ok(()),
                n => self.spend(n as u64)?,
            }
        }
    }

    fn member(&mut self, header: &Header, flag: u8, ahead: Ahead) -> Result<Member> {
        let old = header.as_old();
        let pax = ahead.pax.unwrap_or_default();
        let mut name = ahead.long_name.or(pax.path).unwrap_or_else(|| header_name(header));
        let kind = match flag {
            // Archives older than ustar mark a directory by its name only.
            0 if name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b's' => Kind::Socket,
            other => return Err(entry(&name, format!("tar member of unknown type {}", shown(&[other])))),
        };
        let fail =
            |what: &str, field: &[u8]| entry(&name, format!("{what} {} out of range", shown(until_nul_ref(field))));

        let stored = match (kind, pax.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => unsigned(&old.size).ok_or_else(|| fail("size", &old.size))?,
            // Some writers repeat the file's size for a hard link, or an allocation for a
            // directory; no data follows in any of these.
            _ => 0,
        };
        if stored > i64::MAX as u64 {
            return Err(entry(&name, format!("size {stored} out of range")));
        }
        self.begin(stored);

        // 2^32-1 means "no owner" to chown(2): it would leave the file with root.
        let owner = |value: Option<u64>, field: &[u8; 8], what| match value.or_else(|| unsigned(field)) {
            Some(id) if id < u64::from(u32::MAX) => Ok(id as u32),
            _ => Err(match value {
                Some(id) => entry(&name, format!("{what} {id} out of range")),
                None => fail(what, field),
            }),
        };
        let uid = owner(pax.uid, &old.uid, "uid")?;
        let gid = owner(pax.gid, &old.gid, "gid")?;
        let mode = number::field(&old.mode).ok_or_else(|| fail("mode", &old.mode))? as u32 & 0o7777;
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => {
                Moment { seconds: number::field(&old.mtime).ok_or_else(|| fail("mtime", &old.mtime))?, nanoseconds: 0 }
            }
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                device(header).ok_or_else(|| entry(&name, "device number out of range"))?
            }
            _ => (0, 0),
        };
        let link = ahead.long_link.or(pax.linkpath).unwrap_or_else(|| until_nul(&old.linkname));
        if kind == Kind::File
            && let Some(real) = pax.sparse.name.clone()
        {
            name = real;
        }
        let (size, extents) = self
            .layout(header, kind, flag, pax.sparse)
            .map_err(|e| if e.kind == plan::Kind::Invalid { e.context(shown(&name)) } else { e })?;
        self.affordable(&name)?;
        Ok(Member { kind, name, link, mode, uid, gid, mtime, device, xattrs: pax.xattrs, size, extents })
    }

    /// The size of the file with its holes, and where its data goes.
    fn layout(&mut self, header: &Header, kind: Kind, flag: u8, keys: pax::SparseKeys) -> Result<(u64, Vec<Extent>)> {
        let dense = self.remaining;
        let (real_size, map) = match (keys.version, flag) {
            _ if kind != Kind::File => return Ok((0, Vec::new())),
            ((Some(1), Some(0)), _) => {
                let (map, _) = sparse::read_1_0(|| self.data_block())?.map_err(broken)?;
                (keys.real_size, map)
            }
            ((None | Some(0), _), _) if !keys.map.is_empty() => (keys.real_size, keys.map),
            // 0.x with nothing but a hole.
            ((Some(0), _), _) => (keys.real_size, keys.map),
            ((None, _), b'S') => self.gnu_map(header)?,
            ((None, _), _) => {
                return Ok((dense, vec![Extent { offset: 0, length: dense }]));
            }
            _ => return Err(broken("sparse file of an unknown format")),
        };
        let real_size =
            real_size.filter(|n| *n <= i64::MAX as u64).ok_or_else(|| broken("sparse file without a valid size"))?;
        sparse::check(&map, real_size, self.remaining).map_err(broken)?;
        Ok((real_size, map))
    }

    /// The map of the old GNU form: four extents in the header, more in blocks ahead of the data.
    fn gnu_map(&mut self, header: &Header) -> Result<(Option<u64>, Vec<Extent>)> {
        let gnu = header.as_gnu().ok_or_else(|| broken("sparse file without a GNU header"))?;
        let mut map = Vec::new();
        sparse::add_gnu(&mut map, &gnu.sparse).map_err(broken)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.whole_block()?;
            self.spend(BLOCK as u64)?;
            more = sparse::add_gnu_extension(&mut map, &block).map_err(broken)?;
        }
        Ok((unsigned(&gnu.realsize), map))
    }

    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = (BLOCK - (size % BLOCK as u64) as usize) % BLOCK;
    }

    /// Refuses a member before its data is written, not after the disk is full.
    fn affordable(&mut self, name: &[u8]) -> Result<()> {
        let bytes = self.remaining;
        self.spend(bytes).map_err(|e| e.context(shown(name)))
    }

    fn spend(&mut self, bytes: u64) -> Result<()> {
        self.spent = self.spent.saturating_add(bytes);
        if self.spent > self.budget {
            return Err(broken(format!("unpacks to more than the {} bytes allowed or free on the disk", self.budget))
                .with_hint("free some disk space, or raise the limit if you trust the image"));
        }
        Ok(())
    }

    /// The data of an extended header.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = unsigned(&header.as_old().size).filter(|n| *n <= MAX_EXTENDED);
        let size = size.ok_or_else(|| broken(format!("extended tar header larger than {MAX_EXTENDED} bytes")))?;
        self.begin(size);
        self.spend(size)?;
        let mut data = vec![0; size as usize];
        let mut at = 0;
        while at < data.len() {
            at += self.read(&mut data[at..])?;
        }
        Ok(data)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut buffer = vec![0; if self.remaining > 0 { 64 << 10 } else { 0 }];
        while self.remaining > 0 {
            self.read(&mut buffer)?;
        }
        let mut padding = [0; BLOCK];
        let mut left = std::mem::take(&mut self.padding);
        // A last member without its padding is complete all the same.
        while left > 0 {
            match read_some(&mut self.input, &mut padding[..left])? {
                0 => return Ok(()),
                n => left -= n,
            }
        }
        Ok(())
    }

    /// A block out of the current member's data.
    fn data_block(&mut self) -> Result<[u8; BLOCK]> {
        if self.remaining < BLOCK as u64 {
            return Err(broken("malformed sparse map"));
        }
        self.remaining -= BLOCK as u64;
        self.whole_block()
    }

    fn whole_block(&mut self) -> Result<[u8; BLOCK]> {
        self.block()?.ok_or_else(truncated)
    }

    /// The next header, or `None` at the end: two zero blocks, or the end of the stream, which
    /// some writers leave it at.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let zero = [0; BLOCK];
        match self.block()? {
            None => Ok(None),
            Some(block) if block != zero => Ok(Some(block)),
            Some(_) => match self.block()? {
                Some(second) if second != zero => Err(broken("tar archive with a lone zero block")),
                _ => Ok(None),
            },
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut at = 0;
        while at < BLOCK {
            match read_some(&mut self.input, &mut block[at..])? {
                0 if at == 0 => return Ok(None),
                0 => return Err(truncated()),
                n => at += n,
            }
        }
        Ok(Some(block))
    }
}

/// One read. A source that fails with one of our own errors inside (a digest that does not match,
/// a server that hung up) keeps its words.
fn read_some(input: &mut BufReader<&mut dyn Read>, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match input.read(buffer) {
            Ok(n) => return Ok(n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                return Err(match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                    Some(ours) => ours.clone(),
                    None => Error::io("read the layer", &e),
                });
            }
        }
    }
}

/// Sums of the bytes with the checksum field as blanks; old writers summed signed bytes.
fn check_sum(header: &Header) -> Result<()> {
    let bytes = header.as_bytes();
    let blanked = || bytes[..148].iter().chain(&[b' '; 8]).chain(&bytes[156..]);
    let plain: i64 = blanked().map(|b| i64::from(*b)).sum();
    let signed: i64 = blanked().map(|b| i64::from(*b as i8)).sum();
    match number::field(&header.as_old().cksum) {
        Some(sum) if sum == plain || sum == signed => Ok(()),
        _ => Err(broken("not a tar archive, or a damaged one (header checksum mismatch)")),
    }
}

/// The name of the plain header: ustar splits long ones in two.
fn header_name(header: &Header) -> Vec<u8> {
    let name = until_nul_ref(&header.as_old().name);
    match header.as_ustar().map(|ustar| until_nul_ref(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

/// Major and minor within what the kernel can tell apart (12 and 20 bits): beyond, mknod would cut
/// them, and 4096:0 would become 0:0, overlayfs' whiteout.
fn device(header: &Header) -> Option<(u32, u32)> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (_, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        _ => return None,
    };
    let major = unsigned(major).filter(|n| *n < 1 << 12)?;
    let minor = unsigned(minor).filter(|n| *n < 1 << 20)?;
    Some((major as u32, minor as u32))
}

fn unsigned(field: &[u8]) -> Option<u64> {
    number::field(field).and_then(|n| u64::try_from(n).ok())
}

fn until_nul_ref(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    until_nul_ref(bytes).to_vec()
}

fn refuse_second(second: bool) -> Result<()> {
    if second { Err(broken("two extended tar headers of one kind for the same member")) } else { Ok(()) }
}

fn truncated() -> Error {
    broken("the tar archive is cut short")
}

fn entry(name: &[u8], problem: impl std::fmt::Display) -> Error {
    broken(format!("{}: {problem}", shown(name)))
}
