//! Sparse members: which stretches of the file are in the archive. GNU tar has written four forms.

use tar::{GnuExtSparseHeader, GnuSparseHeader};

use super::number;

/// More stretches than any real file has (16 bytes of memory each).
const MAX_EXTENTS: usize = 1 << 19;

/// `length` bytes of data at `offset`; what lies between two extents is a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// Adds the entries of one header block (old GNU form). An empty slot ends the list.
pub fn add_gnu(map: &mut Vec<Extent>, slots: &[GnuSparseHeader]) -> Result<(), String> {
    for slot in slots {
        if slot.offset[0] == 0 || slot.numbytes[0] == 0 {
            break;
        }
        let read = |f: &[u8]| number::field(f).and_then(|n| u64::try_from(n).ok());
        let (offset, length) = (read(&slot.offset), read(&slot.numbytes));
        match (offset, length) {
            (Some(offset), Some(length)) if map.len() < MAX_EXTENTS => map.push(Extent { offset, length }),
            _ => return Err("malformed sparse map".into()),
        }
    }
    Ok(())
}

/// The continuation block of the old GNU form: its extents, and whether another block follows.
pub fn add_gnu_extension(map: &mut Vec<Extent>, block: &[u8; 512]) -> Result<bool, String> {
    let mut extension = GnuExtSparseHeader::new();
    extension.as_mut_bytes().copy_from_slice(block);
    add_gnu(map, extension.sparse())?;
    Ok(extension.is_extended())
}

/// The map of format 1.0: decimal lines at the head of the member's data, filled up to whole
/// blocks. `next_block` reads one of them. Returns the map and the number of blocks it took.
pub fn read_1_0(
    mut next_block: impl FnMut() -> plan::Result<[u8; 512]>,
) -> plan::Result<Result<(Vec<Extent>, u64), String>> {
    let (mut text, mut taken, mut blocks) = (Vec::new(), 0, 0);
    let mut line = || -> plan::Result<Option<u64>> {
        loop {
            if let Some(end) = text[taken..].iter().position(|b| *b == b'\n') {
                let number = number::decimal(&text[taken..taken + end]);
                taken += end + 1;
                return Ok(number);
            }
            // No number has more than 20 digits, so a block without a line's end is garbage.
            if text.len() - taken > 20 {
                return Ok(None);
            }
            text.drain(..taken);
            taken = 0;
            text.extend_from_slice(&next_block()?);
            blocks += 1;
        }
    };
    let malformed = || Ok(Err("malformed sparse map".to_string()));
    let Some(count) = line()?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= MAX_EXTENTS) else {
        return malformed();
    };
    let mut map = Vec::new();
    for _ in 0..count {
        match (line()?, line()?) {
            (Some(offset), Some(length)) => map.push(Extent { offset, length }),
            _ => return malformed(),
        }
    }
    Ok(Ok((map, blocks)))
}

/// A map is sound when its extents ascend without overlap, end within the file, and need exactly
/// the `stored` bytes the archive holds.
pub fn check(map: &[Extent], real_size: u64, stored: u64) -> Result<(), String> {
    let (mut end, mut sum) = (0u64, 0u64);
    for extent in map {
        if extent.offset < end {
            return Err("sparse map overlaps itself".into());
        }
        end = extent.offset.checked_add(extent.length).ok_or("sparse map beyond 64 bits")?;
        sum += extent.length;
    }
    if end > real_size || map.len() > MAX_EXTENTS {
        return Err("sparse map ends beyond the file".into());
    }
    if sum != stored {
        return Err(format!("sparse map wants {sum} bytes, the archive holds {stored}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> impl FnMut() -> plan::Result<[u8; 512]> {
        let mut data = text.as_bytes().to_vec();
        data.resize(data.len().div_ceil(512) * 512, 0);
        let mut at = 0;
        move || {
            let block = data.get(at..at + 512).ok_or_else(|| plan::Error::invalid("end"))?;
            at += 512;
            Ok(block.try_into().unwrap())
        }
    }

    #[test]
    fn the_map_of_1_0_may_span_blocks() {
        let lines: String = (0..200).map(|i| format!("{}\n1\n", i * 4096)).collect();
        let (map, taken) = read_1_0(blocks(&format!("200\n{lines}"))).unwrap().unwrap();
        assert_eq!(map.len(), 200);
        assert_eq!(map[199], Extent { offset: 199 * 4096, length: 1 });
        assert_eq!(taken, (4 + lines.len()).div_ceil(512) as u64);
    }

    #[test]
    fn garbage_maps_are_refused() {
        assert!(read_1_0(blocks("x\n")).unwrap().is_err());
        assert!(read_1_0(blocks("99999999999\n")).unwrap().is_err());
        assert!(read_1_0(blocks(&"1".repeat(2000))).unwrap().is_err());
        assert!(read_1_0(blocks("5\n0\n1\n")).is_err() || read_1_0(blocks("5\n0\n1\n")).unwrap().is_err());
    }

    #[test]
    fn maps_must_ascend_and_add_up() {
        let e = |offset, length| Extent { offset, length };
        assert!(check(&[e(0, 4), e(8, 4), e(100, 0)], 100, 8).is_ok());
        assert!(check(&[e(0, 4), e(3, 4)], 100, 8).is_err());
        assert!(check(&[e(99, 4)], 100, 4).is_err());
        assert!(check(&[e(0, 4)], 100, 5).is_err());
        assert!(check(&[e(u64::MAX, 4)], u64::MAX, 4).is_err());
    }
}
