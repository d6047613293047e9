//! What a real browser sent, forwarded with scripted changes of layer, and shown to a real decoder.
//!
//! Chromium's three layers of VP8 (640x360, 320x180, 160x90, each with three temporal layers and key frames at the
//! start and after three seconds) go through a shard packet by packet with their own headers; each receiver's packets
//! are opened, reassembled by the `rtp` crate's depacketiser and decoded by ffmpeg, which must find nothing to complain
//! about.

#[path = "../benches/support/call.rs"]
#[allow(dead_code, reason = "shared with the benches")]
mod call;
mod support;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use call::{ask, connect};
use ringside::ids::{ConsumerId, ProducerId, RoomId, Ssrc, Token, TransportId};
use ringside::packet::classify::{DatagramKind, classify};
use ringside::packet::extension::{Extension, ExtensionMap, ExtensionSet};
use ringside::shard::command::*;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::shard::{Datagram, Shard, ShardConfig};
use ringside::transport::dtls::Identity;
use ringside::transport::srtp::{Inbound, Keys, Outbound};
use rtp::codecs::vp8::Vp8Packet;
use rtp::packetizer::Depacketizer;
use support::{CAPTURE, CAPTURE_OFFER, datagrams};
use webrtc_util::marshal::{MarshalSize, Unmarshal};

const MS: Duration = Duration::from_millis(1);
const SENDER: &str = "10.0.0.2:5000";
const RECEIVER: &str = "10.0.0.3:5000";
const SENDER_REPORT: u8 = 200;
const VP8: u8 = 96;
const RTX: u8 = 97;

/// A wish of a receiver, so long after the first packet.
#[derive(Clone, Copy)]
struct Wish {
    at: Duration,
    spatial: u8,
    temporal: u8,
}

fn wish(at_ms: u32, spatial: u8, temporal: u8) -> Wish {
    Wish { at: at_ms * MS, spatial, temporal }
}

/// Everything that left, datagram by datagram.
#[derive(Default)]
struct Sent {
    slot: Vec<u8>,
    datagrams: Vec<Vec<u8>>,
}

impl Outbox for Sent {
    fn reserve(&mut self, _: Destination, capacity: usize) -> Option<&mut [u8]> {
        self.slot = vec![0; capacity];
        Some(&mut self.slot)
    }

    fn commit(&mut self, len: usize, segment: usize) {
        self.datagrams.extend(self.slot[..len].chunks(segment).map(<[u8]>::to_vec));
    }
}

/// The sending browser's SRTP, with the rollover that each stream has seen.
struct Sealer {
    outbound: Outbound,
    highest: HashMap<u32, u64>,
}

impl Sealer {
    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut sealed = plain.to_vec();
        sealed.resize(plain.len() + 64, 0);
        let len = if classify(plain) == Some(DatagramKind::Rtcp) {
            self.outbound.seal_rtcp(&mut sealed, plain.len()).expect("room for the trailer")
        } else {
            let header = rtp::header::Header::unmarshal(&mut &plain[..]).expect("a browser's header");
            let highest = self.highest.entry(header.ssrc).or_insert(u64::from(header.sequence_number));
            let step = header.sequence_number.wrapping_sub(*highest as u16) as i16;
            let sequence = highest.wrapping_add_signed(i64::from(step));
            *highest = sequence.max(*highest);
            let at = header.marshal_size();
            self.outbound.seal_rtp(&mut sealed, at, &plain[at..], &[], Ssrc(header.ssrc), sequence)
        };
        sealed.truncate(len);
        sealed
    }
}

/// A frame as a receiver reassembled it.
#[derive(Debug)]
struct Frame {
    timestamp: u32,
    picture: u16,
    data: Vec<u8>,
}

impl Frame {
    fn is_key(&self) -> bool {
        self.data[0] & 1 == 0
    }

    /// Width and height, which a key frame begins with (RFC 6386 section 9.1).
    fn size(&self) -> (u16, u16) {
        let word = |at: usize| u16::from_le_bytes([self.data[at], self.data[at + 1]]) & 0x3fff;
        (word(6), word(8))
    }
}

/// Sends the capture to one receiver for each script; returns their frames.
fn replay(scripts: &[&[Wish]]) -> Vec<Vec<Frame>> {
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
    let (sender, receiver) = (SENDER.parse().unwrap(), RECEIVER.parse().unwrap());
    let keys = connect(&mut shard, &identity, sender, Direction::Send, 1);
    let opener = connect(&mut shard, &identity, receiver, Direction::Recv, 2);
    produce(&mut shard);
    scripts.iter().enumerate().for_each(|(at, script)| consume(&mut shard, at, script[0]));

    let mut sealer = Sealer { outbound: Outbound::new(&keys), highest: HashMap::new() };
    let mut outbox = Sent::default();
    let base = Instant::now();
    let recorded: Vec<_> = datagrams(CAPTURE).into_iter().filter(|(_, plain)| is_from_the_sender(plain)).collect();
    let first = recorded[0].0;
    let mut wishes: Vec<_> = scripts.iter().map(|script| script[1..].iter()).collect();
    let mut next: Vec<_> = wishes.iter_mut().map(Iterator::next).collect();
    for (time, plain) in recorded {
        let (now, elapsed) = (base + (time - first), time - first);
        for (at, script) in wishes.iter_mut().enumerate() {
            while let Some(wish) = next[at].filter(|wish| wish.at <= elapsed) {
                let (consumer, temporal) = (ConsumerId(at as u64), Some(wish.temporal));
                let command =
                    Command::SetPreferredLayers { token: Token(9), consumer, spatial: wish.spatial, temporal };
                shard.handle_command(now, command);
                next[at] = script.next();
            }
        }
        let mut sealed = sealer.seal(plain);
        let bytes = &mut sealed[..];
        shard.handle_datagram(now, Datagram { source: sender, local: 0, bytes, received_at: Some(now) });
        // The layers begin within a few milliseconds of each other; who decides before all of them are there takes
        // what there is.
        if elapsed > 100 * MS {
            shard.handle_timeout(now);
            shard.flush(now, &mut outbox);
        }
    }
    let end = base + 10 * Duration::from_secs(1);
    shard.flush(end, &mut outbox);
    received(&outbox.datagrams, &opener, scripts.len())
}

fn is_from_the_sender(plain: &[u8]) -> bool {
    match classify(plain) {
        Some(DatagramKind::Rtp) => [VP8, RTX].contains(&(plain[1] & 0x7f)),
        Some(DatagramKind::Rtcp) => plain[1] == SENDER_REPORT,
        _ => false,
    }
}

fn produce(shard: &mut Shard) {
    let mut extensions = ExtensionMap::default();
    for line in CAPTURE_OFFER.lines().filter_map(|line| line.strip_prefix("a=extmap:")) {
        let (id, uri) = line.split_once(' ').unwrap();
        if let Some(extension) = Extension::from_uri(uri.trim()) {
            extensions.insert(id.parse().unwrap(), extension);
        }
    }
    let encodings = ["r0", "r1", "r2"].map(|rid| EncodingSpec {
        rid: Some(rid.into()),
        spatial_layers: 1,
        temporal_layers: 3,
        ..EncodingSpec::default()
    });
    let producer = ProducerSpec {
        id: ProducerId(1),
        kind: Kind::Video,
        codec: Codec::Vp8,
        class: SourceClass::Camera,
        mid: Some("1".into()),
        payload_type: VP8,
        rtx_payload_type: Some(RTX),
        clock_rate: 90_000,
        encodings: encodings.into(),
        extensions,
        feedback: Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false },
        cname: "chromium".into(),
        paused: false,
    };
    let produce = Command::Produce { token: Token(1), transport: TransportId(1), producer: Box::new(producer) };
    ask(shard, produce);
}

fn ssrc_of(consumer: usize) -> u32 {
    1_000_000 + 2 * consumer as u32
}

fn consume(shard: &mut Shard, at: usize, wish: Wish) {
    let extensions: ExtensionSet = [Extension::Mid, Extension::AbsSendTime].into_iter().collect();
    let consumer = ConsumerSpec {
        id: ConsumerId(at as u64),
        producer: ProducerId(1),
        payload_type: 101,
        rtx_payload_type: Some(102),
        ssrc: Ssrc(ssrc_of(at)),
        rtx_ssrc: Some(Ssrc(ssrc_of(at) + 1)),
        mid: at.to_string(),
        extensions,
        // Without feedback about bandwidth nothing but the wish decides.
        feedback: Feedback { nack: true, pli: true, fir: true, transport_cc: false, remb: false },
        cname: "chromium".into(),
        paused: false,
        priority: 1,
        preferred: Some(Layers { spatial: wish.spatial, temporal: wish.temporal }),
    };
    ask(shard, Command::Consume { token: Token(2), transport: TransportId(2), consumer: Box::new(consumer) });
}

/// The frames of each consumer. Numbers without a gap are asserted on the way.
fn received(datagrams: &[Vec<u8>], keys: &Keys, consumers: usize) -> Vec<Vec<Frame>> {
    let mut inbound = Inbound::new(keys);
    let mut packets: Vec<BTreeMap<u16, (rtp::header::Header, Vec<u8>)>> = vec![BTreeMap::new(); consumers];
    for datagram in datagrams.iter().filter(|datagram| classify(datagram) == Some(DatagramKind::Rtp)) {
        let header = rtp::header::Header::unmarshal(&mut &datagram[..]).expect("a header");
        let mut opened = vec![0; datagram.len()];
        let len = inbound.open_rtp(datagram, header.marshal_size(), &mut opened).expect("sealed for this receiver");
        let mut payload = opened[header.marshal_size()..len].to_vec();
        if header.padding {
            let padding = usize::from(*payload.last().expect("padding"));
            payload.truncate(payload.len() - padding);
        }
        let consumer = (header.ssrc - 1_000_000) as usize / 2;
        assert_eq!((header.payload_type, header.ssrc), (101, ssrc_of(consumer)));
        packets[consumer].insert(header.sequence_number, (header, payload));
    }
    packets.iter().map(frames).collect()
}

fn frames(packets: &BTreeMap<u16, (rtp::header::Header, Vec<u8>)>) -> Vec<Frame> {
    let numbers: Vec<u16> = packets.keys().copied().collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "the numbering has a gap: {numbers:?}");
    let (mut frames, mut ended): (Vec<Frame>, bool) = (Vec::new(), true);
    for (header, payload) in packets.values().filter(|(_, payload)| !payload.is_empty()) {
        let mut vp8 = Vp8Packet::default();
        let body = vp8.depacketize(&payload.clone().into()).expect("a VP8 payload");
        let starts = vp8.s == 1 && vp8.pid == 0;
        assert_eq!(starts, ended, "a frame begins where the one before ended");
        if starts {
            frames.push(Frame { timestamp: header.timestamp, picture: vp8.picture_id, data: Vec::new() });
        }
        let frame = frames.last_mut().expect("begun");
        assert_eq!((frame.timestamp, frame.picture), (header.timestamp, vp8.picture_id));
        frame.data.extend_from_slice(&body);
        ended = header.marker;
    }
    assert!(ended, "the last frame is whole");
    for pair in frames.windows(2) {
        assert_eq!(pair[1].picture.wrapping_sub(pair[0].picture) & 0x7fff, 1, "picture ids count up by one");
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!((1..=4 * 90 * 100).contains(&step), "a step of {step} ticks");
    }
    frames
}

/// Decodes the frames with ffmpeg, which must have nothing to say and show every one.
fn decode(frames: &[Frame], name: &str) {
    let mut ivf = Vec::new();
    ivf.extend(b"DKIF\0\0\x20\0VP80");
    let (width, height) = frames[0].size();
    ivf.extend(width.to_le_bytes());
    ivf.extend(height.to_le_bytes());
    ivf.extend(30u32.to_le_bytes());
    ivf.extend(1u32.to_le_bytes());
    ivf.extend((frames.len() as u32).to_le_bytes());
    ivf.extend([0; 4]);
    for (at, frame) in frames.iter().enumerate() {
        ivf.extend((frame.data.len() as u32).to_le_bytes());
        ivf.extend((at as u64).to_le_bytes());
        ivf.extend(&frame.data);
    }
    let path = std::env::temp_dir().join(format!("ringside-replay-{}-{name}.ivf", std::process::id()));
    std::fs::write(&path, ivf).expect("a temporary file");
    let path_text = path.to_str().expect("a plain path");
    let strict = ["-v", "error", "-err_detect", "explode", "-i", path_text, "-f", "null", "-"];
    let decoded = Process::new("ffmpeg").args(strict).output().expect("ffmpeg is installed: ./test installs it");
    let complaints = String::from_utf8_lossy(&decoded.stderr).into_owned();
    assert!(decoded.status.success() && complaints.is_empty(), "{name}: {complaints}");
    let count = ["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", path_text];
    let counted = Process::new("ffprobe").args(count).output().expect("ffprobe comes with ffmpeg");
    let shown: usize = String::from_utf8_lossy(&counted.stdout).trim().parse().expect("a number of frames");
    std::fs::remove_file(&path).expect("the file that was just read");
    assert_eq!(shown, frames.len(), "{name}: every frame is shown");
}

/// The sizes that a viewer sees one after the other.
fn sizes(frames: &[Frame]) -> Vec<(u16, u16)> {
    let mut sizes: Vec<_> = frames.iter().filter(|frame| frame.is_key()).map(Frame::size).collect();
    sizes.dedup();
    sizes
}

const SIZES: [(u16, u16); 3] = [(160, 90), (320, 180), (640, 360)];

#[test]
fn every_change_between_two_layers_decodes_without_an_error() {
    let mut scripts = Vec::new();
    for from in 0..3 {
        for to in 0..3 {
            scripts.push([wish(0, from, 2), wish(1_500, to, 2)]);
        }
    }
    let borrowed: Vec<&[Wish]> = scripts.iter().map(|script| &script[..]).collect();
    for (frames, script) in replay(&borrowed).iter().zip(&scripts) {
        let (from, to) = (script[0].spatial, script[1].spatial);
        let name = format!("{from}-to-{to}");
        let mut expected = vec![SIZES[from as usize], SIZES[to as usize]];
        expected.dedup();
        assert_eq!(sizes(frames), expected, "{name}");
        assert!((179..=181).contains(&frames.len()), "{name}: {} of the 180 frames recorded", frames.len());
        decode(frames, &name);
    }
}

#[test]
fn temporal_layers_come_and_go_without_an_error() {
    let scripts: [&[Wish]; 5] = [
        &[wish(0, 2, 0)],
        &[wish(0, 2, 1)],
        &[wish(0, 2, 2), wish(1_000, 2, 0), wish(2_000, 2, 2), wish(4_000, 2, 1)],
        &[wish(0, 2, 0), wish(700, 2, 1), wish(1_400, 2, 2), wish(2_000, 0, 1)],
        &[wish(0, 0, 2), wish(300, 0, 0), wish(1_000, 1, 0), wish(3_500, 1, 2)],
    ];
    let replayed = replay(&scripts);
    let counts: Vec<_> = replayed.iter().map(Vec::len).collect();
    // Recorded: 46 frames of the base, 45 of the second and 89 of the third temporal layer.
    assert_eq!(counts[..2], [46, 91]);
    // 30 and 20 frames are left out by one second of the base and by the last two without the third.
    assert!((120..=135).contains(&counts[2]), "{counts:?}");
    assert_eq!(sizes(&replayed[3]), [SIZES[2], SIZES[0]]);
    assert_eq!(sizes(&replayed[4]), [SIZES[0], SIZES[1]]);
    for (at, frames) in replayed.iter().enumerate() {
        decode(frames, &format!("temporal-{at}"));
    }
}
