//! A stream that carries several layers (SVC of VP9 and AV1), as it arrives.
//!
//! What a frame is to which receiver is worked out once per packet: from the dependency descriptor where the sender gives
//! one (the templates of its last key frame are kept here, and what waits for those), else from the payload. Besides, which layers arrive and what
//! each costs its receivers. It decides nothing; the selector does.

use std::time::{Duration, Instant};

use crate::limits::{SPATIAL_LAYERS, TEMPORAL_LAYERS, UNREAD_PACKETS};
use crate::media::allocation::Offer;
use crate::media::history::PacketNumber;
use crate::media::report::RateMeter;
use crate::packet::codec::PayloadFacts;
use crate::packet::codec::dependency_descriptor::{DependencyDescriptor, TemplateStructure};
use crate::packet::codec::layers::LayerSet;

/// Between two announcements that change the layers: as long as a layer may be silent until it counts as gone.
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_millis(350);

pub struct Scalable {
    spatial_layers: u8,
    temporal_layers: u8,
    /// Of the newest key frame, and where that was.
    structure: Option<Box<TemplateStructure>>,
    structure_sequence: u64,
    /// The newest key frame has templates that exceed what can be read: the stream is taken for one without layers.
    is_opaque: bool,
    /// Packets whose templates did not come yet.
    unread: Vec<PacketNumber>,
    /// What the receivers of each pair of layers are sent.
    rates: [[RateMeter; TEMPORAL_LAYERS]; SPATIAL_LAYERS],
    /// Newest packet of each spatial layer.
    seen: [Option<Instant>; SPATIAL_LAYERS],
    /// The newest announcement.
    announced_sequence: u64,
    /// When one that changed the layers was acted on.
    announced_at: Option<Instant>,
    /// Upper spatial layers refer to lower ones in every picture, so that a receiver of one has all below.
    nested: bool,
}

/// What became known of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description {
    Known,
    /// And with it that the sender makes other spatial layers from here on.
    OtherLayers,
    /// Which layer it is of depends on templates that did not come.
    Unread,
}

impl Scalable {
    /// As the producer declares it.
    pub fn new(spatial_layers: u8, temporal_layers: u8) -> Scalable {
        Scalable {
            spatial_layers,
            temporal_layers,
            structure: None,
            structure_sequence: 0,
            is_opaque: false,
            unread: Vec::new(),
            rates: Default::default(),
            seen: [None; SPATIAL_LAYERS],
            announced_sequence: 0,
            announced_at: None,
            nested: false,
        }
    }

    pub fn spatial_layers(&self) -> u8 {
        self.spatial_layers
    }

    pub fn is_nested(&self) -> bool {
        self.nested
    }

    /// Completes what the payload of packet `sequence` says of itself.
    pub fn describe(
        &mut self,
        sequence: u64,
        descriptor: &[u8],
        facts: &mut PayloadFacts,
        now: Instant,
    ) -> Description {
        self.nested = facts.nested.unwrap_or(self.nested);
        if self.nested {
            // The highest layer that is made says that nothing above refers to it; who wants more gets that.
            facts.targets = LayerSet::from(facts.spatial, facts.temporal);
        }
        let is_read = self.describe_by(sequence, descriptor, facts);
        if facts.announced.is_some_and(|layers| self.announce(sequence, layers, now)) {
            return Description::OtherLayers;
        }
        if is_read { Description::Known } else { Description::Unread }
    }

    /// Whether newer templates are known than those of packet `sequence`.
    pub fn is_late(&self, sequence: u64) -> bool {
        self.structure.is_some() && sequence < self.structure_sequence
    }

    /// A packet waits for its templates. Returns whether no more may.
    pub fn wait(&mut self, number: PacketNumber) -> bool {
        self.unread.push(number);
        self.unread.len() >= UNREAD_PACKETS
    }

    /// Whether packet `sequence` brought the newest templates, and others wait for them.
    #[inline]
    pub fn explains(&self, sequence: u64) -> bool {
        !self.unread.is_empty() && sequence == self.structure_sequence && !self.is_opaque
    }

    /// What waits, and waits no longer.
    pub fn take_unread(&mut self) -> Vec<PacketNumber> {
        std::mem::take(&mut self.unread)
    }

    /// What the sender announces counts as arriving, and nothing else does. One that came late says nothing, nor does a
    /// sender that changes its mind all the time: every change costs each receiver a choice and its client a message. What
    /// it really makes is then seen by what arrives.
    fn announce(&mut self, sequence: u64, layers: u8, now: Instant) -> bool {
        if sequence < self.announced_sequence {
            return false;
        }
        self.announced_sequence = sequence;
        let layers = layers & ((1 << SPATIAL_LAYERS) - 1);
        let known = self.seen.iter().enumerate().fold(0, |set, (at, seen)| set | u8::from(seen.is_some()) << at);
        if known != layers && known != 0 {
            if self.announced_at.is_some_and(|at| now.saturating_duration_since(at) < ANNOUNCEMENT_INTERVAL) {
                return false;
            }
            self.announced_at = Some(now);
        }
        for (at, seen) in self.seen.iter_mut().enumerate() {
            *seen = (layers & (1 << at) != 0).then_some(now);
        }
        known != layers
    }

    /// Returns whether the packet's layer is known. It is not where templates are missing, because the first packet of their
    /// key frame was lost.
    fn describe_by(&mut self, sequence: u64, descriptor: &[u8], facts: &mut PayloadFacts) -> bool {
        let Some(descriptor) = DependencyDescriptor::parse(descriptor) else { return true };
        let is_newer = self.structure.is_none() || sequence >= self.structure_sequence;
        if descriptor.has_structure && is_newer {
            self.structure_sequence = sequence;
            let structure = descriptor.structure();
            self.is_opaque = structure.is_none();
            match (&mut self.structure, structure) {
                (Some(kept), Some(structure)) => **kept = structure,
                (kept, structure) => *kept = structure.map(Box::new),
            }
        }
        let Some(structure) = &self.structure else { return self.is_opaque };
        let Some(frame) = descriptor.frame(structure) else { return false };
        facts.start_of_frame = descriptor.start_of_frame;
        facts.end_of_frame = descriptor.end_of_frame;
        facts.key_frame = descriptor.start_of_frame && frame.is_independent;
        (facts.spatial, facts.temporal) = (frame.spatial, frame.temporal);
        facts.targets = structure.targets(frame.indications);
        facts.switches = structure.switches(frame.indications);
        facts.announced = frame.active_targets.map(|active| {
            let layers = (0..structure.target_count()).filter(|target| active & (1 << target) != 0);
            layers.filter_map(|target| structure.target_layers(target)).fold(0, |set, (spatial, _)| set | 1 << spatial)
        });
        // Only from the frames that a receiver of the lowest layer gets can it be seen.
        if frame.spatial == 0 && descriptor.start_of_frame && !frame.is_independent {
            self.nested = facts.targets.contains(1, TEMPORAL_LAYERS as u8 - 1);
        }
        true
    }

    /// Counts a packet of `bytes` for everybody who needs it.
    pub fn count(&mut self, facts: &PayloadFacts, bytes: usize, now: Instant) {
        if let Some(seen) = self.seen.get_mut(facts.spatial as usize) {
            *seen = Some(now);
        }
        for (spatial, row) in self.rates.iter_mut().enumerate().take(self.spatial_layers as usize) {
            for (temporal, rate) in row.iter_mut().enumerate().take(self.temporal_layers as usize) {
                if facts.targets.contains(spatial as u8, temporal as u8) {
                    rate.add(bytes, now);
                }
            }
        }
    }

    /// The spatial layers that arrive, as a bit set: those with a packet less than `silence` older than the newest of all. A
    /// source that pauses as a whole has not lost any.
    pub fn alive(&self, silence: Duration) -> u8 {
        let Some(newest) = self.seen.iter().flatten().max() else { return 0 };
        let arrives = |seen: &Option<Instant>| seen.is_some_and(|at| newest.duration_since(at) < silence);
        let layers = self.seen.iter().take(self.spatial_layers as usize).enumerate();
        layers.fold(0, |set, (at, seen)| set | u8::from(arrives(seen)) << at)
    }

    /// Whether this key frame is one for the receivers of every spatial layer: what is missing before it helps nobody.
    pub fn restarts_all(&self, facts: &PayloadFacts) -> bool {
        let is_for = |spatial| facts.switches.contains(spatial, TEMPORAL_LAYERS as u8 - 1);
        (self.nested && facts.spatial == 0) || (0..self.spatial_layers).all(is_for)
    }

    /// The source began anew.
    pub fn restart(&mut self) {
        self.structure = None;
        self.is_opaque = false;
        self.announced_sequence = 0;
    }

    /// Takes what the layers cost that arrive.
    pub fn measure(&self, alive: u8, now: Instant, offer: &mut Offer) {
        for (spatial, row) in self.rates.iter().enumerate().take(self.spatial_layers as usize) {
            if alive & (1 << spatial) == 0 {
                offer.stop(spatial as u8);
                continue;
            }
            for (temporal, rate) in row.iter().enumerate().take(self.temporal_layers as usize) {
                offer.observe(spatial as u8, temporal as u8, rate.bitrate_bps(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::spec::Layers;

    const MS: Duration = Duration::from_millis(1);
    /// Chromium's three temporal layers: the structure, and then one frame of each template.
    const KEY: [u8; 16] =
        [0xc0, 0x00, 0x01, 0x80, 0x02, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14, 0x10, 0x20, 0x84, 0x26];

    fn described(stream: &mut Scalable, sequence: u64, descriptor: &[u8]) -> PayloadFacts {
        let mut facts = PayloadFacts::default();
        stream.describe(sequence, descriptor, &mut facts, Instant::now());
        facts
    }

    #[test]
    fn frames_are_read_by_the_templates_of_the_last_key_frame() {
        let mut stream = Scalable::new(1, 3);
        assert_eq!(described(&mut stream, 4, &[0xc2, 0, 2]), PayloadFacts::default(), "nothing is known yet");
        let key = described(&mut stream, 5, &KEY);
        assert!(key.key_frame && key.start_of_frame && key.end_of_frame);
        assert!(key.switches.contains(0, 2));
        let delta = described(&mut stream, 6, &[0xc3, 0, 2]);
        assert_eq!((delta.key_frame, delta.temporal), (false, 2));
        assert!(delta.targets.contains(0, 2) && !delta.targets.contains(0, 1));
    }

    fn is_unread(stream: &mut Scalable, sequence: u64, descriptor: &[u8]) -> bool {
        stream.describe(sequence, descriptor, &mut PayloadFacts::default(), Instant::now()) == Description::Unread
    }

    #[test]
    fn what_comes_before_its_templates_waits_for_them_and_no_more_than_there_is_room_for() {
        let mut stream = Scalable::new(1, 3);
        assert!(is_unread(&mut stream, 6, &[0xc3, 0, 2]));
        assert!(!stream.wait(PacketNumber(60)));
        assert!(!stream.explains(6));
        assert!(!is_unread(&mut stream, 5, &KEY) && !is_unread(&mut stream, 6, &[0xc3, 0, 2]));
        assert!(stream.explains(5) && !stream.explains(6));
        assert_eq!(stream.take_unread(), [PacketNumber(60)]);
        assert!(!stream.explains(5), "once");
        assert!(is_unread(&mut stream, 4, &[0xc0 | 40, 0, 2]));
        assert!(stream.is_late(4) && !stream.is_late(6));
        let full = (1..).find(|at| stream.wait(PacketNumber(*at)));
        assert_eq!(full, Some(UNREAD_PACKETS as u64));
        assert_eq!(stream.take_unread().len(), UNREAD_PACKETS);
    }

    #[test]
    fn a_stream_whose_templates_exceed_what_can_be_read_is_one_without_layers() {
        let mut stream = Scalable::new(1, 3);
        assert!(!is_unread(&mut stream, 5, &KEY[..8]));
        assert!(!is_unread(&mut stream, 6, &[0xc3, 0, 2]));
        assert!(!is_unread(&mut stream, 7, &KEY));
        assert!(is_unread(&mut stream, 8, &[0xc0 | 40, 0, 2]));
    }

    #[test]
    fn an_older_structure_that_comes_late_replaces_nothing() {
        let mut stream = Scalable::new(1, 3);
        described(&mut stream, 50, &KEY);
        let mut other = KEY;
        // The same templates under other ids.
        other[0] = 0x80 | 40;
        other[3] = 0x80 | 40 >> 3;
        other[4] = 0x02;
        described(&mut stream, 5, &other);
        assert_eq!(described(&mut stream, 51, &[0xc3, 0, 2]).temporal, 2);
        described(&mut stream, 60, &other);
        assert_eq!(described(&mut stream, 61, &[0xc0 | 43, 0, 2]).temporal, 2);
    }

    #[test]
    fn a_layer_arrives_while_its_packets_keep_up_with_the_others() {
        let (start, mut stream) = (Instant::now(), Scalable::new(3, 1));
        let of = |spatial| PayloadFacts { spatial, ..PayloadFacts::default() };
        assert_eq!(stream.alive(350 * MS), 0);
        stream.count(&of(0), 10, start);
        stream.count(&of(2), 10, start);
        assert_eq!(stream.alive(350 * MS), 0b101);
        stream.count(&of(0), 10, start + 400 * MS);
        assert_eq!(stream.alive(350 * MS), 0b001);
    }

    fn announce(stream: &mut Scalable, sequence: u64, layers: u8, now: Instant) -> bool {
        let mut facts = PayloadFacts { announced: Some(layers), ..Default::default() };
        stream.describe(sequence, &[], &mut facts, now) == Description::OtherLayers
    }

    #[test]
    fn what_the_sender_announces_arrives_at_once_and_the_rest_no_more() {
        let (start, mut stream) = (Instant::now(), Scalable::new(3, 1));
        let mut at = start;
        let changed = [0b001, 0b001, 0b111, 0b011].map(|layers| {
            at += ANNOUNCEMENT_INTERVAL;
            announce(&mut stream, 1, layers, at)
        });
        assert_eq!(changed, [true, false, true, true]);
        assert!(!announce(&mut stream, 1, 0b1_0011, at), "more than can be told apart");
        assert_eq!(stream.alive(350 * MS), 0b011);
    }

    #[test]
    fn a_sender_that_changes_its_mind_all_the_time_is_not_followed() {
        let (start, mut stream) = (Instant::now(), Scalable::new(3, 1));
        let announced = (0..1000u32).filter(|at| {
            let layers = if at % 2 == 0 { 0b001 } else { 0b111 };
            announce(&mut stream, u64::from(*at), layers, start + *at * MS)
        });
        assert_eq!(announced.count(), 4, "the first, and one in 350 ms");
    }

    #[test]
    fn an_older_announcement_that_comes_late_says_nothing() {
        let (start, mut stream) = (Instant::now(), Scalable::new(3, 1));
        announce(&mut stream, 10, 0b111, start);
        assert!(!announce(&mut stream, 9, 0b001, start + 400 * MS));
        assert_eq!(stream.alive(350 * MS), 0b111);
        stream.restart();
        assert!(announce(&mut stream, 9, 0b001, start + 800 * MS), "of another numbering");
    }

    #[test]
    fn of_nested_layers_the_highest_that_is_made_is_for_those_who_want_more() {
        let (now, mut stream) = (Instant::now(), Scalable::new(3, 1));
        let upper = PayloadFacts { spatial: 1, targets: LayerSet::of(|spatial, _| spatial == 1), ..Default::default() };
        for (nested, is_for_all) in [(Some(false), false), (Some(true), true), (None, true)] {
            let mut facts = PayloadFacts { nested, ..upper };
            stream.describe(1, &[], &mut facts, now);
            assert_eq!(facts.targets.contains(2, 0), is_for_all);
        }
    }

    #[test]
    fn a_layer_costs_its_receivers_what_they_are_sent_for_it() {
        let (start, mut stream, mut offer) = (Instant::now(), Scalable::new(2, 1), Offer::new(2, 1));
        for ms in (0..2000).step_by(10) {
            let now = start + ms * MS;
            let lower = PayloadFacts { start_of_frame: true, ..PayloadFacts::default() };
            let upper = PayloadFacts { spatial: 1, targets: LayerSet::of(|spatial, _| spatial > 0), ..lower };
            stream.count(&lower, 100, now);
            stream.count(&upper, 300, now);
        }
        stream.measure(0b11, start + 2000 * MS, &mut offer);
        let bps = [0, 1].map(|spatial| offer.bps(Layers { spatial, temporal: 0 }));
        assert!((75_000..85_000).contains(&bps[0]) && (300_000..340_000).contains(&bps[1]), "{bps:?}");
        stream.measure(0b01, start + 2000 * MS, &mut offer);
        assert_eq!(offer.bps(Layers { spatial: 1, temporal: 0 }), 0);
    }
}
