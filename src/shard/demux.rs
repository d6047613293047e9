//! Which transport a datagram belongs to: by the address it comes from, or for a first check by ICE ufrag.
//!
//! Addresses are entered only after an authenticated check, so an unknown sender costs one lookup and
//! leaves nothing behind.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::shard::table::Key;
use crate::shard::transport::Transport;
use crate::transport::ice::Tuple;

#[derive(Default)]
pub struct Demux {
    addresses: HashMap<(IpAddr, u16, u8), Key<Transport>>,
    ufrags: HashMap<String, Key<Transport>>,
}

impl Demux {
    #[inline]
    pub fn by_address(&self, source: SocketAddr, local: u8) -> Option<Key<Transport>> {
        self.addresses.get(&(source.ip(), source.port(), local)).copied()
    }

    pub fn by_ufrag(&self, ufrag: &str) -> Option<Key<Transport>> {
        self.ufrags.get(ufrag).copied()
    }

    pub fn add_ufrag(&mut self, ufrag: &str, transport: Key<Transport>) {
        self.ufrags.insert(ufrag.to_owned(), transport);
    }

    pub fn remove_ufrag(&mut self, ufrag: &str) {
        self.ufrags.remove(ufrag);
    }

    /// The newest transport that authenticated an address owns it (a browser reuses its port).
    pub fn add_address(&mut self, tuple: Tuple, transport: Key<Transport>) {
        self.addresses.insert((tuple.remote.ip(), tuple.remote.port(), tuple.local), transport);
    }

    /// Leaves the address alone when another transport owns it by now.
    pub fn remove_address(&mut self, tuple: Tuple, transport: Key<Transport>) {
        let address = (tuple.remote.ip(), tuple.remote.port(), tuple.local);
        if self.addresses.get(&address) == Some(&transport) {
            self.addresses.remove(&address);
        }
    }

    /// Everything that leads to a transport that is gone.
    pub fn forget(&mut self, transport: Key<Transport>) {
        self.addresses.retain(|_, owner| *owner != transport);
        self.ufrags.retain(|_, owner| *owner != transport);
    }
}
