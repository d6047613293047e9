//! How a peer's path comes up, moves and goes: STUN checks, the DTLS handshake, consent.
//!
//! Each step says what changed; the demux, the keys and the control plane are told here and nowhere else.

use std::net::SocketAddr;
use std::time::Instant;

use crate::discard::Discard;
use crate::limits::DATAGRAM_BYTES;
use crate::shard::Shard;
use crate::shard::command::{DtlsState, Event};
use crate::shard::outbox::Destination;
use crate::shard::table::Key;
use crate::shard::transport::{Keys, Transport};
use crate::transport::dtls::Output;
use crate::transport::ice::{IceRefusal, Tuple, parse_ufrag};
use crate::transport::srtp::{Inbound, Outbound};

impl Shard {
    pub(super) fn receive_stun(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local: u8,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let ufrag = parse_ufrag(bytes).ok_or(Discard::MalformedStun)?;
        let key = self.demux.by_ufrag(ufrag).ok_or(Discard::UnknownUfrag)?;
        let transport = self.transports.at_mut(key).ok_or(Discard::UnknownUfrag)?;
        let tuple = Tuple { remote: source, local };
        let slot = self.staged.slot().ok_or(Discard::StagedFull)?;
        let outcome = transport.ice.handle_check(now, bytes, tuple, slot);
        if outcome.response_len > 0 {
            self.staged.commit(Destination { address: source, local }, outcome.response_len);
        }
        if let Some(refused) = outcome.refused {
            return Err(match refused {
                IceRefusal::Malformed | IceRefusal::NotARequest => Discard::MalformedStun,
                _ => Discard::RefusedStun,
            });
        }
        transport.received.count(1, bytes.len(), now);
        if let Some(removed) = outcome.removed {
            self.demux.remove_address(removed, key);
        }
        if let Some(ufrag) = outcome.retired_ufrag {
            self.demux.remove_ufrag(&ufrag);
        }
        if outcome.added {
            self.demux.add_address(tuple, key);
        }
        if outcome.selected_changed {
            self.follow_selected(now, key);
        }
        if outcome.state_changed {
            self.tell_state(key);
        }
        self.arm(now, key);
        Ok(())
    }

    /// Media goes where ICE says from the next packet on.
    pub(super) fn follow_selected(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        transport.destination =
            transport.ice.selected().map(|tuple| Destination { address: tuple.remote, local: tuple.local });
        // A handshake in which Ringside speaks first has been waiting for an address.
        self.advance_dtls(now, key);
    }

    pub(super) fn receive_dtls(&mut self, now: Instant, key: Key<Transport>, bytes: &[u8]) -> Result<(), Discard> {
        let transport = self.transports.at_mut(key).ok_or(Discard::UnknownSource)?;
        if matches!(transport.dtls.state(), DtlsState::Failed | DtlsState::Closed) {
            return Err(Discard::RefusedDtls);
        }
        transport.received.count(1, bytes.len(), now);
        transport.dtls.handle_datagram(now, bytes);
        self.advance_dtls(now, key);
        self.arm(now, key);
        Ok(())
    }

    /// Takes what the handshake has to say: datagrams, keys, its end.
    pub(super) fn advance_dtls(&mut self, now: Instant, key: Key<Transport>) {
        let mut buffer = [0; DATAGRAM_BYTES];
        let mut is_closed = false;
        let Some(transport) = self.transports.at_mut(key) else { return };
        // Without a path there is nobody to hear; what the handshake has to say is asked for again when there is.
        let Some(destination) = transport.destination else { return self.tell_state(key) };
        while let Some(output) = transport.dtls.poll(&mut buffer) {
            match output {
                Output::Datagram(bytes) => match self.staged.slot() {
                    Some(slot) => {
                        slot[..bytes.len()].copy_from_slice(bytes);
                        self.staged.commit(destination, bytes.len());
                        transport.sent.count(1, bytes.len(), now);
                    }
                    None => self.discards.count(Discard::StagedFull),
                },
                Output::Connected(keys) => {
                    transport.keys = Some(Box::new(Keys {
                        profile: keys.profile(),
                        inbound: Inbound::new(&keys),
                        outbound: Outbound::new(&keys),
                    }));
                }
                Output::Failed(reason) => {
                    tracing::info!(target: "ringside::dtls", transport = %transport.id, reason, "handshake failed");
                }
                Output::Closed => is_closed = true,
            }
        }
        let connected = transport.keys.is_some() && transport.told.1 != DtlsState::Connected;
        self.tell_state(key);
        if connected {
            self.begin_media(now, key);
        }
        if is_closed && let Some(transport) = self.transports.at(key) {
            let transport = transport.id;
            self.tell(Event::TransportClosed { transport });
        }
    }

    /// Consumers that were resumed before their transport was up have missed their key frame.
    fn begin_media(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at(key) else { return };
        for consumer in transport.consumers.clone() {
            if self.consumers.at(consumer).is_some_and(|consumer| !consumer.paused) {
                self.start_consumer(now, consumer);
            }
        }
    }

    /// Tells the control plane what a transport became, once for each change.
    pub(super) fn tell_state(&mut self, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let state = (transport.ice.state(), transport.dtls.state());
        if transport.told != state {
            transport.told = state;
            let transport = transport.id;
            self.tell(Event::TransportState { transport, ice: state.0, dtls: state.1 });
        }
    }
}
