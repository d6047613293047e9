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
use crate::media::history::{Packet, PacketNumber};
use crate::media::report::{Arrived, Order};
use crate::media::scalable::Description;
use crate::media::transport_cc::ArrivalRecord;
use crate::packet::codec::layers::LayerSet;
use crate::packet::codec::{Codec, PayloadFacts, inspect};
use crate::packet::extension::{Extension, ExtensionMap, ExtensionValues};
use crate::packet::rtp::{RtpHeader, padding_len};
use crate::shard::Shard;
use crate::shard::command::Kind;
use crate::shard::producer::{LAYER_SILENCE, Layer, Producer};
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
            arrival,
            datagram: bytes,
            header: &header,
            sequence: header.sequence.0,
            payload_type: header.payload_type,
            payload_at,
            payload_len,
            descriptor: values.dependency_descriptor.unwrap_or_default(),
        };
        let level = values.audio_level.map(|level| level.level);
        let taken = self.take(now, stream, incoming, level);
        // Its arrival is to be reported, whatever became of it.
        self.arm_arrival(now, key, stream);
        taken
    }

    /// A packet that is known to be of `stream`, and whether anybody wants it.
    fn take(
        &mut self,
        now: Instant,
        stream: Stream,
        mut incoming: Incoming<'_>,
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
        self.record(now, stream, &incoming, is_heard)
    }

    /// What it is, what that does to its layer and to those who get it; then it is kept, and waits for its run.
    fn record(&mut self, now: Instant, stream: Stream, incoming: &Incoming<'_>, is_heard: bool) -> Result<(), Discard> {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return Err(Discard::UnknownStream) };
        let payload = &self.history.slot()[incoming.payload_at..][..incoming.payload_len];
        let meaning = producer.understand(now, stream, incoming, payload)?;
        let is_back = producer.note(now, stream, incoming, &meaning);
        self.follow(now, stream, &meaning, is_back);
        self.keep(now, stream, incoming, &meaning, is_heard);
        if meaning.explains {
            self.read_on(now, stream, Some(meaning.sequence));
        }
        Ok(())
    }

    /// Changes what receivers get of the source, where this packet is a reason to.
    #[inline]
    fn follow(&mut self, now: Instant, stream: Stream, meaning: &Meaning, is_back: bool) {
        let with_key_frame = meaning.facts.key_frame && meaning.facts.start_of_frame;
        if is_back {
            self.begin_layer(now, stream, with_key_frame);
        }
        if meaning.order == Order::Restart {
            self.start_over(now, stream, with_key_frame);
        }
        if meaning.description == Description::OtherLayers {
            self.choose_layers(now, stream.producer, !meaning.facts.key_frame);
        }
    }

    /// The packet goes into the history and, where somebody gets its layer, on the list of what leaves.
    #[inline]
    fn keep(&mut self, now: Instant, stream: Stream, incoming: &Incoming<'_>, meaning: &Meaning, is_heard: bool) {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return };
        let layer = &mut producer.layers[stream.layer as usize];
        let (all, paused) = (producer.consumers.len() as u64, u64::from(producer.paused_consumers));
        self.discards.add(Discard::ConsumerPaused, paused);
        if !is_heard {
            self.discards.add(Discard::NotLoudest, all - paused);
            return;
        }
        let packet = incoming.packet(meaning, &producer.extensions);
        let number = self.history.commit(incoming.payload_at, packet, now, producer.kind.kept());
        layer.index.insert(meaning.sequence, number, &self.history);

        let listening = layer.consumers.len() as u64;
        self.discards.add(Discard::OtherLayer, all - paused - listening);
        if meaning.description == Description::Unread {
            return self.defer(now, stream, number);
        }
        if listening > 0 {
            let ends_run = incoming.header.marker || producer.kind == Kind::Audio;
            if layer.pend(number, incoming.arrival, ends_run) {
                self.egress.held.push((stream.producer, stream.layer));
            }
            self.egress.leave_by(layer.leaves(self.config.hold, self.gather).map(|(at, _)| at));
        }
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

    /// Whose a packet is cannot be told before the lost start of its key frame comes. It waits for that, which costs nobody
    /// time: no decoder could use it sooner. Where too much waits, it is for nobody, and a further key frame has to come.
    #[cold]
    fn defer(&mut self, now: Instant, stream: Stream, number: PacketNumber) {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return };
        let layer = &mut producer.layers[stream.layer as usize];
        let Some(scalable) = &mut layer.scalable else { return };
        if scalable.wait(number) {
            layer.key_frames.ask();
            self.read_on(now, stream, None);
            self.request_key_frames(now, stream.producer);
        }
    }

    /// What waits is read by the templates that packet `explained_by` has brought, and follows that; or it is read by nothing.
    #[cold]
    fn read_on(&mut self, now: Instant, stream: Stream, explained_by: Option<u64>) {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return };
        let layer = &mut producer.layers[stream.layer as usize];
        let unread = layer.scalable.as_mut().map(|scalable| scalable.take_unread()).unwrap_or_default();
        let (mut has_other_layers, mut lost) = (false, 0);
        for number in unread {
            let packet = self.history.packet(number).copied();
            let Some(packet) = packet.filter(|packet| explained_by.is_none_or(|first| packet.sequence > first)) else {
                lost += 1;
                continue;
            };
            let mut facts = PayloadFacts::default();
            let description = match layer.scalable.as_mut().filter(|_| explained_by.is_some()) {
                Some(scalable) => scalable.describe(packet.sequence, self.history.descriptor(&packet), &mut facts, now),
                None => Description::Unread,
            };
            match layer.scalable.as_mut().filter(|_| description != Description::Unread) {
                Some(scalable) => scalable.count(&facts, packet.payload_len as usize, now),
                None => facts.targets = LayerSet::NONE,
            }
            has_other_layers |= description == Description::OtherLayers;
            if let Some(packet) = self.history.packet_mut(number) {
                packet.learn(&facts);
            }
            if !layer.consumers.is_empty() && layer.pend(number, now, packet.marker) {
                self.egress.held.push((stream.producer, stream.layer));
            }
        }
        self.egress.leave_by(layer.leaves(self.config.hold, self.gather).map(|(at, _)| at));
        self.discards.add(Discard::Unreadable, (lost * layer.consumers.len()) as u64);
        if has_other_layers {
            self.choose_layers(now, stream.producer, true);
        }
    }

    /// A sender numbers its stream anew: whoever gets it goes on at its next key frame.
    #[cold]
    fn start_over(&mut self, now: Instant, stream: Stream, with_key_frame: bool) {
        let Some(producer) = self.producers.at_mut(stream.producer) else { return };
        let layer = &mut producer.layers[stream.layer as usize];
        // It is numbered as before, and whoever began with it would not begin with what follows.
        let unread = layer.scalable.as_mut().map_or(0, |scalable| scalable.take_unread().len()) * layer.consumers.len();
        let dropped = layer.drop_pending() + unread as u64;
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
    arrival: Instant,
    /// As it came, for its header extensions and for statistics.
    datagram: &'a [u8],
    header: &'a RtpHeader,
    sequence: u16,
    payload_type: u8,
    payload_at: usize,
    payload_len: usize,
    /// Dependency descriptor; empty without one.
    descriptor: &'a [u8],
}

/// What a packet is within its layer.
struct Meaning {
    order: Order,
    /// In the layer's own space.
    sequence: u64,
    facts: PayloadFacts,
    begins_frame: bool,
    /// The first packet of the same frame.
    first_of_frame: u64,
    description: Description,
    /// Others wait for the templates that it has brought.
    explains: bool,
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

    /// As the history keeps it.
    #[inline]
    fn packet(&self, meaning: &Meaning, extensions: &ExtensionMap) -> Packet {
        let facts = &meaning.facts;
        let mut packet = Packet::new(meaning.sequence, self.header.timestamp, self.payload_len);
        packet.marker = self.header.marker;
        packet.learn(facts);
        self.pass_extensions(&mut packet, extensions);
        self.pass_descriptor(&mut packet);
        packet
    }

    /// Keeps the extensions that receivers get as they came, under the router's ids.
    fn pass_extensions(&self, packet: &mut Packet, map: &ExtensionMap) {
        for (id, value) in self.header.extensions(self.datagram) {
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
    fn pass_descriptor(&self, packet: &mut Packet) {
        let len = self.descriptor.len();
        if len > 0 && len <= DESCRIPTOR_BYTES {
            let at = self.descriptor.as_ptr() as usize - self.datagram.as_ptr() as usize;
            packet.descriptor_back = (self.payload_at - at) as u16;
            packet.descriptor_len = len as u8;
        }
    }
}

impl Producer {
    /// The packet's number, and what its payload and its descriptor say of it. Refuses what came before, and what no decoder
    /// could use.
    #[inline]
    fn understand(
        &mut self,
        now: Instant,
        stream: Stream,
        incoming: &Incoming<'_>,
        payload: &[u8],
    ) -> Result<Meaning, Discard> {
        let facts = match payload {
            [] => PayloadFacts::default(),
            payload => inspect(self.codec, payload).ok_or(Discard::MalformedPayload)?,
        };
        let layer = &mut self.layers[stream.layer as usize];
        let Arrived { order, sequence } = layer.number(now, stream.is_rtx, incoming, self.clock_rate)?;
        let (begins_frame, first_of_frame, description) = (facts.start_of_frame, sequence, Description::Known);
        let mut meaning =
            Meaning { order, sequence, facts, begins_frame, first_of_frame, description, explains: false };
        if !payload.is_empty() && matches!(self.codec, Codec::Vp9 | Codec::H264 | Codec::Av1) {
            layer.find_frame(self.codec, incoming, &mut meaning);
            if let Some(scalable) = &mut layer.scalable {
                let description = scalable.describe(sequence, incoming.descriptor, &mut meaning.facts, now);
                // VP9 tells its layers in the payload too.
                match description {
                    Description::Unread if self.codec != Codec::Av1 => {}
                    // No templates to come explain it.
                    Description::Unread if scalable.is_late(sequence) => meaning.facts.targets = LayerSet::NONE,
                    description => meaning.description = description,
                }
                meaning.explains = scalable.explains(sequence);
            }
        }
        Ok(meaning)
    }

    /// What the packet changes in its layer: frames, key frames, rates. Returns whether a layer of pictures begins with it, or
    /// goes on after a silence.
    #[inline]
    fn note(&mut self, now: Instant, stream: Stream, incoming: &Incoming<'_>, meaning: &Meaning) -> bool {
        let (facts, bytes, is_video) = (&meaning.facts, incoming.datagram.len(), self.kind == Kind::Video);
        let layer = &mut self.layers[stream.layer as usize];
        if meaning.begins_frame {
            layer.frames += 1;
            layer.frame_begins = [Some(now), layer.frame_begins[0]];
        }
        let is_read = incoming.payload_len > 0 && meaning.description != Description::Unread;
        if let Some(scalable) = layer.scalable.as_mut().filter(|_| is_read) {
            scalable.count(facts, bytes, now);
        }
        if facts.key_frame && is_video {
            layer.key_frame_count += 1;
            layer.key_frames.key_frame_arrived();
            // Where sizes are independent, that of one is no help to the receivers of another.
            if layer.scalable.as_ref().is_none_or(|scalable| scalable.restarts_all(facts)) {
                layer.nack.key_frame(meaning.first_of_frame);
            }
        }
        if let Some(rate) = layer.temporal_rates.get_mut(facts.temporal as usize) {
            rate.add(bytes, now);
        }
        let last = layer.last_packet.replace(now);
        is_video && last.is_none_or(|last| now.duration_since(last) >= LAYER_SILENCE)
    }

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

impl Layer {
    /// Finds the packet's place in its stream. What misses is asked for by it, and what begins anew forgets what was.
    #[inline]
    fn number(
        &mut self,
        now: Instant,
        is_rtx: bool,
        incoming: &Incoming<'_>,
        clock_rate: u32,
    ) -> Result<Arrived, Discard> {
        let (sequence, arrival, bytes) = (incoming.sequence, incoming.arrival, incoming.datagram.len());
        let arrived = match is_rtx {
            true => self.reception.repair(sequence, arrival, bytes),
            false => self.reception.receive(sequence, incoming.header.timestamp, clock_rate, arrival, bytes),
        };
        match arrived.order {
            Order::Newest | Order::Late => self.nack.receive(arrived.sequence, now, is_rtx),
            Order::Restart => {
                self.nack.restart(arrived.sequence);
                self.bounds.restart();
                self.scalable.iter_mut().for_each(|scalable| scalable.restart());
            }
            Order::Duplicate => return Err(Discard::Duplicate),
            Order::Stray => return Err(Discard::Stray),
        }
        Ok(arrived)
    }

    /// Where the packet's frame begins, for payloads that do not say so themselves.
    fn find_frame(&mut self, codec: Codec, incoming: &Incoming<'_>, meaning: &mut Meaning) {
        let (sequence, RtpHeader { timestamp, marker, .. }) = (meaning.sequence, *incoming.header);
        meaning.begins_frame = self.bounds.receive(sequence, timestamp, marker);
        meaning.first_of_frame = self.bounds.first_of(sequence, timestamp);
        if codec != Codec::Vp9 {
            // What a decoder starts with may stand behind a delimiter or a message of the same picture.
            meaning.facts.start_of_frame = meaning.begins_frame || meaning.facts.key_frame;
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

fn refusal(error: SrtpError) -> Discard {
    match error {
        SrtpError::Malformed => Discard::MalformedRtp,
        SrtpError::Replayed => Discard::Replayed,
        SrtpError::TooManySsrcs => Discard::TooManyStreams,
        SrtpError::Forged => Discard::Unauthenticated,
    }
}
