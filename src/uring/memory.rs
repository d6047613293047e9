//! Pages that the kernel writes into: one anonymous mapping, zero-filled, touched only as it is used.
//!
//! Receive slots are 68 KiB wide and mostly hold one datagram; mapped and not allocated, the unused rest of
//! each slot costs address space and no memory.

use std::io;
use std::ptr::NonNull;

pub(super) struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

impl Region {
    pub(super) fn map(bytes: usize) -> io::Result<Region> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("mmap never returns null without MAP_FIXED");
        Ok(Region { base, bytes })
    }

    /// Address of a byte of the region. Reading or writing through it is up to who knows its owner.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.bytes);
        // SAFETY: the offset is inside the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Never unmaps it.
    pub(super) fn leak(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        // SAFETY: `base` and `bytes` are what mmap returned; nobody keeps an address past the owner of the region.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
