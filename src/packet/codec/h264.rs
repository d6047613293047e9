//! H.264 payloads (RFC 6184): does a packet hold what a decoder starts with?

const SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H264Facts {
    /// Holds a sequence parameter set, which encoders send in front of every IDR picture: in a packet of its own, or in a
    /// STAP-A with the picture parameter set. The picture alone is no place to start: a decoder without the
    /// parameter sets cannot read it.
    pub key_frame: bool,
    /// Begins a NAL unit. H.264 says where a picture *ends* only (the marker bit).
    pub start_of_unit: bool,
}

/// `None` when the payload is cut, or of a packetisation that WebRTC does not use (RFC 6184 section 5.4).
#[inline]
pub fn inspect(payload: &[u8]) -> Option<H264Facts> {
    let kind = payload.first()? & 0x1f;
    match kind {
        1..=23 => Some(H264Facts { key_frame: kind == SPS, start_of_unit: true }),
        STAP_A => aggregated(&payload[1..]),
        FU_A => {
            let fragment = *payload.get(1)?;
            let start = fragment & 0x80 != 0;
            Some(H264Facts { key_frame: start && fragment & 0x1f == SPS, start_of_unit: start })
        }
        _ => None,
    }
}

/// Units of a STAP-A, each behind its length in 16 bits (RFC 6184 section 5.7.1).
fn aggregated(mut units: &[u8]) -> Option<H264Facts> {
    let mut facts = H264Facts { key_frame: false, start_of_unit: true };
    if units.is_empty() {
        return None;
    }
    while let Some((len, rest)) = units.split_first_chunk() {
        let (unit, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        facts.key_frame |= unit.first()? & 0x1f == SPS;
        units = rest;
    }
    units.is_empty().then_some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_frame(payload: &[u8]) -> Option<bool> {
        inspect(payload).map(|facts| facts.key_frame)
    }

    #[test]
    fn a_single_unit_is_a_place_to_start_if_it_is_a_sequence_parameter_set() {
        for (kind, expected) in [(1, false), (5, false), (6, false), (7, true), (8, false), (9, false)] {
            assert_eq!(key_frame(&[0x60 | kind, 0]), Some(expected), "type {kind}");
        }
    }

    #[test]
    fn an_aggregate_is_a_place_to_start_if_any_unit_is() {
        assert_eq!(key_frame(&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68, 0, 2, 0x65, 9]), Some(true));
        assert_eq!(key_frame(&[0x78, 0, 1, 0x68, 0, 2, 0x65, 9]), Some(false));
    }

    #[test]
    fn a_cut_aggregate_is_refused_except_between_units() {
        let whole = [0x78, 0, 2, 0x67, 1, 0, 1, 0x68];
        for len in 0..whole.len() {
            assert_eq!(inspect(&whole[..len]).is_some(), len == 5, "{len} bytes");
        }
        assert_eq!(inspect(&[0x78, 0, 0]), None);
    }

    #[test]
    fn only_the_first_fragment_begins_a_unit() {
        assert_eq!(inspect(&[0x7c, 0x87]), Some(H264Facts { key_frame: true, start_of_unit: true }));
        assert_eq!(inspect(&[0x7c, 0x85]), Some(H264Facts { key_frame: false, start_of_unit: true }));
        assert_eq!(inspect(&[0x7c, 0x07]), Some(H264Facts { key_frame: false, start_of_unit: false }));
        assert_eq!(inspect(&[0x7c, 0x81]), Some(H264Facts { key_frame: false, start_of_unit: true }));
        assert_eq!(inspect(&[0x7c]), None);
    }

    #[test]
    fn packetisations_of_other_worlds_are_refused() {
        for kind in [0, 25, 26, 27, 29, 30, 31] {
            assert_eq!(inspect(&[kind, 0, 0, 0]), None, "type {kind}");
        }
    }
}
