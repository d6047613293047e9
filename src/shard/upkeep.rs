//! What the clock asks for: consent, handshakes, repairs, key frames, feedback, reports, layers that fell silent.
//!
//! A transport is kept up when its earliest deadline comes; each part looks whether its own has. All RTCP that
//! Ringside sends by itself is written here.

use std::time::{Duration, Instant};

use crate::discard::Discard;
use crate::limits::RTCP_BYTES;
use crate::shard::Shard;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

/// Reports of video and of what a transport receives; a third of the usual RTCP interval, so that a browser
/// learns of loss and round trip while it still helps.
#[allow(dead_code)]
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Sender reports of audio may be rarer (RFC 3550 section 6.2 recommends 5 s); the first comes at once.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Shard {
    pub(super) fn deadline_of(&self, now: Instant, key: Key<Transport>) -> Option<Instant> {
        let transport = self.transports.at(key)?;
        let own = [
            transport.ice.next_deadline(),
            transport.dtls.next_deadline(),
            transport.next_report,
            transport.next_check,
        ];
        let layers = transport.producers.iter().filter_map(|producer| self.producers.at(*producer));
        let of_layers = layers
            .flat_map(|producer| &producer.layers)
            .flat_map(|layer| [layer.nack.next_deadline(), layer.key_frames.next_deadline(now)]);
        own.into_iter().chain(of_layers).flatten().min()
    }

    pub(super) fn keep_up(&mut self, now: Instant, key: Key<Transport>) {
        self.keep_path(now, key);
        self.check_layers(now, key);
        self.arm(now, key);
    }

    fn keep_path(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let outcome = transport.ice.handle_timeout(now);
        transport.dtls.handle_timeout(now);
        if outcome.selected_changed {
            self.follow_selected(now, key);
        }
        self.advance_dtls(now, key);
    }

    /// A simulcast layer that fell silent is left by its consumers.
    fn check_layers(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        if transport.next_check.is_none_or(|at| at > now) {
            return;
        }
        transport.next_check = (!transport.producers.is_empty()).then(|| now + CHECK_INTERVAL);
        for producer_key in transport.producers.clone() {
            let Some(producer) = self.producers.at_mut(producer_key) else { continue };
            let alive = producer.alive(now);
            if producer.layers.len() > 1 && producer.was_alive != alive {
                producer.was_alive = alive;
                self.choose_layers(now, producer_key);
            }
        }
    }

    /// Writes one RTCP datagram to a peer, sealed. `write` gets room for it and returns the length, or `None`
    /// when there is nothing to send.
    #[allow(dead_code)]
    pub(super) fn send_rtcp(
        &mut self,
        now: Instant,
        key: Key<Transport>,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let (Some(keys), Some(destination)) = (transport.keys.as_mut(), transport.destination) else { return };
        let Some(slot) = self.staged.slot() else { return self.discards.count(Discard::StagedFull) };
        let Some(len) = write(&mut slot[..RTCP_BYTES]) else { return };
        let Some(len) = keys.outbound.seal_rtcp(slot, len) else { return };
        self.staged.commit(destination, len);
        transport.sent.count(1, len, now);
    }
}
