//! What a receiver's downlink carries, and who gets it.
//!
//! Feedback feeds the transport's estimator; the estimate is shared out among its consumers when it changes, when a
//! wish or a source changes, and twice a second. A grant becomes the cap of a consumer's selector; which packet
//! that means is decided there. Padding for probes leaves on a retransmission stream, which every browser accepts
//! and no decoder sees (RFC 4588), or where there is none on the client's own [`probator`](super::probator).

use std::time::{Duration, Instant};

use crate::limits::{PROBE_PACKETS, RUN_BYTES, RUN_SEGMENTS};
use crate::media::allocation::{Demand, Offer};
use crate::media::bwe::Estimator;
use crate::media::header::Departure;
use crate::media::history::Packet;
use crate::media::rewriter::Rewrite;
use crate::media::spec::SourceClass;
use crate::packet::rtcp::TransportCc;
use crate::packet::seq::SeqNo;
use crate::shard::command::{Kind, Layers};
use crate::shard::consumer::{Consumer, Rtx};
use crate::shard::outbox::Outbox;
use crate::shard::probator::Probator;
use crate::shard::producer::Producer;
use crate::shard::table::Key;
use crate::shard::transport::{Keys, Transport};
use crate::shard::{Sent, Shard};

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
        let extensions = consumer.header.extensions();
        if let Some(transport) = self.transports.at_mut(consumer.transport) {
            transport.estimator.get_or_insert_with(|| Box::new(Estimator::new(now)));
            transport.probator.get_or_insert_with(|| Box::new(Probator::new(extensions)));
        }
    }

    /// Whether the next allocation says what a consumer gets. Nothing is allocated before a transport is up.
    pub(super) fn is_decided_by_bandwidth(&self, key: Key<Consumer>) -> bool {
        let Some(consumer) = self.consumers.at(key) else { return false };
        let transport = self.transports.at(consumer.transport);
        let is_estimated = transport.is_some_and(|transport| transport.is_connected() && transport.estimator.is_some());
        consumer.rest.kind == Kind::Video && is_estimated
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
        transport.pacer.set_path(estimator.path());
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
        let waiting = transport.pacer.bytes();
        let link = transport.estimator.as_ref().map(|estimator| estimator.downlink(waiting, now));
        let is_jammed = link.is_some_and(|link| link.drain_bps > 0);
        let allocated = self.allocator.allocate(link, resent_bps, now, &mut demands);
        let mut spare_bps = link.map_or(u64::MAX, |link| link.estimate_bps.saturating_sub(allocated.granted_bps));
        if let Some(estimator) = self.transports.at_mut(key).and_then(|transport| transport.estimator.as_mut()) {
            estimator.want(allocated.next_raise_bps, allocated.wanted_bps);
        }
        for (at, demand) in demands.iter().enumerate() {
            let Some(consumer) = self.transports.at(key).and_then(|t| t.consumers.get(at).copied()) else { break };
            if is_jammed && !self.can_bridge(consumer, demand, &mut spare_bps) {
                self.let_go(consumer);
            }
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
        if consumer.rest.kind != Kind::Video {
            return;
        }
        let begins = std::mem::take(&mut consumer.rest.begins);
        if demand.paused {
            // It is to be there when its source goes on.
            if begins {
                self.begin(now, key);
            }
            return;
        }
        let allowed = allowed(demand, consumer.selector.allowed());
        let is_same = consumer.selector.allowed() == allowed;
        consumer.selector.allow(allowed);
        if begins {
            self.begin(now, key);
        } else if !is_same {
            self.choose_layer(now, key);
            self.changed.push(key);
            if allowed == Some(None) {
                self.forget_paced(key);
            }
        }
    }

    /// Whether the path has room for what flows, at its fewest frames, until the key frame of the lower layer comes that the
    /// consumer is granted; `spare_bps` is what the grants leave.
    fn can_bridge(&self, key: Key<Consumer>, demand: &Demand, spare_bps: &mut u64) -> bool {
        let Some(consumer) = self.consumers.at(key) else { return true };
        let (Some(current), Some(granted)) = (consumer.selector.current(), demand.grant.layers) else { return true };
        let is_nested = self.producers.at(consumer.producer).is_some_and(Producer::is_nested);
        if current <= granted.spatial || is_nested {
            return true;
        }
        let least_bps = demand.offer.bps(Layers { spatial: current, temporal: 0 });
        let more_bps = least_bps.saturating_sub(demand.offer.bps(granted));
        let fits = more_bps <= *spare_bps;
        *spare_bps -= if fits { more_bps } else { 0 };
        fits
    }

    /// What flows ends at once, with what waits of it and what would be sent again: it only stands in the way of what shall
    /// flow instead.
    fn let_go(&mut self, key: Key<Consumer>) {
        if let Some(consumer) = self.consumers.at_mut(key) {
            consumer.selector.stop();
            self.changed.push(key);
        }
        self.forget_paced(key);
    }

    /// Sends the padding that probes want now.
    pub(super) fn flush_probes(&mut self, now: Instant, outbox: &mut impl Outbox) {
        let mut probes = std::mem::take(&mut self.probes);
        for key in probes.drain(..) {
            self.send_padding(now, key, outbox);
        }
        self.probes = probes;
    }

    fn send_padding(&mut self, now: Instant, key: Key<Transport>, outbox: &mut impl Outbox) -> Option<()> {
        let transport = self.transports.at_mut(key)?;
        let wanted = transport.estimator.as_ref()?.padding(now).filter(|_| transport.pacer.is_empty())?;
        let has_rtx = |consumer: &&Consumer| !consumer.paused && consumer.has_rtx;
        let mut carriers = transport.consumers.iter().filter_map(|key| self.consumers.at(*key)).filter(has_rtx);
        // Padding carries the timestamp of the media that was sent; a picture that is stopped keeps its last.
        let carrier = carriers.find(|consumer| consumer.rewriter.has_started()).map(|consumer| consumer.ssrc);
        let departure = Departure { abs_send_time: self.clock.abs_send_time(now), transport_sequence: 0 };
        let overhead = transport.keys.as_ref()?.profile.rtp_overhead();
        match carrier.and_then(|ssrc| transport.sent_ssrcs.get(&ssrc)) {
            Some(consumer) => {
                let consumer = self.consumers.at_mut(*consumer)?;
                let timestamp = consumer.rewriter.last_timestamp();
                let rtx = consumer.rest.rtx.as_mut()?;
                let (size, is_numbered) = (rtx.padding_size(overhead), rtx.header.has_transport_cc());
                let padding = Padding { wanted, size, is_numbered, departure };
                self.counters.pad(transport.pad(now, padding, outbox, |departure, out, keys| {
                    rtx.write_padding(timestamp, departure, out, keys)
                }));
            }
            None => {
                let mut probator = transport.probator.take()?;
                if probator.can_send(PROBE_PACKETS) {
                    let timestamp = (self.clock.unix(now).as_millis() * 90) as u32;
                    let (size, is_numbered) = (probator.size(overhead), probator.has_transport_cc());
                    let padding = Padding { wanted, size, is_numbered, departure };
                    self.counters.pad(transport.pad(now, padding, outbox, |departure, out, keys| {
                        probator.write(departure, timestamp, out, keys)
                    }));
                }
                transport.probator = Some(probator);
            }
        }
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

/// One portion of a probe.
#[derive(Clone, Copy)]
struct Padding {
    /// Bytes.
    wanted: usize,
    /// Of each datagram.
    size: usize,
    is_numbered: bool,
    departure: Departure,
}

impl Transport {
    /// Sends one portion, packet by packet as `write` makes them; returns what left.
    fn pad(
        &mut self,
        now: Instant,
        padding: Padding,
        outbox: &mut impl Outbox,
        mut write: impl FnMut(Departure, &mut [u8], &mut Keys) -> usize,
    ) -> Sent {
        let mut sent = Sent::default();
        let (Some(keys), Some(destination)) = (self.keys.as_mut(), self.destination) else { return sent };
        let Some(estimator) = self.estimator.as_mut() else { return sent };
        let size = padding.size;
        let most = RUN_SEGMENTS.min(RUN_BYTES / size);
        let mut left = padding.wanted.div_ceil(size).clamp(1, PROBE_PACKETS);
        while left > 0 {
            let count = left.min(most);
            let Some(slot) = outbox.reserve(destination, count * size) else { break };
            for out in slot.chunks_exact_mut(size) {
                let number = self.transport_sequence as u16;
                write(Departure { transport_sequence: number, ..padding.departure }, out, keys);
                if padding.is_numbered {
                    estimator.sent(SeqNo(number), size, now);
                    self.transport_sequence += 1;
                } else {
                    estimator.padded(size, now);
                }
            }
            outbox.commit(count * size, size);
            sent.packets += count as u64;
            sent.bytes += (count * size) as u64;
            sent.messages += 1;
            left -= count;
        }
        self.sent.count(sent.packets, sent.bytes as usize, now);
        self.padding_bytes_sent += sent.bytes;
        self.pacer.debit(sent.bytes as usize);
        sent
    }
}

impl Rtx {
    fn padding_size(&self, overhead: usize) -> usize {
        self.header.len(&Packet::new(0, 0, 0)) + PROBE_PADDING + overhead
    }

    /// A packet of nothing but padding, which carries no original's number either.
    fn write_padding(&mut self, timestamp: u32, departure: Departure, out: &mut [u8], keys: &mut Keys) -> usize {
        let mut padding = [0; PROBE_PADDING];
        padding[PROBE_PADDING - 1] = PROBE_PADDING as u8;
        self.sequence += 1;
        let rewrite = Rewrite { sequence: self.sequence, timestamp, picture: 0, tl0: 0, end: false };
        let at = self.header.write(out, &Packet::new(0, 0, 0), &[], &rewrite, departure, true);
        keys.outbound.seal_rtp(out, at, &[], &padding, self.ssrc, self.sequence)
    }
}

/// The cap that a grant means, after this one. Of a source of several sizes that has not been measured nothing can be said
/// yet: it may begin. What sends nothing keeps its cap, and comes back if it was stopped.
fn allowed(demand: &Demand, before: Option<Option<Layers>>) -> Option<Option<Layers>> {
    let declared = demand.offer.declared();
    match demand.grant.layers {
        Some(layers) => Some(Some(layers)),
        None if demand.offer.is_measured() => Some(None),
        None if before == Some(None) || declared.spatial == 0 => Some(Some(declared)),
        None => before,
    }
}
