//! One stream's life: what arrives of it, what is asked of its sender, what each receiver gets.
#![forbid(unsafe_code)]

pub mod allocation;
pub mod audio_level;
pub mod bwe;
pub mod frames;
pub mod header;
pub mod history;
pub mod key_frame;
pub mod nack;
pub mod pacer;
pub mod report;
pub mod rewriter;
pub mod scalable;
pub mod selector;
pub mod spec;
pub mod timeline;
pub mod transport_cc;
