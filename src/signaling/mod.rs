//! The control plane: one thread on which browsers and operators are answered.
//!
//! A join's way: browser -> framing ([`protoo`] or [`socketio`]) -> [`message`] -> [`session`] (pure: answers,
//! notifications, commands) -> [`hub`] -> the room's worker -> an event back through the hub. [`http`] serves
//! the demo page, the operator's API and the metrics on the same port.

pub mod admission;
pub mod bucket;
#[cfg(test)]
mod conformance;
pub mod counters;
pub mod error;
#[cfg(test)]
pub(crate) mod fake_worker;
pub mod fuzz;
pub mod http;
pub mod hub;
pub mod message;
pub mod metrics;
pub mod negotiation;
pub mod notification;
pub mod outgoing;
pub mod overload;
pub mod page;
pub mod placement;
pub mod protoo;
mod queue;
pub mod registry;
pub mod server;
pub mod session;
pub mod settings;
pub mod socketio;
