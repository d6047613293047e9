//! VP9 payloads (RFC 9628 section 4.2): the descriptor in front of each packet's share of a frame.
//!
//! ```text
//! |I|P|L|F|B|E|V|Z|
//! |M| PictureID   |  if I; 15 bits in two bytes if M
//! | TID |U| SID |D|  if L
//! |   TL0PICIDX   |  if L and not F
//! |  P_DIFF     |N|  if F and P, up to three times
//! | scalability structure |  if V
//! ```

use crate::packet::be;
use crate::packet::codec::layers::LayerSet;
use crate::packet::seq::{PictureId, Tl0PicIdx};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// Where the VP9 data begins.
    pub len: u16,
    /// The 7-bit form as it stands: it wraps at 128.
    pub picture_id: Option<PictureId>,
    pub tl0_pic_idx: Option<Tl0PicIdx>,
    /// Depends on earlier pictures (P).
    pub inter_picture: bool,
    /// References are listed in the packet (F).
    pub flexible: bool,
    /// First packet of a frame, which is one spatial layer of a picture (B).
    pub begins_frame: bool,
    /// Last packet of a frame (E).
    pub ends_frame: bool,
    pub spatial: u8,
    pub temporal: u8,
    /// Later pictures of higher temporal layers depend on nothing older than this one (U).
    pub switching_up_point: bool,
    /// Depends on the spatial layer below in the same picture (D).
    pub inter_layer: bool,
    /// No higher spatial layer depends on this frame (Z).
    pub not_reference_for_higher: bool,
    /// Spatial layers that the structure announces, where the packet carries one (V): 1 to 8.
    pub spatial_layers: Option<u8>,
    /// Width and height in pixels of the highest layer that the structure announces.
    pub size: Option<(u16, u16)>,
}

impl Vp9Descriptor {
    /// `None` when the descriptor does not fit into the payload.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<Vp9Descriptor> {
        let flags = *payload.first()?;
        let has = |bit: u8| flags & bit != 0;
        let mut vp9 = Vp9Descriptor {
            len: 0,
            picture_id: None,
            tl0_pic_idx: None,
            inter_picture: has(0x40),
            flexible: has(0x10),
            begins_frame: has(0x08),
            ends_frame: has(0x04),
            spatial: 0,
            temporal: 0,
            switching_up_point: false,
            inter_layer: false,
            not_reference_for_higher: has(0x01),
            spatial_layers: None,
            size: None,
        };
        let mut at = 1;
        if has(0x80) {
            let high = *payload.get(at)?;
            let long = high & 0x80 != 0;
            let id = if long { be::u16_at(payload, at)? & 0x7fff } else { u16::from(high) };
            vp9.picture_id = Some(PictureId(id));
            at += 1 + usize::from(long);
        }
        if has(0x20) {
            let layer = *payload.get(at)?;
            vp9.temporal = layer >> 5;
            vp9.switching_up_point = layer & 0x10 != 0;
            vp9.spatial = layer >> 1 & 0x07;
            vp9.inter_layer = layer & 1 != 0;
            at += 1;
            if !vp9.flexible {
                vp9.tl0_pic_idx = Some(Tl0PicIdx(*payload.get(at)?));
                at += 1;
            }
        }
        if vp9.flexible && vp9.inter_picture {
            at += references_len(payload.get(at..)?)?;
        }
        if has(0x02) {
            at = vp9.parse_structure(payload, at)?;
        }
        vp9.len = u16::try_from(at).ok()?;
        Some(vp9)
    }

    /// First packet of a frame from which a decoder can start: it depends on none before it, neither of other pictures nor
    /// of a layer below.
    #[inline]
    pub const fn key_frame(&self) -> bool {
        self.begins_frame && !self.inter_picture && !self.inter_layer
    }

    /// Whose receivers need this frame: those of its own spatial layer, and those above unless nothing there refers to it.
    #[inline]
    pub fn targets(&self) -> LayerSet {
        LayerSet::of(|spatial, temporal| self.is_for(spatial, temporal))
    }

    /// Who can go on from here, of those that have this frame. Of a key picture everybody; otherwise the receivers of its own
    /// spatial layer: at a base frame, to which whatever comes later refers at the oldest, and in higher temporal layers
    /// where it says so itself.
    #[inline]
    pub fn switches(&self) -> LayerSet {
        LayerSet::of(|spatial, temporal| {
            let is_step = self.temporal == 0 || (self.switching_up_point && temporal > self.temporal);
            self.is_for(spatial, temporal) && (!self.inter_picture || (spatial == self.spatial && is_step))
        })
    }

    #[inline]
    const fn is_for(&self, spatial: u8, temporal: u8) -> bool {
        // The highest layer of a key picture may say that nothing above refers to it, for there is nothing.
        let is_chained = !self.inter_picture && self.inter_layer;
        let is_below = spatial > self.spatial && (is_chained || !self.not_reference_for_higher);
        temporal >= self.temporal && (spatial == self.spatial || is_below)
    }

    /// ```text
    /// | N_S |Y|G|-|-|-|   N_S + 1 spatial layers
    /// | width | height |  16 bits each, per layer, if Y
    /// |     N_G       |   if G, then for each of N_G pictures:
    /// | TID |U| R |-|-|   and R bytes of P_DIFF
    /// ```
    fn parse_structure(&mut self, payload: &[u8], mut at: usize) -> Option<usize> {
        let head = *payload.get(at)?;
        let layers = (head >> 5) + 1;
        self.spatial_layers = Some(layers);
        at += 1;
        if head & 0x10 != 0 {
            for _ in 0..layers {
                self.size = Some((be::u16_at(payload, at)?, be::u16_at(payload, at + 2)?));
                at += 4;
            }
        }
        if head & 0x08 != 0 {
            let pictures = *payload.get(at)?;
            at += 1;
            for _ in 0..pictures {
                let references = *payload.get(at)? >> 2 & 0x03;
                at += 1 + usize::from(references);
            }
        }
        (at <= payload.len()).then_some(at)
    }
}

/// Up to three references, each saying whether another follows.
#[inline]
fn references_len(bytes: &[u8]) -> Option<usize> {
    for index in 0..3 {
        if bytes.get(index)? & 1 == 0 {
            return Some(index + 1);
        }
    }
    // A fourth is promised: RFC 9628 allows three.
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_of_three_spatial_layers_is_read() {
        let mut payload = vec![0xaa, 0x92, 0x34, 0x10, 7];
        payload.extend([0x58, 0, 160, 0, 90, 1, 64, 0, 180, 2, 128, 1, 104, 2, 0x00, 0x34, 1]);
        payload.push(0x82);
        let vp9 = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(usize::from(vp9.len), payload.len() - 1);
        assert_eq!(vp9.picture_id, Some(PictureId(0x1234)));
        assert_eq!(vp9.tl0_pic_idx, Some(Tl0PicIdx(7)));
        assert_eq!((vp9.spatial, vp9.temporal), (0, 0));
        assert!(vp9.switching_up_point && vp9.begins_frame && vp9.key_frame());
        assert_eq!(vp9.spatial_layers, Some(3));
        assert_eq!(vp9.size, Some((640, 360)));
        for cut in 0..payload.len() - 1 {
            assert_eq!(Vp9Descriptor::parse(&payload[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn layers_of_a_delta_frame_are_read() {
        let vp9 = Vp9Descriptor::parse(&[0xe4, 5, 0x53, 9, 1]).unwrap();
        assert_eq!((vp9.spatial, vp9.temporal, vp9.inter_layer), (1, 2, true));
        assert_eq!((vp9.begins_frame, vp9.ends_frame, vp9.key_frame()), (false, true, false));
        assert_eq!(vp9.picture_id, Some(PictureId(5)));
        assert_eq!(vp9.len, 4);
    }

    #[test]
    fn an_upper_layer_of_a_key_picture_is_no_place_to_start() {
        let vp9 = Vp9Descriptor::parse(&[0xa8, 5, 0x03, 9]).unwrap();
        assert!(!vp9.inter_picture && vp9.begins_frame && !vp9.key_frame());
    }

    #[test]
    fn a_frame_of_independent_layers_is_a_place_to_start_in_its_own() {
        // No reference to the layer below (D), none from the layer above (Z).
        let vp9 = Vp9Descriptor::parse(&[0xa9, 5, 0x02, 9]).unwrap();
        assert!(vp9.key_frame());
        assert!(vp9.switches().contains(1, 0) && vp9.switches().contains(1, 2));
        assert!(!vp9.targets().contains(0, 2) && !vp9.targets().contains(2, 2));
    }

    #[test]
    fn a_frame_is_for_its_own_layer_and_for_those_above_that_refer_to_it() {
        // Spatial layer 1, temporal layer 1, of a picture that depends on earlier ones.
        let [referred, alone] = [0xe8, 0xe9].map(|flags| Vp9Descriptor::parse(&[flags, 5, 0x22, 9]).unwrap().targets());
        for (spatial, temporal, expected) in
            [(0, 3, (false, false)), (1, 0, (false, false)), (1, 1, (true, true)), (2, 1, (true, false))]
        {
            let found = (referred.contains(spatial, temporal), alone.contains(spatial, temporal));
            assert_eq!(found, expected, "layers {spatial}, {temporal}");
        }
    }

    #[test]
    fn a_receiver_goes_on_with_other_layers_at_key_pictures_and_at_base_frames() {
        let switches = |flags, layers| Vp9Descriptor::parse(&[flags, 5, layers, 9]).unwrap().switches();
        let key = switches(0xa8, 0x00);
        assert!(key.contains(0, 0) && key.contains(2, 2));
        let base = switches(0xe8, 0x02);
        assert!(base.contains(1, 0) && base.contains(1, 2) && !base.contains(2, 0) && !base.contains(0, 0));
        let [upper, step] = [0x22, 0x32].map(|layers| switches(0xe8, layers));
        assert!(!upper.contains(1, 1) && !upper.contains(1, 2));
        assert!(!step.contains(1, 1) && step.contains(1, 2));
    }

    #[test]
    fn at_most_three_references_follow() {
        assert_eq!(Vp9Descriptor::parse(&[0x50, 0x02]).unwrap().len, 2);
        assert_eq!(Vp9Descriptor::parse(&[0x50, 0x03, 0x05, 0x06]).unwrap().len, 4);
        assert_eq!(Vp9Descriptor::parse(&[0x50, 0x03, 0x05, 0x07, 0x02]), None);
        assert_eq!(Vp9Descriptor::parse(&[0x50, 0x03, 0x05]), None);
    }
}
