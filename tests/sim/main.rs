//! Whole calls in virtual time: a shard, an independent stack as its clients, a seeded network between them.

mod beginning;
mod call;
mod client;
mod congestion;
mod forwarding;
mod messages;
mod network;
mod networks;
mod simulcast;
mod source;
mod storms;
mod viewer;
mod voices;
