//! A shard with senders and receivers, connected for real (ICE checks, DTLS), in memory. Every receiver gets every
//! sender.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringside::ids::{ConsumerId, PeerId, ProducerId, RoomId, Ssrc, Token, TransportId};
use ringside::limits;
use ringside::packet::extension::{Extension, ExtensionMap, ExtensionSet};
use ringside::shard::command::*;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::shard::{Datagram, Shard, ShardConfig};
use ringside::transport::dtls::{Endpoint, Identity, Output};
use ringside::transport::srtp::{Keys, Outbound};
use stun::agent::TransactionId;
use stun::attributes::RawAttribute;
use stun::attributes::{ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use stun::message::{BINDING_REQUEST, Message};

const ROOM: RoomId = RoomId(1);

pub struct Call {
    pub shard: Shard,
    pub senders: Vec<Sender>,
    /// What each receiver's keys are; the limit seals with the same.
    pub receivers: Vec<Keys>,
    /// A connectivity check of each receiver.
    pub checks: Vec<Vec<u8>>,
}

/// What a sender publishes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    Vp8,
    /// VP8 in three sizes.
    Simulcast,
    Opus,
}

/// Makes the datagrams of a publishing browser.
pub struct Sender {
    pub address: SocketAddr,
    /// Of the lowest layer; that of the next one is two above.
    pub ssrc: Ssrc,
    medium: Medium,
    pub keys: Keys,
    pub check: Vec<u8>,
    pub outbound: Outbound,
    /// By layer; a transport-wide number behind each packet.
    pub sequences: [u64; LAYERS],
    wide: u16,
    pub timestamp: u32,
    picture: u16,
}

pub const LAYERS: usize = 3;

/// An outbox that sends nothing: what is left is the shard's own work.
pub struct Nowhere {
    slot: Vec<u8>,
    pub datagrams: u64,
    pub messages: u64,
    pub bytes: u64,
    staged: Vec<Vec<u8>>,
    keep: bool,
}

impl Default for Nowhere {
    fn default() -> Self {
        Nowhere {
            slot: vec![0; limits::RUN_BYTES],
            datagrams: 0,
            messages: 0,
            bytes: 0,
            staged: Vec::new(),
            keep: false,
        }
    }
}

impl Outbox for Nowhere {
    fn reserve(&mut self, _: Destination, capacity: usize) -> Option<&mut [u8]> {
        Some(&mut self.slot[..capacity])
    }

    fn commit(&mut self, len: usize, segment: usize) {
        self.messages += 1;
        self.bytes += len as u64;
        self.datagrams += len.div_ceil(segment) as u64;
        if self.keep {
            self.staged.push(self.slot[..len].to_vec());
        }
    }
}

impl Call {
    /// Every receiver has got the first packets (a key frame) of each sender when this returns.
    pub fn new(senders: &[(SocketAddr, Medium)], receivers: &[SocketAddr]) -> Call {
        let now = Instant::now();
        let identity = Identity::generate();
        let mut shard = open(&identity, now);
        let join = |(at, (address, medium)): (usize, &(SocketAddr, Medium))| {
            let id = 1 + at as u64;
            let (keys, check) = connect_and_check(&mut shard, &identity, *address, Direction::Send, id);
            let outbound = Outbound::new(&keys);
            let (address, medium, ssrc) = (*address, *medium, Ssrc(77_777 + 2 * (LAYERS * at) as u32));
            produce(&mut shard, id, medium, ssrc);
            let sequences = [1_000; LAYERS];
            Sender { address, ssrc, medium, keys, check, outbound, sequences, wide: 0, timestamp: 0, picture: 0 }
        };
        let senders: Vec<Sender> = senders.iter().enumerate().map(join).collect();
        let join = |(at, address): (usize, &SocketAddr)| {
            let id = 100_000 + at as u64;
            let connected = connect_and_check(&mut shard, &identity, *address, Direction::Recv, id);
            for (producer, sender) in senders.iter().enumerate() {
                consume(&mut shard, id, 1 + producer as u64, sender.medium);
            }
            connected
        };
        let (receivers, checks) = receivers.iter().enumerate().map(join).unzip();
        let mut call = Call { shard, senders, receivers, checks };
        // The receivers joined meanwhile.
        call.begin(Instant::now());
        call
    }

    fn begin(&mut self, now: Instant) {
        let mut outbox = Nowhere::default();
        // The pictures are granted, and their key frames asked for, which is not what is counted.
        self.shard.handle_timeout(now);
        self.shard.flush(now, &mut outbox);
        let mut expected = outbox.datagrams as usize;
        for sender in &mut self.senders {
            let datagrams = match sender.medium {
                Medium::Vp8 => sender.frame(3, 1_000, true),
                Medium::Simulcast => sender.picture([1, 2, 3], 1_000, true),
                Medium::Opus => vec![sender.sound(80)],
            };
            // Of three sizes the largest.
            let each = if sender.medium == Medium::Simulcast { 3 } else { datagrams.len() };
            expected += each * self.receivers.len();
            for mut bytes in datagrams {
                let datagram = Datagram { source: sender.address, local: 0, bytes: &mut bytes, received_at: None };
                self.shard.handle_datagram(now, datagram);
            }
        }
        self.shard.flush(now, &mut outbox);
        assert_eq!(outbox.datagrams, expected as u64, "every receiver gets what every sender begins with");
    }
}

/// A peer that only checks its path.
pub struct Visitor {
    pub address: SocketAddr,
    /// An authentic connectivity check of it.
    pub check: Vec<u8>,
}

/// A shard with a transport for each address, known by a check and not yet secured.
pub fn visitors(addresses: &[SocketAddr]) -> (Shard, Vec<Visitor>) {
    let now = Instant::now();
    let mut shard = open(&Identity::generate(), now);
    let visit = |(at, address): (usize, &SocketAddr)| {
        let (ufrag, password) = create(&mut shard, Direction::Recv, at as u64);
        let check = binding_request(&ufrag, &password);
        let (source, bytes) = (*address, &mut check.clone()[..]);
        shard.handle_datagram(now, Datagram { source, local: 0, bytes, received_at: None });
        shard.flush(now, &mut Nowhere::default());
        while shard.poll_event().is_some() {}
        Visitor { address: *address, check }
    };
    let visitors = addresses.iter().enumerate().map(visit).collect();
    (shard, visitors)
}

fn open(identity: &Identity, now: Instant) -> Shard {
    let config = ShardConfig {
        identity: identity.clone(),
        seed: [5; 32],
        unix_time: ringside::uring::clock::realtime(),
        ports: 1,
        history_bytes: limits::HISTORY_BYTES,
        hold: Duration::from_millis(1),
    };
    let mut shard = Shard::new(config, now);
    shard.handle_command(now, Command::OpenRoom { room: ROOM, settings: RoomSettings::default() });
    shard
}

impl Sender {
    /// The sealed datagrams of one VP8 frame of `packets` packets with `payload` bytes each.
    pub fn frame(&mut self, packets: usize, payload: usize, is_key: bool) -> Vec<Vec<u8>> {
        self.next_picture();
        self.layer(0, packets, payload, is_key)
    }

    /// The same picture in three sizes of so many packets.
    pub fn picture(&mut self, packets: [usize; LAYERS], payload: usize, is_key: bool) -> Vec<Vec<u8>> {
        self.next_picture();
        (0..LAYERS).flat_map(|layer| self.layer(layer, packets[layer], payload, is_key)).collect()
    }

    fn next_picture(&mut self) {
        self.timestamp = self.timestamp.wrapping_add(3_000);
        self.picture = (self.picture + 1) & 0x7fff;
    }

    fn layer(&mut self, layer: usize, packets: usize, payload: usize, is_key: bool) -> Vec<Vec<u8>> {
        (0..packets)
            .map(|index| {
                let [high, low] = (0x8000 | self.picture).to_be_bytes();
                let mut body = vec![0x80 | u8::from(index == 0) << 4, 0xe0, high, low, 1, 0];
                body.push(0x10 | u8::from(!is_key || index > 0));
                body.resize(payload, 0x55);
                self.datagram(layer, 96, index + 1 == packets, &body)
            })
            .collect()
    }

    /// The sealed datagram of one Opus packet with `payload` bytes.
    pub fn sound(&mut self, payload: usize) -> Vec<u8> {
        self.timestamp = self.timestamp.wrapping_add(960);
        self.datagram(0, 111, false, &vec![0x55; payload])
    }

    fn datagram(&mut self, layer: usize, payload_type: u8, marker: bool, body: &[u8]) -> Vec<u8> {
        self.sequences[layer] += 1;
        self.wide = self.wide.wrapping_add(1);
        let (sequence, ssrc) = (self.sequences[layer], Ssrc(self.ssrc.0 + 2 * layer as u32));
        let mut header = vec![0x90, u8::from(marker) << 7 | payload_type];
        header.extend((sequence as u16).to_be_bytes());
        header.extend(self.timestamp.to_be_bytes());
        header.extend(ssrc.0.to_be_bytes());
        // One-byte extensions: abs-send-time (2) and transport-cc (3), as Chromium sends them.
        header.extend([0xbe, 0xde, 0, 2, 0x22, 0, 0, 0, 0x31]);
        header.extend(self.wide.to_be_bytes());
        header.push(0);
        let mut datagram = vec![0; header.len() + body.len() + 32];
        datagram[..header.len()].copy_from_slice(&header);
        let len = self.outbound.seal_rtp(&mut datagram, header.len(), body, &[], ssrc, sequence);
        datagram.truncate(len);
        datagram
    }
}

/// Creates a transport and connects it from `address`; returns the keys of the far end.
pub fn connect(shard: &mut Shard, identity: &Identity, address: SocketAddr, direction: Direction, id: u64) -> Keys {
    connect_and_check(shard, identity, address, direction, id).0
}

/// The same, and a connectivity check of the far end.
fn connect_and_check(
    shard: &mut Shard,
    identity: &Identity,
    address: SocketAddr,
    direction: Direction,
    id: u64,
) -> (Keys, Vec<u8>) {
    let now = Instant::now();
    let transport = TransportId(id);
    let (ufrag, password) = create(shard, direction, id);
    let own = Identity::generate();
    let role = DtlsRole::Client;
    let fingerprints = own.fingerprints().to_vec();
    ask(shard, Command::ConnectTransport { token: Token(id), transport, role, fingerprints });

    let mut outbox = Nowhere { keep: true, ..Nowhere::default() };
    let check = binding_request(&ufrag, &password);
    let bytes = &mut check.clone()[..];
    shard.handle_datagram(now, Datagram { source: address, local: 0, bytes, received_at: None });
    let mut far = Endpoint::new(&own);
    far.start(now, DtlsRole::Server, identity.fingerprints().to_vec()).expect("a handshake");
    let mut buffer = [0; limits::DATAGRAM_BYTES];
    for _ in 0..20 {
        while let Some(output) = far.poll(&mut buffer) {
            match output {
                Output::Datagram(bytes) => {
                    let bytes = &mut bytes.to_vec()[..];
                    shard.handle_datagram(now, Datagram { source: address, local: 0, bytes, received_at: None });
                }
                Output::Connected(keys) => return (keys, check),
                Output::Failed(reason) => panic!("{reason}"),
                Output::Closed => panic!("closed"),
            }
        }
        shard.flush(now, &mut outbox);
        for datagram in outbox.staged.drain(..) {
            if (20..64).contains(&datagram[0]) {
                far.handle_datagram(now, &datagram);
            }
        }
    }
    panic!("the handshake does not end");
}

fn create(shard: &mut Shard, direction: Direction, id: u64) -> (String, String) {
    let (peer, transport) = (PeerId(id), TransportId(id));
    let create = Command::CreateTransport { token: Token(id), room: ROOM, peer, transport, direction };
    match ask(shard, create) {
        Reply::TransportCreated { ufrag, password, .. } => (ufrag, password),
        _ => panic!("not created"),
    }
}

fn binding_request(ufrag: &str, password: &str) -> Vec<u8> {
    let attribute = |typ, value: Vec<u8>| RawAttribute { typ, length: value.len() as u16, value };
    let mut message = Message::new();
    message.set_type(BINDING_REQUEST);
    message
        .build(&[
            Box::new(TransactionId::new()),
            Box::new(attribute(ATTR_USERNAME, format!("{ufrag}:far").into_bytes())),
            Box::new(attribute(ATTR_PRIORITY, vec![0x6e, 0, 1, 0xff])),
            Box::new(attribute(ATTR_USE_CANDIDATE, Vec::new())),
            Box::new(stun::integrity::MessageIntegrity::new_short_term_integrity(password.to_owned())),
            Box::new(stun::fingerprint::FINGERPRINT),
        ])
        .expect("a request");
    message.raw
}

fn produce(shard: &mut Shard, id: u64, medium: Medium, ssrc: Ssrc) {
    let is_video = medium != Medium::Opus;
    let mut extensions = ExtensionMap::default();
    extensions.insert(2, Extension::AbsSendTime);
    extensions.insert(3, Extension::TransportCc);
    let encoding = |layer: u32| {
        let ssrc = ssrc.0 + 2 * layer;
        let rtx_ssrc = is_video.then_some(Ssrc(ssrc + 1));
        EncodingSpec { ssrc: Some(Ssrc(ssrc)), rtx_ssrc, ..Default::default() }
    };
    let layers = if medium == Medium::Simulcast { LAYERS as u32 } else { 1 };
    let producer = ProducerSpec {
        id: ProducerId(id),
        kind: if is_video { Kind::Video } else { Kind::Audio },
        codec: if is_video { Codec::Vp8 } else { Codec::Opus },
        class: if is_video { SourceClass::Camera } else { SourceClass::Microphone },
        mid: Some("0".into()),
        payload_type: if is_video { 96 } else { 111 },
        rtx_payload_type: is_video.then_some(97),
        clock_rate: if is_video { 90_000 } else { 48_000 },
        encodings: (0..layers).map(encoding).collect(),
        extensions,
        feedback: Feedback { nack: is_video, pli: is_video, fir: is_video, transport_cc: true, remb: false },
        cname: format!("sender-{id}"),
        paused: false,
    };
    ask(shard, Command::Produce { token: Token(1), transport: TransportId(id), producer: Box::new(producer) });
}

fn consume(shard: &mut Shard, transport: u64, producer: u64, medium: Medium) {
    let is_video = medium != Medium::Opus;
    // By the client's contract audio carries no transport-wide numbers.
    let extensions: ExtensionSet = if is_video {
        [Extension::Mid, Extension::AbsSendTime, Extension::TransportCc].into_iter().collect()
    } else {
        [Extension::Mid, Extension::AbsSendTime, Extension::AudioLevel].into_iter().collect()
    };
    let id = 1_000 * transport + producer;
    let consumer = ConsumerSpec {
        id: ConsumerId(id),
        producer: ProducerId(producer),
        payload_type: if is_video { 101 } else { 100 },
        rtx_payload_type: is_video.then_some(102),
        ssrc: Ssrc(2 * id as u32),
        rtx_ssrc: is_video.then_some(Ssrc(2 * id as u32 + 1)),
        mid: producer.to_string(),
        extensions,
        feedback: Feedback { nack: is_video, pli: is_video, fir: is_video, transport_cc: is_video, remb: false },
        cname: format!("sender-{producer}"),
        paused: false,
        priority: 1,
        preferred: None,
    };
    let consumer = Box::new(consumer);
    ask(shard, Command::Consume { token: Token(id), transport: TransportId(transport), consumer });
}

pub fn ask(shard: &mut Shard, command: Command) -> Reply {
    shard.handle_command(Instant::now(), command);
    while let Some(event) = shard.poll_event() {
        if let Event::Reply { result, .. } = event {
            return result.expect("granted");
        }
    }
    panic!("no answer");
}
