//! Bodies of the fuzz targets of the parsers, compiled with everything else.
//!
//! Each takes any bytes and panics only for a bug: a parser that panics itself, or one that lets bytes
//! through although what it makes of them breaks a promise. `fuzz/` calls them under libFuzzer, and
//! `tests/fuzz_bodies.rs` with damaged real packets in every test run.

use crate::packet::classify::{DatagramKind, classify};
use crate::packet::codec::dependency_descriptor::DependencyDescriptor;
use crate::packet::codec::layers::LayerSet;
use crate::packet::codec::vp8::{DESCRIPTOR_BYTES, PictureIds, Vp8Descriptor};
use crate::packet::codec::vp9::Vp9Descriptor;
use crate::packet::codec::{Codec, av1 as av1_payload, h264 as h264_payload, inspect, opus as opus_payload};
use crate::packet::extension::{Extension, ExtensionMap, ExtensionValues};
use crate::packet::rtcp::{RtcpPacket, TransportCc, TransportCcHead, XrBlock, packets, write_nack, write_transport_cc};
use crate::packet::rtp::{Form, HeaderFields, HeaderWriter, RtpHeader};
use crate::packet::seq::{PictureId, Tl0PicIdx};

/// A datagram: what is called RTP or RTCP begins as one.
pub fn datagram(data: &[u8]) {
    match classify(data) {
        Some(DatagramKind::Rtp | DatagramKind::Rtcp) => assert_eq!(data[0] >> 6, 2),
        Some(DatagramKind::Stun) => assert!(data.len() >= 20),
        Some(DatagramKind::Dtls) | None => {}
    }
}

/// A packet: its header lies inside it, and is the same after it was written again.
pub fn rtp(data: &[u8]) {
    let Some(header) = RtpHeader::parse(data) else { return };
    assert!(header.len() <= data.len());
    assert!(header.payload(data).is_none_or(|payload| payload.len() <= data.len() - header.len()));
    let fields = HeaderFields {
        marker: header.marker,
        padding: header.padding,
        payload_type: header.payload_type,
        sequence: header.sequence,
        timestamp: header.timestamp,
        ssrc: header.ssrc,
    };
    let elements = header.extensions(data);
    let form = Form::holding(elements.map(|(id, value)| (id, value.len())));
    // The two-byte form may take a byte more for each element than the block that they were read from.
    let mut out = vec![0; 2 * header.len() + 8];
    let Some(mut writer) = HeaderWriter::new(&mut out, &fields, form) else { panic!("no room for twelve bytes") };
    for (id, value) in elements {
        assert!(writer.element(id, value).is_some(), "an element that was read is not written");
    }
    let Some(len) = writer.finish() else { panic!("no room for a header's padding") };
    let Some(again) = RtpHeader::parse(&out[..len]) else { panic!("a written header is not read") };
    assert!(again.extensions(&out).eq(elements));
    assert_eq!(
        (again.marker, again.padding, again.payload_type, again.sequence, again.timestamp, again.ssrc),
        (header.marker, header.padding, header.payload_type, header.sequence, header.timestamp, header.ssrc)
    );
}

/// The contents of an extension block, in both forms, under ids that all mean something.
pub fn extensions(data: &[u8]) {
    let mut map = ExtensionMap::default();
    Extension::ALL.into_iter().for_each(|extension| map.insert(extension.router_id(), extension));
    let block = &data[..data.len().min(1200) / 4 * 4];
    for profile in [[0xbe, 0xde], [0x10, 0x00]] {
        let mut packet = vec![0x90, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend(profile);
        packet.extend((block.len() as u16 / 4).to_be_bytes());
        packet.extend(block);
        let Some(header) = RtpHeader::parse(&packet) else { panic!("a whole header is not read") };
        let elements = header.extensions(&packet);
        assert!(elements.map(|(_, value)| value.len() + 1).sum::<usize>() <= block.len());
        let values = ExtensionValues::read(elements, &map);
        for id in [values.mid, values.rid, values.repaired_rid].into_iter().flatten() {
            assert!(!id.is_empty() && id.is_ascii());
        }
        assert!(values.abs_send_time.is_none_or(|time| time.0 < 1 << 24));
        assert!(values.audio_level.is_none_or(|audio| audio.level < 128));
    }
}

/// A decrypted compound: every view yields no more than its bytes hold, and feedback means the same after
/// it was written again.
pub fn rtcp(data: &[u8]) {
    let mut count = 0;
    for packet in packets(data) {
        count += 1;
        match packet {
            Err(_) => assert!(count <= data.len() / 4 + 1),
            Ok(RtcpPacket::SenderReport(report)) => assert!(report.reports().count() <= 31),
            Ok(RtcpPacket::ReceiverReport(report)) => assert!(report.reports().count() <= 31),
            Ok(RtcpPacket::SourceDescription(sdes)) => assert!(sdes.cnames().count() <= 31),
            Ok(RtcpPacket::Goodbye(bye)) => assert!(bye.ssrcs().count() <= 31),
            Ok(RtcpPacket::Nack(nack)) => {
                assert!(nack.lost().count() <= 17 * data.len() / 4);
                let mut out = vec![0; 16 + 4 * nack.lost().count()];
                assert!(write_nack(&mut out, nack.sender, nack.media, nack.lost()).is_some());
            }
            Ok(RtcpPacket::TransportCc(feedback)) => transport_cc(&feedback, data.len()),
            Ok(RtcpPacket::Pli(_) | RtcpPacket::Other { .. }) => {}
            Ok(RtcpPacket::Fir(fir)) => assert!(fir.requests().count() <= data.len() / 8),
            Ok(RtcpPacket::Remb(remb)) => assert!(remb.ssrcs().count() <= 255),
            Ok(RtcpPacket::ExtendedReport(report)) => {
                for block in report.blocks() {
                    if let XrBlock::Dlrr(dlrr) = block {
                        assert!(dlrr.reports().count() <= data.len() / 12);
                    }
                }
            }
        }
    }
}

fn transport_cc(feedback: &TransportCc<'_>, len: usize) {
    assert_eq!(feedback.statuses().count(), usize::from(feedback.status_count));
    assert!(feedback.arrivals().count() <= len);
    // One turn of the reference time up, so that steps back from a time of zero stay positive.
    let base_us = ((1 << 24) + i64::from(feedback.reference.0)) * 64_000;
    let statuses = feedback.statuses().map(|(_, arrival)| arrival.map(|us| (base_us + us) as u64));
    let head = TransportCcHead {
        sender: feedback.sender,
        media: feedback.media,
        base: feedback.base,
        feedback_count: feedback.feedback_count,
    };
    let mut out = vec![0; 64 + 4 * usize::from(feedback.status_count)];
    let Some(written) = write_transport_cc(&mut out, &head, statuses.clone()) else {
        assert_eq!(feedback.arrivals().count(), 0);
        return;
    };
    assert_eq!(written.statuses, feedback.status_count);
    let Some(Ok(RtcpPacket::TransportCc(again))) = packets(&out[..written.len]).next() else {
        panic!("written feedback is not read")
    };
    let turn = 1 << 24;
    let first_us = statuses.clone().flatten().next().unwrap_or(0) / 64_000 * 64_000;
    assert_eq!(u64::from(again.reference.0), first_us / 64_000 % turn);
    assert!(again.statuses().map(|(_, arrival)| arrival.map(|us| (first_us as i64 + us) as u64)).eq(statuses));
}

/// A payload: a descriptor keeps its length and everything but its ids when it is written again.
pub fn vp8(data: &[u8]) {
    facts_agree(Codec::Vp8, data);
    let Some(descriptor) = Vp8Descriptor::parse(data) else { return };
    let ids = PictureIds { picture_id: PictureId(0x1234), tl0_pic_idx: Tl0PicIdx(0x56) };
    let mut out = data.to_vec();
    let written = descriptor.write_into(data, ids, &mut out);
    assert!(written == Some(usize::from(descriptor.len)) && usize::from(descriptor.len) <= DESCRIPTOR_BYTES);
    let Some(again) = Vp8Descriptor::parse(&out) else { panic!("a written descriptor is not read") };
    let expected = Vp8Descriptor { picture_id: again.picture_id, tl0_pic_idx: again.tl0_pic_idx, ..descriptor };
    assert_eq!(again, expected);
    assert_eq!(again.picture_id.is_some(), descriptor.picture_id.is_some());
    assert!(again.tl0_pic_idx.is_none_or(|index| index == ids.tl0_pic_idx));
}

pub fn vp9(data: &[u8]) {
    facts_agree(Codec::Vp9, data);
    let Some(descriptor) = Vp9Descriptor::parse(data) else { return };
    assert!(usize::from(descriptor.len) <= data.len());
    assert!(descriptor.spatial < 8 && descriptor.temporal < 8);
    assert!(!descriptor.key_frame() || descriptor.begins_frame);
}

pub fn h264(data: &[u8]) {
    facts_agree(Codec::H264, data);
    let Some(facts) = h264_payload::inspect(data) else { return };
    assert!(!facts.key_frame || facts.start_of_unit);
}

pub fn av1(data: &[u8]) {
    facts_agree(Codec::Av1, data);
    let Some(facts) = av1_payload::inspect(data) else { return };
    assert!(!facts.key_frame || facts.start_of_unit);
}

pub fn opus(data: &[u8]) {
    facts_agree(Codec::Opus, data);
    assert_eq!(opus_payload::is_silence(data).is_some(), !data.is_empty());
    assert!(opus_payload::duration(data).is_none_or(|d| d.as_millis() <= 120));
}

/// A descriptor of a key frame and one that follows it: the first byte says where one ends.
pub fn dependency_descriptor(data: &[u8]) {
    let Some((cut, data)) = data.split_first() else { return };
    let (key, delta) = data.split_at(usize::from(*cut).min(data.len()));
    let Some(descriptor) = DependencyDescriptor::parse(key) else { return };
    let Some(structure) = descriptor.structure() else { return };
    assert!((1..=32).contains(&structure.target_count()) && (1..=4).contains(&structure.spatial_layers()));
    let best = structure.best_target(u8::MAX, u8::MAX);
    assert!(best.is_some_and(|target| structure.target_layers(target).is_some()));
    for descriptor in [Some(descriptor), DependencyDescriptor::parse(delta)].into_iter().flatten() {
        let Some(frame) = descriptor.frame(&structure) else { continue };
        assert!(frame.spatial < structure.spatial_layers() && frame.temporal < 8);
        assert!(frame.active_targets.is_none_or(|targets| targets <= u32::MAX >> (32 - structure.target_count())));
        assert_within(structure.switches(frame.indications), structure.targets(frame.indications));
    }
}

/// Who can go on from a frame needs it.
fn assert_within(switches: LayerSet, targets: LayerSet) {
    for at in 0..16 {
        assert!(!switches.contains(at / 4, at % 4) || targets.contains(at / 4, at % 4));
    }
}

fn facts_agree(codec: Codec, data: &[u8]) {
    let Some(facts) = inspect(codec, data) else { return };
    assert!(!data.is_empty());
    assert_within(facts.switches, facts.targets);
    assert!(!facts.key_frame || facts.start_of_frame);
    assert_eq!(facts.vp8.is_some(), codec == Codec::Vp8);
}
