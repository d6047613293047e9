//! The way in: from a datagram to a packet in the history that consumers can be given.
//!
//! ```text
//!   parse header --> open (authenticate, decrypt) into the history's slot
//!                --> which stream: by SSRC, or by MID and RID the first time
//!                --> unwrap a retransmission (RFC 4588)
//!                --> statistics, missing packets, key frames
//!                --> commit, and wait for the end of the frame
//! ```
//!
//! Everything here happens once per packet, however many consumers there are. Nothing is remembered of a
//! packet before it has proved authentic.

use std::time::Instant;

use crate::discard::Discard;
use crate::limits::DESCRIPTOR_BYTES;
use crate::media::history::Packet;
use crate::media::report::Order;
use crate::media::transport_cc::ArrivalRecord;
use crate::packet::codec::{Codec, PayloadFacts, inspect};
use crate::packet::extension::{Extension, ExtensionMap, ExtensionValues};
use crate::packet::rtp::{RtpHeader, padding_len};
use crate::shard::Shard;
use crate::shard::command::Kind;
use crate::shard::producer::{LAYER_SILENCE, Producer};
use crate::shard::table::Key;
use crate::shard::transport::{Stream, Transport};
use crate::shard::upkeep::CHECK_INTERVAL;
use crate::transport::srtp::SrtpError;

/// Where the original sequence number of a retransmission stands in front of the payload (RFC 4588 section 4).
const OSN_BYTES: usize = 2;

impl Shard {
    pub(super) fn receive_rtp(
        &mut self,
        now: Instant,
        arrival: Instant,
        key: Key<Transport>,
        bytes: &[u8],
    ) -> Result<(), Discard> {
        let header = RtpHeader::parse(bytes).ok_or(Discard::MalformedRtp)?;
        let transport = self.transports.at_mut(key).ok_or(Discard::UnknownSource)?;
        let keys = transport.keys.as_mut().ok_or(Discard::NoKeys)?;
        let slot = self.history.slot();
        let len = keys.inbound.open_rtp(bytes, header.len(), slot).map_err(refusal)?;
        let payload_at = header.len();
        let payload_len = payload_len(&header, &slot[payload_at..len])?;
        transport.received.count(1, bytes.len(), now);

        let stream = match transport.stream(header.ssrc) {
            Some(stream) => stream,
            None => self.bind(key, &header, bytes)?,
        };
        let Some(producer) = self.producers.at_mut(stream.producer) else { return Err(Discard::UnknownStream) };
        let values = ExtensionValues::read(header.extensions(bytes), &producer.extensions);
        if let (Some(number), Some(transport)) = (values.transport_cc, self.transports.at_mut(key)) {
            transport.arrivals.get_or_insert_with(|| Box::new(ArrivalRecord::new(now))).receive(number, arrival);
        }
        let incoming = Incoming {
            sequence: header.sequence.0,
            timestamp: header.timestamp,
            payload_type: header.payload_type,
            payload_at,
            payload_len,
            descriptor: values.dependency_descriptor.unwrap_or_default(),
            bytes: bytes.len(),
        };
        let level = values.audio_level.map(|level| level.level);
        let taken = self.take(now, arrival, stream, &header, bytes, incoming, level);
        // Its arrival is to be reported, whatever became of it.
        self.arm_arrival(now, key, stream);
        taken
    }

    /// A packet that is known to be of `stream`, and whether anybody wants it.
    fn take(
        &mut self,
        now: Instant,
        arrival: Instant,
        stream: Stream,
        header: &RtpHeader,
        bytes: &[u8],
        mut incoming: Incoming,
        level: Option<u8>,
    ) -> Result<(), Discard> {
        let Some(producer) = self.producers.at(stream.producer) else { return Err(Discard::UnknownStream) };
        if stream.is_rtx {
            incoming.unwrap(&self.history.slot()[incoming.payload_at..], producer)?;
        }
        if incoming.payload_type != producer.payload_type {
            return Err(Discard::UnknownPayloadType);
        }
        if producer.paused {
            return Err(Discard::ProducerPaused);
        }
        let is_heard = producer.kind == Kind::Video || self.hear(now, stream.producer, level);
        self.record(now, arrival, stream, header, bytes, incoming, is_heard)
    }

    /// A packet that is known to be of `stream` enters its layer's record and waits for its run.
    fn record(
        &mut self,
        now: Instant,
        arrival: Instant,
        stream: Stream,
        header: &RtpHeader,
        bytes: &[u8],
        incoming: Incoming<'_>,
        is_heard: bool,
    ) -> Result<(), Discard> {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return Err(Discard::UnknownStream) };
        let payload = &self.history.slot()[incoming.payload_at..][..incoming.payload_len];
        let mut facts = match payload {
            [] => PayloadFacts::default(),
            payload => inspect(producer.codec, payload).ok_or(Discard::MalformedPayload)?,
        };
        let layer = &mut producer.layers[stream.layer as usize];
        let arrived = if stream.is_rtx {
            layer.reception.repair(incoming.sequence, arrival, incoming.bytes)
        } else {
            let (sequence, timestamp) = (incoming.sequence, incoming.timestamp);
            layer.reception.receive(sequence, timestamp, producer.clock_rate, arrival, incoming.bytes)
        };
        match arrived.order {
            Order::Newest | Order::Late => layer.nack.receive(arrived.sequence, now, stream.is_rtx),
            Order::Restart => {
                layer.nack.restart(arrived.sequence);
                layer.bounds.restart();
                layer.scalable.iter_mut().for_each(|scalable| scalable.restart());
            }
            Order::Duplicate => return Err(Discard::Duplicate),
            Order::Stray => return Err(Discard::Stray),
        }
        let (mut begins, mut first) = (facts.start_of_frame, arrived.sequence);
        if matches!(producer.codec, Codec::Vp9 | Codec::H264 | Codec::Av1) && incoming.payload_len > 0 {
            begins = layer.bounds.receive(arrived.sequence, incoming.timestamp, header.marker);
            first = layer.bounds.first_of(arrived.sequence, incoming.timestamp);
            if producer.codec != Codec::Vp9 {
                // What a decoder starts with may stand behind a delimiter or a message of the same picture.
                facts.start_of_frame = begins || facts.key_frame;
            }
        }
        if begins {
            layer.frames += 1;
            layer.frame_begins = [Some(now), layer.frame_begins[0]];
        }
        let mut has_other_layers = false;
        if let Some(scalable) = layer.scalable.as_mut().filter(|_| incoming.payload_len > 0) {
            has_other_layers = scalable.describe(arrived.sequence, incoming.descriptor, &mut facts, now);
            scalable.count(&facts, incoming.bytes, now);
        }
        if facts.key_frame && producer.kind == Kind::Video {
            layer.key_frame_count += 1;
            layer.key_frames.key_frame_arrived();
            // Where sizes are independent, that of one is no help to the receivers of another.
            if layer.scalable.as_ref().is_none_or(|scalable| scalable.restarts_all(&facts)) {
                layer.nack.key_frame(first);
            }
        }
        let first_of_layer =
            layer.last_packet.replace(now).is_none_or(|last| now.duration_since(last) >= LAYER_SILENCE);

        if let Some(rate) = layer.temporal_rates.get_mut(facts.temporal as usize) {
            rate.add(incoming.bytes, now);
        }
        let with_key_frame = facts.key_frame && facts.start_of_frame;
        if first_of_layer && producer.needs_key_frame() {
            self.begin_layer(now, stream, with_key_frame);
        }
        if arrived.order == Order::Restart {
            self.start_over(now, stream, with_key_frame);
        }
        if has_other_layers {
            self.choose_layers(now, stream.producer, !facts.key_frame);
        }
        let Some(producer) = self.producers.at_mut(stream.producer) else { return Err(Discard::UnknownStream) };
        let layer = &mut producer.layers[stream.layer as usize];
        let (all, paused) = (producer.consumers.len() as u64, u64::from(producer.paused_consumers));
        self.discards.add(Discard::ConsumerPaused, paused);
        if !is_heard {
            self.discards.add(Discard::NotLoudest, all - paused);
            return Ok(());
        }
        let mut packet = Packet::new(arrived.sequence, incoming.timestamp, incoming.payload_len);
        packet.marker = header.marker;
        packet.key_frame = facts.key_frame;
        packet.start_of_frame = facts.start_of_frame;
        packet.end_of_frame = facts.end_of_frame;
        packet.spatial = facts.spatial;
        packet.temporal = facts.temporal;
        packet.targets = facts.targets;
        packet.switches = facts.switches;
        packet.layer_sync = facts.layer_sync;
        packet.vp8 = facts.vp8;
        pass_extensions(&mut packet, header, bytes, &producer.extensions);
        pass_descriptor(&mut packet, bytes, &incoming);
        let number = self.history.commit(incoming.payload_at, packet, now, producer.kind.kept());
        layer.index.insert(arrived.sequence, number, &self.history);

        let listening = layer.consumers.len() as u64;
        self.discards.add(Discard::OtherLayer, all - paused - listening);
        if listening > 0 {
            let ends_run = header.marker || producer.kind == Kind::Audio;
            if layer.pend(number, arrival, ends_run) {
                self.egress.held.push((stream.producer, stream.layer));
            }
            self.egress.leave_by(layer.leaves(self.config.hold, self.gather).map(|(at, _)| at));
        }
        Ok(())
    }

    /// A layer arrives that did not: before its first packet is offered to anybody it is chosen by those who want it, so
    /// that a key frame that it begins with is not lost to them.
    fn begin_layer(&mut self, now: Instant, stream: Stream, with_key_frame: bool) {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return };
        if let Some(transport) = self.transports.at_mut(producer.transport) {
            transport.next_check.get_or_insert(now + CHECK_INTERVAL);
        }
        if producer.revive(stream.layer) && producer.layers.len() > 1 {
            self.changed.extend(&producer.consumers);
            self.choose_layers(now, stream.producer, !with_key_frame);
        }
    }

    /// A sender numbers its stream anew: whoever gets it goes on at its next key frame.
    #[cold]
    fn start_over(&mut self, now: Instant, stream: Stream, with_key_frame: bool) {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return };
        let layer = &mut producer.layers[stream.layer as usize];
        // It is numbered as before, and whoever began with it would not begin with what follows.
        let dropped = layer.drop_pending();
        self.discards.add(Discard::BeforeSwitch, dropped);
        for key in layer.consumers.clone() {
            let Some(consumer) = self.consumers.at_mut(key) else { continue };
            if consumer.selector.flowing() == Some(stream.layer) {
                consumer.selector.stop();
                self.changed.push(key);
            }
            if !with_key_frame {
                self.ask_key_frame(now, key);
            }
        }
    }

    /// The first packet of an SSRC names its producer by MID, and its layer by RID or repaired RID; those
    /// extensions stop once the sender has seen a receiver report, so the binding is kept.
    fn bind(&mut self, key: Key<Transport>, header: &RtpHeader, bytes: &[u8]) -> Result<Stream, Discard> {
        let transport = self.transports.at(key).ok_or(Discard::UnknownSource)?;
        let named = transport.producers.iter().find_map(|producer_key| {
            let producer = self.producers.at(*producer_key)?;
            let values = ExtensionValues::read(header.extensions(bytes), &producer.extensions);
            let (layer, is_rtx) = producer.layer_named(&values, header.payload_type)?;
            Some(Stream { ssrc: header.ssrc, producer: *producer_key, layer, is_rtx })
        });
        let stream = named.ok_or(Discard::UnknownStream)?;
        let transport = self.transports.at_mut(key).ok_or(Discard::UnknownSource)?;
        if !transport.add_stream(stream) {
            return Err(Discard::TooManyStreams);
        }
        self.note_ssrc(stream);
        Ok(stream)
    }

    fn note_ssrc(&mut self, stream: Stream) {
        if let Some(producer) = self.producers.at_mut(stream.producer) {
            let layer = &mut producer.layers[stream.layer as usize];
            let field = if stream.is_rtx { &mut layer.rtx_ssrc } else { &mut layer.ssrc };
            *field = Some(stream.ssrc);
        }
    }
}

/// What is forwarded of a packet, once a retransmission's wrapping is off.
struct Incoming<'a> {
    sequence: u16,
    timestamp: u32,
    payload_type: u8,
    payload_at: usize,
    payload_len: usize,
    /// Dependency descriptor; empty without one.
    descriptor: &'a [u8],
    /// Of the whole datagram, for statistics.
    bytes: usize,
}

impl Incoming<'_> {
    fn unwrap(&mut self, payload: &[u8], producer: &Producer) -> Result<(), Discard> {
        if Some(self.payload_type) != producer.rtx_payload_type {
            return Err(Discard::UnknownPayloadType);
        }
        if self.payload_len <= OSN_BYTES {
            return Err(Discard::Probe);
        }
        self.sequence = u16::from_be_bytes([payload[0], payload[1]]);
        self.payload_at += OSN_BYTES;
        self.payload_len -= OSN_BYTES;
        self.payload_type = producer.payload_type;
        Ok(())
    }
}

impl Producer {
    /// Which layer an unknown SSRC is, by what its packet says of itself.
    fn layer_named(&self, values: &ExtensionValues<'_>, payload_type: u8) -> Option<(u8, bool)> {
        if values.mid.is_some() && values.mid != self.mid.as_deref() {
            return None;
        }
        let is_rtx = Some(payload_type) == self.rtx_payload_type;
        if !is_rtx && payload_type != self.payload_type {
            return None;
        }
        let rid = if is_rtx { values.repaired_rid.or(values.rid) } else { values.rid };
        match rid {
            Some(rid) => {
                let layer = self.layers.iter().position(|layer| layer.rid.as_deref() == Some(rid))?;
                Some((layer as u8, is_rtx))
            }
            // One encoding without RID: its MID, or failing that its payload type alone, has to do.
            None if self.layers.len() == 1 && (values.mid.is_some() || self.layers[0].ssrc.is_none()) => {
                Some((0, is_rtx))
            }
            None => None,
        }
    }
}

fn payload_len(header: &RtpHeader, payload: &[u8]) -> Result<usize, Discard> {
    if !header.padding {
        return Ok(payload.len());
    }
    let padding = padding_len(payload).ok_or(Discard::MalformedRtp)?;
    Ok(payload.len() - padding)
}

/// Keeps the extensions that receivers get as they came, under the router's ids.
fn pass_extensions(packet: &mut Packet, header: &RtpHeader, bytes: &[u8], map: &ExtensionMap) {
    for (id, value) in header.extensions(bytes) {
        if let Some(
            extension @ (Extension::AudioLevel
            | Extension::VideoOrientation
            | Extension::TransmissionOffset
            | Extension::AbsCaptureTime
            | Extension::PlayoutDelay),
        ) = map.extension(id)
        {
            packet.passed.push(extension, value);
        }
    }
}

/// A dependency descriptor stays where it is: the history keeps a packet's header in front of its payload.
fn pass_descriptor(packet: &mut Packet, bytes: &[u8], incoming: &Incoming<'_>) {
    let len = incoming.descriptor.len();
    if len > 0 && len <= DESCRIPTOR_BYTES {
        let at = incoming.descriptor.as_ptr() as usize - bytes.as_ptr() as usize;
        packet.descriptor_back = (incoming.payload_at - at) as u16;
        packet.descriptor_len = len as u8;
    }
}

fn refusal(error: SrtpError) -> Discard {
    match error {
        SrtpError::Malformed => Discard::MalformedRtp,
        SrtpError::Replayed => Discard::Replayed,
        SrtpError::TooManySsrcs => Discard::TooManyStreams,
        SrtpError::Forged => Discard::Unauthenticated,
    }
}
