//! The parsers against six seconds of a real browser: three simulcast layers of VP8, RTX and Opus. What they
//! find must be what an independent reader found in the same capture.

mod support;

use std::collections::BTreeMap;

use ringside::ids::Ssrc;
use ringside::packet::classify::{DatagramKind, classify};
use ringside::packet::codec::vp8::Vp8Descriptor;
use ringside::packet::codec::{Codec, inspect, opus};
use ringside::packet::extension::{Extension, ExtensionMap, ExtensionValues};
use ringside::packet::rtcp::{RtcpPacket, SenderInfo, packets};
use ringside::packet::rtp::RtpHeader;
use ringside::packet::seq::{PictureIdUnwrapper, SeqNo, SeqUnwrapper, Tl0PicIdxUnwrapper};
use serde_json::Value;
use support::{CAPTURE, CAPTURE_FACTS, CAPTURE_OFFER, datagrams};

const OPUS: u8 = 111;
const VP8: u8 = 96;
const RTX: u8 = 97;

struct Packet {
    header: RtpHeader,
    bytes: &'static [u8],
}

impl Packet {
    fn payload(&self) -> &'static [u8] {
        self.header.payload(self.bytes).expect("padding fits")
    }

    fn values(&self, map: &ExtensionMap) -> ExtensionValues<'static> {
        ExtensionValues::read(self.header.extensions(self.bytes), map)
    }
}

fn rtp() -> Vec<Packet> {
    let datagrams = datagrams(CAPTURE).into_iter().map(|(_, bytes)| bytes);
    datagrams
        .filter(|bytes| classify(bytes) == Some(DatagramKind::Rtp))
        .map(|bytes| Packet { header: RtpHeader::parse(bytes).expect("a browser's header is read"), bytes })
        .collect()
}

fn by_ssrc() -> BTreeMap<Ssrc, Vec<Packet>> {
    let mut streams = BTreeMap::<_, Vec<_>>::new();
    rtp().into_iter().for_each(|packet| streams.entry(packet.header.ssrc).or_default().push(packet));
    streams
}

fn facts() -> Value {
    serde_json::from_str(CAPTURE_FACTS).unwrap()
}

fn facts_of(ssrc: Ssrc) -> Value {
    let facts = facts();
    let stream = facts["streams"].as_array().unwrap().iter().find(|stream| stream["ssrc"] == ssrc.0);
    stream.unwrap_or_else(|| panic!("nobody else saw {ssrc}")).clone()
}

/// The ids that the browser offered, for the extensions that Ringside knows.
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

#[test]
fn every_datagram_is_rtp_or_rtcp() {
    let kinds: Vec<_> = datagrams(CAPTURE).into_iter().map(|(_, bytes)| classify(bytes)).collect();
    let count = |kind| kinds.iter().filter(|k| **k == Some(kind)).count();
    assert_eq!(count(DatagramKind::Rtp) + count(DatagramKind::Rtcp), kinds.len());
    let packets: u64 = facts()["streams"].as_array().unwrap().iter().map(|s| s["packets"].as_u64().unwrap()).sum();
    assert_eq!(count(DatagramKind::Rtp) as u64, packets);
}

#[test]
fn every_stream_has_the_packets_padding_and_extensions_that_were_counted() {
    let streams = by_ssrc();
    assert_eq!(streams.len(), facts()["streams"].as_array().unwrap().len());
    for (ssrc, packets) in streams {
        let facts = facts_of(ssrc);
        assert_eq!(packets.len() as u64, facts["packets"]);
        assert!(packets.iter().all(|packet| facts["pt"] == packet.header.payload_type));
        assert_eq!(packets.iter().filter(|packet| packet.header.padding).count() as u64, facts["pad"]);
        let mut ids = BTreeMap::<u8, u64>::new();
        for packet in &packets {
            packet.header.extensions(packet.bytes).for_each(|(id, _)| *ids.entry(id).or_default() += 1);
        }
        let counted = facts["ext"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, count)| (name.split_once('=').unwrap().0.parse::<u8>().unwrap(), count.as_u64().unwrap()));
        assert_eq!(ids, counted.collect(), "{ssrc}");
    }
}

#[test]
fn mids_rids_and_repaired_rids_name_each_stream() {
    let map = offered();
    for (ssrc, packets) in by_ssrc() {
        let facts = facts_of(ssrc);
        for values in packets.iter().map(|packet| packet.values(&map)) {
            for (read, known) in [(values.mid, "mid"), (values.rid, "rid"), (values.repaired_rid, "rrid")] {
                assert!(read.is_none() || facts[known] == read.unwrap(), "{ssrc}: {known} is {read:?}");
            }
        }
        let first = packets[0].values(&map);
        assert_eq!(first.mid, facts["mid"].as_str());
        assert_eq!(first.rid, facts["rid"].as_str());
        assert_eq!(first.repaired_rid, facts["rrid"].as_str());
    }
}

#[test]
fn transport_cc_numbers_every_packet_of_the_transport_in_its_order() {
    let map = offered();
    let mut unwrapper = SeqUnwrapper::default();
    let numbers: Vec<_> =
        rtp().iter().map(|packet| unwrapper.unwrap(packet.values(&map).transport_cc.unwrap())).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), numbers.len());
    assert_eq!(sorted[sorted.len() - 1] - sorted[0], numbers.len() as u64 - 1);
}

#[test]
fn send_times_grow_as_fast_as_the_capture_s_clock() {
    let map = offered();
    let times = |(at, bytes)| {
        let header = (classify(bytes) == Some(DatagramKind::Rtp)).then(|| RtpHeader::parse(bytes).unwrap())?;
        Some((at, ExtensionValues::read(header.extensions(bytes), &map).abs_send_time.unwrap()))
    };
    let times: Vec<_> = datagrams(CAPTURE).into_iter().filter_map(times).collect();
    let (first_at, first) = times[0];
    for (at, time) in &times {
        let sent_us = time.distance_us(first);
        let captured_us = (*at - first_at).as_micros() as i64;
        assert!((sent_us - captured_us).abs() < 250_000, "sent after {sent_us} us, captured after {captured_us}");
    }
}

#[test]
fn audio_levels_are_those_that_were_measured() {
    let map = offered();
    let packets: Vec<_> = rtp().into_iter().filter(|packet| packet.header.payload_type == OPUS).collect();
    let levels: Vec<u8> = packets.iter().map(|packet| packet.values(&map).audio_level.unwrap().level).collect();
    let facts = facts_of(packets[0].header.ssrc);
    assert_eq!(facts["audio_level_min_max"][0], *levels.iter().min().unwrap());
    assert_eq!(facts["audio_level_min_max"][1], *levels.iter().max().unwrap());
}

#[test]
fn opus_lasts_as_long_as_its_timestamps_say() {
    let packets: Vec<_> = rtp().into_iter().filter(|packet| packet.header.payload_type == OPUS).collect();
    for pair in packets.windows(2) {
        let ticks = pair[1].header.timestamp.wrapping_sub(pair[0].header.timestamp);
        let duration = opus::duration(pair[0].payload()).unwrap();
        assert_eq!(u128::from(ticks), duration.as_micros() * 48 / 1000);
        assert!(inspect(Codec::Opus, pair[0].payload()).unwrap().key_frame);
    }
}

#[test]
fn vp8_frames_have_the_key_frames_layers_and_sizes_that_were_decoded() {
    let streams = by_ssrc();
    let layers = streams.iter().filter(|(_, packets)| packets[0].header.payload_type == VP8);
    let mut count = 0;
    for (ssrc, packets) in layers {
        count += 1;
        let facts = facts_of(*ssrc);
        let starts: Vec<_> = packets
            .iter()
            .map(|packet| inspect(Codec::Vp8, packet.payload()).unwrap())
            .filter(|facts| facts.start_of_frame)
            .collect();
        assert_eq!(starts.len() as u64, facts["frames"]);
        let key_frames: Vec<_> = (0..).zip(&starts).filter(|(_, start)| start.key_frame).collect();
        assert_eq!(key_frames.iter().map(|(frame, _)| *frame).collect::<Vec<u64>>(), numbers(&facts["key_frames"]));
        for (_, start) in key_frames {
            let (width, height) = start.vp8.unwrap().size.unwrap();
            assert_eq!([width, height].map(u64::from).to_vec(), numbers(&facts["size"]));
        }
        for temporal in 0..4u8 {
            let seen = starts.iter().filter(|start| start.temporal == temporal).count() as u64;
            assert_eq!(seen, facts["temporal_ids"][temporal.to_string()].as_u64().unwrap_or(0), "layer {temporal}");
        }
    }
    assert_eq!(count, 3);
}

#[test]
fn picture_ids_grow_by_one_each_frame_and_indices_with_each_base_layer() {
    for packets in by_ssrc().into_values().filter(|packets| packets[0].header.payload_type == VP8) {
        let (mut ids, mut indices) = (PictureIdUnwrapper::default(), Tl0PicIdxUnwrapper::default());
        let mut frame: Option<(u32, u64, u64)> = None;
        for packet in &packets {
            let vp8 = Vp8Descriptor::parse(packet.payload()).unwrap();
            assert!(vp8.picture_id_is_long);
            let id = ids.unwrap(vp8.picture_id.unwrap());
            let index = indices.unwrap(vp8.tl0_pic_idx.unwrap());
            let timestamp = packet.header.timestamp;
            match frame {
                Some((same, ..)) if same == timestamp => assert_eq!(frame, Some((timestamp, id, index))),
                Some((_, last_id, last_index)) => {
                    assert!(vp8.starts_frame());
                    assert_eq!(id, last_id + 1);
                    assert_eq!(index, last_index + u64::from(vp8.temporal == 0));
                }
                None => assert!(vp8.key_frame),
            }
            frame = Some((timestamp, id, index));
        }
    }
}

#[test]
fn a_frame_ends_with_its_marker_and_the_next_packet_begins_one() {
    for packets in by_ssrc().into_values().filter(|packets| packets[0].header.payload_type == VP8) {
        for pair in packets.windows(2) {
            assert_eq!(pair[1].header.sequence, pair[0].header.sequence.next());
            let starts = inspect(Codec::Vp8, pair[1].payload()).unwrap().start_of_frame;
            assert_eq!(starts, pair[0].header.marker);
        }
    }
}

#[test]
fn retransmissions_hold_the_number_and_bytes_of_their_original_or_padding() {
    let streams = by_ssrc();
    let rids: BTreeMap<_, _> = streams.keys().map(|ssrc| (*ssrc, facts_of(*ssrc))).collect();
    let mut repaired = 0;
    for packet in rtp().iter().filter(|packet| packet.header.payload_type == RTX) {
        let Some((number, payload)) = packet.payload().split_first_chunk() else {
            assert!(packet.header.padding, "an empty packet is a probe");
            continue;
        };
        let rid = &rids[&packet.header.ssrc]["rrid"];
        let original = streams.values().flatten().find(|original| {
            rids[&original.header.ssrc]["rid"] == *rid
                && original.header.payload_type == VP8
                && original.header.sequence == SeqNo(u16::from_be_bytes(*number))
        });
        if let Some(original) = original {
            assert_eq!(original.payload(), payload);
            assert_eq!(original.header.timestamp, packet.header.timestamp);
            repaired += 1;
        }
    }
    assert!(repaired > 0, "the capture repairs something");
}

#[test]
fn reports_are_of_the_types_that_were_counted_and_speak_of_streams_in_the_capture() {
    let streams = by_ssrc();
    let mut types = BTreeMap::<&str, u64>::new();
    let mut reported = BTreeMap::<Ssrc, SenderInfo>::new();
    for (_, datagram) in datagrams(CAPTURE) {
        if classify(datagram) != Some(DatagramKind::Rtcp) {
            continue;
        }
        for packet in packets(datagram) {
            let name = match packet.expect("a browser's report is read") {
                RtcpPacket::SenderReport(report) => {
                    let sent = &streams[&report.info.ssrc];
                    let before = reported.insert(report.info.ssrc, report.info);
                    assert!(before.is_none_or(|before| report.info.packets > before.packets));
                    assert!(before.is_none_or(|before| report.info.ntp.to_unix() > before.ntp.to_unix()));
                    let last = sent[sent.len() - 1].header.timestamp;
                    assert!(last.wrapping_sub(report.info.rtp_timestamp) as i32 > -90_000);
                    "200"
                }
                RtcpPacket::ReceiverReport(_) => "201",
                RtcpPacket::SourceDescription(sdes) => {
                    let (ssrc, cname) = sdes.cnames().next().unwrap();
                    assert!(streams.contains_key(&ssrc));
                    assert!(CAPTURE_OFFER.contains(std::str::from_utf8(cname.unwrap()).unwrap()));
                    "202"
                }
                other => panic!("nobody else saw {other:?}"),
            };
            *types.entry(name).or_default() += 1;
        }
    }
    let counted = facts();
    for (name, count) in counted["rtcp_types"].as_object().unwrap() {
        assert_eq!(types.get(name.as_str()).copied(), count.as_u64(), "type {name}");
    }
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}
