//! Feedback on single packets and pictures (RFC 4585 section 6, RFC 5104 section 4.3.1), and the receiver's
//! estimate of the path (draft-alvestrand-rmcat-remb).

use super::{FORMAT_APPLICATION, FORMAT_FIR, FORMAT_NACK, FORMAT_PLI, PAYLOAD_FEEDBACK, TRANSPORT_FEEDBACK, Writer};
use crate::ids::Ssrc;
use crate::packet::be;
use crate::packet::seq::SeqNo;

/// Sender and media source, before the feedback itself.
const SSRC_BYTES: usize = 8;

/// Packets of `media` that `sender` lacks.
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    pub sender: Ssrc,
    pub media: Ssrc,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Nack<'a>> {
        let entries = body.get(SSRC_BYTES..)?;
        if entries.is_empty() || !entries.len().is_multiple_of(4) {
            return None;
        }
        Some(Nack { sender: be::ssrc_at(body, 0)?, media: be::ssrc_at(body, 4)?, entries })
    }

    /// The missing sequence numbers in the order of the packet: at most 17 for each four bytes of it.
    #[inline]
    pub fn lost(&self) -> Lost<'a> {
        Lost { entries: self.entries, first: SeqNo(0), following: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Lost<'a> {
    entries: &'a [u8],
    first: SeqNo,
    /// Bit n: `first + 1 + n` is missing too.
    following: u16,
}

impl Iterator for Lost<'_> {
    type Item = SeqNo;

    #[inline]
    fn next(&mut self) -> Option<SeqNo> {
        if self.following == 0 {
            let (entry, rest) = self.entries.split_first_chunk::<4>()?;
            self.entries = rest;
            self.first = SeqNo(u16::from_be_bytes([entry[0], entry[1]]));
            self.following = u16::from_be_bytes([entry[2], entry[3]]);
            return Some(self.first);
        }
        let bit = self.following.trailing_zeros() as u16;
        self.following &= self.following - 1;
        Some(self.first + 1 + bit)
    }
}

/// Numbers in ascending order pack best: one entry holds a number and any of the 16 after it. `None` also
/// when there is nothing to ask for.
pub fn write_nack(out: &mut [u8], sender: Ssrc, media: Ssrc, lost: impl IntoIterator<Item = SeqNo>) -> Option<usize> {
    let mut writer = Writer::new(out, FORMAT_NACK, TRANSPORT_FEEDBACK)?;
    writer.put_ssrc(sender)?;
    writer.put_ssrc(media)?;
    let mut lost = lost.into_iter();
    let (mut first, mut following) = (lost.next()?, 0u16);
    for number in lost {
        match number.distance(first) {
            0 => {}
            steps @ 1..=16 => following |= 1 << (steps - 1),
            _ => {
                writer.put_u16(first.0)?;
                writer.put_u16(following)?;
                (first, following) = (number, 0);
            }
        }
    }
    writer.put_u16(first.0)?;
    writer.put_u16(following)?;
    writer.finish()
}

/// `sender` cannot decode `media` any more (picture loss indication).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pli {
    pub sender: Ssrc,
    pub media: Ssrc,
}

impl Pli {
    pub(super) fn parse(body: &[u8]) -> Option<Pli> {
        Some(Pli { sender: be::ssrc_at(body, 0)?, media: be::ssrc_at(body, 4)? })
    }
}

pub fn write_picture_loss(out: &mut [u8], sender: Ssrc, media: Ssrc) -> Option<usize> {
    let mut writer = Writer::new(out, FORMAT_PLI, PAYLOAD_FEEDBACK)?;
    writer.put_ssrc(sender)?;
    writer.put_ssrc(media)?;
    writer.finish()
}

/// `sender` wants a key frame of each listed source (full intra request).
#[derive(Clone, Copy, Debug)]
pub struct Fir<'a> {
    pub sender: Ssrc,
    entries: &'a [u8],
}

const FIR_ENTRY: usize = 8;

impl<'a> Fir<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Fir<'a>> {
        let entries = body.get(SSRC_BYTES..)?;
        if entries.is_empty() || !entries.len().is_multiple_of(FIR_ENTRY) {
            return None;
        }
        Some(Fir { sender: be::ssrc_at(body, 0)?, entries })
    }

    /// Each source with the number of the request; a repetition carries the number of its original.
    pub fn requests(&self) -> impl Iterator<Item = (Ssrc, u8)> + use<'a> {
        self.entries.chunks_exact(FIR_ENTRY).map_while(|entry| Some((be::ssrc_at(entry, 0)?, *entry.get(4)?)))
    }
}

/// `None` also when there is nothing to ask for.
pub fn write_full_intra_request(
    out: &mut [u8],
    sender: Ssrc,
    requests: impl IntoIterator<Item = (Ssrc, u8)>,
) -> Option<usize> {
    let mut writer = Writer::new(out, FORMAT_FIR, PAYLOAD_FEEDBACK)?;
    writer.put_ssrc(sender)?;
    // RFC 5104 section 4.3.1.2: the media source of the header is unused.
    writer.put_u32(0)?;
    let start = writer.at;
    for (ssrc, number) in requests {
        writer.put_ssrc(ssrc)?;
        writer.put(&[number, 0, 0, 0])?;
    }
    if writer.at == start { None } else { writer.finish() }
}

/// `sender` estimates that its downlink carries this much of the listed sources together.
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    pub sender: Ssrc,
    pub bitrate_bps: u64,
    ssrcs: &'a [u8],
}

const REMB_NAME: &[u8; 4] = b"REMB";
const MANTISSA_BITS: u32 = 18;

impl<'a> Remb<'a> {
    pub(super) fn is_named_in(body: &[u8]) -> bool {
        body.get(SSRC_BYTES..SSRC_BYTES + 4) == Some(REMB_NAME)
    }

    pub(super) fn parse(body: &'a [u8]) -> Option<Remb<'a>> {
        let count = usize::from(*body.get(12)?);
        let exponent = *body.get(13)? >> 2;
        let mantissa = u64::from(be::u24_at(body, 13)? & ((1 << MANTISSA_BITS) - 1));
        let bitrate_bps = mantissa << exponent;
        // 63 bits of exponent promise more than any path and overflow: a lie.
        if bitrate_bps >> exponent != mantissa {
            return None;
        }
        Some(Remb { sender: be::ssrc_at(body, 0)?, bitrate_bps, ssrcs: body.get(16..)?.get(..4 * count)? })
    }

    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        be::ssrcs(self.ssrcs)
    }
}

/// At most 255 sources. The bitrate keeps its 18 highest bits, rounded down.
pub fn write_remb(out: &mut [u8], sender: Ssrc, bitrate_bps: u64, ssrcs: &[Ssrc]) -> Option<usize> {
    let exponent = (u64::BITS - bitrate_bps.leading_zeros()).saturating_sub(MANTISSA_BITS);
    let mantissa = (bitrate_bps >> exponent) as u32;
    let mut writer = Writer::new(out, FORMAT_APPLICATION, PAYLOAD_FEEDBACK)?;
    writer.put_ssrc(sender)?;
    writer.put_u32(0)?;
    writer.put(REMB_NAME)?;
    writer.put_u32(u32::from(u8::try_from(ssrcs.len()).ok()?) << 24 | exponent << MANTISSA_BITS | mantissa)?;
    for ssrc in ssrcs {
        writer.put_ssrc(*ssrc)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rtcp::{RtcpPacket, packets};

    fn nack(numbers: &[u16]) -> Vec<u8> {
        let mut out = vec![0; 1500];
        let len = write_nack(&mut out, Ssrc(1), Ssrc(2), numbers.iter().copied().map(SeqNo)).unwrap();
        out.truncate(len);
        out
    }

    fn lost(bytes: &[u8]) -> Vec<u16> {
        let Some(Ok(RtcpPacket::Nack(nack))) = packets(bytes).next() else { panic!("not a nack") };
        assert_eq!((nack.sender, nack.media), (Ssrc(1), Ssrc(2)));
        nack.lost().map(|number| number.0).collect()
    }

    #[test]
    fn lost_packets_go_there_and_back_across_the_wrap() {
        for (numbers, entries) in [
            (&[7][..], 1),
            (&[7, 8, 23], 1),
            (&[7, 24], 2),
            (&[65530, 65535, 0, 10], 1),
            (&[65530, 65535, 0, 11], 2),
            (&[1, 100, 10_000, 40_000], 4),
        ] {
            let bytes = nack(numbers);
            assert_eq!(bytes.len(), 12 + 4 * entries, "{numbers:?}");
            assert_eq!(lost(&bytes), numbers);
        }
    }

    #[test]
    fn a_full_entry_is_seventeen_packets() {
        let numbers: Vec<u16> = (65530..=65535).chain(0..=10).collect();
        assert_eq!(nack(&numbers).len(), 16);
        assert_eq!(lost(&nack(&numbers)), numbers);
    }

    #[test]
    fn a_repeated_number_is_asked_for_once() {
        assert_eq!(lost(&nack(&[7, 7, 9, 9])), [7, 9]);
    }

    #[test]
    fn nothing_lost_is_nothing_to_write_and_no_room_is_none() {
        assert_eq!(write_nack(&mut [0; 100], Ssrc(1), Ssrc(2), []), None);
        for room in 0..20 {
            assert_eq!(write_nack(&mut vec![0; room], Ssrc(1), Ssrc(2), [SeqNo(1), SeqNo(99)]), None);
        }
    }

    #[test]
    fn a_nack_of_a_whole_datagram_asks_for_no_more_than_its_bytes_hold() {
        let mut bytes = vec![0xff; 1452];
        bytes[..4].copy_from_slice(&[0x81, 205, 0x01, 0x6a]);
        let Some(Ok(RtcpPacket::Nack(nack))) = packets(&bytes).next() else { panic!("not a nack") };
        assert_eq!(nack.lost().count(), 17 * (1452 - 12) / 4);
    }

    #[test]
    fn requests_for_key_frames_go_there_and_back() {
        let mut out = [0; 100];
        let len = write_picture_loss(&mut out, Ssrc(1), Ssrc(2)).unwrap();
        let Some(Ok(RtcpPacket::Pli(pli))) = packets(&out[..len]).next() else { panic!("not a pli") };
        assert_eq!(pli, Pli { sender: Ssrc(1), media: Ssrc(2) });
        let requests = [(Ssrc(5), 1), (Ssrc(6), 255)];
        let len = write_full_intra_request(&mut out, Ssrc(1), requests).unwrap();
        let Some(Ok(RtcpPacket::Fir(fir))) = packets(&out[..len]).next() else { panic!("not a fir") };
        assert_eq!(fir.sender, Ssrc(1));
        assert_eq!(fir.requests().collect::<Vec<_>>(), requests);
        assert_eq!(write_full_intra_request(&mut out, Ssrc(1), []), None);
    }

    #[test]
    fn feedback_of_an_odd_length_is_refused() {
        for bytes in [
            &[0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2][..],
            &[0x84, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
            &[0x84, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
            &[0x81, 206, 0, 1, 0, 0, 0, 1],
        ] {
            assert!(packets(bytes).next().unwrap().is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn an_estimate_keeps_its_eighteen_highest_bits() {
        for bitrate_bps in [0, 1, 0x3_ffff, 0x4_0000, 30_000, 2_500_000, 1_000_000_007, u64::from(u32::MAX), u64::MAX] {
            let mut out = [0; 100];
            let len = write_remb(&mut out, Ssrc(1), bitrate_bps, &[Ssrc(2), Ssrc(3)]).unwrap();
            let Some(Ok(RtcpPacket::Remb(remb))) = packets(&out[..len]).next() else { panic!("not a remb") };
            assert!(remb.bitrate_bps <= bitrate_bps);
            assert!(bitrate_bps - remb.bitrate_bps <= bitrate_bps >> 17, "{bitrate_bps} became {}", remb.bitrate_bps);
            assert_eq!(remb.ssrcs().collect::<Vec<_>>(), [Ssrc(2), Ssrc(3)]);
        }
        assert_eq!(write_remb(&mut [0; 2000], Ssrc(1), 1, &[Ssrc(2); 256]), None);
    }

    #[test]
    fn an_estimate_that_overflows_or_lies_about_its_sources_is_refused() {
        let mut out = [0; 100];
        let len = write_remb(&mut out, Ssrc(1), 1000, &[Ssrc(2)]).unwrap();
        let mut overflowing = out;
        overflowing[17] = 0xff;
        assert!(packets(&overflowing[..len]).next().unwrap().is_err());
        let mut lying = out;
        lying[16] = 2;
        assert!(packets(&lying[..len]).next().unwrap().is_err());
    }

    #[test]
    fn another_application_s_feedback_is_passed_over() {
        let bytes = [0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, b'X', b'X', b'X', b'X'];
        assert!(matches!(packets(&bytes).next(), Some(Ok(RtcpPacket::Other { packet_type: 206, format: 15 }))));
    }
}
