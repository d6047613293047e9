//! The kernel: sockets, the ring, its slots, the mailbox. All `unsafe` of the crate is in this folder.
//!
//! A [`Ring`] owns one io_uring, the worker's UDP sockets, the slots that datagrams are received into and
//! the slots that they leave from. The worker drives it: [`Ring::wait`] blocks until a datagram, a command or a
//! deadline, [`Ring::receive`] lends one received datagram (or GRO train) at a time, and the ring is the
//! [`Outbox`](crate::shard::outbox::Outbox) that a shard writes into.
//!
//! Every `unsafe` block hides behind a safe type whose misuse does not compile: a receive slot that the kernel
//! owns has no `&mut [u8]`, and a send slot that is in flight is on no list that `reserve` takes from.
//! Nothing here knows what a datagram means.
#![allow(unsafe_code)]

pub mod clock;
pub mod mailbox;
mod memory;
pub mod priority;
pub mod probe;
mod recv;
mod ring;
mod send;
mod slots;
pub mod socket;

pub use recv::Received;
pub use ring::{Counters, Ring, RingConfig, RingError};
pub use socket::Socket;
