//! Whole calls in virtual time: a shard, an independent stack as its clients, a seeded network between them.

mod call;
mod client;
mod forwarding;
mod network;
mod simulcast;
mod source;
mod viewer;
