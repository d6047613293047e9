//! Sequence numbers that wrap.
