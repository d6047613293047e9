//! One media source as it arrives: its layers, what is known of each, and who receives it.
//!
//! Ingress fills a layer's record packet by packet; egress reads what is pending. A producer never sends
//! anything itself: what must be asked of its sender (retransmissions, key frames, reports) is decided by
//! the machines it holds and written by the shard.

use std::time::{Duration, Instant};

use crate::ids::{PeerId, ProducerId, Ssrc};
use crate::limits::{PENDING_PACKETS, RUN_FORESEEN};
use crate::media::allocation::Offer;
use crate::media::frames::FrameBounds;
use crate::media::history::{PacketNumber, SequenceIndex};
use crate::media::key_frame::KeyFramePolicy;
use crate::media::nack::NackList;
use crate::media::report::{RateMeter, Reception};
use crate::media::scalable::Scalable;
use crate::media::spec::{Codec, EncodingSpec, Feedback, Kind, ProducerSpec, SourceClass};
use crate::media::timeline::Timeline;
use crate::packet::extension::ExtensionMap;
use crate::shard::consumer::Consumer;
use crate::shard::room::Room;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

/// A simulcast layer that is silent for so long while others go on has ended; 500 ms is the longest that a receiver
/// may look at a still picture before it gets another layer, less the round trip of a key frame request.
pub const LAYER_SILENCE: Duration = Duration::from_millis(350);

/// The same where the sender said that it may fall silent.
const LAYER_SILENCE_DTX: Duration = Duration::from_secs(2);

/// A microphone that is silent for so long sends nothing, or its path is dead: with DTX Opus sends a packet
/// each 400 ms at least, of which five in a row may be lost.
const VOICE_SILENCE: Duration = Duration::from_secs(2);

/// Temporal layers that are told apart; a further one counts with the last.
const TEMPORAL_LAYERS: usize = 3;

/// What libwebrtc gives to the lowest, the two lower and all three temporal layers of a VP8 encoding.
const TEMPORAL_SHARES: [u64; TEMPORAL_LAYERS] = [40, 60, 100];

/// What bitrates are taken over.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// How often the layers' bitrates are taken.
const OFFER_INTERVAL: Duration = Duration::from_millis(500);

/// What each packet touches comes first, and together.
#[repr(C)]
pub struct Producer {
    pub kind: Kind,
    pub codec: Codec,
    pub payload_type: u8,
    pub rtx_payload_type: Option<u8>,
    pub paused: bool,
    /// Not among the loudest: forwarded to nobody.
    pub is_withheld: bool,
    /// The layers that arrive, as a bit set; of a sound, whether it arrived when it was last looked at.
    pub(super) alive: u8,
    /// How many of its consumers are paused; they are in no layer's list.
    pub paused_consumers: u32,
    pub extensions: Box<ExtensionMap>,
    /// Lowest quality first.
    pub layers: Vec<Layer>,
    pub clock_rate: u32,
    pub room: Key<Room>,
    pub consumers: Vec<Key<Consumer>>,
    /// A microphone's index among the room's speakers.
    pub audio_source: Option<usize>,
    pub offered_at: Option<Instant>,
    pub transport: Key<Transport>,

    /// What its layers cost, measured while they arrive; of video.
    pub offer: Offer,
    pub id: ProducerId,
    pub peer: PeerId,
    pub class: SourceClass,
    pub mid: Option<String>,
    pub feedback: Feedback,
    pub cname: String,
    /// Last score told to its peer.
    pub told_score: Option<u8>,
}

/// One encoding of a producer. What each packet touches comes first, and together, on cache lines of its own.
#[repr(C, align(64))]
pub struct Layer {
    pub reception: Reception,
    pub index: SequenceIndex,
    /// Packets that wait for the end of their frame or tick.
    pub pending: Vec<PacketNumber>,
    pub pending_since: Option<Instant>,
    /// Who gets this layer, or waits for its next key frame.
    pub consumers: Vec<Key<Consumer>>,
    pub last_packet: Option<Instant>,
    /// When the newest frame began to arrive, and the one before it.
    pub frame_begins: [Option<Instant>; 2],
    /// Where its newest frame began; VP8 and Opus say that in each packet.
    pub bounds: FrameBounds,
    pub frames: u64,
    pub ssrc: Option<Ssrc>,
    /// The last of those that wait ends its frame, or needs no other.
    pending_is_complete: bool,
    /// It may fall silent without being gone.
    dtx: bool,
    /// Layers within this stream.
    pub scalable: Option<Box<Scalable>>,
    pub nack: NackList,
    /// Bytes of each temporal layer.
    pub temporal_rates: [RateMeter; TEMPORAL_LAYERS],

    pub key_frames: KeyFramePolicy,
    pub rtx_ssrc: Option<Ssrc>,
    pub rid: Option<String>,
    pub key_frame_count: u64,
    pub max_bitrate_bps: Option<u32>,
    pub plis_sent: u64,
    pub firs_sent: u64,
    pub fir_sequence: u8,
}

impl Producer {
    pub fn new(spec: ProducerSpec, room: Key<Room>, peer: PeerId, transport: Key<Transport>) -> Self {
        let mut scalable = scalable(&spec);
        let offer = declared(&spec, scalable.as_deref());
        // Only a single encoding has layers within it.
        let layer = |encoding| Layer { scalable: scalable.take(), ..Layer::new(encoding, spec.class) };
        let layers = spec.encodings.into_iter().map(layer).collect();
        Producer {
            id: spec.id,
            peer,
            room,
            transport,
            kind: spec.kind,
            codec: spec.codec,
            class: spec.class,
            clock_rate: spec.clock_rate,
            payload_type: spec.payload_type,
            rtx_payload_type: spec.rtx_payload_type,
            mid: spec.mid,
            extensions: Box::new(spec.extensions),
            feedback: spec.feedback,
            cname: spec.cname,
            paused: spec.paused,
            audio_source: None,
            is_withheld: false,
            offer,
            offered_at: None,
            layers,
            consumers: Vec::new(),
            paused_consumers: 0,
            alive: 0,
            told_score: None,
        }
    }

    /// All layers are in one stream.
    pub fn is_layered(&self) -> bool {
        self.scalable().is_some()
    }

    /// A receiver of one spatial layer of the stream has all below.
    pub fn is_nested(&self) -> bool {
        self.scalable().is_some_and(Scalable::is_nested)
    }

    /// Sizes of the picture to choose among, whether in streams of their own or in one.
    pub fn spatial_layers(&self) -> u8 {
        self.scalable().map_or(self.layers.len() as u8, Scalable::spatial_layers)
    }

    fn scalable(&self) -> Option<&Scalable> {
        self.layers.first()?.scalable.as_deref()
    }

    /// The layers that arrive, as a bit set. A source with one layer has nothing to change over to, and may
    /// be silent without being gone (a screen that does not change): it counts as alive.
    pub fn alive(&self) -> u8 {
        if self.spatial_layers() == 1 {
            return 1;
        }
        self.scalable().map_or(self.alive, |scalable| scalable.alive(LAYER_SILENCE))
    }

    /// A packet of a layer came. Returns whether it did not arrive before.
    pub fn revive(&mut self, layer: u8) -> bool {
        let before = self.alive;
        self.alive |= 1 << layer;
        self.alive != before
    }

    /// Looks which layers still arrive; returns whether that changed. A layer is judged by its siblings: it has ended when
    /// two frames of another came, the first of them long after its last packet. So all may be as slow as they like, for a
    /// screen sends a frame a second; the second frame is for packets of one capture that are under way when it is looked.
    pub fn judge_layers(&mut self) -> bool {
        if let Some(scalable) = self.scalable() {
            let alive = scalable.alive(LAYER_SILENCE);
            return std::mem::replace(&mut self.alive, alive) != alive;
        }
        let sibling = self.layers.iter().filter_map(|layer| layer.frame_begins[1]).max();
        let before = self.alive;
        for (at, layer) in self.layers.iter().enumerate() {
            let silence = if layer.dtx { LAYER_SILENCE_DTX } else { LAYER_SILENCE };
            let has_ended =
                layer.last_packet.is_none_or(|last| sibling.is_some_and(|sibling| sibling >= last + silence));
            if has_ended {
                self.alive &= !(1 << at);
            }
        }
        self.alive != before
    }

    /// Whether a sound arrives: from a sender that has something to send, even if it is silence.
    pub fn sounds(&self, now: Instant) -> bool {
        let last = self.layers.first().and_then(|layer| layer.last_packet);
        last.is_some_and(|at| now.duration_since(at) < VOICE_SILENCE)
    }

    /// What to add to timestamps of layer `from` so that they continue those of layer `to`.
    pub fn timestamp_distance(&self, from: u8, to: u8) -> u32 {
        if from == to {
            return 0;
        }
        let timeline = |layer: u8| self.layers.get(layer as usize).map(|layer| Timeline::of(&layer.reception));
        match (timeline(from), timeline(to)) {
            (Some(from), Some(to)) => from.distance_to(&to, self.clock_rate).unwrap_or(0),
            _ => 0,
        }
    }

    /// What forwarding it costs. Sound has one rate, that of the last second: it is never forwarded in part.
    pub fn offer(&self, now: Instant) -> Offer {
        if self.needs_key_frame() {
            // A screen that does not change sends nothing, whatever its last change took.
            let is_silent = self.spatial_layers() == 1 && self.layers.iter().all(|layer| layer.is_silent(now));
            return if is_silent { self.offer.of_silence() } else { self.offer };
        }
        let mut offer = Offer::new(1, 1);
        offer.observe(0, 0, self.layers.iter().map(|layer| layer.reception.bitrate_bps(now)).sum());
        offer
    }

    /// Takes the bitrates of the layers that arrive, twice a second.
    pub fn measure_offer(&mut self, now: Instant) {
        if self.offered_at.is_some_and(|at| now.duration_since(at) < OFFER_INTERVAL) {
            return;
        }
        // The first half second holds a key frame and little else.
        if self.offered_at.replace(now).is_none() {
            return;
        }
        let alive = self.alive();
        if let Some(scalable) = self.layers.first().and_then(|layer| layer.scalable.as_deref()) {
            return scalable.measure(alive, now, &mut self.offer);
        }
        for (at, layer) in self.layers.iter().enumerate() {
            if alive & (1 << at) == 0 {
                self.offer.stop(at as u8);
                continue;
            }
            // A simulcast layer between two frames of a slow screen costs next to nothing, and arrives nevertheless.
            let mut sum = u64::from(self.layers.len() > 1);
            for (temporal, rate) in layer.temporal_rates.iter().enumerate() {
                sum += rate.bitrate_bps(now);
                self.offer.observe(at as u8, temporal as u8, sum);
            }
        }
    }

    pub fn needs_key_frame(&self) -> bool {
        self.kind == Kind::Video
    }
}

impl Layer {
    fn new(encoding: EncodingSpec, class: SourceClass) -> Layer {
        Layer {
            ssrc: encoding.ssrc,
            rtx_ssrc: encoding.rtx_ssrc,
            rid: encoding.rid,
            reception: Reception::new(),
            nack: NackList::new(),
            key_frames: KeyFramePolicy::new(class),
            index: SequenceIndex::default(),
            pending: Vec::with_capacity(RUN_FORESEEN),
            pending_since: None,
            pending_is_complete: false,
            consumers: Vec::new(),
            last_packet: None,
            scalable: None,
            frame_begins: [None; 2],
            dtx: encoding.dtx,
            temporal_rates: Default::default(),
            bounds: FrameBounds::default(),
            frames: 0,
            key_frame_count: 0,
            max_bitrate_bps: encoding.max_bitrate_bps,
            plis_sent: 0,
            firs_sent: 0,
            fir_sequence: 0,
        }
    }

    /// Whether packets came lately.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.last_packet.is_some_and(|at| now.duration_since(at) < LAYER_SILENCE)
    }

    /// Whether packets came, and none in the last second.
    fn is_silent(&self, now: Instant) -> bool {
        self.last_packet.is_some_and(|at| now.saturating_duration_since(at) >= RATE_WINDOW)
    }

    /// A packet waits for its run: of sound for company only, of video until one that `ends_run`. Returns whether it is
    /// the first to wait.
    #[inline]
    pub fn pend(&mut self, number: PacketNumber, now: Instant, ends_run: bool) -> bool {
        self.pending.push(number);
        self.pending_is_complete = ends_run;
        if self.pending_since.is_some() {
            return false;
        }
        self.pending_since = Some(now);
        true
    }

    /// What waits goes nowhere: its receivers were stopped. Returns how many packets they miss, each receiver's for itself.
    pub fn drop_pending(&mut self) -> u64 {
        self.pending_since = None;
        let dropped = self.pending.len() * self.consumers.len();
        self.pending.clear();
        dropped as u64
    }

    /// When the packets that wait must leave, and whether they are complete. What is complete waits only for company.
    #[inline]
    pub fn leaves(&self, hold: Duration, gather: Duration) -> Option<(Instant, bool)> {
        let since = self.pending_since?;
        if self.pending.len() >= PENDING_PACKETS {
            return Some((since, true));
        }
        let is_complete = self.pending_is_complete;
        Some((since + if is_complete { gather } else { hold.max(gather) }, is_complete))
    }

    pub fn follow(&mut self, consumer: Key<Consumer>) {
        if !self.consumers.contains(&consumer) {
            self.consumers.push(consumer);
        }
    }

    pub fn unfollow(&mut self, consumer: Key<Consumer>) {
        if let Some(at) = self.consumers.iter().position(|key| *key == consumer) {
            self.consumers.swap_remove(at);
        }
    }
}

/// What forwarding costs until it is measured: what its sender says that it will need at most. How that is shared out within
/// a stream it does not say.
fn declared(spec: &ProducerSpec, scalable: Option<&Scalable>) -> Offer {
    let temporal_layers = spec.encodings.iter().map(|encoding| encoding.temporal_layers).max().unwrap_or(1);
    let spatial_layers = scalable.map_or(spec.encodings.len() as u8, Scalable::spatial_layers);
    let mut offer = Offer::new(spatial_layers, temporal_layers);
    for (at, encoding) in spec.encodings.iter().enumerate().filter(|_| scalable.is_none()) {
        for (temporal, percent) in TEMPORAL_SHARES.into_iter().enumerate() {
            let bps = u64::from(encoding.max_bitrate_bps.unwrap_or(0)) * percent / 100;
            offer.observe(at as u8, temporal as u8, bps);
        }
    }
    offer
}

/// What one encoding of VP9 or AV1 declares of layers within it. Encodings beside each other are simulcast.
fn scalable(spec: &ProducerSpec) -> Option<Box<Scalable>> {
    let [encoding] = &spec.encodings[..] else { return None };
    let has_layers = encoding.spatial_layers > 1 || encoding.temporal_layers > 1;
    let carries_them = matches!(spec.codec, Codec::Vp9 | Codec::Av1);
    (has_layers && carries_them).then(|| Box::new(Scalable::new(encoding.spatial_layers, encoding.temporal_layers)))
}
