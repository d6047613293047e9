//! What workers report of their own accord, told on to the peers whom it concerns.
//!
//! An event about something that is closed meanwhile concerns nobody.

use super::Control;
use crate::ids::{PeerId, RoomId, TransportId};
use crate::shard::command::{DtlsState, Event, IceState};
use crate::signaling::notification::Notification;

impl Control {
    pub(super) fn tell_on(&mut self, event: Event) {
        match event {
            // Replies are continued elsewhere.
            Event::Reply { .. } => {}
            Event::TransportState { transport, ice, dtls } => self.transport_state(transport, ice, dtls),
            Event::TransportClosed { transport } => self.transport_closed(transport),
            Event::ConsumerLayers { consumer, layers, reason } => {
                if let Some(entry) = self.registry.consumers.get(&consumer) {
                    self.notify(entry.peer, &Notification::consumer_layers(consumer, layers, reason));
                }
            }
            Event::ProducerScore { producer, score } => {
                if let Some(entry) = self.registry.producers.get(&producer) {
                    self.notify(entry.peer, &Notification::producer_score(producer, score));
                }
            }
            Event::ConsumerScore { consumer, score, producer_score } => {
                if let Some(entry) = self.registry.consumers.get(&consumer) {
                    self.notify(entry.peer, &Notification::consumer_score(consumer, score, producer_score));
                }
            }
            Event::ActiveSpeaker { room, peer } => self.active_speaker(room, peer),
            Event::AudioLevels { room, levels } => self.audio_levels(room, &levels),
        }
    }

    fn transport_state(&mut self, transport: TransportId, ice: IceState, dtls: DtlsState) {
        if let Some(entry) = self.registry.transports.get(&transport) {
            self.notify(entry.peer, &Notification::transport_state(transport, ice, dtls));
        }
    }

    /// The browser closed it or was not heard for too long. The peer stays, for its connection may be sound; what
    /// it sent and received over this transport goes, and everybody hears of it, the peer included.
    fn transport_closed(&mut self, transport: TransportId) {
        let Some(owner) = self.registry.transports.get(&transport).map(|entry| entry.peer) else { return };
        self.notify(owner, &Notification::transport_state(transport, IceState::Disconnected, DtlsState::Closed));
        self.drop_transport(owner, transport, None);
    }

    fn active_speaker(&mut self, room: RoomId, peer: PeerId) {
        if let Some(name) = self.registry.peers.get(&peer).map(|peer| peer.name.clone()) {
            self.notify_room(room, None, &Notification::active_speaker(&name));
        }
    }

    fn audio_levels(&mut self, room: RoomId, levels: &[(PeerId, u8)]) {
        let named = levels.iter().filter_map(|(peer, level)| Some((&*self.registry.peers.get(peer)?.name, *level)));
        let notification = Notification::audio_levels(named);
        self.notify_room(room, None, &notification);
    }
}
