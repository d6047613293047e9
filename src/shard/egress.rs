//! The way out: from packets that are due to sealed runs, one consumer's transport after the other.
//!
//! ```text
//!   due layers --> runs (packets of one layer, mostly one frame)
//!              --> by transport: whose copies of which runs
//!              --> decide: each packet becomes an Outgoing, or a counted Discard
//!              --> pack: which of them share a message
//!              --> write: header, payload sealed from the history into the slot, back to back
//!              --> one GSO message for each stretch of equal sizes
//! ```
//!
//! What costs is the kernel's work per message, not per byte (1.9 us against 0.3 us of cipher), so packets that
//! are almost as large as the stretch are padded up to it (RFC 3550 section 5.1) and leave in the same message.
//! When the core runs out of time, complete runs wait a little for others to the same receivers
//! ([`Shard::set_gather`]).
//! Nothing here waits, allocates when warm, or changes a packet that others share.

use std::time::Instant;

use crate::discard::Discard;
use crate::limits::{
    DATAGRAM_BYTES, HEADER_BYTES, PAD_BYTES, PAD_SCARCE_BYTES, PAD_SMALL_BYTES, RUN_BYTES, RUN_SEGMENTS,
};
use crate::media::header::Departure;
use crate::media::history::{History, Packet, PacketNumber};
use crate::media::rewriter::Rewrite;
use crate::packet::seq::SeqNo;
use crate::shard::Shard;
use crate::shard::consumer::{Consumer, Verdict};
use crate::shard::outbox::Outbox;
use crate::shard::packing::pad_run;
use crate::shard::producer::Producer;
use crate::shard::room::Room;
use crate::shard::table::{Key, Table};
use crate::shard::transport::{Keys, Transport};

/// Buffers of one tick, kept for their capacity.
#[derive(Default)]
pub struct Egress {
    /// Layers with packets that wait.
    pub held: Vec<(Key<Producer>, u8)>,
    /// When the first of them must leave, or sooner.
    leaves_at: Option<Instant>,
    /// Rooms of which something has to leave in this tick, while runs wait for company.
    leaving: Vec<Key<Room>>,
    runs: Vec<Run>,
    /// What the runs consist of, looked up once for all consumers.
    packets: Vec<Packet>,
    pub numbers: Vec<PacketNumber>,
    transports: Vec<Key<Transport>>,
    pub outgoing: Vec<Outgoing>,
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
pub struct Outgoing {
    pub consumer: Key<Consumer>,
    /// Index among the packets of this flush.
    pub packet: u32,
    pub rewrite: Rewrite,
    /// Of the sealed datagram without padding.
    pub size: u16,
    /// The size that it is padded to where that joins it to its neighbours.
    pub padded: u16,
    /// Carries no payload: fills a hole in the numbering.
    pub is_filler: bool,
    /// Leaves again when it is lost, without being asked for.
    pub is_awaited: bool,
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
            egress.packets.clear();
            egress.numbers.clear();
        }
        self.egress = egress;
    }

    fn collect_runs(&mut self, now: Instant, egress: &mut Egress) {
        if egress.leaves_at.is_none_or(|at| at > now) {
            return;
        }
        if !self.gather.is_zero() {
            self.call_rooms(now, egress);
        }
        let (history, hold, gather, producers) = (&self.history, self.config.hold, self.gather, &mut self.producers);
        let (runs, packets, departed) = (&mut egress.runs, &mut egress.packets, &mut egress.departed);
        let (rooms, numbers) = (&egress.leaving, &mut egress.numbers);
        let mut first_to_leave: Option<Instant> = None;
        egress.held.retain(|(key, at)| {
            let Some(producer) = producers.at_mut(*key) else { return false };
            let layer = &mut producer.layers[*at as usize];
            let Some((leaves_at, is_complete)) = layer.leaves(hold, gather) else { return false };
            if now < leaves_at && !(is_complete && rooms.contains(&producer.room)) {
                first_to_leave = Some(first_to_leave.map_or(leaves_at, |first| first.min(leaves_at)));
                return true;
            }
            let first = packets.len() as u32;
            for number in &layer.pending {
                if let Some(packet) = history.packet(*number) {
                    packets.push(*packet);
                    numbers.push(*number);
                }
            }
            let end = packets.len() as u32;
            let overwritten = layer.pending.len() - (end - first) as usize;
            self.discards.add(Discard::Overwritten, (overwritten * layer.consumers.len()) as u64);
            layer.pending.clear();
            departed.extend(layer.pending_since.take());
            runs.push(Run { producer: *key, layer: *at, first, end });
            false
        });
        egress.leaves_at = first_to_leave;
    }

    /// Where one run of a room has to leave, everything of the room that is complete goes with it: that is what it was
    /// gathered for. Other rooms have other receivers, and wait for their own.
    fn call_rooms(&self, now: Instant, egress: &mut Egress) {
        egress.leaving.clear();
        for (key, at) in &egress.held {
            let Some(producer) = self.producers.at(*key) else { continue };
            let leaves = producer.layers[*at as usize].leaves(self.config.hold, self.gather);
            if leaves.is_some_and(|(at, _)| at <= now) && !egress.leaving.contains(&producer.room) {
                egress.leaving.push(producer.room);
            }
        }
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
                let has_room = |transport: &Transport| transport.pacer.has_room(egress.outgoing.len());
                if !self.transports.at(key).is_some_and(has_room) {
                    self.pace(now, key, egress, outbox);
                }
                self.write(now, key, &mut egress.outgoing, &egress.packets, outbox);
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
        let has_rtx = consumer.has_rtx;
        let start = egress.outgoing.len();
        let mut largest = 0;
        for at in run.first..run.end {
            let packet = &egress.packets[at as usize];
            let (rewrite, is_filler) = match consumer.accept(run.layer, packet, producer) {
                Verdict::Send(rewrite) => (rewrite, packet.payload_len == 0),
                Verdict::Fill(rewrite) => (rewrite, true),
                Verdict::Discard(discard) => {
                    self.discards.count(discard);
                    continue;
                }
            };
            let payload = if is_filler { 1 } else { packet.payload_len as usize };
            let size = consumer.header.len(packet) + payload + overhead;
            if size > DATAGRAM_BYTES {
                self.discards.count(Discard::Oversized);
                continue;
            }
            largest = largest.max(size);
            let (size, padded) = (size as u16, size as u16);
            let is_awaited = has_rtx && consumer.rewriter.is_late(&rewrite);
            egress.outgoing.push(Outgoing { consumer: key, packet: at, rewrite, size, padded, is_filler, is_awaited });
        }
        pad_run(&mut egress.outgoing[start..], largest);
        if consumer.selector.current() != flowing {
            self.changed.push(key);
            // Without the packets of the first key frame there is no picture at all.
            egress.outgoing[start..].iter_mut().for_each(|outgoing| outgoing.is_awaited = has_rtx);
        }
    }

    /// Seals everything into as few messages as the sizes allow.
    pub(super) fn write(
        &mut self,
        now: Instant,
        key: Key<Transport>,
        outgoing: &mut Vec<Outgoing>,
        packets: &[Packet],
        outbox: &mut impl Outbox,
    ) {
        self.packing.pack(outgoing, !self.gather.is_zero());
        let abs_send_time = self.clock.abs_send_time(now);
        let Some(transport) = self.transports.at_mut(key) else { return };
        let (true, Some(destination)) = (transport.keys.is_some(), transport.destination) else { return };
        let (consumers, history) = (&self.consumers, &self.history);
        let material = Material { now, abs_send_time, packets, consumers, history };
        let (mut sent, mut bytes) = (0, 0);
        while let Some(first) = outgoing.get(sent) {
            let Some(slot) = outbox.reserve(destination, RUN_BYTES) else {
                self.discards.add(Discard::NoSlot, (outgoing.len() - sent) as u64);
                break;
            };
            let (count, len) = material.fill(slot, &outgoing[sent..], transport);
            outbox.commit(len, len.min(first.padded as usize));
            sent += count;
            bytes += len;
            self.counters.messages_sent += 1;
        }
        self.account(now, &outgoing[..sent], packets);
        let sent = sent as u64;
        if let Some(transport) = self.transports.at_mut(key) {
            transport.sent.count(sent, bytes, now);
            transport.pacer.debit(bytes);
        }
        self.counters.packets_sent += sent;
        self.counters.bytes_sent += bytes as u64;
    }

    /// Counts what left, one stretch of the same consumer at a time.
    fn account(&mut self, now: Instant, outgoing: &[Outgoing], packets: &[Packet]) {
        for stretch in outgoing.chunk_by(|one, next| one.consumer == next.consumer) {
            let (Some(last), Some(consumer)) = (stretch.last(), self.consumers.at_mut(stretch[0].consumer)) else {
                continue;
            };
            let octets = stretch.iter().map(|outgoing| match outgoing.is_filler {
                true => 0,
                false => packets[outgoing.packet as usize].payload_len as usize,
            });
            consumer.transmission.send(stretch.len() as u64, octets.sum(), last.rewrite.timestamp, now);
            if let Some(newest) = stretch.iter().max_by_key(|outgoing| outgoing.rewrite.sequence) {
                let vp8 = packets[newest.packet as usize].vp8.filter(|_| !newest.is_filler);
                consumer.rewriter.has_left(&newest.rewrite, vp8);
            }
        }
    }

    /// When the first held run must leave, complete or not; a run that was dropped since may have been the first.
    pub(super) fn media_deadline(&self) -> Option<Instant> {
        self.egress.leaves_at
    }

    /// How long runs wait has changed.
    pub(super) fn reckon_leaving(&mut self) {
        let leaves = |(key, at): &(Key<Producer>, u8)| {
            self.producers.at(*key)?.layers[*at as usize].leaves(self.config.hold, self.gather)
        };
        self.egress.leaves_at = self.egress.held.iter().filter_map(leaves).map(|(at, _)| at).min();
    }
}

impl Egress {
    /// A run that waits must leave by then.
    #[inline]
    pub fn leave_by(&mut self, at: Option<Instant>) {
        self.leaves_at = self.leaves_at.into_iter().chain(at).min();
    }
}

/// What messages are made of.
struct Material<'a> {
    now: Instant,
    abs_send_time: u32,
    packets: &'a [Packet],
    consumers: &'a Table<Consumer>,
    history: &'a History,
}

impl Material<'_> {
    /// Writes one message: the first of these packets, and those behind it whose sizes let them join. Returns how many, and
    /// the bytes.
    #[inline]
    fn fill(&self, slot: &mut [u8], outgoing: &[Outgoing], transport: &mut Transport) -> (usize, usize) {
        let (Some(keys), Some(first)) = (transport.keys.as_mut(), outgoing.first()) else { return (0, 0) };
        let segment = first.padded as usize;
        let (mut count, mut at) = (0, 0);
        for next in outgoing.iter().take(RUN_SEGMENTS) {
            let target = next.padded as usize;
            if target > segment || at + target.max(next.size as usize + HEADER_BYTES) > RUN_BYTES {
                break;
            }
            let consumer = self.consumers.at(next.consumer).expect("nobody goes between deciding and writing");
            let number = transport.transport_sequence as u16;
            let departure = Departure { abs_send_time: self.abs_send_time, transport_sequence: number };
            let packet = &self.packets[next.packet as usize];
            let written = write_one(next, target, &mut slot[at..], departure, consumer, packet, keys, self.history);
            let is_numbered = consumer.header.has_transport_cc();
            transport.transport_sequence += u64::from(is_numbered);
            match &mut transport.estimator {
                Some(estimator) if is_numbered => estimator.sent(SeqNo(number), written, self.now),
                Some(estimator) => estimator.sent_unnumbered(written, self.now),
                None => {}
            }
            if next.is_awaited && is_numbered {
                transport.awaited.sent(SeqNo(number), next.consumer, next.rewrite.sequence as u16, self.now);
            }
            at += written;
            count += 1;
            if written < segment {
                break;
            }
        }
        (count, at)
    }
}

/// Writes one packet padded to `target` bytes, and returns the length.
#[inline]
fn write_one(
    outgoing: &Outgoing,
    target: usize,
    out: &mut [u8],
    departure: Departure,
    consumer: &Consumer,
    packet: &Packet,
    keys: &mut Keys,
    history: &History,
) -> usize {
    let padding = target - outgoing.size as usize + usize::from(outgoing.is_filler);
    let descriptor = history.descriptor(packet);
    let header_len = consumer.header.write(out, packet, descriptor, &outgoing.rewrite, departure, padding > 0);
    let payload: &[u8] = if outgoing.is_filler { &[] } else { history.payload(packet) };
    let mut zeros = [0; PADDING_BYTES];
    let padding = pad(&mut zeros, padding);
    let (ssrc, sequence) = (consumer.ssrc, outgoing.rewrite.sequence);
    let ids = packet.vp8.and_then(|descriptor| Some((descriptor, outgoing.rewrite.picture_ids(&descriptor)?)));
    match ids {
        Some((descriptor, ids)) if !payload.is_empty() => {
            // The receiver's picture numbers differ: the descriptor is written anew, and the cipher runs in place.
            let len = header_len + payload.len();
            let end = len + padding.len();
            out[header_len..len].copy_from_slice(payload);
            // Fits: the payload that it was read from was just copied.
            let _ = descriptor.write_into(payload, ids, &mut out[header_len..len]);
            out[len..end].copy_from_slice(padding);
            keys.outbound.seal_rtp_in_place(out, header_len, end, ssrc, sequence)
        }
        _ => keys.outbound.seal_rtp(out, header_len, payload, padding, ssrc, sequence),
    }
}

/// RTP padding of this length: zeros, and the count in the last byte (RFC 3550 section 5.1).
#[inline]
fn pad(zeros: &mut [u8; PADDING_BYTES], len: usize) -> &[u8] {
    if len > 0 {
        zeros[len - 1] = len as u8;
    }
    &zeros[..len]
}

/// The count is a byte. A packet may be padded twice, to the largest of its run and that to the largest of its message; one
/// that only fills a hole has one byte before either.
const PADDING_BYTES: usize = 255;
const _: () = assert!(PAD_BYTES + PAD_SCARCE_BYTES < PADDING_BYTES && PAD_SMALL_BYTES <= PAD_SCARCE_BYTES);

impl Run {
    fn len(&self) -> u32 {
        self.end - self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SMALL_BYTES;
    use crate::shard::packing::Packing;

    /// A packet of `size` bytes in a run whose largest has so many.
    fn padded_for_run(size: u16, largest: u16) -> Outgoing {
        let rewrite = Rewrite { sequence: 0, timestamp: 0, picture: 0, tl0: 0, end: false };
        let (consumer, packet, padded) = (Key::dangling(), 0, size);
        let mut run = [Outgoing { consumer, packet, rewrite, size, padded, is_filler: false, is_awaited: false }];
        pad_run(&mut run, largest.into());
        run[0]
    }

    #[test]
    fn there_is_padding_for_a_packet_that_is_padded_for_its_run_and_again_for_its_message() {
        for largest in [100, SMALL_BYTES as u16 - PAD_BYTES as u16, 1200] {
            for size in largest - PAD_BYTES as u16..=largest {
                let small = padded_for_run(size, largest);
                for segment in largest..=largest + 2 * PAD_SCARCE_BYTES as u16 {
                    for is_scarce in [false, true] {
                        let (consumer, packet, size) = (Key::dangling_at(1), 1, segment);
                        let mut outgoing = vec![small, Outgoing { consumer, packet, size, padded: size, ..small }];
                        Packing::default().pack(&mut outgoing, is_scarce);
                        let packed = outgoing.iter().find(|next| next.packet == small.packet).expect("it leaves");
                        assert!(packed.padded == small.padded || packed.padded == segment);
                        // One more where it only fills a hole.
                        let len = usize::from(packed.padded - packed.size) + 1;
                        let mut zeros = [0; PADDING_BYTES];
                        assert_eq!(pad(&mut zeros, len).last(), Some(&(len as u8)), "{} of {segment}", packed.size);
                    }
                }
            }
        }
    }
}
