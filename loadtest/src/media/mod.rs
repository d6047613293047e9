//! What participants send, without any socket: recorded sizes and cadence, packets as RTP wants them, and the stamp
//! inside each payload that tells a receiver when the packet was due.

pub mod recording;
pub mod rtp;
pub mod source;
pub mod stamp;
pub mod turns;
pub mod vp8;
