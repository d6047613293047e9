//! Bytes to meaning and back: views over slices, no state, no time. Whatever the network sends, nothing
//! here panics.
#![forbid(unsafe_code)]

mod be;
pub mod classify;
pub mod codec;
pub mod extension;
pub mod fuzz;
pub mod ntp;
pub mod rtcp;
pub mod rtp;
pub mod seq;
pub mod stun;
