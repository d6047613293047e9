//! Sender and receiver reports, source descriptions, goodbyes (RFC 3550 sections 6.4 to 6.6).

use super::{GOODBYE, RECEIVER_REPORT, SENDER_REPORT, SOURCE_DESCRIPTION, Writer};
use crate::ids::Ssrc;
use crate::packet::be;
use crate::packet::ntp::Ntp;

const BLOCK_BYTES: usize = 24;
const INFO_BYTES: usize = 24;
/// Reports or sources that the five bits of a header count.
const MOST_ITEMS: usize = 31;

#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    pub info: SenderInfo,
    blocks: &'a [u8],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: Ssrc,
    pub ntp: Ntp,
    /// The same moment on the clock of the RTP timestamps.
    pub rtp_timestamp: u32,
    /// Sent so far, wrapping.
    pub packets: u32,
    /// Payload bytes sent so far without headers and padding, wrapping.
    pub octets: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    pub sender: Ssrc,
    blocks: &'a [u8],
}

/// What a receiver says of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: Ssrc,
    /// Lost since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Lost since the beginning, 24 bits, negative with duplicates; the writer saturates.
    pub cumulative_lost: i32,
    /// Highest sequence number with its count of cycles above it.
    pub highest_sequence: u32,
    /// In ticks of the RTP clock.
    pub jitter: u32,
    /// Middle of the last sender report's NTP time, 0 for none.
    pub last_sr: u32,
    /// 1/65536 s since that report arrived.
    pub delay_since_last_sr: u32,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<SenderReport<'a>> {
        let blocks = body.get(INFO_BYTES..)?.get(..BLOCK_BYTES * usize::from(count))?;
        let info = SenderInfo {
            ssrc: be::ssrc_at(body, 0)?,
            ntp: Ntp(be::u64_at(body, 4)?),
            rtp_timestamp: be::u32_at(body, 12)?,
            packets: be::u32_at(body, 16)?,
            octets: be::u32_at(body, 20)?,
        };
        Some(SenderReport { info, blocks })
    }

    #[inline]
    pub fn reports(&self) -> ReportBlocks<'a> {
        ReportBlocks { rest: self.blocks }
    }
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<ReceiverReport<'a>> {
        let blocks = body.get(4..)?.get(..BLOCK_BYTES * usize::from(count))?;
        Some(ReceiverReport { sender: be::ssrc_at(body, 0)?, blocks })
    }

    #[inline]
    pub fn reports(&self) -> ReportBlocks<'a> {
        ReportBlocks { rest: self.blocks }
    }
}

/// At most 31.
#[derive(Clone, Copy, Debug)]
pub struct ReportBlocks<'a> {
    rest: &'a [u8],
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    #[inline]
    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.rest.split_first_chunk::<BLOCK_BYTES>()?;
        self.rest = rest;
        Some(ReportBlock {
            ssrc: be::ssrc_at(block, 0)?,
            fraction_lost: block[4],
            cumulative_lost: (be::u24_at(block, 5)? << 8) as i32 >> 8,
            highest_sequence: be::u32_at(block, 8)?,
            jitter: be::u32_at(block, 12)?,
            last_sr: be::u32_at(block, 16)?,
            delay_since_last_sr: be::u32_at(block, 20)?,
        })
    }
}

/// `None` also for more than 31 reports.
pub fn write_sender_report(
    out: &mut [u8],
    info: &SenderInfo,
    reports: impl IntoIterator<Item = ReportBlock>,
) -> Option<usize> {
    let mut writer = Writer::new(out, 0, SENDER_REPORT)?;
    writer.put_ssrc(info.ssrc)?;
    writer.put(&info.ntp.0.to_be_bytes())?;
    writer.put_u32(info.rtp_timestamp)?;
    writer.put_u32(info.packets)?;
    writer.put_u32(info.octets)?;
    write_blocks(writer, reports)
}

/// `None` also for more than 31 reports.
pub fn write_receiver_report(
    out: &mut [u8],
    sender: Ssrc,
    reports: impl IntoIterator<Item = ReportBlock>,
) -> Option<usize> {
    let mut writer = Writer::new(out, 0, RECEIVER_REPORT)?;
    writer.put_ssrc(sender)?;
    write_blocks(writer, reports)
}

fn write_blocks(mut writer: Writer<'_>, reports: impl IntoIterator<Item = ReportBlock>) -> Option<usize> {
    let mut count = 0;
    for block in reports {
        count += 1;
        if count > MOST_ITEMS {
            return None;
        }
        let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        writer.put_ssrc(block.ssrc)?;
        writer.put_u32(u32::from(block.fraction_lost) << 24 | lost)?;
        writer.put_u32(block.highest_sequence)?;
        writer.put_u32(block.jitter)?;
        writer.put_u32(block.last_sr)?;
        writer.put_u32(block.delay_since_last_sr)?;
    }
    writer.out[0] |= count as u8;
    writer.finish()
}

#[derive(Clone, Copy, Debug)]
pub struct SourceDescription<'a> {
    count: u8,
    chunks: &'a [u8],
}

const ITEM_END: u8 = 0;
const ITEM_CNAME: u8 = 1;

impl<'a> SourceDescription<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<SourceDescription<'a>> {
        let mut rest = body;
        for _ in 0..count {
            rest = next_chunk(rest)?.1;
        }
        Some(SourceDescription { count, chunks: body })
    }

    /// Each source with its canonical name, where it has one; at most 31.
    pub fn cnames(&self) -> impl Iterator<Item = NamedSource<'a>> + use<'a> {
        let mut rest = self.chunks;
        (0..self.count).map_while(move |_| {
            let (source, after) = next_chunk(rest)?;
            rest = after;
            Some(source)
        })
    }
}

/// A source and its canonical name.
type NamedSource<'a> = (Ssrc, Option<&'a [u8]>);

/// One chunk: an SSRC, items of type, length and text, a zero, padding to 32 bits.
fn next_chunk(chunks: &[u8]) -> Option<(NamedSource<'_>, &[u8])> {
    let ssrc = be::ssrc_at(chunks, 0)?;
    let mut cname = None;
    let mut at = 4;
    loop {
        match *chunks.get(at)? {
            ITEM_END => break,
            kind => {
                let len = usize::from(*chunks.get(at + 1)?);
                let text = chunks.get(at + 2..at + 2 + len)?;
                if kind == ITEM_CNAME {
                    cname = Some(text);
                }
                at += 2 + len;
            }
        }
    }
    let end = (at + 1).next_multiple_of(4);
    Some(((ssrc, cname), chunks.get(end..)?))
}

/// One source and its canonical name of at most 255 bytes.
pub fn write_source_description(out: &mut [u8], ssrc: Ssrc, cname: &str) -> Option<usize> {
    let mut writer = Writer::new(out, 1, SOURCE_DESCRIPTION)?;
    writer.put_ssrc(ssrc)?;
    writer.put(&[ITEM_CNAME, u8::try_from(cname.len()).ok()?])?;
    writer.put(cname.as_bytes())?;
    let end = (writer.at + 1).next_multiple_of(4);
    writer.put(&[0; 4][..end - writer.at])?;
    writer.finish()
}

#[derive(Clone, Copy, Debug)]
pub struct Goodbye<'a> {
    ssrcs: &'a [u8],
}

impl<'a> Goodbye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Option<Goodbye<'a>> {
        Some(Goodbye { ssrcs: body.get(..4 * usize::from(count))? })
    }

    /// At most 31.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        be::ssrcs(self.ssrcs)
    }
}

/// At most 31 sources, no reason.
pub fn write_goodbye(out: &mut [u8], ssrcs: &[Ssrc]) -> Option<usize> {
    if ssrcs.len() > MOST_ITEMS {
        return None;
    }
    let mut writer = Writer::new(out, ssrcs.len() as u8, GOODBYE)?;
    for ssrc in ssrcs {
        writer.put_ssrc(*ssrc)?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::rtcp::{RtcpPacket, packets};

    fn only<'a>(bytes: &'a [u8]) -> RtcpPacket<'a> {
        let mut packets = packets(bytes);
        let packet = packets.next().unwrap().unwrap();
        assert!(packets.next().is_none());
        packet
    }

    fn blocks(count: u32) -> Vec<ReportBlock> {
        let block = |n: u32| ReportBlock {
            ssrc: Ssrc(0x1000 + n),
            fraction_lost: n as u8,
            cumulative_lost: 5 - n as i32,
            highest_sequence: 0xabcd_0000 + n,
            jitter: n * 7,
            last_sr: n * 11,
            delay_since_last_sr: n * 13,
        };
        (0..count).map(block).collect()
    }

    #[test]
    fn reports_go_there_and_back() {
        let info =
            SenderInfo { ssrc: Ssrc(1), ntp: Ntp(0x0102_0304_0506_0708), rtp_timestamp: 2, packets: 3, octets: 4 };
        for count in [0, 1, 31] {
            let mut out = [0; 1000];
            let len = write_sender_report(&mut out, &info, blocks(count)).unwrap();
            let RtcpPacket::SenderReport(report) = only(&out[..len]) else { panic!("not a sender report") };
            assert_eq!(report.info, info);
            assert_eq!(report.reports().collect::<Vec<_>>(), blocks(count));
            for room in 0..len {
                assert_eq!(write_sender_report(&mut out[..room], &info, blocks(count)), None);
            }
            let len = write_receiver_report(&mut out, Ssrc(8), blocks(count)).unwrap();
            let RtcpPacket::ReceiverReport(report) = only(&out[..len]) else { panic!("not a receiver report") };
            assert_eq!(report.sender, Ssrc(8));
            assert_eq!(report.reports().collect::<Vec<_>>(), blocks(count));
        }
        assert_eq!(write_receiver_report(&mut [0; 1000], Ssrc(8), blocks(32)), None);
    }

    #[test]
    fn cumulative_loss_saturates_at_24_bits() {
        for (lost, written) in [(i32::MAX, 0x7f_ffff), (i32::MIN, -0x80_0000), (-1, -1), (0x7f_ffff, 0x7f_ffff)] {
            let mut out = [0; 100];
            let block = ReportBlock { cumulative_lost: lost, fraction_lost: 0xff, ..ReportBlock::default() };
            let len = write_receiver_report(&mut out, Ssrc(8), [block]).unwrap();
            let RtcpPacket::ReceiverReport(report) = only(&out[..len]) else { panic!("not a receiver report") };
            let read = report.reports().next().unwrap();
            assert_eq!((read.cumulative_lost, read.fraction_lost), (written, 0xff));
        }
    }

    #[test]
    fn a_report_that_counts_more_blocks_than_it_has_is_refused() {
        let mut out = [0; 100];
        let len = write_receiver_report(&mut out, Ssrc(8), blocks(2)).unwrap();
        out[0] = 0x83;
        assert!(packets(&out[..len]).next().unwrap().is_err());
    }

    #[test]
    fn a_canonical_name_of_any_length_ends_with_a_zero_and_at_a_word() {
        for len in 0..=255 {
            let cname = "c".repeat(len);
            let mut out = [0xff; 300];
            let written = write_source_description(&mut out, Ssrc(3), &cname).unwrap();
            assert_eq!(written % 4, 0);
            let RtcpPacket::SourceDescription(sdes) = only(&out[..written]) else { panic!("no description") };
            assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(Ssrc(3), Some(cname.as_bytes()))]);
            assert_eq!(write_source_description(&mut out[..written - 1], Ssrc(3), &cname), None);
        }
        assert_eq!(write_source_description(&mut [0; 400], Ssrc(3), &"c".repeat(256)), None);
    }

    #[test]
    fn several_sources_with_several_items_are_read() {
        let body = [
            &[0x82, 202, 0, 6, 0, 0, 0, 1, 2, 1, b'n', 1, 2, b'a', b'b', 0][..],
            &[0, 0, 0, 2, 3, 1, b'e', 0, 0, 0, 0, 0],
        ]
        .concat();
        let RtcpPacket::SourceDescription(sdes) = only(&body) else { panic!("no description") };
        assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(Ssrc(1), Some(&b"ab"[..])), (Ssrc(2), None)]);
        let unterminated = [0x81, 202, 0, 2, 0, 0, 0, 1, 1, 2, b'a', b'b'];
        assert!(packets(&unterminated).next().unwrap().is_err());
    }

    #[test]
    fn goodbyes_go_there_and_back() {
        for count in [0, 1, 31] {
            let ssrcs: Vec<Ssrc> = (0..count).map(Ssrc).collect();
            let mut out = [0; 200];
            let len = write_goodbye(&mut out, &ssrcs).unwrap();
            let RtcpPacket::Goodbye(bye) = only(&out[..len]) else { panic!("not a goodbye") };
            assert_eq!(bye.ssrcs().collect::<Vec<_>>(), ssrcs);
        }
        assert_eq!(write_goodbye(&mut [0; 200], &[Ssrc(0); 32]), None);
        let with_reason = [0x81, 203, 0, 2, 0, 0, 0, 5, 3, b'b', b'y', b'e'];
        let RtcpPacket::Goodbye(bye) = only(&with_reason) else { panic!("not a goodbye") };
        assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [Ssrc(5)]);
    }
}
