//! What the clock asks for: consent, handshakes, repairs, key frames, layers that fell silent.
//!
//! A transport is kept up when its earliest deadline comes; each part looks whether its own has.

use std::time::{Duration, Instant};

use crate::discard::Discard;
use crate::ids::Ssrc;
use crate::limits::{NACKS_PER_MESSAGE, RTCP_BYTES};
use crate::packet::rtcp::{write_full_intra_request, write_nack, write_picture_loss};
use crate::packet::seq::SeqNo;
use crate::shard::Shard;
use crate::shard::producer::{Layer, Producer};
use crate::shard::table::Key;
use crate::shard::transport::{Stream, Transport};

/// How often the layers of a simulcast source are looked at.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A NACK takes so much for each stream, and so much at most for each packet (RFC 4585 section 6.2.1).
const NACK_HEADER_BYTES: usize = 12;
const NACK_ENTRY_BYTES: usize = 4;

/// The SSRC that Ringside's own feedback and receiver reports come from. Browsers look at the media SSRC only.
pub const REPORTER: Ssrc = Ssrc(1);

impl Shard {
    pub(super) fn deadline_of(&self, now: Instant, key: Key<Transport>) -> Option<Instant> {
        let transport = self.transports.at(key)?;
        let path = [transport.ice.next_deadline(), transport.dtls.next_deadline()];
        if !transport.is_connected() {
            return path.into_iter().flatten().min();
        }
        let arrivals = transport.arrivals.as_ref().and_then(|arrivals| arrivals.next_deadline());
        let estimator = transport.estimator.as_ref();
        let bandwidth = [estimator.and_then(|estimator| estimator.next_deadline()), transport.next_allocation];
        let own = [arrivals, transport.next_report, transport.next_check, transport.pacer.next_deadline()];
        let own = own.into_iter().chain(bandwidth);
        let producers = transport.producers.iter().filter_map(|producer| self.producers.at(*producer));
        let of_layers = producers
            .flat_map(|producer| producer.layers.iter().flat_map(move |layer| producer.deadlines_of(layer, now)));
        path.into_iter().chain(own).chain(of_layers).flatten().min()
    }

    /// [`arm`](Self::arm) for a packet that arrived: it moves only its layer's deadlines and those of what is told of arrivals.
    #[inline]
    pub(super) fn arm_arrival(&mut self, now: Instant, key: Key<Transport>, stream: Stream) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let arrivals = transport.arrivals.as_ref().and_then(|arrivals| arrivals.next_deadline());
        let of_layer = self
            .producers
            .at(stream.producer)
            .map_or([None; 2], |producer| producer.deadlines_of(&producer.layers[stream.layer as usize], now));
        let own = [arrivals, transport.next_report, transport.next_check];
        let deadline = own.into_iter().chain(of_layer).flatten().min();
        self.timers.arm(key, &mut transport.armed, deadline);
    }

    pub(super) fn keep_up(&mut self, now: Instant, key: Key<Transport>) {
        self.keep_path(now, key);
        if self.transports.at(key).is_some_and(Transport::is_connected) {
            self.ask_for_missing(now, key);
            self.send_transport_feedback(now, key);
            self.send_reports(now, key);
            self.check_layers(now, key);
            self.keep_bandwidth(now, key);
        }
        if self.transports.at_mut(key).is_some_and(|transport| transport.pacer.call(now)) {
            self.pacing.due.push(key);
        }
        self.arm(now, key);
    }

    fn keep_path(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let outcome = transport.ice.handle_timeout(now);
        if transport.dtls.next_deadline().is_some_and(|at| at <= now) {
            transport.dtls.handle_timeout(now);
            self.advance_dtls(now, key);
        }
        if outcome.selected_changed {
            self.follow_selected(now, key);
        }
        if outcome.state_changed {
            self.tell_state(key);
        }
    }

    /// NACKs for what is missing of every layer that arrives on a transport, in one datagram.
    fn ask_for_missing(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at(key) else { return };
        let rtt = transport.rtt;
        let mut missing = std::mem::take(&mut self.missing);
        for at in 0..transport.producers.len() {
            let Some(producer_key) = self.transports.at(key).and_then(|t| t.producers.get(at).copied()) else { break };
            let layers = self.producers.at(producer_key).map_or(0, |producer| producer.layers.len());
            for layer in 0..layers {
                self.note_missing(now, producer_key, layer, rtt, &mut missing);
            }
            self.request_key_frames(now, producer_key);
        }
        if !missing.is_empty() {
            self.send_rtcp(now, key, |out| {
                let mut at = 0;
                for of_stream in missing.chunk_by(|(ssrc, _), (next, _)| ssrc == next) {
                    let numbers = of_stream.iter().map(|(_, number)| *number);
                    let Some(len) = write_nack(&mut out[at..], REPORTER, of_stream[0].0, numbers) else { break };
                    at += len;
                }
                (at > 0).then_some(at)
            });
            missing.clear();
        }
        self.missing = missing;
    }

    fn note_missing(
        &mut self,
        now: Instant,
        producer_key: Key<Producer>,
        layer: usize,
        rtt: Option<Duration>,
        missing: &mut Vec<(Ssrc, SeqNo)>,
    ) {
        let Some(producer) = self.producers.at_mut(producer_key) else { return };
        let (may_nack, is_video) = (producer.feedback.nack, producer.needs_key_frame());
        let layer = &mut producer.layers[layer];
        let Some(ssrc) = layer.ssrc.filter(|_| may_nack) else { return };
        if layer.nack.next_deadline().is_some_and(|at| at <= now) {
            // What has no room is asked for in another datagram at once.
            let streams = 1 + missing.chunk_by(|(ssrc, _), (next, _)| ssrc == next).count();
            let room = NACKS_PER_MESSAGE.min(RTCP_BYTES.saturating_sub(NACK_HEADER_BYTES * streams) / NACK_ENTRY_BYTES);
            layer.nack.due(now, rtt, |sequence| {
                let has_room = missing.len() < room;
                missing.extend(has_room.then_some((ssrc, SeqNo(sequence))));
                has_room
            });
            if layer.nack.take_key_frame_request() && is_video && !layer.consumers.is_empty() {
                layer.key_frames.ask();
            }
        }
    }

    /// Sends the key frame requests whose time has come.
    pub(super) fn request_key_frames(&mut self, now: Instant, producer_key: Key<Producer>) {
        let Some(producer) = self.producers.at_mut(producer_key).filter(|producer| producer.may_be_asked()) else {
            return;
        };
        let (key, layers, by_pli) = (producer.transport, producer.layers.len(), producer.feedback.pli);
        if !self.transports.at(key).is_some_and(Transport::is_connected) {
            return;
        }
        for at in 0..layers {
            let Some(layer) = self.producers.at_mut(producer_key).map(|producer| &mut producer.layers[at]) else {
                return;
            };
            if layer.consumers.is_empty() {
                layer.key_frames.withdraw();
            }
            let Some(ssrc) = layer.ssrc else { continue };
            if !layer.key_frames.poll(now) {
                continue;
            }
            if by_pli {
                layer.plis_sent += 1;
                self.send_rtcp(now, key, |out| write_picture_loss(out, REPORTER, ssrc));
            } else {
                layer.firs_sent += 1;
                layer.fir_sequence = layer.fir_sequence.wrapping_add(1);
                let request = (ssrc, layer.fir_sequence);
                self.send_rtcp(now, key, |out| write_full_intra_request(out, REPORTER, [request]));
            }
        }
        self.arm(now, key);
    }

    /// A simulcast layer that fell silent is left by its consumers.
    fn check_layers(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        if transport.next_check.is_none_or(|at| at > now) {
            return;
        }
        transport.next_check = None;
        let mut any_alive = false;
        for at in 0..transport.producers.len() {
            let Some(producer_key) = self.transports.at(key).and_then(|t| t.producers.get(at).copied()) else { break };
            let Some(producer) = self.producers.at_mut(producer_key) else { continue };
            if !producer.needs_key_frame() {
                continue;
            }
            producer.measure_offer(now);
            any_alive |= producer.layers.iter().any(|layer| layer.is_fresh(now));
            if producer.spatial_layers() == 1 {
                continue;
            }
            if producer.judge_layers() {
                self.changed.extend(&producer.consumers);
                self.choose_layers(now, producer_key, true);
            }
        }
        if let Some(transport) = self.transports.at_mut(key).filter(|_| any_alive) {
            transport.next_check = Some(now + CHECK_INTERVAL);
        }
    }

    /// What a stream that has become slower no longer needs to find its packets is given back.
    pub(super) fn trim_indices(&mut self, key: Key<Transport>) {
        let Some(transport) = self.transports.at(key) else { return };
        for producer in &transport.producers {
            let Some(producer) = self.producers.at_mut(*producer) else { continue };
            producer.layers.iter_mut().for_each(|layer| layer.index.trim(&self.history));
        }
    }

    /// Writes one RTCP datagram to a peer, sealed. `write` gets room for it and returns the length, or `None`
    /// when there is nothing to send.
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

impl Producer {
    /// When a layer is to be asked for what is missing, and for a key frame.
    fn deadlines_of(&self, layer: &Layer, now: Instant) -> [Option<Instant>; 2] {
        if layer.ssrc.is_none() {
            return [None; 2];
        }
        let nack = layer.nack.next_deadline().filter(|_| self.feedback.nack);
        let key_frame = layer.key_frames.next_deadline(now).filter(|_| self.may_be_asked());
        [nack, key_frame]
    }

    /// Whether a key frame request makes sense: the source has them, and sends.
    fn may_be_asked(&self) -> bool {
        self.needs_key_frame() && !self.paused
    }
}
