//! Body of the fuzz target of a whole shard: what anybody could send, what only an authenticated peer could, commands
//! and the passing of time, in any order.
//!
//! The bytes are a script of short records. A connected sender (three layers of VP8, Opus, and three layers in one stream of
//! VP9 with dependency descriptors) and a connected receiver of all exist from the start, and the script's packets are sealed with their keys, so that everything behind the
//! authentication is reached. `fuzz/` calls it under libFuzzer, `tests/fuzz_shard.rs` with damaged real packets in every
//! test run.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::ids::{ConsumerId, PeerId, ProducerId, RoomId, Ssrc, Token, TransportId};
use crate::limits;
use crate::packet::extension::{Extension, ExtensionMap};
use crate::packet::rtp::RtpHeader;
use crate::shard::command::*;
use crate::shard::outbox::{Destination, Outbox};
use crate::shard::transport::Keys;
use crate::shard::{Datagram, Shard, ShardConfig};
use crate::transport::dtls::Identity;
use crate::transport::ice::Tuple;
use crate::transport::srtp::{self, Inbound, Outbound, Profile};

/// What the first byte of a record says; the second is the length of what follows.
pub const SENDER_RTP: u8 = 0;
pub const SENDER_RTCP: u8 = 1;
pub const RECEIVER_RTCP: u8 = 2;
pub const RAW: u8 = 3;
pub const STRANGER: u8 = 4;
pub const TIME: u8 = 5;
pub const COMMAND: u8 = 6;
const RECORDS: u8 = 7;
/// With this bit the length counts in eights.
pub const LONG: u8 = 0x80;

/// SSRC of the consumer of VP8; its retransmissions have the next one, the audio consumer the one behind that, and the
/// consumer of VP9 the one two behind.
pub const CONSUMER_SSRC: u32 = 1_000_000;
pub const LAYERED_CONSUMER_SSRC: u32 = CONSUMER_SSRC + 4;

/// The sender's id of the dependency descriptor, and its payload type of VP9.
pub const DESCRIPTOR: u8 = 12;
pub const VP9: u8 = 98;

/// Producers, each with a consumer of the same id.
const STREAMS: u64 = 3;

/// Datagrams that one record may cause: its resends, everything staged, each pending packet for each consumer.
const DATAGRAMS_PER_RECORD: usize = limits::RESENDS_PER_TICK + 1_024;
const EVENTS_PER_RECORD: usize = 64;
const SENDER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5000);
const RECEIVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3)), 5000);
const STRANGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 5000);

/// Runs a script. Panics when the shard does, when one record causes unbounded work, or when a packet leaves that its
/// receiver could not open or that repeats an index of its stream. Returns how far the script reached: packets of the
/// media that left for the receiver, and those that left again.
pub fn shard(script: &[u8]) -> (usize, usize) {
    let mut world = World::new();
    let mut rest = script;
    while let [kind, len, behind @ ..] = rest {
        let len = if kind & LONG == 0 { usize::from(*len) } else { 8 * usize::from(*len) };
        let (content, next) = behind.split_at(len.min(behind.len()));
        world.play((kind & !LONG) % RECORDS, content);
        rest = next;
    }
    world.play(TIME, &[255]);
    let resent = |(ssrc, _): &&(u32, u16)| [CONSUMER_SSRC + 1, LAYERED_CONSUMER_SSRC + 1].contains(ssrc);
    let resent = world.left.iter().filter(resent).count();
    (world.left.len() - resent, resent)
}

struct World {
    shard: Shard,
    now: Instant,
    sender: Outbound,
    receiver: Outbound,
    /// By SSRC: the highest index sealed.
    indices: HashMap<u32, u64>,
    opener: Inbound,
    outbox: Sent,
    /// SSRC and sequence number of everything that left for the receiver.
    left: HashSet<(u32, u16)>,
}

#[derive(Default)]
struct Sent {
    slot: Vec<u8>,
    to: Option<Destination>,
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

impl Outbox for Sent {
    fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]> {
        self.slot = vec![0; capacity];
        self.to = Some(destination);
        Some(&mut self.slot)
    }

    fn commit(&mut self, len: usize, segment: usize) {
        let address = self.to.map_or(STRANGE, |to| to.address);
        self.datagrams.extend(self.slot[..len].chunks(segment).map(|bytes| (address, bytes.to_vec())));
    }
}

impl World {
    fn new() -> World {
        static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::generate);
        let now = Instant::now();
        let config = ShardConfig {
            identity: IDENTITY.clone(),
            seed: [1; 32],
            unix_time: Duration::from_secs(1_790_000_000),
            ports: 1,
            history_bytes: 256 << 10,
            hold: Duration::from_millis(1),
        };
        let mut shard = Shard::new(config, now);
        let settings = RoomSettings { audio_top_n: 3, uplink_bitrate_bps: Some(1_000_000) };
        shard.handle_command(now, Command::OpenRoom { room: RoomId(1), settings });
        let sender = connect(&mut shard, now, 1, Direction::Send, SENDER);
        let receiver = connect(&mut shard, now, 2, Direction::Recv, RECEIVER);
        for spec in [video(), audio(), layered()] {
            let produce = Command::Produce { token: Token(1), transport: TransportId(1), producer: Box::new(spec) };
            shard.handle_command(now, produce);
        }
        for id in 1..=STREAMS {
            let consumer = Box::new(consumer(id));
            shard.handle_command(now, Command::Consume { token: Token(1), transport: TransportId(2), consumer });
        }
        while let Some(event) = shard.poll_event() {
            assert!(!matches!(event, Event::Reply { result: Err(_), .. }), "the world stands: {event:?}");
        }
        World {
            shard,
            now,
            sender: Outbound::new(&sender),
            receiver: Outbound::new(&receiver),
            indices: HashMap::new(),
            opener: Inbound::new(&receiver),
            outbox: Sent::default(),
            left: HashSet::new(),
        }
    }

    fn play(&mut self, kind: u8, content: &[u8]) {
        match kind {
            SENDER_RTP => {
                if let Some(sealed) = self.seal_rtp(content) {
                    self.datagram(SENDER, sealed);
                }
            }
            SENDER_RTCP | RECEIVER_RTCP => {
                let (outbound, source) =
                    if kind == SENDER_RTCP { (&mut self.sender, SENDER) } else { (&mut self.receiver, RECEIVER) };
                let mut sealed = content.to_vec();
                sealed.resize(content.len() + 64, 0);
                if let Some(len) = outbound.seal_rtcp(&mut sealed, content.len()) {
                    sealed.truncate(len);
                    self.datagram(source, sealed);
                }
            }
            RAW => self.datagram(SENDER, content.to_vec()),
            STRANGER => self.datagram(STRANGE, content.to_vec()),
            TIME => self.now += Duration::from_millis(4 * u64::from(content.first().copied().unwrap_or(0))),
            _ => self.command(content),
        }
        self.settle();
    }

    fn datagram(&mut self, source: SocketAddr, mut bytes: Vec<u8>) {
        let datagram = Datagram { source, local: 0, bytes: &mut bytes, received_at: Some(self.now) };
        self.shard.handle_datagram(self.now, datagram);
    }

    /// Under the index that the shard will guess from the sequence number.
    fn seal_rtp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let header = RtpHeader::parse(plain)?;
        let highest = self.indices.entry(header.ssrc.0).or_insert(u64::from(header.sequence.0));
        let step = header.sequence.0.wrapping_sub(*highest as u16) as i16;
        let index = highest.checked_add_signed(i64::from(step))?;
        *highest = index.max(*highest);
        let at = header.len();
        let mut sealed = plain.to_vec();
        sealed.resize(plain.len() + 64, 0);
        let len = self.sender.seal_rtp(&mut sealed, at, &plain[at..], &[], header.ssrc, index);
        sealed.truncate(len);
        Some(sealed)
    }

    fn command(&mut self, content: &[u8]) {
        let byte = |at: usize| content.get(at).copied().unwrap_or(0);
        let token = Token(7);
        let producer = ProducerId(1 + u64::from(byte(1)) % STREAMS);
        let consumer = ConsumerId(1 + u64::from(byte(1)) % STREAMS);
        let command = match byte(0) % 9 {
            0 => Command::PauseProducer { token, producer },
            1 => Command::ResumeProducer { token, producer },
            2 => Command::PauseConsumer { token, consumer },
            3 => Command::ResumeConsumer { token, consumer },
            4 => Command::SetPreferredLayers {
                token,
                consumer,
                spatial: byte(2),
                temporal: (byte(3) & 1 == 0).then(|| byte(4)),
            },
            5 => Command::SetConsumerPriority { token, consumer, priority: byte(2) },
            6 => Command::RequestKeyFrame { token, consumer },
            7 => Command::RoomStats { token, room: RoomId(1) },
            _ => Command::RestartIce { token, transport: TransportId(1 + u64::from(byte(1) & 1)) },
        };
        self.shard.handle_command(self.now, command);
    }

    /// Lets the shard do what is due, and judges what came of it.
    fn settle(&mut self) {
        self.shard.flush(self.now, &mut self.outbox);
        for round in 0.. {
            assert!(round < 100, "the shard asks for the time again and again");
            if self.shard.next_deadline().is_none_or(|at| at > self.now) {
                break;
            }
            self.shard.handle_timeout(self.now);
            self.shard.flush(self.now, &mut self.outbox);
        }
        let events = std::iter::from_fn(|| self.shard.poll_event()).count();
        assert!(events <= EVENTS_PER_RECORD, "{events} events for one record");
        let datagrams = std::mem::take(&mut self.outbox.datagrams);
        assert!(datagrams.len() <= DATAGRAMS_PER_RECORD, "{} datagrams for one record", datagrams.len());
        for (_, datagram) in datagrams.iter().filter(|(address, _)| *address == RECEIVER) {
            self.judge(datagram);
        }
    }

    fn judge(&mut self, datagram: &[u8]) {
        assert!(!datagram.is_empty() && datagram.len() <= limits::DATAGRAM_BYTES + limits::HEADER_BYTES);
        if datagram[0] >> 6 != 2 || (192..=223).contains(&datagram[1]) {
            return;
        }
        let Some(header) = RtpHeader::parse(datagram) else { panic!("an RTP header that cannot be read") };
        assert!(
            self.left.insert((header.ssrc.0, header.sequence.0)),
            "number {} of {} left twice: its nonce was used before",
            header.sequence.0,
            header.ssrc
        );
        let mut opened = vec![0; datagram.len()];
        // A packet that is late by more than the replay window is refused, and nothing else is.
        let outcome = self.opener.open_rtp(datagram, header.len(), &mut opened);
        assert!(matches!(outcome, Ok(_) | Err(srtp::SrtpError::Replayed)), "{outcome:?}");
    }
}

/// A transport as ICE and DTLS would leave it; returns the keys of the far end.
fn connect(shard: &mut Shard, now: Instant, id: u64, direction: Direction, address: SocketAddr) -> srtp::Keys {
    let (token, room, peer, transport) = (Token(1), RoomId(1), PeerId(id), TransportId(id));
    shard.handle_command(now, Command::CreateTransport { token, room, peer, transport, direction });
    let profile = Profile::AeadAes128Gcm;
    let exported: Vec<u8> = (0..profile.exported_len()).map(|at| at as u8 ^ id as u8).collect();
    let Some(keys) = srtp::Keys::from_exporter(profile, &exported, false) else { panic!("the profile's own length") };
    let Some(key) = shard.names.transports.get(&transport).copied() else { panic!("just created") };
    shard.demux.add_address(Tuple { remote: address, local: 0 }, key);
    if let Some(transport) = shard.transports.at_mut(key) {
        transport.destination = Some(Destination { address, local: 0 });
        let (inbound, outbound) = (Inbound::new(&keys), Outbound::new(&keys));
        transport.keys = Some(Box::new(Keys { profile, inbound, outbound }));
    }
    keys.swapped()
}

/// Numbers as Chromium gives them: damaged copies of its packets find their stream.
fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for (id, extension) in [
        (1, Extension::AudioLevel),
        (2, Extension::AbsSendTime),
        (3, Extension::TransportCc),
        (4, Extension::Mid),
        (10, Extension::RtpStreamId),
        (11, Extension::RepairedRtpStreamId),
        (13, Extension::VideoOrientation),
        (14, Extension::TransmissionOffset),
        (5, Extension::PlayoutDelay),
        (DESCRIPTOR, Extension::DependencyDescriptor),
    ] {
        map.insert(id, extension);
    }
    map
}

fn feedback() -> Feedback {
    Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: true }
}

fn video() -> ProducerSpec {
    let encodings = ["r0", "r1", "r2"].map(|rid| EncodingSpec {
        rid: Some(rid.into()),
        max_bitrate_bps: Some(500_000),
        spatial_layers: 1,
        temporal_layers: 3,
        ..EncodingSpec::default()
    });
    ProducerSpec {
        id: ProducerId(1),
        kind: Kind::Video,
        codec: Codec::Vp8,
        class: SourceClass::Camera,
        mid: Some("1".into()),
        payload_type: 96,
        rtx_payload_type: Some(97),
        clock_rate: 90_000,
        encodings: encodings.into(),
        extensions: extensions(),
        feedback: feedback(),
        cname: "far".into(),
        paused: false,
    }
}

fn audio() -> ProducerSpec {
    ProducerSpec {
        id: ProducerId(2),
        kind: Kind::Audio,
        codec: Codec::Opus,
        class: SourceClass::Microphone,
        mid: Some("0".into()),
        payload_type: 111,
        rtx_payload_type: None,
        clock_rate: 48_000,
        encodings: vec![EncodingSpec::default()],
        ..video()
    }
}

fn layered() -> ProducerSpec {
    ProducerSpec {
        id: ProducerId(3),
        codec: Codec::Vp9,
        mid: Some("2".into()),
        payload_type: VP9,
        rtx_payload_type: Some(VP9 + 1),
        encodings: vec![EncodingSpec { spatial_layers: 3, temporal_layers: 3, ..EncodingSpec::default() }],
        ..video()
    }
}

fn consumer(id: u64) -> ConsumerSpec {
    let is_video = id != 2;
    let ssrc = CONSUMER_SSRC + 2 * (id as u32 - 1);
    let extensions = [Extension::Mid, Extension::AbsSendTime, Extension::TransportCc, Extension::DependencyDescriptor];
    ConsumerSpec {
        id: ConsumerId(id),
        producer: ProducerId(id),
        payload_type: if is_video { 101 } else { 100 },
        rtx_payload_type: is_video.then_some(102),
        ssrc: Ssrc(ssrc),
        rtx_ssrc: is_video.then_some(Ssrc(ssrc + 1)),
        mid: id.to_string(),
        extensions: extensions.into_iter().collect(),
        feedback: feedback(),
        cname: "far".into(),
        paused: false,
        priority: 1,
        preferred: None,
    }
}
