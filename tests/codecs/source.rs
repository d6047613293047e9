//! A camera that sends three sizes at three frame rates in one stream, as VP9 and AV1 encoders do: payload descriptors of
//! RFC 9628, or dependency descriptors with templates as libwebrtc makes them (indications by the rules of appendix A).
//! Each packet says in its payload which frame it is of and to which frames that refers.

use ringside::shard::command::Codec;

use crate::world::Packet;

pub const SPATIAL: u8 = 3;
pub const TEMPORAL: u8 = 3;
const PACKETS: [u8; 3] = [1, 2, 3];
/// Chromium's pattern of three temporal layers.
const PATTERN: [u8; 4] = [0, 2, 1, 2];

/// What upper spatial layers refer to in the layer below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `L3T3`: its frame in every picture.
    Full,
    /// `L3T3_KEY`: its frame in key pictures.
    Key,
    /// `S3T3`: nothing, ever.
    Alone,
}

pub struct Source {
    pub codec: Codec,
    pub mode: Mode,
    /// Spatial layers that the encoder makes at the moment.
    pub active: u8,
    /// Bytes in each packet that stand for its picture.
    pub filler: usize,
    /// Id of the first template.
    first_template: u8,
    sequence: u16,
    timestamp: u32,
    picture: u16,
    /// Frames so far, and the newest of each layer that others refer to.
    frames: u32,
    base: [u32; 3],
    middle: [u32; 3],
}

/// What a payload ends with.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    pub frame: u32,
    pub refers_to: Vec<u32>,
    pub spatial: u8,
    pub temporal: u8,
    pub is_key: bool,
    pub index: u8,
    pub count: u8,
}

impl Stamp {
    fn write(&self) -> Vec<u8> {
        let mut bytes = self.frame.to_be_bytes().to_vec();
        bytes.extend([self.spatial, self.temporal, u8::from(self.is_key), self.index, self.count]);
        self.refers_to.iter().for_each(|frame| bytes.extend(frame.to_be_bytes()));
        bytes.push(bytes.len() as u8);
        bytes
    }

    pub fn read(payload: &[u8]) -> Stamp {
        let (len, rest) = payload.split_last().expect("a payload");
        let bytes = &rest[rest.len() - usize::from(*len)..];
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Stamp {
            frame: word(0),
            refers_to: (9..bytes.len()).step_by(4).map(word).collect(),
            spatial: bytes[4],
            temporal: bytes[5],
            is_key: bytes[6] == 1,
            index: bytes[7],
            count: bytes[8],
        }
    }
}

impl Source {
    pub fn new(codec: Codec, mode: Mode) -> Source {
        Source {
            codec,
            mode,
            active: SPATIAL,
            filler: 0,
            first_template: 0,
            sequence: 100,
            timestamp: 5000,
            picture: 0,
            frames: 0,
            base: [0; 3],
            middle: [0; 3],
        }
    }

    /// Nothing was sent yet.
    pub fn is_new(&self) -> bool {
        self.frames == 0
    }

    /// The next packet has this number.
    pub fn start_over_at(&mut self, sequence: u16) {
        self.sequence = sequence - 1;
    }

    /// The next key frame brings templates under other ids, as those of a restarted encoder do.
    pub fn renumber_templates(&mut self) {
        self.first_template = (self.first_template + 12) % 64;
    }

    /// The packets of the next picture.
    pub fn picture(&mut self, is_key: bool) -> Vec<Packet> {
        self.picture = if is_key { 0 } else { self.picture + 1 };
        self.timestamp += 3000;
        let temporal = PATTERN[usize::from(self.picture) % 4];
        let mut packets = Vec::new();
        let mut below = None;
        for spatial in 0..self.active {
            self.frames += 1;
            let at = usize::from(spatial);
            let refers_below = spatial > 0 && (self.mode == Mode::Full || (self.mode == Mode::Key && is_key));
            let mut refers_to: Vec<u32> = below.filter(|_| refers_below).into_iter().collect();
            if !is_key {
                let second_half = self.picture % 4 == 3;
                refers_to.push(if second_half { self.middle[at] } else { self.base[at] });
            }
            match temporal {
                0 => (self.base[at], self.middle[at]) = (self.frames, self.frames),
                1 => self.middle[at] = self.frames,
                _ => {}
            }
            below = Some(self.frames);
            let count = PACKETS[at];
            for index in 0..count {
                let stamp =
                    Stamp { frame: self.frames, refers_to: refers_to.clone(), spatial, temporal, is_key, index, count };
                packets.push(self.packet(&stamp));
            }
        }
        packets
    }

    fn packet(&mut self, stamp: &Stamp) -> Packet {
        self.sequence += 1;
        let (first, last) = (stamp.index == 0, stamp.index + 1 == stamp.count);
        let (mut payload, descriptor) = match self.codec {
            Codec::Vp9 => (self.vp9(stamp, first, last), Vec::new()),
            _ => (av1(stamp, first), self.descriptor(stamp, first, last)),
        };
        payload.resize(payload.len() + self.filler, 0);
        payload.extend(stamp.write());
        let marker = last && stamp.spatial + 1 == self.active;
        Packet { sequence: self.sequence, timestamp: self.timestamp, marker, descriptor, payload }
    }

    fn vp9(&self, stamp: &Stamp, first: bool, last: bool) -> Vec<u8> {
        let is_last_layer = stamp.spatial + 1 == self.active;
        let refers_below = self.mode == Mode::Full || (self.mode == Mode::Key && stamp.is_key);
        let unreferred = is_last_layer || !refers_below;
        let mut flags = 0xb0 | u8::from(first) << 3 | u8::from(last) << 2 | u8::from(unreferred);
        flags |= u8::from(!stamp.is_key) << 6;
        let [high, low] = (0x8000 | self.picture).to_be_bytes();
        let up = u8::from(stamp.temporal < 2) << 4;
        let layers = stamp.temporal << 5 | up | stamp.spatial << 1 | u8::from(stamp.spatial > 0 && refers_below);
        let announces = stamp.is_key && stamp.spatial == 0 && first;
        let mut payload = vec![flags | u8::from(announces) << 1, high, low, layers];
        if !stamp.is_key {
            payload.push([4, 1, 2, 1][usize::from(self.picture) % 4] << 1);
        }
        if announces {
            payload.push((self.active - 1) << 5);
        }
        payload
    }

    fn descriptor(&self, stamp: &Stamp, first: bool, last: bool) -> Vec<u8> {
        let templates = templates();
        let wanted = (stamp.spatial, stamp.temporal, stamp.is_key);
        let at = templates.iter().position(|template| *template == wanted).expect("a template");
        let id = (at + usize::from(self.first_template)) % 64;
        let mut bits = Bits::default();
        bits.put(1, u32::from(first)).put(1, u32::from(last)).put(6, id as u32).put(16, stamp.frame & 0xffff);
        if stamp.is_key && stamp.spatial == 0 && first {
            bits.put(5, 0b10000);
            self.structure(&mut bits, &templates);
        }
        bits.bytes()
    }

    /// Nine decode targets, one for each pair of layers.
    fn structure(&self, bits: &mut Bits, templates: &[(u8, u8, bool)]) {
        bits.put(6, u32::from(self.first_template)).put(5, 8);
        for pair in templates.windows(2) {
            let step = match (pair[1].0 > pair[0].0, pair[1].1 > pair[0].1) {
                (true, _) => 2,
                (false, true) => 1,
                (false, false) => 0,
            };
            bits.put(2, step);
        }
        bits.put(2, 3);
        for template in templates {
            for target in 0..9 {
                bits.put(2, self.indication(*template, target / 3, target % 3));
            }
        }
        for (spatial, _, is_key) in templates {
            let refers = !is_key || (*spatial > 0 && self.mode != Mode::Alone);
            if refers {
                bits.put(1, 1).put(4, 0);
            }
            bits.put(1, 0);
        }
        // No chains; the sizes.
        bits.put(3, 0);
        bits.put(1, 1);
        for spatial in 0..3 {
            bits.put(16, (240 << spatial) - 1).put(16, (135 << spatial) - 1);
        }
    }

    /// 0 not present, 1 discardable, 2 switch, 3 required.
    fn indication(&self, (spatial, temporal, is_key): (u8, u8, bool), s: u8, t: u8) -> u32 {
        let is_above = s > spatial && (self.mode == Mode::Full || (self.mode == Mode::Key && is_key));
        if t < temporal || !(s == spatial || is_above) {
            return 0;
        }
        if is_key {
            return 2;
        }
        match (s == spatial, t > temporal || temporal == 0) {
            (true, true) => 2,
            (true, false) => 1,
            (false, _) => 3,
        }
    }
}

/// In the order in which their layers follow each other.
fn templates() -> Vec<(u8, u8, bool)> {
    (0..3)
        .flat_map(|spatial| [(0, true), (0, false), (1, false), (2, false)].map(|(t, key)| (spatial, t, key)))
        .collect()
}

/// Aggregation header with one OBU: a sequence header where a coded sequence begins, else a frame.
fn av1(stamp: &Stamp, first: bool) -> Vec<u8> {
    let begins = first && stamp.is_key && stamp.spatial == 0;
    vec![0x10 | u8::from(!first) << 7 | u8::from(begins) << 3, if begins { 0x0a } else { 0x32 }]
}

#[derive(Default)]
struct Bits {
    bits: Vec<bool>,
}

impl Bits {
    fn put(&mut self, count: u32, value: u32) -> &mut Self {
        self.bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        self.bits
            .chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |b, (i, bit)| b | u8::from(*bit) << (7 - i)))
            .collect()
    }
}
