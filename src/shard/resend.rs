//! Packets that a receiver asked for again, from the shared history over the consumer's RTX stream (RFC 4588).
//!
//! The resent packet is what this consumer was sent, rewritten the same way: its number, timestamp and VP8
//! picture are worked out again from the same segment of its numbering. Nothing is sent twice within a round
//! trip, that through the queue which stands in front of the path, nothing from before a layer switch, and no more
//! than half of what the path carries. What feedback calls lost once it was resent leaves again unasked.

use std::time::{Duration, Instant};

use crate::discard::Discard;
use crate::limits::{DATAGRAM_BYTES, HEADER_BYTES, RESENDS_PER_TICK, RESENDS_REMEMBERED, RESENDS_WAITING};
use crate::media::header::Departure;
use crate::media::history::Packet;
use crate::media::pacer::Path;
use crate::media::rewriter::Rewrite;
use crate::packet::seq::SeqNo;
use crate::shard::Shard;
use crate::shard::consumer::{Consumer, Rtx};
use crate::shard::outbox::Outbox;
use crate::shard::table::Key;
use crate::shard::transport::{Keys, Transport};

/// A packet that is to leave again with this tick.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub transport: Key<Transport>,
    pub consumer: Key<Consumer>,
    /// As the receiver numbers it.
    pub sequence: u16,
    /// Feedback says so, and no receiver asked: what cannot be done then is nobody's request refused.
    pub is_lost: bool,
}

const OSN_BYTES: usize = 2;

/// Until the receiver has reported.
const ASSUMED_RTT: Duration = Duration::from_millis(100);

impl Shard {
    pub(super) fn flush_resends(&mut self, now: Instant, outbox: &mut impl Outbox) {
        if self.resends.is_empty() {
            return;
        }
        let mut resends = std::mem::take(&mut self.resends);
        for wanted in resends.drain(..) {
            if let Some(transport) = self.transports.at_mut(wanted.transport) {
                transport.resends_waiting = 0;
            }
            if let Err(discard) = self.resend(now, wanted, outbox)
                && !wanted.is_lost
            {
                self.discards.count(discard);
            }
        }
        self.resends = resends;
    }

    /// What feedback calls lost of what was awaited leaves with this tick.
    pub(super) fn resend_lost(&mut self, now: Instant, key: Key<Transport>) {
        let (consumers, resends) = (&self.consumers, &mut self.resends);
        let Some(transport) = self.transports.at_mut(key) else { return };
        let Some(estimator) = transport.estimator.as_deref() else { return };
        let (reported, waiting) = (transport.rtt, &mut transport.resends_waiting);
        let rtt = |key| {
            consumers.at(key).and_then(|consumer| consumer.transmission.rtt()).or(reported).unwrap_or(ASSUMED_RTT)
        };
        transport.awaited.due(
            now,
            rtt,
            |number| estimator.fate(number),
            |consumer, sequence| {
                if resends.len() < RESENDS_PER_TICK && *waiting < RESENDS_WAITING {
                    *waiting += 1;
                    resends.push(Wanted { transport: key, consumer, sequence, is_lost: true });
                }
            },
        );
    }

    fn resend(&mut self, now: Instant, wanted: Wanted, outbox: &mut impl Outbox) -> Result<(), Discard> {
        let Wanted { consumer: key, sequence, .. } = wanted;
        let consumer = self.consumers.at_mut(key).ok_or(Discard::ResendRefused)?;
        let producer = self.producers.at(consumer.producer).ok_or(Discard::ResendRefused)?;
        let layer = consumer.selector.flowing().ok_or(Discard::ResendRefused)?;
        let source = consumer.rewriter.source_of(sequence).ok_or(Discard::ResendRefused)?;
        let layer = &producer.layers[layer as usize];
        let (number, packet) = layer.index.find(source, &self.history).ok_or(Discard::ResendRefused)?;
        // It came just now, and leaves by itself with its run, or not at all.
        if layer.pending.contains(&number) {
            return Err(Discard::ResendRefused);
        }
        let rewrite = consumer.rewriter.again(packet).ok_or(Discard::ResendRefused)?;
        let payload = if consumer.rewriter.is_hole(&rewrite) { &[] } else { self.history.payload(packet) };
        let transport = self.transports.at_mut(consumer.transport).ok_or(Discard::NotConnected)?;
        let rtt = consumer.transmission.rtt().or(transport.rtt).unwrap_or(ASSUMED_RTT);
        let estimate = transport.estimator.as_ref().and_then(|estimator| estimator.measured_bps());
        let path = transport.estimator.as_ref().map_or(Path::Open, |estimator| estimator.path());
        // What left again stands in the queue behind what was too much. To send it once more before it came through makes the queue
        // last for as long as it is asked for.
        let queued_round = transport.estimator.as_ref().and_then(|estimator| estimator.queued_round());
        let rtt = rtt.max(queued_round.unwrap_or_default());
        let rtx = consumer.rest.rtx.as_mut().ok_or(Discard::ResendRefused)?;
        if !transport.resent.has_room(estimate, path, now) || !rtx.may_resend(sequence, now, rtt) {
            return Err(Discard::ResendRefused);
        }
        let destination = transport.destination.ok_or(Discard::NotConnected)?;
        let keys = transport.keys.as_mut().ok_or(Discard::NotConnected)?;
        let needed = rtx.header.len(packet)
            + HEADER_BYTES
            + OSN_BYTES
            + packet.payload_len as usize
            + keys.profile.rtp_overhead();
        if needed > DATAGRAM_BYTES + 2 * HEADER_BYTES {
            return Err(Discard::Oversized);
        }
        let slot = outbox.reserve(destination, needed).ok_or(Discard::ResendRefused)?;
        let departure = Departure {
            abs_send_time: self.clock.abs_send_time(now),
            transport_sequence: transport.transport_sequence as u16,
        };
        let descriptor = self.history.descriptor(packet);
        let len = rtx.write(packet, descriptor, payload, &rewrite, departure, slot, keys);
        let number = SeqNo(transport.transport_sequence as u16);
        let is_numbered = rtx.header.has_transport_cc();
        transport.transport_sequence += u64::from(is_numbered);
        match &mut transport.estimator {
            Some(estimator) if is_numbered => estimator.sent(number, len, now),
            Some(estimator) => estimator.sent_unnumbered(len, now),
            None => {}
        }
        if is_numbered {
            transport.awaited.sent(number, key, sequence, now);
        }
        outbox.commit(len, len);
        consumer.rest.resent += 1;
        self.repairs.downlink_packets_resent += 1;
        transport.sent.count(1, len, now);
        transport.pacer.debit(len);
        transport.resent.count(len, now);
        self.counters.packets_sent += 1;
        self.counters.bytes_sent += len as u64;
        self.counters.messages_sent += 1;
        Ok(())
    }
}

impl Rtx {
    /// `false` when the same packet left less than a round trip ago: the answer is on its way.
    fn may_resend(&mut self, sequence: u16, now: Instant, rtt: Duration) -> bool {
        self.resent.retain(|(_, at)| now.saturating_duration_since(*at) < rtt);
        if self.resent.len() == RESENDS_REMEMBERED || self.resent.iter().any(|(other, _)| *other == sequence) {
            return false;
        }
        self.resent.push((sequence, now));
        true
    }

    /// The packet as this consumer was sent it, behind its original sequence number. An empty `payload` filled a hole, and
    /// does so again: what belongs there is of a layer that was left out.
    fn write(
        &mut self,
        packet: &Packet,
        descriptor: &[u8],
        payload: &[u8],
        rewrite: &Rewrite,
        departure: Departure,
        out: &mut [u8],
        keys: &mut Keys,
    ) -> usize {
        self.sequence += 1;
        let own = Rewrite { sequence: self.sequence, ..*rewrite };
        let at = self.header.write(out, packet, descriptor, &own, departure, false);
        let end = at + OSN_BYTES + payload.len();
        out[at..at + OSN_BYTES].copy_from_slice(&(rewrite.sequence as u16).to_be_bytes());
        out[at + OSN_BYTES..end].copy_from_slice(payload);
        if let Some(descriptor) = &packet.vp8
            && !payload.is_empty()
            && let Some(ids) = rewrite.picture_ids(descriptor)
        {
            // The descriptor fits: the payload that it was read from was just copied.
            let _ = descriptor.write_into(payload, ids, &mut out[at + OSN_BYTES..end]);
        }
        keys.outbound.seal_rtp_in_place(out, at, end, self.ssrc, self.sequence)
    }
}
