//! Extended reports (RFC 3611): round-trip time for those who send nothing themselves.

use super::{EXTENDED_REPORT, Writer};
use crate::ids::Ssrc;
use crate::packet::be;
use crate::packet::ntp::Ntp;

/// Blocks of one sender.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedReport<'a> {
    pub sender: Ssrc,
    blocks: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub enum XrBlock<'a> {
    /// The sender's clock; to be answered with a [`Dlrr`] (section 4.4).
    ReceiverReferenceTime(Ntp),
    /// Answers (section 4.5).
    Dlrr(Dlrr<'a>),
    Other(u8),
}

const REFERENCE_TIME: u8 = 4;
const DLRR: u8 = 5;
const DLRR_BYTES: usize = 12;

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<ExtendedReport<'a>> {
        let blocks = body.get(4..)?;
        let mut rest = blocks;
        while !rest.is_empty() {
            rest = next_block(rest)?.1;
        }
        Some(ExtendedReport { sender: be::ssrc_at(body, 0)?, blocks })
    }

    pub fn blocks(&self) -> impl Iterator<Item = XrBlock<'a>> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let (block, after) = next_block(rest)?;
            rest = after;
            Some(block)
        })
    }
}

/// `|type|specific|length in words|contents|`
fn next_block(blocks: &[u8]) -> Option<(XrBlock<'_>, &[u8])> {
    let (&[kind, _, high, low], rest) = blocks.split_first_chunk()?;
    let (contents, rest) = rest.split_at_checked(4 * usize::from(u16::from_be_bytes([high, low])))?;
    let block = match kind {
        REFERENCE_TIME if contents.len() == 8 => XrBlock::ReceiverReferenceTime(Ntp(be::u64_at(contents, 0)?)),
        DLRR if contents.len().is_multiple_of(DLRR_BYTES) => XrBlock::Dlrr(Dlrr { reports: contents }),
        REFERENCE_TIME | DLRR => return None,
        other => XrBlock::Other(other),
    };
    Some((block, rest))
}

#[derive(Clone, Copy, Debug)]
pub struct Dlrr<'a> {
    reports: &'a [u8],
}

/// How long ago a receiver's reference time arrived here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DlrrReport {
    pub ssrc: Ssrc,
    /// Middle of the last reference time's NTP time, 0 for none.
    pub last_rr: u32,
    /// 1/65536 s since it arrived.
    pub delay_since_last_rr: u32,
}

impl<'a> Dlrr<'a> {
    pub fn reports(&self) -> impl Iterator<Item = DlrrReport> + use<'a> {
        self.reports.chunks_exact(DLRR_BYTES).map_while(|report| {
            Some(DlrrReport {
                ssrc: be::ssrc_at(report, 0)?,
                last_rr: be::u32_at(report, 4)?,
                delay_since_last_rr: be::u32_at(report, 8)?,
            })
        })
    }
}

pub fn write_receiver_reference_time(out: &mut [u8], sender: Ssrc, now: Ntp) -> Option<usize> {
    let mut writer = Writer::new(out, 0, EXTENDED_REPORT)?;
    writer.put_ssrc(sender)?;
    writer.put(&[REFERENCE_TIME, 0, 0, 2])?;
    writer.put(&now.0.to_be_bytes())?;
    writer.finish()
}

/// One block with all reports; `None` also when there are none.
pub fn write_dlrr(out: &mut [u8], sender: Ssrc, reports: &[DlrrReport]) -> Option<usize> {
    if reports.is_empty() {
        return None;
    }
    let mut writer = Writer::new(out, 0, EXTENDED_REPORT)?;
    writer.put_ssrc(sender)?;
    writer.put(&[DLRR, 0])?;
    writer.put_u16(u16::try_from(3 * reports.len()).ok()?)?;
    for report in reports {
        writer.put_ssrc(report.ssrc)?;
        writer.put_u32(report.last_rr)?;
        writer.put_u32(report.delay_since_last_rr)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rtcp::{RtcpPacket, packets};

    fn only(bytes: &[u8]) -> ExtendedReport<'_> {
        let Some(Ok(RtcpPacket::ExtendedReport(report))) = packets(bytes).next() else { panic!("no report") };
        report
    }

    #[test]
    fn a_reference_time_and_its_answer_go_there_and_back() {
        let mut out = [0; 100];
        let len = write_receiver_reference_time(&mut out, Ssrc(1), Ntp(0x0102_0304_0506_0708)).unwrap();
        let report = only(&out[..len]);
        assert_eq!(report.sender, Ssrc(1));
        let Some(XrBlock::ReceiverReferenceTime(ntp)) = report.blocks().next() else { panic!("no time") };
        assert_eq!(ntp, Ntp(0x0102_0304_0506_0708));

        let answers = [1, 2].map(|n| DlrrReport { ssrc: Ssrc(n), last_rr: 10 * n, delay_since_last_rr: 100 * n });
        let len = write_dlrr(&mut out, Ssrc(2), &answers).unwrap();
        let Some(XrBlock::Dlrr(dlrr)) = only(&out[..len]).blocks().next() else { panic!("no answer") };
        assert_eq!(dlrr.reports().collect::<Vec<_>>(), answers);
        assert_eq!(write_dlrr(&mut out[..len - 1], Ssrc(2), &answers), None);
        assert_eq!(write_dlrr(&mut out, Ssrc(2), &[]), None);
    }

    #[test]
    fn unknown_blocks_are_passed_over() {
        let bytes =
            [&[0x80, 207, 0, 6, 0, 0, 0, 1][..], &[42, 0, 0, 1, 9, 9, 9, 9], &[4, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7]]
                .concat();
        let blocks: Vec<_> = only(&bytes).blocks().collect();
        assert!(matches!(blocks[..], [XrBlock::Other(42), XrBlock::ReceiverReferenceTime(Ntp(7))]));
    }

    #[test]
    fn blocks_of_a_wrong_length_are_refused() {
        for bytes in [
            &[0x80, 207, 0, 3, 0, 0, 0, 1, 4, 0, 0, 1, 0, 0, 0, 0][..],
            &[0x80, 207, 0, 3, 0, 0, 0, 1, 5, 0, 0, 1, 0, 0, 0, 0],
            &[0x80, 207, 0, 3, 0, 0, 0, 1, 42, 0, 0, 2, 0, 0, 0, 0],
            &[0x80, 207, 0, 0],
        ] {
            assert!(packets(bytes).next().unwrap().is_err(), "{bytes:x?}");
        }
    }
}
