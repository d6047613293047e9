//! The dependency descriptor (RTP Payload Format For AV1, appendix A): which layer a frame is of and who
//! needs it, for any codec and even when the payload is encrypted end to end.
//!
//! Every packet carries the three mandatory bytes; they name a template. The templates come with key
//! frames: the producer's side keeps the newest [`TemplateStructure`] and reads each descriptor by it.
//!
//! ```text
//! |S|E| template id |       frame number (16 bits)      |     S start, E end of frame
//! |T|A|D|F|C| ...                                             if there are more than 3 bytes
//! ```

use crate::limits;
use crate::packet::codec::layers::LayerSet;

/// Bounds of the format: 6 bits of template id, 5 of decode target, layers as libwebrtc bounds them.
const TEMPLATES: usize = 64;
const DECODE_TARGETS: usize = 32;
const SPATIAL_LAYERS: usize = 4;
const TEMPORAL_LAYERS: u8 = 8;
/// Stands for no decode target.
const NOBODY: u8 = u8::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DependencyDescriptor<'a> {
    pub start_of_frame: bool,
    pub end_of_frame: bool,
    pub template_id: u8,
    pub frame_number: u16,
    /// A new structure is inside; it replaces the one known before.
    pub has_structure: bool,
    has_active_targets: bool,
    has_own_indications: bool,
    has_own_differences: bool,
    bytes: &'a [u8],
}

const MANDATORY_BYTES: usize = 3;
const FLAGS_END_BIT: usize = 29;

impl<'a> DependencyDescriptor<'a> {
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<DependencyDescriptor<'a>> {
        let mandatory: &[u8; MANDATORY_BYTES] = bytes.first_chunk()?;
        let flags = bytes.get(MANDATORY_BYTES).copied().unwrap_or(0);
        Some(DependencyDescriptor {
            start_of_frame: mandatory[0] & 0x80 != 0,
            end_of_frame: mandatory[0] & 0x40 != 0,
            template_id: mandatory[0] & 0x3f,
            frame_number: u16::from_be_bytes([mandatory[1], mandatory[2]]),
            has_structure: flags & 0x80 != 0,
            has_active_targets: flags & 0x40 != 0,
            has_own_indications: flags & 0x20 != 0,
            has_own_differences: flags & 0x10 != 0,
            bytes,
        })
    }

    /// The structure inside; `None` when there is none or it is cut or exceeds the format's bounds.
    pub fn structure(&self) -> Option<TemplateStructure> {
        let mut bits = Bits { bytes: self.bytes, at: FLAGS_END_BIT };
        if self.has_structure { TemplateStructure::read(&mut bits) } else { None }
    }

    /// What the descriptor says of its frame. `structure` is the one inside, or else the newest one of this
    /// stream. `None` when the template is not part of it or the descriptor is cut.
    pub fn frame(&self, structure: &TemplateStructure) -> Option<Frame> {
        let index = usize::from(self.template_id.wrapping_sub(structure.id_offset) & 0x3f);
        let template = structure.templates().get(index)?;
        let start = if self.has_structure { usize::from(structure.end_bit) } else { FLAGS_END_BIT };
        let mut bits = Bits { bytes: self.bytes, at: start };
        let targets = u32::from(structure.target_count);
        let active_targets = if self.has_active_targets {
            Some(bits.take(targets)?)
        } else {
            self.has_structure.then_some(u32::MAX >> (32 - targets))
        };
        let indications = if self.has_own_indications {
            Indications::read(&mut bits, structure.target_count)?
        } else {
            template.indications
        };
        let (spatial, temporal) = (template.spatial, template.temporal);
        let is_independent = !template.refers && !self.has_own_differences;
        Some(Frame { spatial, temporal, active_targets, indications, is_independent })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub spatial: u8,
    pub temporal: u8,
    /// Decode targets that the sender still produces, one bit each, target 0 lowest; `None` where the
    /// descriptor leaves them as they were.
    pub active_targets: Option<u32>,
    pub indications: Indications,
    /// It refers to no other frame.
    pub is_independent: bool,
}

/// How a frame matters to each decode target, two bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indications(u64);

/// How a frame matters to one decode target (appendix A.8.2, "DTI").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    NotPresent,
    Discardable,
    /// Whoever has this frame can go on with the target from here.
    Switch,
    Required,
}

impl Indications {
    /// `NotPresent` for targets that do not exist.
    pub const fn of(self, target: u8) -> Indication {
        if target as usize >= DECODE_TARGETS {
            return Indication::NotPresent;
        }
        match self.0 >> (2 * target) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    fn read(bits: &mut Bits<'_>, targets: u8) -> Option<Indications> {
        let mut indications = 0;
        for target in 0..targets {
            indications |= u64::from(bits.take(2)?) << (2 * target);
        }
        Some(Indications(indications))
    }
}

/// The templates of a stream, from its last key frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateStructure {
    id_offset: u8,
    target_count: u8,
    template_count: u8,
    /// Where the structure ended in the descriptor that carried it.
    end_bit: u16,
    templates: [Template; TEMPLATES],
    /// Highest spatial and temporal layer of each decode target.
    target_layers: [(u8, u8); DECODE_TARGETS],
    /// The best decode target for each pair of layers that Ringside tells apart.
    target_of: [[u8; limits::TEMPORAL_LAYERS]; limits::SPATIAL_LAYERS],
    resolutions: [Option<(u32, u32)>; SPATIAL_LAYERS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Template {
    spatial: u8,
    temporal: u8,
    refers: bool,
    indications: Indications,
}

impl TemplateStructure {
    pub const fn target_count(&self) -> u8 {
        self.target_count
    }

    /// Highest `(spatial, temporal)` layer that a decode target shows.
    pub fn target_layers(&self, target: u8) -> Option<(u8, u8)> {
        self.target_layers.get(..usize::from(self.target_count))?.get(usize::from(target)).copied()
    }

    /// The best decode target whose layers do not exceed these.
    pub fn best_target(&self, spatial: u8, temporal: u8) -> Option<u8> {
        let layers = |target| self.target_layers[usize::from(target)];
        (0..self.target_count)
            .filter(|t| layers(*t).0 <= spatial && layers(*t).1 <= temporal)
            .max_by_key(|t| layers(*t))
    }

    /// Whose receivers need a frame with these indications.
    pub fn targets(&self, indications: Indications) -> LayerSet {
        self.layers_with(|target| indications.of(target) != Indication::NotPresent)
    }

    /// Who can go on from such a frame, of those that have it.
    pub fn switches(&self, indications: Indications) -> LayerSet {
        self.layers_with(|target| indications.of(target) == Indication::Switch)
    }

    fn layers_with(&self, has: impl Fn(u8) -> bool) -> LayerSet {
        LayerSet::of(|spatial, temporal| has(self.target_of[usize::from(spatial)][usize::from(temporal)]))
    }

    /// Width and height in pixels, where the structure names them.
    pub fn resolution(&self, spatial: u8) -> Option<(u32, u32)> {
        *self.resolutions.get(usize::from(spatial))?
    }

    /// 1 to 4.
    pub fn spatial_layers(&self) -> u8 {
        1 + self.templates().iter().map(|template| template.spatial).max().unwrap_or(0)
    }

    fn templates(&self) -> &[Template] {
        self.templates.get(..usize::from(self.template_count)).unwrap_or_default()
    }

    fn read(bits: &mut Bits<'_>) -> Option<TemplateStructure> {
        let mut structure = TemplateStructure {
            id_offset: bits.take(6)? as u8,
            target_count: bits.take(5)? as u8 + 1,
            template_count: 0,
            end_bit: 0,
            templates: [Template::default(); TEMPLATES],
            target_layers: [(0, 0); DECODE_TARGETS],
            target_of: [[NOBODY; limits::TEMPORAL_LAYERS]; limits::SPATIAL_LAYERS],
            resolutions: [None; SPATIAL_LAYERS],
        };
        structure.read_layers(bits)?;
        for template in structure.templates.iter_mut().take(usize::from(structure.template_count)) {
            template.indications = Indications::read(bits, structure.target_count)?;
        }
        structure.read_frame_differences(bits)?;
        structure.skip_chains(bits)?;
        structure.find_target_layers();
        if bits.take(1)? == 1 {
            for spatial in 0..usize::from(structure.spatial_layers()) {
                structure.resolutions[spatial] = Some((bits.take(16)? + 1, bits.take(16)? + 1));
            }
        }
        structure.end_bit = u16::try_from(bits.at).ok()?;
        Some(structure)
    }

    /// Each template says in two bits where the next one stands: same layer, next temporal, next spatial, none.
    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        loop {
            *self.templates.get_mut(usize::from(self.template_count))? =
                Template { spatial, temporal, ..Template::default() };
            self.template_count += 1;
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Some(()),
            }
            if temporal >= TEMPORAL_LAYERS || usize::from(spatial) >= SPATIAL_LAYERS {
                return None;
            }
        }
    }

    /// How far back the frames are to which a frame refers; whether there are any is all that is kept.
    fn read_frame_differences(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        for template in self.templates.iter_mut().take(usize::from(self.template_count)) {
            while bits.take(1)? == 1 {
                bits.take(4)?;
                template.refers = true;
            }
        }
        Some(())
    }

    fn skip_chains(&self, bits: &mut Bits<'_>) -> Option<()> {
        let chains = bits.take_below(u32::from(self.target_count) + 1)?;
        if chains > 0 {
            for _ in 0..self.target_count {
                bits.take_below(chains)?;
            }
            for _ in 0..u32::from(self.template_count) * chains {
                bits.take(4)?;
            }
        }
        Some(())
    }

    fn find_target_layers(&mut self) {
        for target in 0..self.target_count {
            let present = self.templates().iter().filter(|t| t.indications.of(target) != Indication::NotPresent);
            let layers = present.fold((0, 0), |(s, t), template| (s.max(template.spatial), t.max(template.temporal)));
            self.target_layers[usize::from(target)] = layers;
        }
        for spatial in 0..limits::SPATIAL_LAYERS {
            for temporal in 0..limits::TEMPORAL_LAYERS {
                let target = self.best_target(spatial as u8, temporal as u8);
                self.target_of[spatial][temporal] = target.unwrap_or(NOBODY);
            }
        }
    }
}

/// Reads bits from the highest downwards, never beyond the end; so every loop over it ends with the bytes.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// Up to 32 bits.
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u64;
        let mut missing = count;
        while missing > 0 {
            let byte = u64::from(*self.bytes.get(self.at / 8)?);
            let offset = (self.at % 8) as u32;
            let taken = missing.min(8 - offset);
            value = value << taken | byte >> (8 - offset - taken) & ((1 << taken) - 1);
            self.at += taken as usize;
            missing -= taken;
        }
        Some(value as u32)
    }

    /// A number below `bound`, in the format's own code: `ns(n)` of the AV1 specification, section 4.10.7.
    fn take_below(&mut self, bound: u32) -> Option<u32> {
        let width = u32::BITS - bound.leading_zeros();
        let short_codes = (1 << width) - bound;
        let value = self.take(width - 1)?;
        if value < short_codes {
            return Some(value);
        }
        Some((value << 1) - short_codes + self.take(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what the reader reads; the syntax of appendix A.8 in the other direction.
    #[derive(Default)]
    struct Writer {
        bits: Vec<bool>,
    }

    impl Writer {
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

    /// L2T2 with three targets: (0,0), (0,1), (1,1); templates S0T0, S0T1, S1T0, S1T1; two chains.
    fn l2t2(extended: bool) -> Vec<u8> {
        let mut w = Writer::default();
        w.put(1, 1).put(1, 0).put(6, 60).put(16, 0x1234);
        w.put(5, if extended { 0b11100 } else { 0b10000 });
        w.put(6, 60).put(5, 2);
        w.put(2, 1).put(2, 2).put(2, 1).put(2, 3);
        for dtis in [[2, 2, 2], [0, 1, 3], [0, 0, 2], [0, 0, 1]] {
            for dti in dtis {
                w.put(2, dti);
            }
        }
        for fdiffs in [&[][..], &[0], &[1, 3], &[0]] {
            for fdiff in fdiffs {
                w.put(1, 1).put(4, *fdiff);
            }
            w.put(1, 0);
        }
        // ns(4) of 2 is two bits wide; ns(2) is one bit.
        w.put(2, 2).put(1, 0).put(1, 0).put(1, 1);
        for fdiff in 0..8 {
            w.put(4, fdiff);
        }
        w.put(1, 1).put(16, 319).put(16, 179).put(16, 639).put(16, 359);
        if extended {
            w.put(3, 0b011).put(2, 3).put(2, 0).put(2, 1);
        }
        w.bytes()
    }

    #[test]
    fn the_structure_of_a_key_frame_is_read() {
        let bytes = l2t2(false);
        let descriptor = DependencyDescriptor::parse(&bytes).unwrap();
        assert!(descriptor.start_of_frame && !descriptor.end_of_frame && descriptor.has_structure);
        assert_eq!((descriptor.template_id, descriptor.frame_number), (60, 0x1234));
        let structure = descriptor.structure().unwrap();
        assert_eq!((structure.target_count(), structure.spatial_layers()), (3, 2));
        assert_eq!([0, 1, 2, 3].map(|t| structure.target_layers(t)), [Some((0, 0)), Some((0, 1)), Some((1, 1)), None]);
        assert_eq!([0, 1, 2].map(|s| structure.resolution(s)), [Some((320, 180)), Some((640, 360)), None]);
        assert_eq!(structure.best_target(0, 7), Some(1));
        assert_eq!(structure.best_target(1, 0), Some(0));
        assert_eq!(structure.best_target(9, 9), Some(2));
        let frame = descriptor.frame(&structure).unwrap();
        assert_eq!((frame.spatial, frame.temporal, frame.active_targets), (0, 0, Some(7)));
        assert_eq!(frame.indications.of(2), Indication::Switch);
    }

    #[test]
    fn a_frame_says_for_whom_it_is_and_who_goes_on_from_it() {
        let key = l2t2(false);
        let structure = DependencyDescriptor::parse(&key).unwrap().structure().unwrap();
        let of = |id: u8| {
            let frame = DependencyDescriptor::parse(&[id, 0, 9]).unwrap().frame(&structure).unwrap();
            let (targets, switches) = (structure.targets(frame.indications), structure.switches(frame.indications));
            let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let in_set = |set: LayerSet| pairs.map(|(spatial, temporal)| set.contains(spatial, temporal));
            (in_set(targets), in_set(switches), frame.is_independent)
        };
        // The structure has no target (1, 0): who asks for that gets (0, 0).
        assert_eq!(of(60), ([true; 4], [true; 4], true));
        assert_eq!(of(61), ([false, true, false, true], [false; 4], false));
        assert_eq!(of(62), ([false, false, false, true], [false, false, false, true], false));
        assert_eq!(of(63), ([false, false, false, true], [false; 4], false));
    }

    #[test]
    fn three_temporal_layers_of_chromium_are_read_to_the_last_bit() {
        let bytes = [0x80, 0x00, 0x01, 0x80, 0x02, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14, 0x10, 0x20, 0x84, 0x26];
        let descriptor = DependencyDescriptor::parse(&bytes).unwrap();
        let structure = descriptor.structure().unwrap();
        assert_eq!(usize::from(structure.end_bit), 8 * bytes.len());
        assert_eq!([0, 1, 2].map(|t| structure.target_layers(t)), [Some((0, 0)), Some((0, 1)), Some((0, 2))]);
        assert_eq!(descriptor.frame(&structure).unwrap().active_targets, Some(7));
        for (id, temporal) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2)] {
            let delta = [0xc0 | id, 0, 2];
            assert_eq!(DependencyDescriptor::parse(&delta).unwrap().frame(&structure).unwrap().temporal, temporal);
        }
    }

    #[test]
    fn active_targets_and_own_indications_follow_the_structure() {
        let bytes = l2t2(true);
        let descriptor = DependencyDescriptor::parse(&bytes).unwrap();
        let frame = descriptor.frame(&descriptor.structure().unwrap()).unwrap();
        assert_eq!(frame.active_targets, Some(3));
        assert_eq!(
            [0, 1, 2, 31, 32, 255].map(|t| frame.indications.of(t)),
            [
                Indication::Required,
                Indication::NotPresent,
                Indication::Discardable,
                Indication::NotPresent,
                Indication::NotPresent,
                Indication::NotPresent
            ]
        );
    }

    #[test]
    fn later_descriptors_are_read_by_the_kept_structure() {
        let key = l2t2(false);
        let structure = DependencyDescriptor::parse(&key).unwrap().structure().unwrap();
        // Template ids count from the offset 60 and wrap at 64: 63 is S1T1, 61 is S0T1.
        for (id, layers) in
            [(60, Some((0, 0))), (61, Some((0, 1))), (62, Some((1, 0))), (63, Some((1, 1))), (0, None), (59, None)]
        {
            let bytes = [0x40 | id, 0, 9];
            let descriptor = DependencyDescriptor::parse(&bytes).unwrap();
            assert!(descriptor.end_of_frame && descriptor.structure().is_none());
            let frame = descriptor.frame(&structure);
            assert_eq!(frame.map(|f| (f.spatial, f.temporal)), layers, "template {id}");
            assert_eq!(frame.and_then(|f| f.active_targets), None);
        }
    }

    #[test]
    fn a_descriptor_cut_anywhere_is_refused_or_has_no_structure() {
        let bytes = l2t2(true);
        for len in 0..3 {
            assert_eq!(DependencyDescriptor::parse(&bytes[..len]), None);
        }
        let structure = DependencyDescriptor::parse(&bytes).unwrap().structure().unwrap();
        for len in 3..bytes.len() - 1 {
            let descriptor = DependencyDescriptor::parse(&bytes[..len]).unwrap();
            assert_eq!(descriptor.structure(), None, "{len} bytes");
        }
        let cut = DependencyDescriptor::parse(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(cut.frame(&structure), None);
    }

    #[test]
    fn more_layers_or_templates_than_the_format_has_are_refused() {
        for next in [0u32, 1, 2] {
            let mut w = Writer::default();
            w.put(24, 0x80_0000).put(5, 0b10000).put(6, 0).put(5, 0);
            for _ in 0..2000 {
                w.put(2, next);
            }
            let bytes = w.bytes();
            assert_eq!(DependencyDescriptor::parse(&bytes).unwrap().structure(), None);
        }
    }

    #[test]
    fn numbers_below_a_bound_use_the_short_codes_first() {
        // n = 5: 0, 1, 2 take two bits; 3, 4 take three.
        for (bits, len, value) in [(0b00, 2, 0), (0b01, 2, 1), (0b10, 2, 2), (0b110, 3, 3), (0b111, 3, 4)] {
            let bytes = Writer::default().put(len, bits).bytes();
            let mut reader = Bits { bytes: &bytes, at: 0 };
            assert_eq!(reader.take_below(5), Some(value));
            assert_eq!(reader.at, len as usize);
        }
    }
}
