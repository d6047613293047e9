//! Body of the fuzz target of a whole shard: what anybody could send, what only an authenticated peer could, commands
//! and the passing of time, in any order.
//!
//! The bytes are a script of short records. A connected sender (three layers of VP8, Opus, and three layers in one stream of
//! VP9 with dependency descriptors) and a connected receiver of all exist from the start, and the script's packets are sealed with their keys, so that everything behind the
//! authentication is reached. Some records only say how an honest peer's feedback, report or check comes out, because no fuzzer guesses the
//! numbers of what really left. `fuzz/` calls it under libFuzzer, `tests/fuzz_shard.rs` with damaged real packets in every
//! test run.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::ids::{ConsumerId, PeerId, ProducerId, RoomId, Ssrc, Token, TransportId};
use crate::limits;
use crate::packet::extension::{Extension, ExtensionMap};
use crate::packet::rtcp::{
    ReportBlock, RtcpPacket, TransportCcHead, packets, write_nack, write_receiver_report, write_transport_cc,
};
use crate::packet::rtp::RtpHeader;
use crate::packet::seq::SeqNo;
use crate::packet::stun::Writer;
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
/// Transport-wide feedback about what left for the receiver: quarters of a millisecond between arrivals, milliseconds of
/// delay, then bits that say in turns which packets did not arrive.
pub const FEEDBACK: u8 = 7;
/// A receiver report of one consumer: which, the fraction lost, milliseconds since the sender report.
pub const REPORT: u8 = 8;
/// A NACK of what one consumer really got: which, how far behind the newest, the mask of further ones.
pub const NACK: u8 = 9;
/// A signed connectivity check: whose and from which port, then its attributes behind the username.
pub const CHECK: u8 = 10;
const RECORDS: u8 = 11;
/// With this bit the length counts in eights.
pub const LONG: u8 = 0x80;

/// SSRC of the consumer of VP8; its retransmissions have the next one, the audio consumer the one behind that, and the
/// consumer of VP9 the one two behind.
pub const CONSUMER_SSRC: u32 = 1_000_000;
pub const LAYERED_CONSUMER_SSRC: u32 = CONSUMER_SSRC + 4;

/// The sender's id of the dependency descriptor, and its payload type of VP9.
pub const DESCRIPTOR: u8 = 12;
pub const VP9: u8 = 98;

/// Producers, each with a consumer.
const STREAMS: usize = 3;
const FEEDBACK_PACKETS: usize = 500;
const USERNAME: u16 = 0x0006;

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
    (world.forwarded, world.resent)
}

struct World {
    shard: Shard,
    began: Instant,
    now: Instant,
    sender: Far,
    receiver: Far,
    producers: [ProducerId; STREAMS],
    consumers: [(ConsumerId, Ssrc); STREAMS],
    /// Names are never used twice.
    generation: u64,
    /// By SSRC: the highest index sealed.
    indices: HashMap<u32, u64>,
    outbox: Sent,
    /// SSRC and sequence number of everything that left for the receiver, and the newest by SSRC.
    left: HashSet<(u32, u16)>,
    newest: HashMap<u32, u16>,
    /// Middle of the newest sender report by SSRC, and when it left.
    reported: HashMap<u32, (u32, Instant)>,
    /// Transport-wide numbers of what left since the last feedback.
    wide: Vec<(SeqNo, Instant)>,
    feedbacks: u8,
    forwarded: usize,
    resent: usize,
}

/// The far end of a transport.
struct Far {
    transport: TransportId,
    address: SocketAddr,
    outbound: Outbound,
    opener: Inbound,
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
        let sender = connect(&mut shard, now, 0, Direction::Send, SENDER);
        let receiver = connect(&mut shard, now, 0, Direction::Recv, RECEIVER);
        let mut world = World {
            shard,
            began: now,
            now,
            sender,
            receiver,
            producers: [ProducerId(0); STREAMS],
            consumers: [(ConsumerId(0), Ssrc(0)); STREAMS],
            generation: 0,
            indices: HashMap::new(),
            outbox: Sent::default(),
            left: HashSet::new(),
            newest: HashMap::new(),
            reported: HashMap::new(),
            wide: Vec::new(),
            feedbacks: 0,
            forwarded: 0,
            resent: 0,
        };
        for stream in 0..STREAMS {
            world.produce(stream);
            world.consume(stream);
        }
        while let Some(event) = world.shard.poll_event() {
            assert!(!matches!(event, Event::Reply { result: Err(_), .. }), "the world stands: {event:?}");
        }
        world
    }

    fn produce(&mut self, stream: usize) {
        let id = ProducerId(10 * self.generation + 1 + stream as u64);
        let spec = [video, audio, layered][stream]();
        let (token, transport) = (Token(1), self.sender.transport);
        let producer = Box::new(ProducerSpec { id, ..spec });
        self.shard.handle_command(self.now, Command::Produce { token, transport, producer });
        self.producers[stream] = id;
    }

    fn consume(&mut self, stream: usize) {
        let id = ConsumerId(10 * self.generation + 1 + stream as u64);
        let ssrc = Ssrc(CONSUMER_SSRC + 100 * self.generation as u32 + 2 * stream as u32);
        let (token, transport) = (Token(1), self.receiver.transport);
        let consumer = Box::new(consumer(id, ssrc, self.producers[stream], stream));
        self.shard.handle_command(self.now, Command::Consume { token, transport, consumer });
        self.consumers[stream] = (id, ssrc);
    }

    fn play(&mut self, kind: u8, content: &[u8]) {
        match kind {
            SENDER_RTP => {
                if let Some(sealed) = self.seal_rtp(content) {
                    self.datagram(SENDER, sealed);
                }
            }
            SENDER_RTCP => self.control(SENDER, content),
            RECEIVER_RTCP => self.control(RECEIVER, content),
            RAW => self.datagram(SENDER, content.to_vec()),
            STRANGER => self.datagram(STRANGE, content.to_vec()),
            TIME => self.now += Duration::from_millis(4 * u64::from(content.first().copied().unwrap_or(0))),
            FEEDBACK => self.feedback(content),
            REPORT => self.report(content),
            NACK => self.nack(content),
            CHECK => self.check(content),
            _ => self.command(content),
        }
        self.settle();
    }

    fn control(&mut self, source: SocketAddr, compound: &[u8]) {
        let far = if source == SENDER { &mut self.sender } else { &mut self.receiver };
        let mut sealed = compound.to_vec();
        sealed.resize(compound.len() + 64, 0);
        if let Some(len) = far.outbound.seal_rtcp(&mut sealed, compound.len()) {
            sealed.truncate(len);
            self.datagram(source, sealed);
        }
    }

    fn feedback(&mut self, content: &[u8]) {
        let mut wide = std::mem::take(&mut self.wide);
        wide.truncate(FEEDBACK_PACKETS);
        let [Some(first), Some(last)] = [wide.first(), wide.last()].map(|packet| packet.map(|packet| packet.0)) else {
            return;
        };
        let byte = |at: usize| u64::from(content.get(at).copied().unwrap_or(0));
        let lost = content.get(2..).unwrap_or_default();
        let mut statuses = vec![None; usize::from(last.0.wrapping_sub(first.0)) + 1];
        let mut arrived_us = 0;
        for (at, (number, left_at)) in wide.into_iter().enumerate() {
            if lost.get(at / 8 % lost.len().max(1)).is_some_and(|bits| bits >> (at % 8) & 1 == 1) {
                continue;
            }
            let left_us = (left_at - self.began).as_micros() as u64 + 1_000_000;
            arrived_us = (left_us + 1_000 * byte(1)).max(arrived_us + 250 * byte(0));
            if let Some(status) = statuses.get_mut(usize::from(number.0.wrapping_sub(first.0))) {
                *status = Some(arrived_us);
            }
        }
        self.feedbacks = self.feedbacks.wrapping_add(1);
        let media = self.consumers[0].1;
        let head = TransportCcHead { sender: Ssrc(1), media, base: first, feedback_count: self.feedbacks };
        let mut out = [0; limits::DATAGRAM_BYTES];
        if let Some(written) = write_transport_cc(&mut out, &head, statuses.into_iter()) {
            self.control(RECEIVER, &out[..written.len]);
        }
    }

    fn report(&mut self, content: &[u8]) {
        let byte = |at: usize| content.get(at).copied().unwrap_or(0);
        let ssrc = self.consumers[usize::from(byte(0)) % STREAMS].1;
        let since = Duration::from_millis(byte(2).into());
        let (last_sr, left_at) = self.reported.get(&ssrc.0).copied().unwrap_or((0, self.now));
        let delay = (self.now - left_at).saturating_sub(since);
        let block = ReportBlock {
            ssrc,
            fraction_lost: byte(1),
            cumulative_lost: byte(1).into(),
            highest_sequence: self.newest.get(&ssrc.0).copied().unwrap_or(0).into(),
            jitter: byte(3).into(),
            last_sr,
            delay_since_last_sr: (delay.as_secs_f64() * 65_536.0) as u32,
        };
        let mut out = [0; 64];
        let Some(len) = write_receiver_report(&mut out, Ssrc(1), [block]) else { panic!("there is room") };
        self.control(RECEIVER, &out[..len]);
    }

    fn nack(&mut self, content: &[u8]) {
        let byte = |at: usize| content.get(at).copied().unwrap_or(0);
        let ssrc = self.consumers[usize::from(byte(0)) % STREAMS].1;
        let Some(newest) = self.newest.get(&ssrc.0) else { return };
        let first = newest.wrapping_sub(byte(1).into());
        let mask = u16::from_be_bytes([byte(2), byte(3)]);
        let further = (0..16).filter(|bit| mask >> bit & 1 == 1).map(|bit| first.wrapping_add(bit + 1));
        let mut out = [0; 128];
        let lost = [first].into_iter().chain(further).map(SeqNo);
        let Some(len) = write_nack(&mut out, Ssrc(1), ssrc, lost) else { panic!("there is room") };
        self.control(RECEIVER, &out[..len]);
    }

    fn check(&mut self, content: &[u8]) {
        let Some((from, attributes)) = content.split_first() else { return };
        let far = if from & 1 == 0 { &self.sender } else { &self.receiver };
        let mut source = far.address;
        source.set_port(source.port() + u16::from(from >> 1 & 15));
        let key = self.shard.names.transports.get(&far.transport);
        let Some(transport) = key.and_then(|key| self.shard.transports.at(*key)) else { return };
        let credentials = transport.ice.credentials();
        let username = format!("{}:far", credentials.ufrag());
        let mut all = [USERNAME.to_be_bytes(), (username.len() as u16).to_be_bytes()].concat();
        all.extend(username.as_bytes());
        all.extend(attributes);
        let mut check = vec![0; all.len() + 64];
        let key = crate::packet::stun::integrity_key(credentials.password());
        let Some(len) = Writer::request(&mut check, [7; 12], &all).finish(Some(&key)) else { panic!("there is room") };
        check.truncate(len);
        self.datagram(source, check);
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
        let len = self.sender.outbound.seal_rtp(&mut sealed, at, &plain[at..], &[], header.ssrc, index);
        sealed.truncate(len);
        Some(sealed)
    }

    fn command(&mut self, content: &[u8]) {
        let byte = |at: usize| content.get(at).copied().unwrap_or(0);
        let token = Token(7);
        let stream = usize::from(byte(1)) % STREAMS;
        let (producer, consumer) = (self.producers[stream], self.consumers[stream].0);
        let command = match byte(0) % 14 {
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
            8 => Command::RestartIce { token, transport: self.sender.transport },
            9 => Command::RestartIce { token, transport: self.receiver.transport },
            10 => Command::WorkerStats { token },
            close => return self.renew(close, stream),
        };
        self.shard.handle_command(self.now, command);
    }

    /// Closes a consumer, a producer or a transport, and puts another in its place.
    fn renew(&mut self, what: u8, stream: usize) {
        self.generation += 1;
        match what {
            11 => {
                let consumer = self.consumers[stream].0;
                self.shard.handle_command(self.now, Command::CloseConsumer { consumer });
                self.consume(stream);
            }
            12 => {
                let producer = self.producers[stream];
                self.shard.handle_command(self.now, Command::CloseProducer { producer });
                self.produce(stream);
                self.consume(stream);
            }
            _ => {
                let transport = self.receiver.transport;
                self.shard.handle_command(self.now, Command::CloseTransport { transport });
                self.receiver = connect(&mut self.shard, self.now, self.generation, Direction::Recv, RECEIVER);
                // Other keys, other numbers.
                self.left.clear();
                self.newest.clear();
                self.reported.clear();
                self.wide.clear();
                (0..STREAMS).for_each(|stream| self.consume(stream));
            }
        }
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
        for (address, datagram) in datagrams {
            match address.ip() {
                ip if ip == SENDER.ip() => self.judge_control(true, datagram),
                ip if ip == RECEIVER.ip() && is_control(&datagram) => self.judge_control(false, datagram),
                ip if ip == RECEIVER.ip() => self.judge(&datagram),
                _ => {}
            }
        }
    }

    /// RTCP that leaves can be opened and read by whom it is for.
    fn judge_control(&mut self, for_sender: bool, mut datagram: Vec<u8>) {
        if datagram[0] >> 6 != 2 {
            return;
        }
        assert!(is_control(&datagram), "nothing else goes to the sender");
        let far = if for_sender { &mut self.sender } else { &mut self.receiver };
        let Ok(len) = far.opener.open_rtcp(&mut datagram) else { panic!("RTCP that cannot be opened") };
        for packet in packets(&datagram[..len]) {
            match packet {
                Ok(RtcpPacket::SenderReport(report)) => {
                    let middle = (report.info.ntp.0 >> 16) as u32;
                    self.reported.insert(report.info.ssrc.0, (middle, self.now));
                }
                Ok(_) => {}
                Err(_) => panic!("RTCP that cannot be read"),
            }
        }
    }

    fn judge(&mut self, datagram: &[u8]) {
        assert!(!datagram.is_empty() && datagram.len() <= limits::DATAGRAM_BYTES + limits::HEADER_BYTES);
        if datagram[0] >> 6 != 2 {
            return;
        }
        let Some(header) = RtpHeader::parse(datagram) else { panic!("an RTP header that cannot be read") };
        let (ssrc, number) = (header.ssrc.0, header.sequence.0);
        assert!(self.left.insert((ssrc, number)), "number {number} of {ssrc} left twice: its nonce was used before");
        // A consumer's retransmissions have the odd number behind its own.
        let is_rtx = ssrc >= CONSUMER_SSRC && (ssrc - CONSUMER_SSRC) % 2 == 1;
        *(if is_rtx { &mut self.resent } else { &mut self.forwarded }) += 1;
        self.newest.insert(ssrc, number);
        let wide = Extension::TransportCc.router_id();
        let wide = header.extensions(datagram).find(|(id, _)| *id == wide).and_then(|(_, value)| value.try_into().ok());
        self.wide.extend(wide.map(|bytes| (SeqNo(u16::from_be_bytes(bytes)), self.now)));
        let mut opened = vec![0; datagram.len()];
        // A packet that is late by more than the replay window is refused, and nothing else is.
        let outcome = self.receiver.opener.open_rtp(datagram, header.len(), &mut opened);
        assert!(matches!(outcome, Ok(_) | Err(srtp::SrtpError::Replayed)), "{outcome:?}");
    }
}

fn is_control(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|kind| (192..=223).contains(kind))
}

/// A transport as ICE and DTLS would leave it.
fn connect(shard: &mut Shard, now: Instant, generation: u64, direction: Direction, address: SocketAddr) -> Far {
    let id = 10 * generation + if direction == Direction::Send { 1 } else { 2 };
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
    let keys = keys.swapped();
    Far { transport, address, outbound: Outbound::new(&keys), opener: Inbound::new(&keys) }
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

fn consumer(id: ConsumerId, ssrc: Ssrc, producer: ProducerId, stream: usize) -> ConsumerSpec {
    let is_video = stream != 1;
    let extensions = [Extension::Mid, Extension::AbsSendTime, Extension::TransportCc, Extension::DependencyDescriptor];
    ConsumerSpec {
        id,
        producer,
        payload_type: if is_video { 101 } else { 100 },
        rtx_payload_type: is_video.then_some(102),
        ssrc,
        rtx_ssrc: is_video.then_some(Ssrc(ssrc.0 + 1)),
        mid: id.0.to_string(),
        extensions: extensions.into_iter().collect(),
        feedback: feedback(),
        cname: "far".into(),
        paused: false,
        priority: 1,
        preferred: None,
    }
}
