//! One peer's secured path: ICE-lite, DTLS, SRTP. Pure machines: bytes and time come in, bytes and facts
//! come out; no socket, no clock, no map of other peers.
#![forbid(unsafe_code)]

pub mod dtls;
pub mod fuzz;
pub mod ice;
pub mod srtp;
