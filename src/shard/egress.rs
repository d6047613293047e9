//! The way out: from packets that are due to sealed runs, one consumer's transport after the other.
//!
//! ```text
//!   due layers --> runs (packets of one layer, mostly one frame)
//!              --> by transport: whose copies of which runs
//!              --> decide: each packet becomes an Outgoing, or a counted Discard
//!              --> write: header, payload sealed from the history into the slot, back to back
//!              --> one GSO message for each stretch of equal sizes
//! ```
//!
//! What costs is the kernel's work per message, not per byte (1.9 us against 0.3 us of cipher), so packets that
//! are almost as large as the stretch are padded up to it (RFC 3550 section 5.1) and leave in the same message.
//! Nothing here waits, allocates when warm, or changes a packet that others share.

use std::time::Instant;

use crate::discard::Discard;
use crate::limits::{DATAGRAM_BYTES, HEADER_BYTES, PAD_BYTES, RUN_BYTES, RUN_SEGMENTS};
use crate::media::header::Departure;
use crate::media::history::{History, PacketNumber};
use crate::media::rewriter::Rewrite;
use crate::packet::seq::SeqNo;
use crate::shard::Shard;
use crate::shard::consumer::{Consumer, Verdict};
use crate::shard::outbox::Outbox;
use crate::shard::producer::Producer;
use crate::shard::table::{Key, Table};
use crate::shard::transport::{Keys, Transport};

/// Buffers of one tick, kept for their capacity.
#[derive(Default)]
pub struct Egress {
    /// Layers with packets that wait.
    pub held: Vec<(Key<Producer>, u8)>,
    runs: Vec<Run>,
    numbers: Vec<PacketNumber>,
    transports: Vec<Key<Transport>>,
    outgoing: Vec<Outgoing>,
    /// When the first packet of each run of the last flush arrived; the worker takes the latency from it.
    pub departed: Vec<Instant>,
}

/// Packets of one layer that leave together.
#[derive(Clone, Copy)]
struct Run {
    producer: Key<Producer>,
    layer: u8,
    first: u32,
    end: u32,
}

/// One packet for one consumer, decided and not yet written.
#[derive(Clone, Copy)]
struct Outgoing {
    consumer: Key<Consumer>,
    number: PacketNumber,
    rewrite: Rewrite,
    /// Of the sealed datagram without padding.
    size: u16,
    /// The size that it is padded to where that joins it to its neighbours.
    padded: u16,
    /// Carries no payload: fills a hole in the numbering.
    is_filler: bool,
}

impl Shard {
    /// Sends every run that is due: those that have the last packet of their frame, and those held for long
    /// enough.
    pub(super) fn flush_media(&mut self, now: Instant, outbox: &mut impl Outbox) {
        let mut egress = std::mem::take(&mut self.egress);
        egress.departed.clear();
        self.collect_runs(now, &mut egress);
        if !egress.runs.is_empty() {
            self.sort_by_transport(&mut egress);
            let transports = std::mem::take(&mut egress.transports);
            for transport in &transports {
                self.send_due(now, *transport, &mut egress, outbox);
            }
            egress.transports = transports;
            egress.transports.clear();
            egress.runs.clear();
            egress.numbers.clear();
        }
        self.egress = egress;
    }

    fn collect_runs(&mut self, now: Instant, egress: &mut Egress) {
        let (history, hold, producers) = (&self.history, self.config.hold, &mut self.producers);
        let (runs, numbers, departed) = (&mut egress.runs, &mut egress.numbers, &mut egress.departed);
        egress.held.retain(|(key, at)| {
            let Some(producer) = producers.at_mut(*key) else { return false };
            let is_audio = !producer.needs_key_frame();
            let layer = &mut producer.layers[*at as usize];
            let (Some(since), Some(last)) = (layer.pending_since, layer.pending.last()) else { return false };
            let frame_is_complete = history.packet(*last).is_none_or(|packet| packet.marker);
            if !(is_audio || frame_is_complete || layer.pending_is_full() || now >= since + hold) {
                return true;
            }
            let first = numbers.len() as u32;
            numbers.append(&mut layer.pending);
            layer.pending_since = None;
            runs.push(Run { producer: *key, layer: *at, first, end: numbers.len() as u32 });
            departed.push(since);
            false
        });
    }

    fn sort_by_transport(&mut self, egress: &mut Egress) {
        for (index, run) in egress.runs.iter().enumerate() {
            let Some(producer) = self.producers.at(run.producer) else { continue };
            for key in &producer.layers[run.layer as usize].consumers {
                let Some(consumer) = self.consumers.at(*key) else { continue };
                let Some(transport) = self.transports.at_mut(consumer.transport) else { continue };
                if transport.due.is_empty() {
                    egress.transports.push(consumer.transport);
                }
                transport.due.push((index as u32, *key));
            }
        }
    }

    fn send_due(&mut self, now: Instant, key: Key<Transport>, egress: &mut Egress, outbox: &mut impl Outbox) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let mut due = std::mem::take(&mut transport.due);
        let overhead = match (&transport.keys, transport.destination) {
            (Some(keys), Some(_)) => Some(keys.profile.rtp_overhead()),
            _ => None,
        };
        match overhead {
            Some(overhead) => {
                egress.outgoing.clear();
                for (run, consumer) in &due {
                    self.decide(egress.runs[*run as usize], *consumer, overhead, egress);
                }
                if due.len() > 1 {
                    // Larger first, so that packets of different producers join one message; stable, so that
                    // those of one consumer stay in order (a run has one padded size).
                    egress.outgoing.sort_by_key(|outgoing| std::cmp::Reverse(outgoing.padded));
                }
                self.write(now, key, &egress.outgoing, outbox);
            }
            None => {
                let packets = due.iter().map(|(run, _)| u64::from(egress.runs[*run as usize].len())).sum();
                self.discards.add(Discard::NotConnected, packets);
            }
        }
        due.clear();
        if let Some(transport) = self.transports.at_mut(key) {
            transport.due = due;
        }
    }

    /// What each packet of a run becomes for one consumer.
    fn decide(&mut self, run: Run, key: Key<Consumer>, overhead: usize, egress: &mut Egress) {
        let Some(consumer) = self.consumers.at_mut(key) else { return };
        let Some(producer) = self.producers.at(run.producer) else { return };
        let flowing = consumer.selector.current();
        let start = egress.outgoing.len();
        let mut largest = 0;
        for number in &egress.numbers[run.first as usize..run.end as usize] {
            let Some(packet) = self.history.packet(*number) else {
                self.discards.count(Discard::Overwritten);
                continue;
            };
            let (rewrite, is_filler) = match consumer.accept(run.layer, packet, producer) {
                Verdict::Send(rewrite) => (rewrite, packet.payload_len == 0),
                Verdict::Fill(rewrite) => (rewrite, true),
                Verdict::Discard(discard) => {
                    self.discards.count(discard);
                    continue;
                }
            };
            let payload = if is_filler { 1 } else { packet.payload_len as usize };
            let size = consumer.header.len(&packet.passed) + payload + overhead;
            if size > DATAGRAM_BYTES {
                self.discards.count(Discard::Oversized);
                continue;
            }
            largest = largest.max(size);
            let number = *number;
            let (size, padded) = (size as u16, size as u16);
            egress.outgoing.push(Outgoing { consumer: key, number, rewrite, size, padded, is_filler });
        }
        for outgoing in &mut egress.outgoing[start..] {
            if largest - outgoing.size as usize <= PAD_BYTES {
                outgoing.padded = largest as u16;
            }
        }
        if consumer.selector.current() != flowing {
            self.changed.push(key);
        }
    }

    /// Seals everything into as few messages as the sizes allow.
    fn write(&mut self, now: Instant, key: Key<Transport>, outgoing: &[Outgoing], outbox: &mut impl Outbox) {
        let abs_send_time = self.clock.abs_send_time(now);
        let Some(transport) = self.transports.at_mut(key) else { return };
        let (Some(keys), Some(destination)) = (transport.keys.as_mut(), transport.destination) else { return };
        let (mut packets, mut bytes) = (0, 0);
        let estimator = &mut transport.estimator;
        let mut rest = outgoing;
        while let Some(first) = rest.first() {
            let segment = first.padded as usize;
            let Some(slot) = outbox.reserve(destination, RUN_BYTES) else {
                self.discards.add(Discard::NoSlot, rest.len() as u64);
                break;
            };
            let (mut at, mut count) = (0, 0);
            while let Some((next, behind)) = rest.split_first() {
                let len = next.padded as usize;
                if count == RUN_SEGMENTS || at + len.max(next.size as usize + HEADER_BYTES) > RUN_BYTES {
                    break;
                }
                let gap = segment.wrapping_sub(len);
                if gap > segment {
                    break;
                }
                let target = target_size(segment, next.size as usize, len);
                let number = transport.transport_sequence;
                let Some(written) = write_one(
                    next,
                    target,
                    &mut slot[at..],
                    abs_send_time,
                    &mut transport.transport_sequence,
                    keys,
                    &self.history,
                    &mut self.consumers,
                    now,
                ) else {
                    self.discards.count(Discard::Overwritten);
                    rest = behind;
                    continue;
                };
                if let Some(estimator) = estimator {
                    if transport.transport_sequence != number {
                        estimator.sent(SeqNo(number as u16), written, now);
                    } else {
                        estimator.sent_unnumbered(written, now);
                    }
                }
                at += written;
                count += 1;
                rest = behind;
                if written < segment {
                    break;
                }
            }
            outbox.commit(at, segment.min(at));
            packets += count as u64;
            bytes += at;
            self.counters.messages_sent += 1;
        }
        transport.sent.count(packets, bytes, now);
        self.counters.packets_sent += packets;
        self.counters.bytes_sent += bytes as u64;
    }

    /// When the first held run must leave, complete or not.
    pub(super) fn media_deadline(&self) -> Option<Instant> {
        let since = self
            .egress
            .held
            .iter()
            .filter_map(|(key, layer)| self.producers.at(*key)?.layers.get(*layer as usize)?.pending_since);
        since.min().map(|since| since + self.config.hold)
    }
}

/// Writes one packet padded to `target` bytes; returns what it wrote, `None` when the packet is gone.
#[inline]
fn write_one(
    outgoing: &Outgoing,
    target: usize,
    out: &mut [u8],
    abs_send_time: u32,
    transport_sequence: &mut u64,
    keys: &mut Keys,
    history: &History,
    consumers: &mut Table<Consumer>,
    now: Instant,
) -> Option<usize> {
    let consumer = consumers.at_mut(outgoing.consumer)?;
    let packet = history.packet(outgoing.number)?;
    let padding = target - outgoing.size as usize + usize::from(outgoing.is_filler);
    let departure = Departure { abs_send_time, transport_sequence: *transport_sequence as u16 };
    if consumer.header.has_transport_cc() {
        *transport_sequence += 1;
    }
    let header_len = consumer.header.write(out, packet, &outgoing.rewrite, departure, padding > 0);
    let payload: &[u8] = if outgoing.is_filler { &[] } else { history.payload(packet) };
    consumer.transmission.send(payload.len(), outgoing.rewrite.timestamp, now);
    let padding = &PADDING[padding][..padding];
    let (ssrc, sequence) = (consumer.ssrc, outgoing.rewrite.sequence);
    let ids = packet.vp8.and_then(|descriptor| Some((descriptor, outgoing.rewrite.picture_ids(&descriptor)?)));
    Some(match ids {
        Some((descriptor, ids)) if !payload.is_empty() => {
            // The receiver's picture numbers differ: the descriptor is written anew, and the cipher runs in place.
            let len = header_len + payload.len();
            let end = len + padding.len();
            out[header_len..len].copy_from_slice(payload);
            descriptor.write_into(payload, ids, &mut out[header_len..len])?;
            out[len..end].copy_from_slice(padding);
            keys.outbound.seal_rtp_in_place(out, header_len, end, ssrc, sequence)
        }
        _ => keys.outbound.seal_rtp(out, header_len, payload, padding, ssrc, sequence),
    })
}

/// The size that a packet of `size` bytes, `padded` to fit its own run, takes in a message of `segment`: a little
/// smaller, it is padded up; much smaller, it ends the message. Both paddings together stay within the bound.
#[inline]
fn target_size(segment: usize, size: usize, padded: usize) -> usize {
    if segment - size <= PAD_BYTES { segment } else { padded }
}

/// RTP padding of each length: zeros, and the count in the last byte (RFC 3550 section 5.1).
static PADDING: [[u8; PADDING_BYTES]; PADDING_BYTES] = {
    let mut rows = [[0; PADDING_BYTES]; PADDING_BYTES];
    let mut count = 1;
    while count < PADDING_BYTES {
        rows[count][count - 1] = count as u8;
        count += 1;
    }
    rows
};
/// A packet may be padded twice, to the largest of its run and that to the largest of its message; one that only fills a
/// hole has one byte before either.
const PADDING_BYTES: usize = 2 * PAD_BYTES + 2;

impl Run {
    fn len(&self) -> u32 {
        self.end - self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_padded_for_its_run_and_for_its_message_is_not_padded_beyond_the_bound() {
        let size = 300;
        for padded in size..=size + PAD_BYTES {
            for segment in padded..=padded + 2 * PAD_BYTES {
                let target = target_size(segment, size, padded);
                assert!(target == segment || target == padded);
                assert!(target - size <= PAD_BYTES, "{size} padded to {padded} in a message of {segment}");
            }
        }
    }
}
