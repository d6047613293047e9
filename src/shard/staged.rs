//! Datagrams that a tick answers with besides media: STUN responses, DTLS flights, RTCP.
//!
//! They are written when their cause is handled and leave when the tick ends. A full stage refuses: the
//! other end repeats what it asked.

use std::ops::Range;

use crate::limits::{DATAGRAM_BYTES, STAGED_BYTES};
use crate::shard::outbox::{Destination, Outbox};

pub struct Staged {
    /// Pages are touched as they are first used.
    bytes: Box<[u8]>,
    datagrams: Vec<(Destination, Range<usize>)>,
}

impl Staged {
    pub fn new() -> Self {
        Staged { bytes: vec![0; STAGED_BYTES].into_boxed_slice(), datagrams: Vec::with_capacity(256) }
    }

    /// Room to write one datagram into; nothing is kept of it until [`commit`](Self::commit).
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        let at = self.end();
        self.bytes.get_mut(at..at + DATAGRAM_BYTES)
    }

    pub fn commit(&mut self, destination: Destination, len: usize) {
        let at = self.end();
        self.datagrams.push((destination, at..at + len));
    }

    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Hands everything to the outbox; returns how many datagrams and bytes it took and how many it refused.
    pub fn flush(&mut self, outbox: &mut impl Outbox) -> (u64, usize, u64) {
        let (mut taken, mut bytes, mut refused) = (0, 0, 0);
        for (destination, range) in self.datagrams.drain(..) {
            let len = range.len();
            match outbox.reserve(destination, len) {
                Some(slot) => {
                    slot[..len].copy_from_slice(&self.bytes[range]);
                    outbox.commit(len, len);
                    taken += 1;
                    bytes += len;
                }
                None => refused += 1,
            }
        }
        (taken, bytes, refused)
    }

    fn end(&self) -> usize {
        self.datagrams.last().map_or(0, |(_, range)| range.end)
    }
}
