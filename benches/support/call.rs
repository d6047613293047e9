//! A shard with one sender and many receivers, connected for real (ICE checks, DTLS), in memory.

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
const PRODUCER: ProducerId = ProducerId(1);
pub const SSRC: u32 = 77_777;

pub struct Call {
    pub shard: Shard,
    pub sender: Sender,
    /// What each receiver's keys are; the limit seals with the same.
    pub receivers: Vec<Keys>,
}

/// Makes the datagrams of a publishing browser.
pub struct Sender {
    pub address: SocketAddr,
    pub keys: Keys,
    outbound: Outbound,
    sequence: u64,
    timestamp: u32,
    picture: u16,
}

/// An outbox that sends nothing: what is left is the shard's own work.
pub struct Nowhere {
    slot: Vec<u8>,
    pub datagrams: u64,
    pub messages: u64,
    staged: Vec<Vec<u8>>,
    keep: bool,
}

impl Default for Nowhere {
    fn default() -> Self {
        Nowhere { slot: vec![0; limits::RUN_BYTES], datagrams: 0, messages: 0, staged: Vec::new(), keep: false }
    }
}

impl Outbox for Nowhere {
    fn reserve(&mut self, _: Destination, capacity: usize) -> Option<&mut [u8]> {
        Some(&mut self.slot[..capacity])
    }

    fn commit(&mut self, len: usize, segment: usize) {
        self.messages += 1;
        self.datagrams += len.div_ceil(segment) as u64;
        if self.keep {
            self.staged.push(self.slot[..len].to_vec());
        }
    }
}

impl Call {
    pub fn new(sender: SocketAddr, receivers: &[SocketAddr]) -> Call {
        let now = Instant::now();
        let identity = Identity::generate();
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
        let keys = connect(&mut shard, &identity, sender, Direction::Send, 1);
        produce(&mut shard);
        let receivers = receivers
            .iter()
            .enumerate()
            .map(|(at, address)| {
                let id = 1_000 + at as u64;
                let keys = connect(&mut shard, &identity, *address, Direction::Recv, id);
                consume(&mut shard, id);
                keys
            })
            .collect();
        let outbound = Outbound::new(&keys);
        let sender = Sender { address: sender, keys, outbound, sequence: 1_000, timestamp: 0, picture: 0 };
        let mut call = Call { shard, sender, receivers };
        // The key frame from which every receiver begins.
        let mut outbox = Nowhere::default();
        for mut datagram in call.sender.frame(3, 1_000, true) {
            let source = call.sender.address;
            let bytes = &mut datagram[..];
            call.shard.handle_datagram(now, Datagram { source, local: 0, bytes, received_at: None });
        }
        call.shard.flush(now, &mut outbox);
        assert_eq!(outbox.datagrams, 3 * call.receivers.len() as u64, "every receiver gets the first frame");
        call
    }
}

impl Sender {
    /// The sealed datagrams of one VP8 frame of `packets` packets with `payload` bytes each.
    pub fn frame(&mut self, packets: usize, payload: usize, is_key: bool) -> Vec<Vec<u8>> {
        self.timestamp = self.timestamp.wrapping_add(3_000);
        self.picture = (self.picture + 1) & 0x7fff;
        (0..packets)
            .map(|index| {
                self.sequence += 1;
                let marker = u8::from(index + 1 == packets) << 7;
                let mut header = vec![0x90, marker | 96];
                header.extend((self.sequence as u16).to_be_bytes());
                header.extend(self.timestamp.to_be_bytes());
                header.extend(SSRC.to_be_bytes());
                // One-byte extensions: abs-send-time (2) and transport-cc (3), as Chromium sends them.
                header.extend([0xbe, 0xde, 0, 2, 0x22, 0, 0, 0, 0x31]);
                header.extend((self.sequence as u16).to_be_bytes());
                header.push(0);
                let [high, low] = (0x8000 | self.picture).to_be_bytes();
                let mut body = vec![0x80 | u8::from(index == 0) << 4, 0xe0, high, low, 1, 0];
                body.push(0x10 | u8::from(!is_key || index > 0));
                body.resize(payload, 0x55);
                let mut datagram = vec![0; header.len() + payload + 32];
                datagram[..header.len()].copy_from_slice(&header);
                let len = self.outbound.seal_rtp(&mut datagram, header.len(), &body, &[], Ssrc(SSRC), self.sequence);
                datagram.truncate(len);
                datagram
            })
            .collect()
    }
}

/// Creates a transport and connects it from `address`; returns the keys of the far end.
pub fn connect(shard: &mut Shard, identity: &Identity, address: SocketAddr, direction: Direction, id: u64) -> Keys {
    let now = Instant::now();
    let transport = TransportId(id);
    let create = Command::CreateTransport { token: Token(id), room: ROOM, peer: PeerId(id), transport, direction };
    let Reply::TransportCreated { ufrag, password, .. } = ask(shard, create) else { panic!("not created") };
    let own = Identity::generate();
    let role = DtlsRole::Client;
    let fingerprints = own.fingerprints().to_vec();
    ask(shard, Command::ConnectTransport { token: Token(id), transport, role, fingerprints });

    let mut outbox = Nowhere { keep: true, ..Nowhere::default() };
    let mut check = binding_request(&ufrag, &password);
    shard.handle_datagram(now, Datagram { source: address, local: 0, bytes: &mut check, received_at: None });
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
                Output::Connected(keys) => return keys,
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

fn produce(shard: &mut Shard) {
    let mut extensions = ExtensionMap::default();
    extensions.insert(2, Extension::AbsSendTime);
    extensions.insert(3, Extension::TransportCc);
    let producer = ProducerSpec {
        id: PRODUCER,
        kind: Kind::Video,
        codec: Codec::Vp8,
        class: SourceClass::Camera,
        mid: Some("0".into()),
        payload_type: 96,
        rtx_payload_type: Some(97),
        clock_rate: 90_000,
        encodings: vec![EncodingSpec { ssrc: Some(Ssrc(SSRC)), rtx_ssrc: Some(Ssrc(SSRC + 1)), ..Default::default() }],
        extensions,
        feedback: Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false },
        cname: "sender".into(),
        paused: false,
    };
    let produce = Command::Produce { token: Token(1), transport: TransportId(1), producer: Box::new(producer) };
    ask(shard, produce);
}

fn consume(shard: &mut Shard, id: u64) {
    let extensions: ExtensionSet =
        [Extension::Mid, Extension::AbsSendTime, Extension::TransportCc].into_iter().collect();
    let consumer = ConsumerSpec {
        id: ConsumerId(id),
        producer: PRODUCER,
        payload_type: 101,
        rtx_payload_type: Some(102),
        ssrc: Ssrc(1_000_000 + 2 * id as u32),
        rtx_ssrc: Some(Ssrc(1_000_001 + 2 * id as u32)),
        mid: "0".into(),
        extensions,
        feedback: Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false },
        cname: "sender".into(),
        paused: false,
        priority: 1,
        preferred: None,
    };
    ask(shard, Command::Consume { token: Token(id), transport: TransportId(id), consumer: Box::new(consumer) });
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
