//! One core's world as a pure value.
pub mod command;
pub mod outbox;
pub mod stats;
