//! When a producer is asked for a key frame.
