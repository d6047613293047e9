//! The control plane.
pub mod negotiation;
