//! The control plane: one thread on which browsers and operators are answered.
//!
//! A join's way: browser -> framing ([`protoo`] or [`socketio`]) -> [`message`] -> [`session`] (pure: answers,
//! notifications, commands) -> [`hub`] -> the room's worker -> an event back through the hub. [`http`] serves
//! the demo page, the operator's API and the metrics on the same port.

pub mod bucket;
pub mod counters;
pub mod error;
#[cfg(test)]
pub(crate) mod fake_worker;
pub mod fuzz;
pub mod message;
pub mod negotiation;
pub mod notification;
pub mod placement;
pub mod registry;
pub mod session;
pub mod settings;
