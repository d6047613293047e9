//! What a receiver's downlink carries, and who gets it.
//!
//! Feedback feeds the transport's estimator; the estimate is shared out among its consumers when it changes, when a
//! wish or a source changes, and twice a second. A grant becomes the cap of a consumer's selector; which packet
//! that means is decided there. Padding for probes leaves on a retransmission stream, which every browser accepts
//! and no decoder sees (RFC 4588; the contract of the client allows nothing else).

use std::time::{Duration, Instant};

use crate::limits::{PROBE_PACKETS, RUN_BYTES};
use crate::media::allocation::{Demand, Offer};
use crate::media::bwe::Estimator;
use crate::media::header::Departure;
use crate::media::history::Packet;
use crate::media::rewriter::Rewrite;
use crate::media::spec::SourceClass;
use crate::packet::rtcp::TransportCc;
use crate::packet::seq::SeqNo;
use crate::shard::Shard;
use crate::shard::command::{Kind, Layers};
use crate::shard::consumer::Consumer;
use crate::shard::outbox::Outbox;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

/// Between allocations when nothing happens: sources change their bitrates.
const ALLOCATION_INTERVAL: Duration = Duration::from_millis(500);

/// Padding of one probe packet; RTP counts it in one byte.
const PROBE_PADDING: usize = 240;

impl Shard {
    pub(super) fn receive_transport_cc(&mut self, now: Instant, key: Key<Transport>, feedback: &TransportCc<'_>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        self.repairs.invented_feedback += u64::from(is_invented(feedback, transport.transport_sequence));
        if let Some(estimator) = transport.estimator.as_mut() {
            estimator.feedback(feedback, now);
            self.resend_lost(now, key);
            self.keep_bandwidth(now, key);
        }
    }

    pub(super) fn receive_remb(&mut self, now: Instant, key: Key<Transport>, bitrate_bps: u64) {
        if let Some(estimator) = self.transports.at_mut(key).and_then(|transport| transport.estimator.as_mut()) {
            estimator.remb(bitrate_bps);
            self.keep_bandwidth(now, key);
        }
    }

    /// The first video consumer whose receiver gives feedback begins the estimate of its transport.
    pub(super) fn begin_estimate(&mut self, now: Instant, key: Key<Consumer>) {
        let Some(consumer) = self.consumers.at(key) else { return };
        let feedback = consumer.rest.feedback;
        if consumer.rest.kind != Kind::Video || !(feedback.transport_cc || feedback.remb) {
            return;
        }
        if let Some(transport) = self.transports.at_mut(consumer.transport) {
            transport.estimator.get_or_insert_with(|| Box::new(Estimator::new(now)));
        }
    }

    /// Something changed that the allocation should know of soon.
    pub(super) fn want_allocation(&mut self, now: Instant, key: Key<Transport>) {
        if let Some(transport) = self.transports.at_mut(key).filter(|transport| transport.estimator.is_some()) {
            transport.next_allocation = Some(now);
        }
    }

    pub(super) fn keep_bandwidth(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let Some(estimator) = transport.estimator.as_mut() else { return };
        estimator.poll(now);
        if estimator.padding(now).is_some() {
            self.probes.push(key);
        }
        let is_due = transport.next_allocation.is_none_or(|at| at <= now);
        if estimator.take_change().is_some() || is_due {
            transport.next_allocation = Some(now + ALLOCATION_INTERVAL);
            self.allocate(now, key);
        }
    }

    /// Shares the estimate out among the consumers of one transport.
    fn allocate(&mut self, now: Instant, key: Key<Transport>) {
        let mut demands = std::mem::take(&mut self.demands);
        demands.clear();
        let Some(transport) = self.transports.at_mut(key) else { return };
        let resent_bps = transport.resent.lasting_bps(now);
        let Some(transport) = self.transports.at(key) else { return };
        for consumer in transport.consumers.iter().filter_map(|key| self.consumers.at(*key)) {
            demands.push(self.demand(now, consumer));
        }
        let estimate = transport.estimator.as_ref().map(|estimator| estimator.estimate_bps());
        let allocated = self.allocator.allocate(estimate, resent_bps, now, &mut demands);
        if let Some(estimator) = self.transports.at_mut(key).and_then(|transport| transport.estimator.as_mut()) {
            estimator.want(allocated.next_raise_bps, allocated.wanted_bps);
        }
        for (at, demand) in demands.iter().enumerate() {
            let Some(consumer) = self.transports.at(key).and_then(|t| t.consumers.get(at).copied()) else { break };
            self.grant(now, consumer, demand);
        }
        self.demands = demands;
    }

    fn demand(&self, now: Instant, consumer: &Consumer) -> Demand {
        let rest = &consumer.rest;
        let producer = self.producers.at(consumer.producer);
        let paused = consumer.paused || producer.is_none_or(|producer| producer.paused || producer.is_withheld);
        let class = match rest.kind {
            Kind::Audio => SourceClass::Microphone,
            Kind::Video => producer.map_or(SourceClass::Camera, |producer| producer.class),
        };
        let offer = producer.map_or_else(|| Offer::new(1, 1), |producer| producer.offer(now));
        let mut demand = Demand::new(class, rest.priority, consumer.selector.preferred(), offer, rest.grant);
        demand.paused = paused;
        demand
    }

    fn grant(&mut self, now: Instant, key: Key<Consumer>, demand: &Demand) {
        let Some(consumer) = self.consumers.at_mut(key) else { return };
        consumer.rest.grant = demand.grant;
        if consumer.rest.kind != Kind::Video || demand.paused {
            return;
        }
        let allowed = allowed(demand);
        if consumer.selector.allowed() != allowed {
            consumer.selector.allow(allowed);
            self.choose_layer(now, key);
            self.changed.push(key);
        }
    }

    /// Sends the padding that probes want now, as one message for each transport.
    pub(super) fn flush_probes(&mut self, now: Instant, outbox: &mut impl Outbox) {
        let mut probes = std::mem::take(&mut self.probes);
        for key in probes.drain(..) {
            self.send_padding(now, key, outbox);
        }
        self.probes = probes;
    }

    fn send_padding(&mut self, now: Instant, key: Key<Transport>, outbox: &mut impl Outbox) -> Option<()> {
        let transport = self.transports.at_mut(key)?;
        let carrier = transport.consumers.iter().copied().find(|consumer| {
            self.consumers.at(*consumer).is_some_and(|consumer| !consumer.paused && consumer.can_probe())
        })?;
        let consumer = self.consumers.at_mut(carrier)?;
        let timestamp = consumer.rewriter.last_timestamp();
        let rtx = consumer.rest.rtx.as_mut()?;
        let destination = transport.destination?;
        let keys = transport.keys.as_mut()?;
        let estimator = transport.estimator.as_mut()?;
        let wanted = estimator.padding(now)?;
        let size = rtx.header.len(&Packet::new(0, 0, 0)) + PROBE_PADDING + keys.profile.rtp_overhead();
        let count = wanted.div_ceil(size).clamp(1, PROBE_PACKETS.min(RUN_BYTES / size));
        let slot = outbox.reserve(destination, count * size)?;
        let abs_send_time = self.clock.abs_send_time(now);
        let padding = {
            let mut padding = [0; PROBE_PADDING];
            padding[PROBE_PADDING - 1] = PROBE_PADDING as u8;
            padding
        };
        for out in slot.chunks_exact_mut(size) {
            rtx.sequence += 1;
            let departure = Departure { abs_send_time, transport_sequence: transport.transport_sequence as u16 };
            estimator.sent(SeqNo(transport.transport_sequence as u16), size, now);
            transport.transport_sequence += 1;
            let rewrite = Rewrite { sequence: rtx.sequence, timestamp, picture: 0, tl0: 0, end: false };
            let header_len = rtx.header.write(out, &Packet::new(0, 0, 0), &[], &rewrite, departure, true);
            keys.outbound.seal_rtp(out, header_len, &[], &padding, rtx.ssrc, rtx.sequence);
        }
        outbox.commit(count * size, size);
        transport.sent.count(count as u64, count * size, now);
        self.counters.packets_sent += count as u64;
        self.counters.bytes_sent += (count * size) as u64;
        self.counters.messages_sent += 1;
        Some(())
    }
}

/// Whether feedback speaks of a number that was not given to a packet yet; `next` is the next one that will be. The
/// estimator passes over such numbers by itself; here they are noticed.
fn is_invented(feedback: &TransportCc<'_>, next: u64) -> bool {
    let Some(before_last) = feedback.status_count.checked_sub(1) else { return false };
    let last = feedback.base.0.wrapping_add(before_last);
    let ahead = last.wrapping_sub(next as u16);
    next == 0 || ahead < 0x8000
}

/// The cap that a grant means. Of a source that has not been measured nothing can be said yet: it may begin. And a
/// source with one layer is sent as it is: with nothing less to change over to, the choice is that or no picture.
fn allowed(demand: &Demand) -> Option<Option<Layers>> {
    let base = Layers { spatial: 0, temporal: 0 };
    match demand.grant.layers {
        Some(layers) => Some(Some(layers)),
        None if demand.offer.declared().spatial == 0 => Some(Some(base)),
        None if demand.offer.is_measured() => Some(None),
        None => None,
    }
}

impl Consumer {
    /// Whether padding may leave on its retransmission stream: it has one, numbered transport-wide, and media of
    /// it has been sent (padding carries its timestamp).
    fn can_probe(&self) -> bool {
        self.rewriter.has_started() && self.rest.rtx.as_ref().is_some_and(|rtx| rtx.header.has_transport_cc())
    }
}
