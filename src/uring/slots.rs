//! Receive slots: the memory that the kernel puts datagrams into, and who owns which of it.
//!
//! Each slot is either the kernel's (listed in the provided-buffer ring) or ours (a [`Filled`] exists for it, made
//! from the completion that handed it over). `Filled` is neither `Clone` nor `Copy` and is consumed by
//! [`Slots::give_back`], so bytes of a slot that the kernel owns cannot be named.
//!
//! ```text
//! slot: | recvmsg_out 16 | name 32 | control 64 | payload ... 65,535 | unused |
//! ```

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::memory::Region;

/// Room for the largest train that the kernel hands over (one IP packet of 65,535 bytes), with the header of
/// multishot receive before it; whole pages, so that a slot's first page holds the common case.
pub(super) const SLOT_BYTES: usize = 68 * 1024;

/// The one buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// A slot that the kernel has filled and handed over, and how many bytes of it.
pub(super) struct Filled {
    slot: u16,
    bytes: usize,
}

impl Filled {
    /// # Safety
    /// A completion of a request on this ring's buffer group has just named `slot` as the buffer that it took,
    /// with `bytes` bytes written, and no other `Filled` was made from that completion.
    pub(super) unsafe fn from_completion(slot: u16, bytes: usize) -> Filled {
        Filled { slot, bytes }
    }
}

pub(super) struct Slots {
    pages: Region,
    /// The provided-buffer ring: `count` entries that the kernel takes slots from, in order.
    table: Region,
    count: u16,
    tail: u16,
}

impl Slots {
    /// Maps `count` slots (a power of two), faults in the first page of each, and gives all of them to the kernel.
    pub(super) fn register(count: u16, ring: &IoUring) -> io::Result<Slots> {
        assert!(count.is_power_of_two(), "a provided-buffer ring has a power of two of entries");
        let pages = Region::map(SLOT_BYTES * usize::from(count))?;
        let table = Region::map(size_of::<BufRingEntry>() * usize::from(count))?;
        // SAFETY: the table is page-aligned, zero-filled and holds `count` entries; `Slots` lives as long as the
        // ring that it is registered with (both are fields of `Ring`, which cancels all requests first).
        unsafe { ring.submitter().register_buf_ring_with_flags(table.at(0) as u64, count, GROUP, 0)? };
        let mut slots = Slots { pages, table, count, tail: 0 };
        for slot in 0..count {
            // SAFETY: the kernel has not been given this slot yet, so nobody else writes to it.
            unsafe { slots.pages.at(usize::from(slot) * SLOT_BYTES).write(0) };
            slots.give_back(Filled { slot, bytes: 0 });
        }
        Ok(slots)
    }

    /// What the kernel wrote into a slot.
    pub(super) fn bytes(&mut self, filled: &Filled) -> &mut [u8] {
        let start = self.pages.at(usize::from(filled.slot) * SLOT_BYTES);
        let length = filled.bytes.min(SLOT_BYTES);
        // SAFETY: `filled` proves that the kernel handed this slot over, so we alone access it; the range is inside
        // the mapping, whose bytes are initialised (zero pages or what the kernel wrote).
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }

    /// Makes the slot the kernel's again.
    pub(super) fn give_back(&mut self, filled: Filled) {
        let index = usize::from(self.tail & (self.count - 1));
        let address = self.pages.at(usize::from(filled.slot) * SLOT_BYTES);
        let entries = self.table.at(0).cast::<BufRingEntry>();
        // SAFETY: `index` is inside the table, and the kernel reads entries only up to the tail, which is behind it.
        let entry = unsafe { &mut *entries.add(index) };
        entry.set_addr(address as u64);
        entry.set_len(SLOT_BYTES as u32);
        entry.set_bid(filled.slot);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the address of the first entry of the registered table, whose reserved field is the
        // tail: aligned for a u16, written by us alone, read by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Keeps the memory mapped for ever, where a request could not be cancelled.
    pub(super) fn leak(&mut self) {
        self.pages.leak();
        self.table.leak();
    }
}
