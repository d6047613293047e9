//! The kernel: rings, slots, sockets. All unsafe code of the crate is in this folder.
