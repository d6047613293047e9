//! Codecs and layers within one stream: scripted packets through a shard, judged by what a decoder could do with what comes out.

#[path = "../../benches/support/call.rs"]
#[allow(dead_code, reason = "shared with the benches")]
mod call;
mod h264;
mod seams;
mod source;
mod svc;
mod viewer;
#[allow(dead_code, reason = "each codec takes what it needs")]
mod world;
