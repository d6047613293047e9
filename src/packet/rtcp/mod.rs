//! RTCP packets (RFC 3550 section 6, RFC 4585, RFC 5104, RFC 3611): views and writers.
//!
//! Ingress walks a decrypted datagram with [`packets`]; every view was checked whole when it was made, so
//! its iterators neither fail nor outlive their bytes. Writers put one packet at the start of a slice and
//! return its length; a compound is written by going on behind it. `None` from a writer means no room (or
//! more than the format holds), and the slice's bytes are then undefined.
//!
//! ```text
//! |V=2|P|  count  |  packet type  |  length in words, less 1      |
//! |                    SSRC of the sender                         |
//! ```

mod feedback;
mod report;
mod transport_cc;
mod xr;

pub use crate::packet::ntp::{self, Ntp};
pub use feedback::{Fir, Lost, Nack, Pli, Remb, write_full_intra_request, write_nack, write_picture_loss, write_remb};
pub use report::{
    Goodbye, ReceiverReport, ReportBlock, ReportBlocks, SenderInfo, SenderReport, SourceDescription, write_goodbye,
    write_receiver_report, write_sender_report, write_source_description,
};
pub use transport_cc::{Arrivals, Statuses, TransportCc, TransportCcHead, TransportCcWritten, write_transport_cc};
pub use xr::{Dlrr, DlrrReport, ExtendedReport, XrBlock, write_dlrr, write_receiver_reference_time};

use crate::ids::Ssrc;
use crate::packet::rtp::padding_len;

/// One packet of a datagram.
#[derive(Clone, Copy, Debug)]
pub enum RtcpPacket<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    SourceDescription(SourceDescription<'a>),
    Goodbye(Goodbye<'a>),
    Nack(Nack<'a>),
    TransportCc(TransportCc<'a>),
    Pli(Pli),
    Fir(Fir<'a>),
    Remb(Remb<'a>),
    ExtendedReport(ExtendedReport<'a>),
    /// Well formed, of a kind that Ringside has no use for.
    Other {
        packet_type: u8,
        format: u8,
    },
}

/// A packet contradicts its own lengths or format; what follows it in the datagram cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an RTCP packet contradicts its own format")]
pub struct Malformed;

/// Walks a decrypted datagram, compound or of reduced size (RFC 5506). The first malformed packet ends it.
#[inline]
pub fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram }
}

#[derive(Clone, Copy, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<RtcpPacket<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = Raw::split(self.rest).and_then(|(raw, rest)| {
            self.rest = rest;
            raw.parse()
        });
        if packet.is_none() {
            self.rest = &[];
        }
        Some(packet.ok_or(Malformed))
    }
}

const HEADER: usize = 4;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;

const FORMAT_NACK: u8 = 1;
const FORMAT_TRANSPORT_CC: u8 = 15;
const FORMAT_PLI: u8 = 1;
const FORMAT_FIR: u8 = 4;
/// Application layer feedback; REMB by its identifier.
const FORMAT_APPLICATION: u8 = 15;

/// One packet cut out of its datagram, without its padding.
#[derive(Clone, Copy)]
struct Raw<'a> {
    packet_type: u8,
    /// Report count, source count or feedback format: the low five bits of the first byte.
    count: u8,
    /// What follows the four header bytes.
    body: &'a [u8],
}

impl<'a> Raw<'a> {
    #[inline]
    fn split(bytes: &'a [u8]) -> Option<(Raw<'a>, &'a [u8])> {
        let &[first, packet_type, high, low] = bytes.first_chunk::<HEADER>()?;
        if first >> 6 != 2 {
            return None;
        }
        let len = 4 * usize::from(u16::from_be_bytes([high, low]));
        let (mut body, rest) = bytes[HEADER..].split_at_checked(len)?;
        if first & 0x20 != 0 {
            body = &body[..len - padding_len(body)?];
        }
        Some((Raw { packet_type, count: first & 0x1f, body }, rest))
    }

    #[inline]
    fn parse(self) -> Option<RtcpPacket<'a>> {
        Some(match (self.packet_type, self.count) {
            (SENDER_REPORT, count) => RtcpPacket::SenderReport(SenderReport::parse(count, self.body)?),
            (RECEIVER_REPORT, count) => RtcpPacket::ReceiverReport(ReceiverReport::parse(count, self.body)?),
            (SOURCE_DESCRIPTION, count) => RtcpPacket::SourceDescription(SourceDescription::parse(count, self.body)?),
            (GOODBYE, count) => RtcpPacket::Goodbye(Goodbye::parse(count, self.body)?),
            (TRANSPORT_FEEDBACK, FORMAT_NACK) => RtcpPacket::Nack(Nack::parse(self.body)?),
            (TRANSPORT_FEEDBACK, FORMAT_TRANSPORT_CC) => RtcpPacket::TransportCc(TransportCc::parse(self.body)?),
            (PAYLOAD_FEEDBACK, FORMAT_PLI) => RtcpPacket::Pli(Pli::parse(self.body)?),
            (PAYLOAD_FEEDBACK, FORMAT_FIR) => RtcpPacket::Fir(Fir::parse(self.body)?),
            (PAYLOAD_FEEDBACK, FORMAT_APPLICATION) if Remb::is_named_in(self.body) => {
                RtcpPacket::Remb(Remb::parse(self.body)?)
            }
            (EXTENDED_REPORT, _) => RtcpPacket::ExtendedReport(ExtendedReport::parse(self.body)?),
            (packet_type, format) => RtcpPacket::Other { packet_type, format },
        })
    }
}

/// Appends to a slice, never beyond its end; writers build their packets with it.
struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    fn new(out: &'a mut [u8], count: u8, packet_type: u8) -> Option<Writer<'a>> {
        let header: &mut [u8; HEADER] = out.first_chunk_mut()?;
        *header = [0x80 | count & 0x1f, packet_type, 0, 0];
        Some(Writer { out, at: HEADER })
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.at..self.at + bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    #[inline]
    fn put_u16(&mut self, value: u16) -> Option<()> {
        self.put(&value.to_be_bytes())
    }

    #[inline]
    fn put_u32(&mut self, value: u32) -> Option<()> {
        self.put(&value.to_be_bytes())
    }

    #[inline]
    fn put_ssrc(&mut self, ssrc: Ssrc) -> Option<()> {
        self.put_u32(ssrc.0)
    }

    /// Completes the length field. The packet's length is a multiple of four by then.
    #[inline]
    fn finish(self) -> Option<usize> {
        let words = u16::try_from(self.at / 4 - 1).ok()?;
        self.out.get_mut(2..4)?.copy_from_slice(&words.to_be_bytes());
        Some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(datagram: &[u8]) -> Vec<Result<&'static str, Malformed>> {
        packets(datagram)
            .map(|packet| {
                packet.map(|packet| match packet {
                    RtcpPacket::SenderReport(_) => "sr",
                    RtcpPacket::ReceiverReport(_) => "rr",
                    RtcpPacket::SourceDescription(_) => "sdes",
                    RtcpPacket::Goodbye(_) => "bye",
                    RtcpPacket::Nack(_) => "nack",
                    RtcpPacket::TransportCc(_) => "transport-cc",
                    RtcpPacket::Pli(_) => "pli",
                    RtcpPacket::Fir(_) => "fir",
                    RtcpPacket::Remb(_) => "remb",
                    RtcpPacket::ExtendedReport(_) => "xr",
                    RtcpPacket::Other { .. } => "other",
                })
            })
            .collect()
    }

    fn compound() -> Vec<u8> {
        let mut out = [0; 400];
        let mut at = 0;
        let block = ReportBlock { ssrc: Ssrc(9), ..ReportBlock::default() };
        at += write_sender_report(&mut out[at..], &SenderInfo::default(), [block]).unwrap();
        at += write_source_description(&mut out[at..], Ssrc(1), "cname").unwrap();
        at += write_receiver_reference_time(&mut out[at..], Ssrc(1), Ntp(5)).unwrap();
        at += write_nack(&mut out[at..], Ssrc(1), Ssrc(2), [crate::packet::seq::SeqNo(4)]).unwrap();
        at += write_picture_loss(&mut out[at..], Ssrc(1), Ssrc(2)).unwrap();
        at += write_full_intra_request(&mut out[at..], Ssrc(1), [(Ssrc(2), 3)]).unwrap();
        at += write_remb(&mut out[at..], Ssrc(1), 1_000_000, &[Ssrc(2)]).unwrap();
        at += write_goodbye(&mut out[at..], &[Ssrc(1)]).unwrap();
        out[..at].to_vec()
    }

    #[test]
    fn a_compound_is_walked_packet_by_packet() {
        let expected = ["sr", "sdes", "xr", "nack", "pli", "fir", "remb", "bye"];
        assert_eq!(kinds(&compound()), expected.map(Ok));
    }

    #[test]
    fn a_compound_cut_anywhere_ends_with_one_malformed_packet() {
        let whole = compound();
        let mut ends = vec![0];
        while ends[ends.len() - 1] < whole.len() {
            let at = ends[ends.len() - 1];
            ends.push(at + 4 + 4 * usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]])));
        }
        for len in 0..whole.len() {
            let kinds = kinds(&whole[..len]);
            let whole_packets = ends.iter().filter(|end| **end > 0 && **end <= len).count();
            if ends.contains(&len) {
                assert_eq!(kinds.len(), whole_packets);
                assert!(kinds.iter().all(Result::is_ok));
            } else {
                assert_eq!(kinds.len(), whole_packets + 1, "{len} bytes");
                assert_eq!(kinds[whole_packets], Err(Malformed));
            }
        }
    }

    #[test]
    fn unknown_kinds_are_passed_over_and_other_versions_are_not() {
        assert_eq!(kinds(&[0x80, 204, 0, 1, 0, 0, 0, 0, 0x83, 205, 0, 0]), [Ok("other"), Ok("other")]);
        assert_eq!(kinds(&[0x40, 204, 0, 0, 0x80, 204, 0, 0]), [Err(Malformed)]);
    }

    #[test]
    fn padding_is_taken_off_and_must_fit() {
        let padded = |padding: u8| {
            let mut bytes = [0u8; 80];
            let len = write_picture_loss(&mut bytes, Ssrc(1), Ssrc(2)).unwrap();
            bytes[0] |= 0x20;
            bytes[3] += 1;
            bytes[len + 3] = padding;
            bytes[..len + 4].to_vec()
        };
        assert_eq!(kinds(&padded(4)), [Ok("pli")]);
        for padding in [0, 5, 13, 255] {
            assert_eq!(kinds(&padded(padding)), [Err(Malformed)], "{padding} bytes of padding");
        }
        assert_eq!(kinds(&[0xa0, 204, 0, 0]), [Err(Malformed)]);
    }
}
