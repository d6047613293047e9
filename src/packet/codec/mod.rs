//! What a payload says of itself: key frame, layer, picture.
//!
//! Ingress calls [`inspect`] once per packet with the decrypted payload, and every consumer decides by the
//! same [`PayloadFacts`]. Nothing here reads pixels or samples, and nothing changes a payload: VP8's
//! descriptor is rewritten into a copy ([`vp8::Vp8Descriptor::write_into`]).

pub mod av1;
pub mod dependency_descriptor;
pub mod h264;
pub mod layers;
pub mod opus;
pub mod vp8;
pub mod vp9;

use layers::LayerSet;
use vp8::Vp8Descriptor;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    Opus,
    Vp8,
    Vp9,
    H264,
    Av1,
}

/// What forwarding needs to know of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadFacts {
    /// The packet begins a picture from which a decoder can start (every Opus packet does). Only the *first*
    /// packet of a key frame says so.
    pub key_frame: bool,
    /// The packet begins a picture, as far as the codec tells; the marker bit says where it ends. H.264 and AV1 tell
    /// where a NAL unit or an OBU begins ([`FrameBounds`](crate::media::frames::FrameBounds) tells more).
    pub start_of_frame: bool,
    /// The packet ends the share that one spatial layer has in a picture; of codecs that say so.
    pub end_of_frame: bool,
    /// Spatial layer *within* the stream (VP9 SVC); 0 elsewhere. Layers of simulcast are streams of their own.
    pub spatial: u8,
    pub temporal: u8,
    /// Of layers within the stream: whose receivers need this frame.
    pub targets: LayerSet,
    /// Of these, the ones that a receiver of this frame can go on with from here.
    pub switches: LayerSet,
    /// Of a frame of an upper spatial layer that refers to earlier pictures: whether it refers to the layer below as well.
    pub nested: Option<bool>,
    /// Spatial layers that the sender makes from here on, one bit each, where the packet says so.
    pub announced: Option<u8>,
    /// A receiver may switch up to this temporal layer here: the picture depends on the base layer only.
    pub layer_sync: bool,
    /// Silence or comfort noise: Opus frames of at most two bytes (discontinuous transmission).
    pub silence: bool,
    pub vp8: Option<Vp8Descriptor>,
}

/// Reads what the payload says; `None` when it is cut or contradicts its own format, and so no decoder could
/// use it. `payload` is without padding and not empty (an empty one is a probe for bandwidth, not media).
#[inline]
pub fn inspect(codec: Codec, payload: &[u8]) -> Option<PayloadFacts> {
    match codec {
        Codec::Vp8 => {
            let vp8 = Vp8Descriptor::parse(payload)?;
            Some(PayloadFacts {
                key_frame: vp8.key_frame,
                start_of_frame: vp8.starts_frame(),
                temporal: vp8.temporal,
                layer_sync: vp8.layer_sync,
                vp8: Some(vp8),
                ..PayloadFacts::default()
            })
        }
        Codec::Opus => {
            let silence = opus::is_silence(payload)?;
            Some(PayloadFacts { key_frame: true, start_of_frame: true, silence, ..PayloadFacts::default() })
        }
        Codec::Vp9 => {
            let vp9 = vp9::Vp9Descriptor::parse(payload)?;
            Some(PayloadFacts {
                key_frame: vp9.key_frame(),
                start_of_frame: vp9.begins_frame,
                end_of_frame: vp9.ends_frame,
                spatial: vp9.spatial,
                temporal: vp9.temporal,
                targets: vp9.targets(),
                switches: vp9.switches(),
                nested: (vp9.spatial > 0 && vp9.inter_picture).then_some(vp9.inter_layer),
                announced: vp9.spatial_layers.map(|layers| (u16::MAX >> (16 - layers)) as u8),
                layer_sync: vp9.switching_up_point,
                ..PayloadFacts::default()
            })
        }
        Codec::H264 => {
            let h264 = h264::inspect(payload)?;
            Some(PayloadFacts {
                key_frame: h264.key_frame,
                start_of_frame: h264.start_of_unit,
                ..PayloadFacts::default()
            })
        }
        Codec::Av1 => {
            let av1 = av1::inspect(payload)?;
            Some(PayloadFacts {
                key_frame: av1.key_frame,
                start_of_frame: av1.start_of_unit,
                switches: if av1.key_frame { LayerSet::ALL } else { LayerSet::NONE },
                ..PayloadFacts::default()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_payload_says_nothing() {
        for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            assert_eq!(inspect(codec, &[]), None, "{codec:?}");
        }
    }

    #[test]
    fn each_codec_tells_its_key_frames_from_the_others() {
        for (codec, key, delta) in [
            (Codec::Vp8, &[0x10, 0x00, 0, 0][..], &[0x10, 0x01, 0, 0][..]),
            (Codec::Vp9, &[0x8c, 1, 0x82, 0x49], &[0xcc, 1, 0x86, 0]),
            (Codec::H264, &[0x67, 0x42], &[0x65, 0x88]),
            (Codec::Av1, &[0x18, 0x0a, 0x0b], &[0x10, 0x32, 0x0b]),
        ] {
            assert!(inspect(codec, key).unwrap().key_frame, "{codec:?}");
            assert!(inspect(codec, key).unwrap().start_of_frame, "{codec:?}");
            assert!(!inspect(codec, delta).unwrap().key_frame, "{codec:?}");
        }
        assert!(inspect(Codec::Opus, &[0x78, 1, 2, 3]).unwrap().key_frame);
        assert!(inspect(Codec::Opus, &[0x78, 1]).unwrap().silence);
    }
}
