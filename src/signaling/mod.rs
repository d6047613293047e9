//! The control plane.
pub mod fuzz;
pub mod negotiation;
