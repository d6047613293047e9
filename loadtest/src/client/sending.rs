//! One source on its way out: RTP headers, stamps, sealing, and what is needed to answer a NACK. Sans-IO: drafts in,
//! datagrams out.

use std::collections::VecDeque;

use super::signaling::{OPUS, OfferedSource, VP8, VP8_RTX};
use super::srtp;
use crate::media::rtp::{HeaderWriter, abs_send_time, extension_id};
use crate::media::source::{Class, Draft, Source};
use crate::media::stamp::Stamp;
use crate::schedule::Nanos;

/// Bytes that hold any packet of ours: header, extensions, payload, tag.
pub const PACKET_BYTES_MAX: usize = 1500;
/// mid and rid are sent for this long, as Chromium does until it hears reports.
const NAMES_SENT_FOR: Nanos = 2_000_000_000;
/// Packets per layer that can be sent again.
const HISTORY: usize = 512;

pub struct Sending {
    pub source: Source,
    pub may_send: bool,
    /// Number of this source in the whole load test; part of the stamp.
    number: u32,
    offered: OfferedSource,
    layers: Vec<Layer>,
    /// Cut, not yet due.
    pub queue: VecDeque<Draft>,
    first_sent: Option<Nanos>,
    keeps_history: bool,
}

struct Layer {
    /// Rollover counter and 16 bits.
    sequence: u64,
    rtx_sequence: u64,
    packets: u32,
    bytes: u32,
    history: VecDeque<(u16, Draft, u32)>,
}

/// The moment, and the transport's counters, that a packet is written with.
pub struct Moment<'a> {
    pub now: Nanos,
    /// Next transport-wide sequence number, where that extension is agreed.
    pub transport_cc: Option<&'a mut u16>,
    pub keys: &'a srtp::Context,
}

impl Sending {
    pub fn new(source: Source, number: u32, offered: OfferedSource, keeps_history: bool) -> Sending {
        // Below the middle, so that no stream wraps before its receivers know it.
        let layer = |place: usize| Layer {
            sequence: u64::from((number.wrapping_mul(977) as u16) & 0x7fff) + place as u64,
            rtx_sequence: 1,
            packets: 0,
            bytes: 0,
            history: VecDeque::new(),
        };
        let layers = (0..offered.ssrcs.len()).map(layer).collect();
        Sending {
            source,
            may_send: false,
            number,
            offered,
            layers,
            queue: VecDeque::new(),
            first_sent: None,
            keeps_history,
        }
    }

    /// Writes a draft as a sealed packet and returns its length.
    pub fn write(&mut self, draft: &Draft, moment: Moment<'_>, out: &mut [u8]) -> usize {
        let layer = &mut self.layers[draft.layer];
        layer.sequence += 1;
        let (sequence, count) = (layer.sequence, layer.packets);
        layer.packets = layer.packets.wrapping_add(1);
        layer.bytes = layer.bytes.wrapping_add(draft.payload_bytes as u32);
        if self.keeps_history && draft.frame.is_some() {
            if layer.history.len() == HISTORY {
                layer.history.pop_front();
            }
            layer.history.push_back((sequence as u16, *draft, count));
        }
        let payload_type = if self.source.class == Class::Microphone { OPUS } else { VP8 };
        let ssrc = self.offered.ssrcs[draft.layer];
        let keys = moment.keys;
        let header_len = self.header(draft, payload_type, sequence as u16, ssrc, false, moment, out);
        let len = header_len + draft.payload_bytes;
        self.payload(draft, count, &mut out[header_len..len]);
        keys.seal_rtp(out, header_len, len, (sequence >> 16) as u32)
    }

    /// Writes a packet that is asked for again as RTX (RFC 4588). `None` when it is too old.
    pub fn write_again(&mut self, ssrc: u32, sequence: u16, moment: Moment<'_>, out: &mut [u8]) -> Option<usize> {
        let place = self.offered.ssrcs.iter().position(|own| *own == ssrc)?;
        let rtx_ssrc = *self.offered.rtx_ssrcs.get(place)?;
        let layer = &mut self.layers[place];
        let (_, draft, count) = *layer.history.iter().rev().find(|(number, ..)| *number == sequence)?;
        layer.rtx_sequence += 1;
        let rtx_sequence = layer.rtx_sequence;
        let keys = moment.keys;
        let header_len = self.header(&draft, VP8_RTX, rtx_sequence as u16, rtx_ssrc, true, moment, out);
        out[header_len..header_len + 2].copy_from_slice(&sequence.to_be_bytes());
        let len = header_len + 2 + draft.payload_bytes;
        self.payload(&draft, count, &mut out[header_len + 2..len]);
        Some(keys.seal_rtp(out, header_len, len, (rtx_sequence >> 16) as u32))
    }

    /// SSRC, packets and payload bytes of each layer, for sender reports.
    pub fn sent(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        self.layers.iter().zip(&self.offered.ssrcs).map(|(layer, ssrc)| (*ssrc, layer.packets, layer.bytes))
    }

    pub fn layer_of(&self, ssrc: u32) -> Option<usize> {
        self.offered.ssrcs.iter().position(|own| *own == ssrc)
    }

    fn header(
        &mut self,
        draft: &Draft,
        payload_type: u8,
        sequence: u16,
        ssrc: u32,
        again: bool,
        moment: Moment<'_>,
        out: &mut [u8],
    ) -> usize {
        let first_sent = *self.first_sent.get_or_insert(moment.now);
        let mut header = HeaderWriter::new(out, payload_type, draft.marker, sequence, draft.timestamp, ssrc)
            .extension(extension_id::ABS_SEND_TIME, &abs_send_time(moment.now));
        if let Some(next) = moment.transport_cc {
            header = header.extension(extension_id::TRANSPORT_CC, &next.to_be_bytes());
            *next = next.wrapping_add(1);
        }
        if again || moment.now < first_sent + NAMES_SENT_FOR {
            header = header.extension(extension_id::MID, self.offered.mid.as_bytes());
            if let Some(rid) = self.offered.rids.get(draft.layer) {
                let id = if again { extension_id::REPAIRED_RTP_STREAM_ID } else { extension_id::RTP_STREAM_ID };
                header = header.extension(id, rid.as_bytes());
            }
        }
        if let Some(level) = draft.audio_level {
            // RFC 6464: the top bit says that this is voice.
            let voice = if level < 100 { 0x80 } else { 0 };
            header = header.extension(extension_id::AUDIO_LEVEL, &[voice | level]);
        }
        header.finish()
    }

    fn payload(&self, draft: &Draft, count: u32, payload: &mut [u8]) {
        payload.fill(0xfc);
        if let Some(frame) = &draft.frame {
            frame.write(draft.first, payload);
        }
        Stamp { due: draft.due, source: self.number, number: count }.write(payload);
    }
}

#[cfg(test)]
mod tests {
    use dimpl::SrtpProfile;

    use super::*;
    use crate::media::rtp::{Header, extension};
    use crate::random::Random;
    use crate::scenario::Scenario;

    #[test]
    fn a_packet_that_is_asked_for_again_carries_the_same_payload() {
        let scenario = Scenario::parse("rooms = 1\nparticipants = 1\n[camera]\n").unwrap();
        let mut source = Source::video(Class::Camera, &scenario.camera.unwrap(), &mut Random::new(1, 1));
        source.begin(0);
        let offered = OfferedSource {
            class: Class::Camera,
            mid: "1".into(),
            ssrcs: vec![10, 11, 12],
            rtx_ssrcs: vec![20, 21, 22],
            rids: source.rids(),
        };
        let mut sending = Sending::new(source, 5, offered, true);
        let exported: Vec<u8> = (0..88).collect();
        let (keys, _) = srtp::contexts(SrtpProfile::AEAD_AES_256_GCM, &exported, true).unwrap();
        let (_, opening) = srtp::contexts(SrtpProfile::AEAD_AES_256_GCM, &exported, false).unwrap();
        let mut drafts = Vec::new();
        sending.source.next_frame(false, &mut drafts);
        let draft = drafts.into_iter().rfind(|draft| draft.layer == 2).unwrap();
        let mut out = vec![0; PACKET_BYTES_MAX];
        let mut number = 7;
        let len = sending.write(&draft, Moment { now: 1, transport_cc: Some(&mut number), keys: &keys }, &mut out);
        let header = Header::read(&out[..len]).unwrap();
        assert_eq!((header.ssrc, number), (12, 8));
        assert_eq!(extension(&out, &header, extension_id::RTP_STREAM_ID), Some(&b"r2"[..]));
        let first = opening.open_rtp(&mut out[..len], header.len, 0).unwrap().to_vec();
        assert_eq!(Stamp::read(&first).unwrap().source, 5);

        let moment = Moment { now: 2, transport_cc: None, keys: &keys };
        let len = sending.write_again(12, header.sequence, moment, &mut out).unwrap();
        let again = Header::read(&out[..len]).unwrap();
        assert_eq!(again.ssrc, 22);
        let payload = opening.open_rtp(&mut out[..len], again.len, 0).unwrap();
        assert_eq!(payload[..2], header.sequence.to_be_bytes());
        assert_eq!(payload[2..], first);
    }
}
