//! The load test of Ringside, as a library for its binary and its tests.
//!
//! ```text
//! scenario (what) -> swarm (the one thread that drives all clients) -> measure -> report
//!                      schedule, media: what is due, without sockets
//!                      client: signaling, ICE, DTLS, SRTP of one participant
//! ramp, plan, compare: runs of it; peers: other servers under the same load; proc: what the server costs
//! ```

pub mod cli;
pub mod client;
pub mod clock;
pub mod compare;
pub mod expect;
pub mod measure;
pub mod media;
pub mod peers;
pub mod plan;
pub mod proc;
pub mod ramp;
pub mod random;
pub mod report;
pub mod run;
pub mod scenario;
pub mod schedule;
pub mod swarm;
pub mod sys;
pub mod view;
