//! Bytes to meaning and back: views over slices, no state, no time. Whatever the network sends, nothing
//! here panics.
pub mod extension;
