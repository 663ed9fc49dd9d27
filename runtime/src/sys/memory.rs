//! Giving memory back: one monitor runs per container for as long as it lives.

use std::ffi::{c_int, c_void};

/// A part of the program that is mapped from its file and never written to: address and length, whole
/// pages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub begin: usize,
    pub length: usize,
}

/// More than a program has: constants and code, in one segment or two.
pub(super) type Segments = [Segment; 4];

/// Returns the free pages of the heap to the kernel; the C library would keep them.
pub(super) fn trim_heap() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The program's own code and constants.
pub(super) fn program() -> Segments {
    let mut segments = Segments::default();
    // SAFETY: dl_iterate_phdr calls `collect` synchronously with descriptions of what is loaded and
    // with this pointer, which is valid and unaliased meanwhile.
    unsafe {
        libc::dl_iterate_phdr(Some(collect), (&raw mut segments).cast());
    }
    segments
}

/// Called for each loaded object; the first is the program itself, and the only one we look at.
unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _: usize, segments: *mut c_void) -> c_int {
    // SAFETY: sysconf reads a constant. dl_iterate_phdr passes a valid description whose headers stay
    // mapped as long as the program, and the pointer that `program` gave it.
    let (page, base, headers, segments) = unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE).cast_unsigned() as usize;
        let headers = std::slice::from_raw_parts((*info).dlpi_phdr, usize::from((*info).dlpi_phnum));
        (page, (*info).dlpi_addr as usize, headers, &mut *segments.cast::<Segments>())
    };
    // A segment that is never written to holds nothing that the file does not. (Relocated constants do,
    // and belong to a writable one.)
    let clean = headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0);
    for (segment, h) in segments.iter_mut().zip(clean) {
        let begin = (base + h.p_vaddr as usize) & !(page - 1);
        let end = (base + (h.p_vaddr + h.p_memsz) as usize).next_multiple_of(page);
        *segment = Segment { begin, length: end - begin };
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_constants_are_found() {
        static CONSTANT: [u8; 4096] = [7; 4096];
        let segments = program();
        let holds = |address: usize| segments.iter().any(|s| (s.begin..s.begin + s.length).contains(&address));
        assert!(holds(program as fn() -> Segments as usize));
        assert!(holds(CONSTANT.as_ptr() as usize));
        let heap = Box::new(1);
        let stack = 1;
        assert!(!holds(&raw const *heap as usize) && !holds(&raw const stack as usize));
    }
}
