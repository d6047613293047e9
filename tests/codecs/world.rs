//! A shard with one scripted sender and its receivers, packet by packet: headers and extensions are written and read by
//! the `rtp` crate, and nothing is lost but what a test leaves out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringside::ids::{ConsumerId, ProducerId, RoomId, Ssrc, Token, TransportId};
use ringside::packet::classify::{DatagramKind, classify};
use ringside::packet::extension::{Extension, ExtensionMap, ExtensionSet};
use ringside::shard::command::*;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::shard::stats::{ConsumerStats, ProducerStats, Stats};
use ringside::shard::{Datagram, Shard, ShardConfig};
use ringside::transport::dtls::Identity;
use ringside::transport::srtp::{Inbound, Outbound};
use rtp::header::Header;
use webrtc_util::marshal::{Marshal, MarshalSize, Unmarshal};

use crate::call::{ask, connect};

pub const MS: Duration = Duration::from_millis(1);
const SENDER: &str = "10.0.0.2:5000";
const RECEIVER: &str = "10.0.0.3:5000";
const SENDER_SSRC: u32 = 7;
const PAYLOAD_TYPE: u8 = 45;
/// The sender's id of the dependency descriptor.
const DESCRIPTOR: u8 = 12;
const SENDER_KEY_FRAME_REQUEST: u8 = 206;

pub struct World {
    pub shard: Shard,
    pub now: Instant,
    sealer: Outbound,
    from_shard: Inbound,
    opener: Inbound,
    receiver: Outbound,
    outbox: Sent,
    received: BTreeMap<u64, Vec<Received>>,
    pub key_frame_requests: usize,
    events: Vec<Event>,
}

/// A packet as the sender makes it.
#[derive(Clone, Debug, Default)]
pub struct Packet {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub descriptor: Vec<u8>,
    pub payload: Vec<u8>,
}

/// The same as a receiver got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub descriptor: Vec<u8>,
    pub payload: Vec<u8>,
    pub is_resent: bool,
}

#[derive(Default)]
struct Sent {
    slot: Vec<u8>,
    to: Option<SocketAddr>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

impl Outbox for Sent {
    fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]> {
        self.slot = vec![0; capacity];
        self.to = Some(destination.address);
        Some(&mut self.slot)
    }

    fn commit(&mut self, len: usize, segment: usize) {
        let to = self.to.expect("reserved");
        self.datagrams.extend(self.slot[..len].chunks(segment).map(|bytes| (to, bytes.to_vec())));
    }
}

impl World {
    /// A producer of this codec with so many spatial and temporal layers in its one encoding.
    pub fn new(codec: Codec, spatial_layers: u8, temporal_layers: u8) -> World {
        let start = Instant::now();
        let identity = Identity::generate();
        let config = ShardConfig {
            identity: identity.clone(),
            seed: [9; 32],
            unix_time: Duration::from_secs(1_790_000_000),
            ports: 1,
            history_bytes: 8 << 20,
            hold: MS,
        };
        let mut shard = Shard::new(config, start);
        shard.handle_command(start, Command::OpenRoom { room: RoomId(1), settings: RoomSettings::default() });
        let keys = connect(&mut shard, &identity, SENDER.parse().unwrap(), Direction::Send, 1);
        let receiver = connect(&mut shard, &identity, RECEIVER.parse().unwrap(), Direction::Recv, 2);
        let mut extensions = ExtensionMap::default();
        extensions.insert(DESCRIPTOR, Extension::DependencyDescriptor);
        let encoding =
            EncodingSpec { ssrc: Some(Ssrc(SENDER_SSRC)), spatial_layers, temporal_layers, ..EncodingSpec::default() };
        let producer = ProducerSpec {
            id: ProducerId(1),
            kind: Kind::Video,
            codec,
            class: SourceClass::Camera,
            mid: Some("1".into()),
            payload_type: PAYLOAD_TYPE,
            rtx_payload_type: None,
            clock_rate: 90_000,
            encodings: vec![encoding],
            extensions,
            feedback: feedback(),
            cname: "scripted".into(),
            paused: false,
        };
        let produce = Command::Produce { token: Token(1), transport: TransportId(1), producer: Box::new(producer) };
        ask(&mut shard, produce);
        World {
            shard,
            now: Instant::now(),
            sealer: Outbound::new(&keys),
            from_shard: Inbound::new(&keys),
            opener: Inbound::new(&receiver),
            receiver: Outbound::new(&receiver),
            outbox: Sent::default(),
            received: BTreeMap::new(),
            key_frame_requests: 0,
            events: Vec::new(),
        }
    }

    /// A receiver with this wish.
    pub fn watch(&mut self, id: u64, preferred: Option<Layers>) -> ConsumerId {
        // Without feedback about bandwidth nothing but the wish decides.
        self.consume(id, preferred, Feedback { transport_cc: false, ..feedback() })
    }

    /// A receiver that tells how much it may get ([`has_room_for`](Self::has_room_for)).
    pub fn watch_within(&mut self, id: u64) -> ConsumerId {
        self.consume(id, None, Feedback { transport_cc: false, remb: true, ..feedback() })
    }

    fn consume(&mut self, id: u64, preferred: Option<Layers>, feedback: Feedback) -> ConsumerId {
        let extensions: ExtensionSet =
            [Extension::Mid, Extension::AbsSendTime, Extension::DependencyDescriptor].into_iter().collect();
        let consumer = ConsumerSpec {
            id: ConsumerId(id),
            producer: ProducerId(1),
            payload_type: 101,
            rtx_payload_type: Some(102),
            ssrc: Ssrc(ssrc_of(id)),
            rtx_ssrc: Some(Ssrc(ssrc_of(id) + 1)),
            mid: id.to_string(),
            extensions,
            feedback,
            cname: "scripted".into(),
            paused: false,
            priority: 1,
            preferred,
        };
        let consume = Command::Consume { token: Token(2), transport: TransportId(2), consumer: Box::new(consumer) };
        ask(&mut self.shard, consume);
        self.received.insert(id, Vec::new());
        self.settle();
        ConsumerId(id)
    }

    pub fn prefer(&mut self, consumer: ConsumerId, spatial: u8, temporal: u8) {
        let temporal = Some(temporal);
        let command = Command::SetPreferredLayers { token: Token(9), consumer, spatial, temporal };
        self.shard.handle_command(self.now, command);
        self.settle();
    }

    pub fn send(&mut self, packet: &Packet) {
        let mut header = Header {
            version: 2,
            marker: packet.marker,
            payload_type: PAYLOAD_TYPE,
            sequence_number: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: SENDER_SSRC,
            ..Header::default()
        };
        if !packet.descriptor.is_empty() {
            header.set_extension(DESCRIPTOR, packet.descriptor.clone().into()).expect("an extension");
        }
        let mut bytes = header.marshal().expect("a header").to_vec();
        let at = bytes.len();
        bytes.resize(at + packet.payload.len() + 64, 0);
        let sequence = 0x1_0000 + u64::from(packet.sequence);
        let len = self.sealer.seal_rtp(&mut bytes, at, &packet.payload, &[], Ssrc(SENDER_SSRC), sequence & 0xffff);
        let datagram = Datagram {
            source: SENDER.parse().unwrap(),
            local: 0,
            bytes: &mut bytes[..len],
            received_at: Some(self.now),
        };
        self.shard.handle_datagram(self.now, datagram);
        self.settle();
    }

    /// The receiver asks for a packet again.
    pub fn ask_again(&mut self, consumer: ConsumerId, sequence: u16) {
        let mut bytes = vec![0x81, 205, 0, 3];
        bytes.extend(1u32.to_be_bytes());
        bytes.extend(ssrc_of(consumer.0).to_be_bytes());
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0, 0]);
        self.report(bytes);
    }

    /// The receiver tells its maximum (draft-alvestrand-rmcat-remb).
    pub fn has_room_for(&mut self, consumer: ConsumerId, bitrate_bps: u64) {
        let exponent = (64 - bitrate_bps.leading_zeros()).saturating_sub(18);
        let mantissa = (bitrate_bps >> exponent) as u32;
        let mut bytes = vec![0x8f, 206, 0, 5];
        bytes.extend(1u32.to_be_bytes());
        bytes.extend(0u32.to_be_bytes());
        bytes.extend(*b"REMB");
        bytes.extend((1 << 24 | exponent << 18 | mantissa).to_be_bytes());
        bytes.extend(ssrc_of(consumer.0).to_be_bytes());
        self.report(bytes);
    }

    fn report(&mut self, mut bytes: Vec<u8>) {
        let len = bytes.len();
        bytes.resize(len + 64, 0);
        let len = self.receiver.seal_rtcp(&mut bytes, len).expect("room for the trailer");
        let bytes = &mut bytes[..len];
        let source = RECEIVER.parse().unwrap();
        self.shard.handle_datagram(self.now, Datagram { source, local: 0, bytes, received_at: Some(self.now) });
        self.settle();
    }

    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.shard.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.shard.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    pub fn received(&self, consumer: ConsumerId) -> &[Received] {
        &self.received[&consumer.0]
    }

    /// What the client was told last.
    pub fn told(&self, wanted: ConsumerId) -> Option<(Option<Layers>, Reason)> {
        self.events.iter().rev().find_map(|event| match event {
            Event::ConsumerLayers { consumer, layers, reason } if *consumer == wanted => Some((*layers, *reason)),
            _ => None,
        })
    }

    /// How often the client was told anything of its layers.
    pub fn times_told(&self, wanted: ConsumerId) -> usize {
        let of = |event: &&Event| matches!(event, Event::ConsumerLayers { consumer, .. } if *consumer == wanted);
        self.events.iter().filter(of).count()
    }

    pub fn producer_stats(&mut self) -> ProducerStats {
        match ask(&mut self.shard, Command::ProducerStats { token: Token(3), producer: ProducerId(1) }) {
            Reply::Stats(rows) => match rows.into_iter().next() {
                Some(Stats::Producer(stats)) => stats,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    pub fn consumer_stats(&mut self, consumer: ConsumerId) -> ConsumerStats {
        match ask(&mut self.shard, Command::ConsumerStats { token: Token(3), consumer }) {
            Reply::Stats(rows) => match rows.into_iter().next() {
                Some(Stats::Consumer(stats)) => stats,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self) {
        self.shard.flush(self.now, &mut self.outbox);
        self.events.extend(std::iter::from_fn(|| self.shard.poll_event()));
        for (to, datagram) in std::mem::take(&mut self.outbox.datagrams) {
            match classify(&datagram) {
                Some(DatagramKind::Rtp) => self.keep(&datagram),
                Some(DatagramKind::Rtcp) if to == SENDER.parse().unwrap() => {
                    let mut opened = datagram.clone();
                    self.from_shard.open_rtcp(&mut opened).expect("sealed for the sender");
                    self.key_frame_requests += usize::from(opened[1] == SENDER_KEY_FRAME_REQUEST);
                }
                _ => {}
            }
        }
    }

    fn keep(&mut self, datagram: &[u8]) {
        let header = Header::unmarshal(&mut &datagram[..]).expect("a header");
        let at = header.marshal_size();
        let mut opened = vec![0; datagram.len()];
        let len = self.opener.open_rtp(datagram, at, &mut opened).expect("sealed for this receiver");
        let mut payload = opened[at..len].to_vec();
        if header.padding {
            payload.truncate(payload.len() - usize::from(*payload.last().expect("padding")));
        }
        let id = u64::from(header.ssrc - 1_000_000) / 2;
        let is_resent = header.ssrc != ssrc_of(id);
        // A probe.
        if is_resent && payload.is_empty() {
            return;
        }
        assert_eq!(header.payload_type, 101 + u8::from(is_resent));
        let mut sequence = header.sequence_number;
        if is_resent {
            sequence = u16::from_be_bytes([payload[0], payload[1]]);
            payload.drain(..2);
        }
        let descriptor = header.get_extension(Extension::DependencyDescriptor.router_id());
        let received = Received {
            sequence,
            timestamp: header.timestamp,
            marker: header.marker,
            descriptor: descriptor.map(|bytes| bytes.to_vec()).unwrap_or_default(),
            payload,
            is_resent,
        };
        self.received.get_mut(&id).expect("a receiver").push(received);
    }
}

fn ssrc_of(id: u64) -> u32 {
    1_000_000 + 2 * id as u32
}

fn feedback() -> Feedback {
    Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false }
}
