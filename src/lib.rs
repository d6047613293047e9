//! Ringside: a WebRTC SFU for Linux. One pinned worker per core, io_uring under it, thin JSON
//! signaling on top, an unmodified mediasoup-client in the browser.
//!
//! The map of the crate, from the bytes upwards; imports point downwards only:
//!
//! | module | owns |
//! |---|---|
//! | [`packet`] | bytes to meaning and back: views over slices; no state, no time |
//! | [`transport`] | one peer's secured path: ICE-lite, DTLS, SRTP |
//! | [`media`] | one stream's life: producer, consumer, rewriting, reports |
//! | [`shard`] | one core's world as a pure value: datagrams and commands in, datagrams and events out |
//! | [`uring`] | the kernel: rings, slots, sockets, and all `unsafe` of the crate |
//! | [`worker`] | a pinned core: executor, ring and shard, tick by tick |
//! | [`signaling`] | the control plane: HTTP, protoo, Socket.IO, negotiation |
//! | [`process`], [`host`] | the order of start and end; what the machine allows |
//! | [`config`], [`limits`], [`log`] | what the operator may choose; every bound; which subsystem says how much |
//! | [`ids`], [`discard`] | names of things; names of refusals |
//!
//! The lint fence: `unsafe` is denied everywhere but in [`uring`].

pub mod config;
pub mod discard;
pub mod host;
pub mod ids;
pub mod limits;
pub mod log;
pub mod media;
pub mod packet;
pub mod process;
pub mod shard;
pub mod signaling;
pub mod transport;
pub mod uring;
pub mod worker;
