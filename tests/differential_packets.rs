//! RTP and RTCP against the `rtp` and `rtcp` crates, which share no code with Ringside: the same bytes in, the
//! same meaning out, in both directions.

mod support;

use bytes::Bytes;
use ringside::ids::Ssrc;
use ringside::packet::codec::vp8::Vp8Descriptor;
use ringside::packet::codec::vp9::Vp9Descriptor;
use ringside::packet::extension::{self, AbsSendTime, AudioLevel, PlayoutDelay, VideoOrientation};
use ringside::packet::rtcp::{self, DlrrReport, Ntp, ReportBlock, RtcpPacket, SenderInfo, TransportCcHead, XrBlock};
use ringside::packet::rtp::{Form, HeaderFields, HeaderWriter, RtpHeader};
use ringside::packet::seq::SeqNo;
use rtp::packetizer::Depacketizer;
use support::{CAPTURE, Random, datagrams};
use webrtc_util::marshal::{Marshal, Unmarshal};

const ROUNDS: usize = 2_000;

fn rounds(seed: u64, mut round: impl FnMut(&mut Random)) {
    let mut random = Random(seed);
    (0..ROUNDS).for_each(|_| round(&mut random));
}

mod headers {
    use super::*;

    fn assert_same(bytes: &[u8]) {
        let theirs = rtp::packet::Packet::unmarshal(&mut &bytes[..]).expect("the other parser reads it");
        let ours = RtpHeader::parse(bytes).expect("Ringside reads it");
        let header = &theirs.header;
        assert_eq!(
            (ours.marker, ours.padding, ours.payload_type, ours.sequence.0, ours.timestamp, ours.ssrc.0),
            (header.marker, header.padding, header.payload_type, header.sequence_number, header.timestamp, header.ssrc)
        );
        assert_eq!(usize::from(ours.csrc_count), header.csrc.len());
        assert_eq!(ours.payload(bytes).expect("the padding fits"), theirs.payload);
        let elements: Vec<_> = ours.extensions(bytes).map(|(id, value)| (id, value.to_vec())).collect();
        let expected: Vec<_> = header.extensions.iter().map(|e| (e.id, e.payload.to_vec())).collect();
        assert_eq!(elements, expected);
    }

    #[test]
    fn captured_packets_mean_the_same() {
        let packets = datagrams(CAPTURE).into_iter().filter(|(_, bytes)| !(192..=223).contains(&bytes[1]));
        // The other parser takes a packet of padding alone for one without a payload, and refuses it.
        let with_payload = packets.filter(|(_, bytes)| RtpHeader::parse(bytes).unwrap().payload(bytes) != Some(&[]));
        assert!(with_payload.inspect(|(_, bytes)| assert_same(bytes)).count() > 900);
    }

    fn elements(random: &mut Random, two_byte: bool) -> Vec<(u8, Vec<u8>)> {
        (0..random.below(8))
            .map(|_| {
                let (ids, shortest, lengths) = if two_byte { (255, 0, 40) } else { (14, 1, 16) };
                let len = shortest + random.below(lengths);
                (1 + random.below(ids) as u8, random.bytes(len))
            })
            .collect()
    }

    #[test]
    fn written_headers_are_read_by_the_other_parser() {
        rounds(1, |random| {
            let elements = elements(random, random.0 & 1 == 0);
            let fields = HeaderFields {
                marker: random.flip(),
                padding: false,
                payload_type: random.below(128) as u8,
                sequence: SeqNo(random.next() as u16),
                timestamp: random.next() as u32,
                ssrc: Ssrc(random.next() as u32),
            };
            let form = Form::holding(elements.iter().map(|(id, value)| (*id, value.len())));
            let mut bytes = vec![0; 1000];
            let mut writer = HeaderWriter::new(&mut bytes, &fields, form).unwrap();
            for (id, value) in &elements {
                writer.element(*id, value).unwrap();
            }
            let len = writer.finish().unwrap();
            bytes.truncate(len);
            let payload_len = 1 + random.below(100);
            bytes.extend(random.bytes(payload_len));
            assert_same(&bytes);
        });
    }

    #[test]
    fn headers_of_the_other_writer_are_read() {
        rounds(2, |random| {
            let two_byte = random.flip();
            let extensions = elements(random, two_byte);
            let header = rtp::header::Header {
                version: 2,
                marker: random.flip(),
                extension: !extensions.is_empty(),
                payload_type: random.below(128) as u8,
                sequence_number: random.next() as u16,
                timestamp: random.next() as u32,
                ssrc: random.next() as u32,
                csrc: (0..random.below(16)).map(|_| random.next() as u32).collect(),
                extension_profile: if two_byte { 0x1000 } else { 0xbede },
                extensions: extensions
                    .into_iter()
                    .map(|(id, value)| rtp::header::Extension { id, payload: value.into() })
                    .collect(),
                ..Default::default()
            };
            let payload_len = 1 + random.below(100);
            let payload = random.bytes(payload_len).into();
            assert_same(&rtp::packet::Packet { header, payload }.marshal().unwrap());
        });
    }

    #[test]
    fn extension_values_mean_the_same() {
        use rtp::extension::abs_send_time_extension::AbsSendTimeExtension;
        use rtp::extension::audio_level_extension::AudioLevelExtension;
        use rtp::extension::playout_delay_extension::PlayoutDelayExtension;
        use rtp::extension::transport_cc_extension::TransportCcExtension;
        use rtp::extension::video_orientation_extension::{CameraDirection, VideoOrientationExtension, VideoRotation};
        rounds(3, |random| {
            let bytes = random.bytes(3);
            let time = AbsSendTimeExtension::unmarshal(&mut &bytes[..]).unwrap();
            assert_eq!(u64::from(AbsSendTime::read(&bytes).unwrap().0), time.timestamp);
            let delay = PlayoutDelayExtension::unmarshal(&mut &bytes[..]).unwrap();
            let ours = PlayoutDelay::read(&bytes).unwrap();
            assert_eq!((ours.min_ms, ours.max_ms), (delay.min_delay * 10, delay.max_delay * 10));
            let number = TransportCcExtension::unmarshal(&mut &bytes[..2]).unwrap();
            assert_eq!(extension::transport_cc(&bytes[..2]), Some(SeqNo(number.transport_sequence)));
            let level = AudioLevelExtension::unmarshal(&mut &bytes[..1]).unwrap();
            assert_eq!(AudioLevel::read(&bytes[..1]), Some(AudioLevel { voice: level.voice, level: level.level }));
            let orientation = VideoOrientationExtension::unmarshal(&mut &bytes[..1]).unwrap();
            let ours = VideoOrientation::read(&bytes[..1]).unwrap();
            assert_eq!(ours.back_camera, orientation.direction == CameraDirection::Back);
            assert_eq!(ours.flip, orientation.flip);
            let degrees = match orientation.rotation {
                VideoRotation::Degree0 => 0,
                VideoRotation::Degree90 => 90,
                VideoRotation::Degree180 => 180,
                VideoRotation::Degree270 => 270,
            };
            assert_eq!(ours.rotation_degrees, degrees);
        });
    }
}

mod payloads {
    use super::*;

    fn assert_same_vp8(payload: &[u8]) {
        let mut theirs = rtp::codecs::vp8::Vp8Packet::default();
        let frame = theirs.depacketize(&Bytes::copy_from_slice(payload)).expect("the other parser reads it");
        let ours = Vp8Descriptor::parse(payload).expect("Ringside reads it");
        assert_eq!(payload[ours.len.into()..], frame);
        assert_eq!(
            (ours.non_reference, ours.start_of_partition, ours.partition),
            (theirs.n == 1, theirs.s == 1, theirs.pid)
        );
        assert_eq!(ours.picture_id.map(|id| id.0), (theirs.i == 1).then_some(theirs.picture_id));
        assert_eq!(ours.tl0_pic_idx.map(|index| index.0), (theirs.l == 1).then_some(theirs.tl0_pic_idx));
        assert_eq!((ours.temporal, ours.layer_sync), (theirs.tid, theirs.y == 1));
        assert_eq!(ours.key_index, (theirs.k == 1).then_some(theirs.key_idx));
    }

    #[test]
    fn vp8_descriptors_mean_the_same() {
        rounds(4, |random| {
            let len = 8 + random.below(20);
            assert_same_vp8(&random.bytes(len));
        });
        let packets = datagrams(CAPTURE).into_iter().map(|(_, bytes)| bytes).filter(|bytes| bytes[1] & 0x7f == 96);
        let payloads = packets.map(|bytes| RtpHeader::parse(bytes).unwrap().payload(bytes).unwrap());
        assert!(payloads.inspect(|payload| assert_same_vp8(payload)).count() > 600);
    }

    /// Any descriptor that both sides hold for legal: the other parser refuses three references and more than
    /// five spatial layers, and takes reserved bits of the structure for its G bit.
    fn vp9_descriptor(random: &mut Random) -> Vec<u8> {
        let flags = random.next() as u8;
        let has = |bit: u8| flags & bit != 0;
        let mut bytes = vec![flags];
        if has(0x80) {
            let long = random.flip();
            bytes.push(random.below(128) as u8 | u8::from(long) << 7);
            bytes.extend(random.bytes(long.into()));
        }
        if has(0x20) {
            bytes.push(random.next() as u8 & 0xf1 | (random.below(5) as u8) << 1);
            bytes.extend(random.bytes((!has(0x10)).into()));
        }
        if has(0x10) && has(0x40) {
            let more = random.flip();
            bytes.extend(random.bytes(more.into()).iter().map(|difference| difference | 1));
            bytes.push(random.next() as u8 & 0xfe);
        }
        if has(0x02) {
            let (layers, sizes, pictures) = (random.below(8), random.flip(), random.below(4));
            bytes.push((layers as u8) << 5 | u8::from(sizes) << 4 | u8::from(pictures > 0) << 3);
            bytes.extend(random.bytes(if sizes { 4 * (layers + 1) } else { 0 }));
            bytes.extend((pictures > 0).then_some(pictures as u8));
            for _ in 0..pictures {
                let references = random.below(4);
                bytes.push(random.next() as u8 & 0xf0 | (references as u8) << 2);
                bytes.extend(random.bytes(references));
            }
        }
        bytes
    }

    #[test]
    fn vp9_descriptors_mean_the_same() {
        rounds(5, |random| {
            let descriptor = vp9_descriptor(random);
            let payload = [&descriptor[..], &random.bytes(10)].concat();
            let mut theirs = rtp::codecs::vp9::Vp9Packet::default();
            let frame = theirs.depacketize(&Bytes::copy_from_slice(&payload)).expect("the other parser reads it");
            let ours = Vp9Descriptor::parse(&payload).expect("Ringside reads it");
            assert_eq!(payload[ours.len.into()..], frame);
            assert_eq!(usize::from(ours.len), descriptor.len());
            assert_eq!(ours.picture_id.map(|id| id.0), theirs.i.then_some(theirs.picture_id));
            assert_eq!(ours.tl0_pic_idx.map(|index| index.0), (theirs.l && !theirs.f).then_some(theirs.tl0picidx));
            assert_eq!(
                (ours.inter_picture, ours.flexible, ours.begins_frame, ours.ends_frame),
                (theirs.p, theirs.f, theirs.b, theirs.e)
            );
            assert_eq!(
                (ours.spatial, ours.temporal, ours.switching_up_point, ours.inter_layer),
                (theirs.sid, theirs.tid, theirs.u, theirs.d)
            );
            assert_eq!(ours.spatial_layers, theirs.v.then_some(theirs.ns + 1));
            assert_eq!(ours.size, theirs.width.last().copied().zip(theirs.height.last().copied()));
            for cut in 0..descriptor.len() {
                assert_eq!(Vp9Descriptor::parse(&payload[..cut]), None);
            }
        });
    }
}

mod reports {
    use super::*;
    use ::rtcp::extended_report::dlrr::{DLRRReport, DLRRReportBlock};
    use ::rtcp::extended_report::rrt::ReceiverReferenceTimeReportBlock;
    use ::rtcp::goodbye::Goodbye;
    use ::rtcp::packet::Packet;
    use ::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
    use ::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
    use ::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
    use ::rtcp::receiver_report::ReceiverReport;
    use ::rtcp::reception_report::ReceptionReport;
    use ::rtcp::sender_report::SenderReport;
    use ::rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
    use ::rtcp::transport_feedbacks::transport_layer_cc::{SymbolTypeTcc, TransportLayerCc};
    use ::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};

    /// What the other parser makes of one packet of ours.
    fn theirs<P: Packet + Clone + 'static>(bytes: &[u8]) -> P {
        let packets = ::rtcp::packet::unmarshal(&mut &bytes[..]).expect("the other parser reads it");
        assert_eq!(packets.len(), 1);
        packets[0].as_any().downcast_ref::<P>().expect("it is of the same kind").clone()
    }

    /// What Ringside makes of one packet of the other writer.
    fn with_ours(packet: &impl Packet, check: impl FnOnce(RtcpPacket<'_>)) {
        let bytes = packet.marshal().expect("the other writer writes it");
        let mut packets = rtcp::packets(&bytes);
        check(packets.next().unwrap().expect("Ringside reads it"));
        assert!(packets.next().is_none());
    }

    fn blocks(random: &mut Random) -> Vec<ReportBlock> {
        let block = |random: &mut Random| ReportBlock {
            ssrc: Ssrc(random.next() as u32),
            fraction_lost: random.next() as u8,
            cumulative_lost: random.below(1 << 23) as i32,
            highest_sequence: random.next() as u32,
            jitter: random.next() as u32,
            last_sr: random.next() as u32,
            delay_since_last_sr: random.next() as u32,
        };
        (0..random.below(32)).map(|_| block(random)).collect()
    }

    fn their_block(block: &ReportBlock) -> ReceptionReport {
        ReceptionReport {
            ssrc: block.ssrc.0,
            fraction_lost: block.fraction_lost,
            total_lost: block.cumulative_lost as u32,
            last_sequence_number: block.highest_sequence,
            jitter: block.jitter,
            last_sender_report: block.last_sr,
            delay: block.delay_since_last_sr,
        }
    }

    #[test]
    fn sender_and_receiver_reports() {
        rounds(10, |random| {
            let blocks = blocks(random);
            let info = SenderInfo {
                ssrc: Ssrc(random.next() as u32),
                ntp: Ntp(random.next()),
                rtp_timestamp: random.next() as u32,
                packets: random.next() as u32,
                octets: random.next() as u32,
            };
            let report = SenderReport {
                ssrc: info.ssrc.0,
                ntp_time: info.ntp.0,
                rtp_time: info.rtp_timestamp,
                packet_count: info.packets,
                octet_count: info.octets,
                reports: blocks.iter().map(their_block).collect(),
                ..Default::default()
            };
            let mut out = [0; 1000];
            let len = rtcp::write_sender_report(&mut out, &info, blocks.iter().copied()).unwrap();
            assert_eq!(theirs::<SenderReport>(&out[..len]), report);
            with_ours(&report, |packet| {
                let RtcpPacket::SenderReport(ours) = packet else { panic!("{packet:?}") };
                assert_eq!(ours.info, info);
                assert!(ours.reports().eq(blocks.iter().copied()));
            });
            let report = ReceiverReport { ssrc: info.ssrc.0, reports: report.reports, ..Default::default() };
            let len = rtcp::write_receiver_report(&mut out, info.ssrc, blocks.iter().copied()).unwrap();
            assert_eq!(theirs::<ReceiverReport>(&out[..len]), report);
            with_ours(&report, |packet| {
                let RtcpPacket::ReceiverReport(ours) = packet else { panic!("{packet:?}") };
                assert_eq!(ours.sender, info.ssrc);
                assert!(ours.reports().eq(blocks.iter().copied()));
            });
        });
    }

    #[test]
    fn source_descriptions() {
        rounds(11, |random| {
            let ssrc = random.next() as u32;
            let cname: String = (0..1 + random.below(255)).map(|_| (b'a' + random.below(26) as u8) as char).collect();
            let item = |sdes_type, text: &str| SourceDescriptionItem { sdes_type, text: text.to_owned().into() };
            let mut description = SourceDescription {
                chunks: vec![SourceDescriptionChunk { source: ssrc, items: vec![item(SdesType::SdesCname, &cname)] }],
            };
            let mut out = [0; 400];
            let len = rtcp::write_source_description(&mut out, Ssrc(ssrc), &cname).unwrap();
            assert_eq!(theirs::<SourceDescription>(&out[..len]), description);
            let tool = SourceDescriptionChunk { source: 7, items: vec![item(SdesType::SdesTool, "tool")] };
            description.chunks.insert(random.below(2), tool);
            with_ours(&description, |packet| {
                let RtcpPacket::SourceDescription(ours) = packet else { panic!("{packet:?}") };
                let mut named = ours.cnames().filter_map(|(ssrc, cname)| Some((ssrc, cname?)));
                assert_eq!(named.next(), Some((Ssrc(ssrc), cname.as_bytes())));
                assert_eq!(ours.cnames().count(), 2);
            });
        });
    }

    #[test]
    fn goodbyes() {
        rounds(12, |random| {
            let ssrcs: Vec<Ssrc> = (0..random.below(32)).map(|_| Ssrc(random.next() as u32)).collect();
            let sources: Vec<u32> = ssrcs.iter().map(|ssrc| ssrc.0).collect();
            let mut out = [0; 200];
            let len = rtcp::write_goodbye(&mut out, &ssrcs).unwrap();
            assert_eq!(theirs::<Goodbye>(&out[..len]).sources, sources);
            let reason = "camera malfunction"[..random.below(18)].into();
            with_ours(&Goodbye { sources, reason }, |packet| {
                let RtcpPacket::Goodbye(ours) = packet else { panic!("{packet:?}") };
                assert!(ours.ssrcs().eq(ssrcs.iter().copied()));
            });
        });
    }

    #[test]
    fn negative_acknowledgements() {
        rounds(13, |random| {
            let mut number = random.next() as u16;
            let mut step = |random: &mut Random| {
                number = number.wrapping_add(1 + random.below(20) as u16);
                number
            };
            let lost: Vec<u16> = (0..1 + random.below(60)).map(|_| step(random)).collect();
            let mut out = [0; 400];
            let len = rtcp::write_nack(&mut out, Ssrc(1), Ssrc(2), lost.iter().copied().map(SeqNo)).unwrap();
            let nack = theirs::<TransportLayerNack>(&out[..len]);
            assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
            assert_eq!(nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect::<Vec<_>>(), lost);
            // The other writer begins a new entry where numbers wrap; Ringside need not.
            assert!(nack.nacks.len() <= nack_pairs_from_sequence_numbers(&lost).len(), "no more entries than needed");
            with_ours(&nack, |packet| {
                let RtcpPacket::Nack(ours) = packet else { panic!("{packet:?}") };
                assert_eq!((ours.sender, ours.media), (Ssrc(1), Ssrc(2)));
                assert!(ours.lost().map(|number| number.0).eq(lost.iter().copied()));
            });
        });
    }

    #[test]
    fn requests_for_key_frames() {
        rounds(14, |random| {
            let mut out = [0; 400];
            let (sender, media) = (random.next() as u32, random.next() as u32);
            let pli = PictureLossIndication { sender_ssrc: sender, media_ssrc: media };
            let len = rtcp::write_picture_loss(&mut out, Ssrc(sender), Ssrc(media)).unwrap();
            assert_eq!(theirs::<PictureLossIndication>(&out[..len]), pli);
            with_ours(&pli, |packet| {
                let RtcpPacket::Pli(ours) = packet else { panic!("{packet:?}") };
                assert_eq!((ours.sender.0, ours.media.0), (sender, media));
            });
            let requests: Vec<(Ssrc, u8)> =
                (0..1 + random.below(20)).map(|_| (Ssrc(random.next() as u32), random.next() as u8)).collect();
            let entry = |(ssrc, number): &(Ssrc, u8)| FirEntry { ssrc: ssrc.0, sequence_number: *number };
            let fir =
                FullIntraRequest { sender_ssrc: sender, media_ssrc: 0, fir: requests.iter().map(entry).collect() };
            let len = rtcp::write_full_intra_request(&mut out, Ssrc(sender), requests.iter().copied()).unwrap();
            assert_eq!(theirs::<FullIntraRequest>(&out[..len]), fir);
            with_ours(&fir, |packet| {
                let RtcpPacket::Fir(ours) = packet else { panic!("{packet:?}") };
                assert_eq!(ours.sender.0, sender);
                assert!(ours.requests().eq(requests.iter().copied()));
            });
        });
    }

    #[test]
    fn estimates() {
        rounds(15, |random| {
            let bitrate_bps = random.next() >> (24 + random.below(40));
            let ssrcs: Vec<Ssrc> = (0..random.below(10)).map(|_| Ssrc(random.next() as u32)).collect();
            let mut out = [0; 100];
            let len = rtcp::write_remb(&mut out, Ssrc(1), bitrate_bps, &ssrcs).unwrap();
            let remb = theirs::<ReceiverEstimatedMaximumBitrate>(&out[..len]);
            assert_eq!((remb.sender_ssrc, remb.ssrcs.len()), (1, ssrcs.len()));
            if bitrate_bps > 0 {
                // 24 bits of its mantissa hold our 18; its zero is a very small number instead.
                let written = bitrate_bps & !(u64::MAX >> 18 >> bitrate_bps.leading_zeros());
                assert_eq!(f64::from(remb.bitrate), written as f64);
            }
            with_ours(&ReceiverEstimatedMaximumBitrate { bitrate: bitrate_bps as f32, ..remb }, |packet| {
                let RtcpPacket::Remb(ours) = packet else { panic!("{packet:?}") };
                assert!(ours.ssrcs().eq(ssrcs.iter().copied()));
                assert!(ours.bitrate_bps.abs_diff(bitrate_bps) <= bitrate_bps >> 16);
            });
        });
    }

    #[test]
    fn round_trips_of_receivers() {
        use ::rtcp::extended_report::ExtendedReport;
        rounds(16, |random| {
            let now = random.next();
            let answers: Vec<DlrrReport> = (0..1 + random.below(10))
                .map(|_| DlrrReport {
                    ssrc: Ssrc(random.next() as u32),
                    last_rr: random.next() as u32,
                    delay_since_last_rr: random.next() as u32,
                })
                .collect();
            let their_answer =
                |a: &DlrrReport| DLRRReport { ssrc: a.ssrc.0, last_rr: a.last_rr, dlrr: a.delay_since_last_rr };
            let time = ReceiverReferenceTimeReportBlock { ntp_timestamp: now };
            let dlrr = DLRRReportBlock { reports: answers.iter().map(their_answer).collect() };
            let mut out = [0; 200];
            let len = rtcp::write_receiver_reference_time(&mut out, Ssrc(1), Ntp(now)).unwrap();
            let report = theirs::<ExtendedReport>(&out[..len]);
            assert!(report.sender_ssrc == 1 && report.reports.len() == 1);
            assert_eq!(report.reports[0].as_any().downcast_ref(), Some(&time));
            let len = rtcp::write_dlrr(&mut out, Ssrc(1), &answers).unwrap();
            let report = theirs::<ExtendedReport>(&out[..len]);
            assert_eq!(report.reports[0].as_any().downcast_ref(), Some(&dlrr));
            let both = ExtendedReport { sender_ssrc: 9, reports: vec![Box::new(dlrr), Box::new(time)] };
            with_ours(&both, |packet| {
                let RtcpPacket::ExtendedReport(ours) = packet else { panic!("{packet:?}") };
                let blocks: Vec<_> = ours.blocks().collect();
                let [XrBlock::Dlrr(dlrr), XrBlock::ReceiverReferenceTime(ntp)] = blocks[..] else {
                    panic!("{blocks:?}")
                };
                assert_eq!(ntp, Ntp(now));
                assert!(dlrr.reports().eq(answers.iter().copied()));
            });
        });
    }

    /// Each packet's arrival in microseconds from the reference time, by the other parser's chunks and deltas.
    fn their_statuses(feedback: &TransportLayerCc) -> Vec<Option<i64>> {
        use ::rtcp::transport_feedbacks::transport_layer_cc::PacketStatusChunk;
        let symbols = feedback.packet_chunks.iter().flat_map(|chunk| match chunk {
            PacketStatusChunk::RunLengthChunk(run) => vec![run.packet_status_symbol; run.run_length.into()],
            PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
        });
        let (mut deltas, mut arrival) = (feedback.recv_deltas.iter(), 0);
        symbols
            .take(feedback.packet_status_count.into())
            .map(|symbol| {
                (symbol != SymbolTypeTcc::PacketNotReceived).then(|| {
                    arrival += deltas.next().expect("a delta for each arrival").delta;
                    arrival
                })
            })
            .collect()
    }

    #[test]
    fn transport_wide_feedback() {
        rounds(17, |random| {
            let mut now = 1_000_000_000 + random.next() % 1_000_000_000_000;
            let (loss, reordering) = (random.below(100), random.below(30));
            let mut statuses: Vec<Option<u64>> = (0..random.below(200))
                .map(|_| {
                    now += random.below(30_000) as u64;
                    let late = if random.below(100) < reordering { random.below(200_000) as u64 } else { 0 };
                    (random.below(100) >= loss).then_some(now - late)
                })
                .collect();
            statuses.push(Some(now));
            let head = TransportCcHead {
                sender: Ssrc(1),
                media: Ssrc(2),
                base: SeqNo(random.next() as u16),
                feedback_count: random.next() as u8,
            };
            let mut out = [0; 2000];
            let written = rtcp::write_transport_cc(&mut out, &head, statuses.iter().copied()).unwrap();
            assert_eq!(usize::from(written.statuses), statuses.len());
            let feedback = theirs::<TransportLayerCc>(&out[..written.len]);
            let first = statuses.iter().flatten().next().unwrap();
            assert_eq!(
                (feedback.base_sequence_number, feedback.fb_pkt_count, u64::from(feedback.reference_time)),
                (head.base.0, head.feedback_count, first / 64_000 % (1 << 24))
            );
            let reference_us = (first / 64_000 * 64_000) as i64;
            let expected: Vec<_> =
                statuses.iter().map(|s| s.map(|us| (us / 250 * 250) as i64 - reference_us)).collect();
            assert_eq!(their_statuses(&feedback), expected);
            with_ours(&feedback, |packet| {
                let RtcpPacket::TransportCc(ours) = packet else { panic!("{packet:?}") };
                assert!(ours.statuses().map(|(_, arrival)| arrival).eq(expected.iter().copied()));
                let numbers = (0..statuses.len() as u16).map(|n| head.base + n);
                assert!(ours.statuses().map(|(number, _)| number).eq(numbers));
            });
        });
    }
}
