//! RTCP that a client writes (reports, NACK, PLI, transport-cc feedback) and the little that it reads of a server's
//! (PLI, FIR, NACK, sender reports). RFC 3550, RFC 4585, RFC 5104, draft-holmer-rmcat-transport-wide-cc-extensions-01.

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
/// Report blocks that the five-bit count holds.
pub const BLOCKS_MAX: usize = 31;

/// Whether a datagram of the RTP range is RTCP (RFC 5761 section 4).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.len() >= 8 && (192..=223).contains(&datagram[1])
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// PLI or FIR for this SSRC.
    KeyFrameRequest(u32),
    /// Sequence numbers of this SSRC that did not arrive.
    Nack(u32, Vec<u16>),
    /// The SSRC's sender report, with the middle 32 bits of its NTP time.
    SenderReport(u32, u32),
}

/// Reads an opened compound up to the first packet that makes no sense.
pub fn read(mut compound: &[u8]) -> Vec<Item> {
    let mut items = Vec::new();
    while compound.len() >= 8 {
        let len = 4 * (usize::from(u16::from_be_bytes([compound[2], compound[3]])) + 1);
        let Some(packet) = compound.get(..len).filter(|packet| packet.len() >= 8 && packet[0] >> 6 == 2) else { break };
        match (packet[1], packet[0] & 0x1f) {
            (SENDER_REPORT, _) if packet.len() >= 28 => {
                items.push(Item::SenderReport(word(packet, 4), (word(packet, 8) << 16) | (word(packet, 12) >> 16)));
            }
            (PAYLOAD_FEEDBACK, 1) if packet.len() >= 12 => items.push(Item::KeyFrameRequest(word(packet, 8))),
            (PAYLOAD_FEEDBACK, 4) => {
                items.extend(packet[12..].chunks_exact(8).map(|entry| Item::KeyFrameRequest(word(entry, 0))));
            }
            (TRANSPORT_FEEDBACK, 1) if packet.len() >= 16 => items.push(nack_item(packet)),
            _ => {}
        }
        compound = &compound[len..];
    }
    items
}

fn nack_item(packet: &[u8]) -> Item {
    let mut lost = Vec::new();
    for entry in packet[12..].chunks_exact(4) {
        let (first, mask) = (u16::from_be_bytes([entry[0], entry[1]]), u16::from_be_bytes([entry[2], entry[3]]));
        lost.push(first);
        lost.extend((0..16).filter(|bit| mask >> bit & 1 != 0).map(|bit| first.wrapping_add(bit + 1)));
    }
    Item::Nack(word(packet, 8), lost)
}

/// One source as a receiver report describes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Block {
    pub ssrc: u32,
    pub fraction_lost: u8,
    pub lost: u32,
    pub highest: u32,
    pub last_report: u32,
    /// Since that report, in 1/65536 s.
    pub delay: u32,
}

/// A sender report without blocks, and the SDES that a compound needs.
pub fn sender_report(ssrc: u32, ntp: u64, timestamp: u32, packets: u32, bytes: u32, cname: &str, out: &mut Vec<u8>) {
    out.extend([0x80, SENDER_REPORT, 0, 6]);
    out.extend(ssrc.to_be_bytes());
    out.extend(ntp.to_be_bytes());
    for value in [timestamp, packets, bytes] {
        out.extend(value.to_be_bytes());
    }
    source_description(ssrc, cname, out);
}

/// Receiver reports for any number of sources, and the SDES that a compound needs.
pub fn receiver_report(own: u32, blocks: &[Block], cname: &str, out: &mut Vec<u8>) {
    for blocks in blocks.chunks(BLOCKS_MAX) {
        out.extend([0x80 | blocks.len() as u8, RECEIVER_REPORT]);
        out.extend((1 + 6 * blocks.len() as u16).to_be_bytes());
        out.extend(own.to_be_bytes());
        for block in blocks {
            out.extend(block.ssrc.to_be_bytes());
            out.extend((u32::from(block.fraction_lost) << 24 | block.lost & 0x00ff_ffff).to_be_bytes());
            out.extend(block.highest.to_be_bytes());
            out.extend([0; 4]);
            out.extend(block.last_report.to_be_bytes());
            out.extend(block.delay.to_be_bytes());
        }
    }
    source_description(own, cname, out);
}

fn source_description(ssrc: u32, cname: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0x81, SOURCE_DESCRIPTION, 0, 0]);
    out.extend(ssrc.to_be_bytes());
    out.extend([1, cname.len() as u8]);
    out.extend(cname.as_bytes());
    // At least one zero byte ends the list of items.
    let end = (out.len() - start + 1).next_multiple_of(4) + start;
    out.resize(end, 0);
    write_length(out, start);
}

pub fn picture_loss(own: u32, media: u32, out: &mut Vec<u8>) {
    out.extend([0x81, PAYLOAD_FEEDBACK, 0, 2]);
    out.extend(own.to_be_bytes());
    out.extend(media.to_be_bytes());
}

/// Asks again for these sequence numbers, in ascending order.
pub fn nack(own: u32, media: u32, lost: &[u16], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0x81, TRANSPORT_FEEDBACK, 0, 0]);
    out.extend(own.to_be_bytes());
    out.extend(media.to_be_bytes());
    let mut rest = lost;
    while let [first, tail @ ..] = rest {
        let together = tail.iter().take_while(|number| number.wrapping_sub(*first) <= 16).count();
        let mask = tail[..together].iter().fold(0u16, |mask, number| mask | 1 << (number.wrapping_sub(*first) - 1));
        out.extend(first.to_be_bytes());
        out.extend(mask.to_be_bytes());
        rest = &tail[together..];
    }
    write_length(out, start);
}

/// Transport-cc feedback for `arrivals`: (transport-wide sequence number, arrival in ns), ascending, at least one.
pub fn transport_cc(own: u32, media: u32, count: u8, arrivals: &[(u64, u64)], out: &mut Vec<u8>) {
    const TICK_NS: u64 = 250_000;
    const REFERENCE_NS: u64 = 64_000_000;
    let start = out.len();
    let (base, first_ns) = arrivals[0];
    let packets = arrivals[arrivals.len() - 1].0 - base + 1;
    let reference = first_ns / REFERENCE_NS;
    out.extend([0x8f, TRANSPORT_FEEDBACK, 0, 0]);
    out.extend(own.to_be_bytes());
    out.extend(media.to_be_bytes());
    out.extend((base as u16).to_be_bytes());
    out.extend((packets as u16).to_be_bytes());
    out.extend(&(reference as u32).to_be_bytes()[1..]);
    out.push(count);

    let mut deltas = Vec::with_capacity(arrivals.len() * 2);
    let (mut symbols, mut filled) = (0u16, 0);
    let mut put = |symbol: u16, out: &mut Vec<u8>, last: bool| {
        // A status vector chunk of seven two-bit symbols.
        symbols |= symbol << (12 - 2 * filled);
        filled += 1;
        if filled == 7 || last {
            out.extend((0xc000 | symbols).to_be_bytes());
            (symbols, filled) = (0, 0);
        }
    };
    let mut known = arrivals.iter().peekable();
    let mut clock = reference * REFERENCE_NS / TICK_NS;
    for number in base..base + packets {
        let last = number + 1 == base + packets;
        match known.next_if(|(seen, _)| *seen == number) {
            None => put(0, out, last),
            Some((_, at)) => {
                let ticks = (at / TICK_NS) as i64 - clock as i64;
                clock = at / TICK_NS;
                if (0..=255).contains(&ticks) {
                    deltas.push(ticks as u8);
                    put(1, out, last);
                } else {
                    deltas.extend((ticks.clamp(-32768, 32767) as i16).to_be_bytes());
                    put(2, out, last);
                }
            }
        }
    }
    out.extend(deltas);
    let end = (out.len() - start).next_multiple_of(4) + start;
    out.resize(end, 0);
    write_length(out, start);
}

fn write_length(out: &mut [u8], start: usize) {
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nack_lists_the_same_numbers_when_read_back() {
        let lost = [65534, 65535, 3, 20, 21, 300];
        let mut out = Vec::new();
        nack(1, 2, &lost, &mut out);
        assert_eq!(read(&out), vec![Item::Nack(2, lost.to_vec())]);
    }

    #[test]
    fn a_compound_of_reports_and_a_key_frame_request_is_read_whole() {
        let mut out = Vec::new();
        receiver_report(1, &[Block::default(); 40], "load", &mut out);
        sender_report(7, 0x0001_0002_0003_0004, 5, 6, 7, "load", &mut out);
        picture_loss(1, 9, &mut out);
        assert_eq!(read(&out), vec![Item::SenderReport(7, 0x0002_0003), Item::KeyFrameRequest(9)]);
        assert_eq!(out.len() % 4, 0);
    }

    #[test]
    fn transport_feedback_has_one_symbol_per_number_and_deltas_for_those_that_arrived() {
        let mut out = Vec::new();
        transport_cc(1, 2, 3, &[(10, 64_000_000), (11, 64_500_000), (14, 200_000_000)], &mut out);
        // base 10, 5 packets, reference time 1, feedback count 3
        assert_eq!(&out[12..20], &[0, 10, 0, 5, 0, 0, 1, 3]);
        // small, small, missing, missing, large
        assert_eq!(u16::from_be_bytes([out[20], out[21]]), 0xc000 | 1 << 12 | 1 << 10 | 2 << 4);
        assert_eq!(&out[22..26], &[0, 2, 2, 30]);
        assert_eq!(out.len(), 28);
    }
}
