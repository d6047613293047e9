//! The seam to whatever sends datagrams: the ring in production, a plain vector in tests.
//!
//! A shard reserves room for a run of datagrams to one destination, writes them back to back, and
//! commits. It never waits: no room means that the packets of this run are discarded and counted.

use std::net::SocketAddr;

/// Where a run of datagrams goes, and from which of the worker's own ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub address: SocketAddr,
    /// Index of the worker's UDP port (the tuple's local half).
    pub local: u8,
}

/// Takes datagrams. `reserve`, write, `commit`; a reservation that is not committed never happened.
pub trait Outbox {
    /// Room for up to `capacity` bytes (at most [`RUN_BYTES`](crate::limits::RUN_BYTES)) to one
    /// destination, or `None` when every slot is in flight.
    fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]>;

    /// Sends the first `len` bytes of the last reservation as datagrams of `segment` bytes each, the
    /// last one possibly shorter (one GSO message). `segment == len` is a single datagram.
    fn commit(&mut self, len: usize, segment: usize);
}
