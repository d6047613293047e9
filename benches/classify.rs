//! What it costs to understand a packet, and to write a header: a real browser's packets in their order, so
//! that branches are predicted as they would be. `cargo bench --bench classify [-- --quick]`
//!
//! The last lines compare with the `rtp` and `rtcp` crates in the same run.

#[path = "../tests/support/mod.rs"]
mod captured;
mod support;

use std::hint::black_box;

use captured::{CAPTURE, CAPTURE_OFFER, datagrams};
use ringside::ids::Ssrc;
use ringside::packet::classify::{DatagramKind, classify};
use ringside::packet::codec::vp8::{DESCRIPTOR_BYTES, PictureIds, Vp8Descriptor};
use ringside::packet::codec::{Codec, inspect};
use ringside::packet::extension::{Extension, ExtensionMap, ExtensionValues};
use ringside::packet::rtcp::{self, RtcpPacket, TransportCcHead};
use ringside::packet::rtp::{
    Form, HeaderFields, HeaderWriter, RtpHeader, patch_abs_send_time, patch_sequence, patch_timestamp,
    patch_transport_cc,
};
use ringside::packet::seq::{PictureId, SeqNo, Tl0PicIdx};
use webrtc_util::marshal::Unmarshal;

fn main() {
    let all: Vec<&[u8]> = datagrams(CAPTURE).into_iter().map(|(_, bytes)| bytes).collect();
    let of = |kind| all.iter().copied().filter(|bytes| classify(bytes) == Some(kind)).collect::<Vec<_>>();
    let (rtp, reports) = (of(DatagramKind::Rtp), of(DatagramKind::Rtcp));
    let payloads: Vec<_> = rtp
        .iter()
        .filter(|packet| packet[1] & 0x7f == 96)
        .map(|packet| RtpHeader::parse(packet).unwrap().payload(packet).unwrap())
        .collect();
    let map = offered();
    let feedback = feedback();

    let mut bench = support::Bench::default();
    let mut next = turns(&all);
    bench.case("classify", move || classify(next()));
    let mut next = turns(&rtp);
    bench.case("rtp header", move || RtpHeader::parse(next()));
    let mut next = turns(&rtp);
    let map = &map;
    bench.case("rtp header + extensions", move || {
        let packet = next();
        let header = RtpHeader::parse(packet)?;
        Some((ExtensionValues::read(header.extensions(packet), map), header))
    });
    let mut next = turns(&payloads);
    bench.case("inspect vp8", move || inspect(Codec::Vp8, next()));
    let mut next = turns(&payloads);
    bench.case("inspect + rewrite vp8", move || rewrite_vp8(next()));
    bench.case("write header", || write_header(&mut black_box([0; 64])));
    bench.case("patch header", patch_header());
    let mut next = turns(&reports);
    bench.case("rtcp: sr + sdes", move || walk(next()));
    bench.case("rtcp: nack, 17 lost", || walk(black_box(&NACK)));
    bench.case("rtcp: transport-cc, 100", || walk(black_box(&feedback)));
    bench.case("write transport-cc, 100", || write_feedback(&mut black_box([0; 400])));
    let mut next = turns(&rtp);
    bench.case("crate rtp: header", move || rtp::header::Header::unmarshal(&mut next()));
    let mut next = turns(&reports);
    bench.case("crate rtcp: sr + sdes", move || ::rtcp::packet::unmarshal(&mut next()).is_ok());
    bench.case("crate rtcp: transport-cc, 100", || ::rtcp::packet::unmarshal(&mut black_box(&feedback[..])).is_ok());

    let measured = bench.run();
    for (name, theirs, ours) in [
        ("header", "crate rtp: header", "rtp header + extensions"),
        ("sr + sdes", "crate rtcp: sr + sdes", "rtcp: sr + sdes"),
        ("transport-cc", "crate rtcp: transport-cc, 100", "rtcp: transport-cc, 100"),
    ] {
        println!("crates/ringside {name}: {:.1}", measured.ratio(theirs, ours));
    }
}

/// One after the other, for ever.
fn turns<'a>(packets: &[&'a [u8]]) -> impl FnMut() -> &'a [u8] + use<'a> {
    let packets = packets.to_vec();
    let mut at = 0;
    move || {
        at = if at + 1 == packets.len() { 0 } else { at + 1 };
        black_box(packets[at])
    }
}

fn offered() -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for line in CAPTURE_OFFER.lines().filter_map(|line| line.strip_prefix("a=extmap:")) {
        let (id, uri) = line.split_once(' ').unwrap();
        if let Some(extension) = Extension::from_uri(uri.trim()) {
            map.insert(id.parse().unwrap(), extension);
        }
    }
    map
}

fn rewrite_vp8(payload: &[u8]) -> Option<[u8; DESCRIPTOR_BYTES]> {
    let descriptor = Vp8Descriptor::parse(payload)?;
    let mut out = [0; DESCRIPTOR_BYTES];
    let ids = PictureIds { picture_id: PictureId(0x1234), tl0_pic_idx: Tl0PicIdx(7) };
    descriptor.write_into(payload, ids, &mut out)?;
    Some(out)
}

const FIELDS: HeaderFields = HeaderFields {
    marker: true,
    padding: false,
    payload_type: 101,
    sequence: SeqNo(1),
    timestamp: 90_000,
    ssrc: Ssrc(1234),
};

/// Length, and where abs-send-time and transport-cc lie.
fn write_header(out: &mut [u8; 64]) -> Option<(usize, usize, usize)> {
    let mut writer = HeaderWriter::new(out, black_box(&FIELDS), Form::OneByte)?;
    writer.element(Extension::Mid.router_id(), black_box(b"12"))?;
    let time_at = writer.element(Extension::AbsSendTime.router_id(), &[0; 3])?;
    let number_at = writer.element(Extension::TransportCc.router_id(), &[0; 2])?;
    Some((writer.finish()?, time_at, number_at))
}

fn patch_header() -> impl FnMut() -> [u8; 64] {
    let mut out = [0; 64];
    let (_, time_at, number_at) = write_header(&mut out).expect("64 bytes are enough");
    let mut sequence = SeqNo(0);
    move || {
        sequence = sequence.next();
        patch_sequence(&mut out, sequence);
        patch_timestamp(&mut out, 90 * u32::from(sequence.0));
        patch_abs_send_time(&mut out, time_at, u32::from(sequence.0));
        patch_transport_cc(&mut out, number_at, sequence);
        black_box(out)
    }
}

const NACK: [u8; 16] = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 0xff, 0xff];

/// A hundred packets, one in ten lost, none two large steps apart.
fn statuses() -> impl Iterator<Item = Option<u64>> + Clone {
    (0..100u64).map(|n| (n % 10 != 3).then_some(1_000_000 + n * 1_100))
}

fn write_feedback(out: &mut [u8; 400]) -> Option<usize> {
    let head = TransportCcHead { sender: Ssrc(1), media: Ssrc(2), base: SeqNo(9), feedback_count: 1 };
    rtcp::write_transport_cc(out, &head, statuses()).map(|written| written.len)
}

fn feedback() -> Vec<u8> {
    let mut out = [0; 400];
    let len = write_feedback(&mut out).expect("400 bytes are enough");
    out[..len].to_vec()
}

/// Every field that a shard would look at, added up so that none is skipped.
fn walk(datagram: &[u8]) -> u64 {
    rtcp::packets(datagram)
        .map(|packet| match packet {
            Ok(RtcpPacket::SenderReport(report)) => report.info.ntp.0 + report.reports().count() as u64,
            Ok(RtcpPacket::SourceDescription(sdes)) => sdes.cnames().map(|(ssrc, _)| u64::from(ssrc.0)).sum(),
            Ok(RtcpPacket::Nack(nack)) => nack.lost().map(|number| u64::from(number.0)).sum(),
            Ok(RtcpPacket::TransportCc(feedback)) => feedback.arrivals().map(|(_, us)| us as u64).sum(),
            _ => 0,
        })
        .sum()
}
