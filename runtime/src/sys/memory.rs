//! Giving memory back: one monitor runs per container for as long as it lives.

use std::ffi::{c_int, c_void};

/// A part of the program that is mapped from its file, in whole pages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub begin: usize,
    pub length: usize,
    /// Where in the file it begins.
    pub offset: usize,
    pub writable: bool,
    pub executable: bool,
}

/// What the program consists of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Program {
    /// More than a program has: constants, code, and data in two parts. Those that are not there have
    /// no length.
    pub segments: [Segment; 8],
    /// The part of the data that is read-only after relocation.
    pub relro: Segment,
}

/// Returns the free pages of the heap to the kernel; the C library would keep them.
pub(super) fn trim_heap() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The running program's segments, as its own headers describe them.
pub(super) fn program() -> Program {
    let mut program = Program::default();
    // SAFETY: dl_iterate_phdr calls `collect` synchronously with descriptions of what is loaded and
    // with this pointer, which is valid and unaliased meanwhile.
    unsafe {
        libc::dl_iterate_phdr(Some(collect), (&raw mut program).cast());
    }
    program
}

impl Program {
    /// Code and constants: what holds nothing that the file does not. (Relocated constants do, and belong to
    /// a writable segment.)
    pub(super) fn clean(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.length > 0 && !s.writable)
    }
}

/// Called for each loaded object; the first is the program itself, and the only one we look at.
unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _: usize, program: *mut c_void) -> c_int {
    // SAFETY: sysconf reads a constant. dl_iterate_phdr passes a valid description whose headers stay
    // mapped as long as the program, and the pointer that `program` gave it.
    let (page, base, headers, program) = unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE).cast_unsigned() as usize;
        let headers = std::slice::from_raw_parts((*info).dlpi_phdr, usize::from((*info).dlpi_phnum));
        (page, (*info).dlpi_addr as usize, headers, &mut *program.cast::<Program>())
    };
    let pages = |h: &libc::Elf64_Phdr, size: u64| {
        let begin = (base + h.p_vaddr as usize) & !(page - 1);
        let end = (base + (h.p_vaddr + size) as usize).next_multiple_of(page);
        Segment {
            begin,
            length: end - begin,
            offset: h.p_offset as usize & !(page - 1),
            writable: h.p_flags & libc::PF_W != 0,
            executable: h.p_flags & libc::PF_X != 0,
        }
    };
    // What memory has beyond the file's part is not mapped from it.
    let loaded = headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_filesz > 0);
    for (segment, h) in program.segments.iter_mut().zip(loaded) {
        *segment = pages(h, h.p_filesz);
    }
    if let Some(h) = headers.iter().find(|h| h.p_type == libc::PT_GNU_RELRO) {
        program.relro = pages(h, 0);
        // The kernel protects whole pages only: the last, shared one stays as it is.
        let end = (base + (h.p_vaddr + h.p_memsz) as usize) & !(page - 1);
        program.relro.length = end.saturating_sub(program.relro.begin);
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_constants_are_found() {
        static CONSTANT: [u8; 4096] = [7; 4096];
        let found = program();
        let holds = |address: usize| found.clean().any(|s| (s.begin..s.begin + s.length).contains(&address));
        assert!(holds(program as fn() -> Program as usize));
        assert!(holds(CONSTANT.as_ptr() as usize));
        let heap = Box::new(1);
        let stack = 1;
        assert!(!holds(&raw const *heap as usize) && !holds(&raw const stack as usize));
    }
}
