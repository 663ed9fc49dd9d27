//! Giving memory back: one monitor runs per container for as long as it lives.

/// Returns the free pages of the heap to the kernel. The C library keeps them otherwise, and the
/// start of a container leaves a few hundred KiB behind that the monitor never needs again.
pub fn release() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
