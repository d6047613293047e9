//! The far end of a receiver in a live call: reads what it gets and answers as a browser does.
//!
//! Transport-wide feedback every third frame (100 ms), a report each second, a NACK of one packet in
//! two hundred, a connectivity check each 2.5 s; all of it at thirty frames a second and in turns with the other receivers.
//! Each packet arrives after the time that it says it left at, through a link of 100 Mbit/s: probes arrive as fast as they left.

use ringside::ids::Ssrc;
use ringside::limits::DATAGRAM_BYTES;
use ringside::packet::extension::Extension;
use ringside::packet::rtcp::{
    ReportBlock, RtcpPacket, TransportCcHead, packets, write_nack, write_receiver_report, write_transport_cc,
};
use ringside::packet::rtp::RtpHeader;
use ringside::packet::seq::SeqNo;
use ringside::transport::srtp::{Inbound, Keys, Outbound};

pub const FRAME_US: u64 = 33_333;
const FRAMES_PER_FEEDBACK: u64 = 3;
const FRAMES_PER_REPORT: u64 = 30;
const FRAMES_PER_CHECK: u64 = 75;
const PACKETS_PER_LOSS: u64 = 200;
/// One way.
const DELAY_US: u64 = 20_000;
/// Of the link, in bits per microsecond.
const LINK_MBPS: u64 = 100;
const OWN_SSRC: Ssrc = Ssrc(1);

pub struct Receiver {
    turn: u64,
    inbound: Inbound,
    outbound: Outbound,
    check: Vec<u8>,
    /// Transport-wide numbers since the last feedback, with the arrivals of those that were not lost.
    wide: Vec<(SeqNo, Option<u64>)>,
    asked: Vec<SeqNo>,
    media: Ssrc,
    newest: u16,
    /// When the last packet left and the link was free again, by the time of sending; unwrapped.
    left_us: u64,
    free_us: u64,
    /// Middle of the last sender report, and when it came.
    last_report: (u32, u64),
    feedbacks: u8,
    /// Packets of the source's stream, sent again, of padding, compounds of RTCP.
    pub forwarded: u64,
    pub resent: u64,
    pub padding: u64,
    pub reports: u64,
}

impl Receiver {
    pub fn new(at: usize, keys: &Keys, check: &[u8]) -> Receiver {
        Receiver {
            turn: at as u64,
            inbound: Inbound::new(keys),
            outbound: Outbound::new(keys),
            check: check.to_vec(),
            wide: Vec::new(),
            asked: Vec::new(),
            media: Ssrc(0),
            newest: 0,
            left_us: 0,
            free_us: 0,
            last_report: (0, 0),
            feedbacks: 0,
            forwarded: 0,
            resent: 0,
            padding: 0,
            reports: 0,
        }
    }

    pub fn take(&mut self, datagram: &mut [u8], frame: u64) {
        let now_us = frame * FRAME_US + DELAY_US;
        match datagram {
            [0..0x80, ..] => {}
            [_, 192..=223, ..] => {
                self.reports += 1;
                let len = self.inbound.open_rtcp(datagram).expect("authentic RTCP");
                for packet in packets(&datagram[..len]) {
                    if let Ok(RtcpPacket::SenderReport(report)) = packet {
                        self.last_report = ((report.info.ntp.0 >> 16) as u32, now_us);
                    }
                }
            }
            _ => {
                let header = RtpHeader::parse(datagram).expect("RTP");
                let is_media = header.payload_type == 101;
                let mut is_lost = false;
                if is_media {
                    self.forwarded += 1;
                    (self.media, self.newest) = (header.ssrc, header.sequence.0);
                    is_lost = (self.forwarded + 4 * self.turn).is_multiple_of(PACKETS_PER_LOSS);
                    self.asked.extend(is_lost.then_some(header.sequence));
                } else if datagram[0] & 0x20 != 0 {
                    self.padding += 1;
                } else {
                    self.resent += 1;
                }
                let wide = header.extensions(datagram).find(|(id, _)| *id == Extension::TransportCc.router_id());
                let bytes = wide.expect("a transport-wide number").1.try_into().expect("two bytes");
                let arrived = self.arrival_us(&header, datagram);
                self.wide.push((SeqNo(u16::from_be_bytes(bytes)), (!is_lost).then_some(arrived)));
            }
        }
    }

    fn arrival_us(&mut self, header: &RtpHeader, datagram: &[u8]) -> u64 {
        let time = header.extensions(datagram).find(|(id, _)| *id == Extension::AbsSendTime.router_id());
        let bytes: [u8; 3] = time.expect("a time of sending").1.try_into().expect("three bytes");
        let fraction = u64::from(u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]));
        // 6 bits of seconds and 18 of their parts.
        let (sent_us, round_us) = ((fraction * 1_000_000) >> 18, 64_000_000);
        self.left_us += (sent_us + round_us - self.left_us % round_us) % round_us;
        self.free_us = self.free_us.max(self.left_us) + datagram.len() as u64 * 8 / LINK_MBPS;
        self.free_us + DELAY_US
    }

    /// What it sends in this frame's time.
    pub fn answers(&mut self, frame: u64, mut send: impl FnMut(&[u8])) {
        let turn = frame + self.turn;
        let now_us = frame * FRAME_US + DELAY_US;
        let mut out = [0; DATAGRAM_BYTES];
        if turn.is_multiple_of(FRAMES_PER_FEEDBACK) && !self.wide.is_empty() {
            let (base, media) = (self.wide[0].0, self.media);
            self.feedbacks = self.feedbacks.wrapping_add(1);
            let head = TransportCcHead { sender: OWN_SSRC, media, base, feedback_count: self.feedbacks };
            let statuses = self.wide.iter().map(|(_, arrived)| *arrived);
            let written = write_transport_cc(&mut out, &head, statuses);
            if let Some(written) = written {
                send(seal(&mut self.outbound, &mut out, written.len));
            }
            self.wide.clear();
        }
        if !self.asked.is_empty() {
            let len = write_nack(&mut out, OWN_SSRC, self.media, self.asked.drain(..)).expect("room");
            send(seal(&mut self.outbound, &mut out, len));
        }
        if turn.is_multiple_of(FRAMES_PER_REPORT) {
            let (last_sr, came_us) = self.last_report;
            let block = ReportBlock {
                ssrc: self.media,
                fraction_lost: 1,
                cumulative_lost: (self.forwarded / PACKETS_PER_LOSS) as i32,
                highest_sequence: self.newest.into(),
                jitter: 20,
                last_sr,
                delay_since_last_sr: ((now_us - came_us.min(now_us)) * 65_536 / 1_000_000) as u32,
            };
            let len = write_receiver_report(&mut out, OWN_SSRC, [block]).expect("room");
            send(seal(&mut self.outbound, &mut out, len));
        }
        if turn.is_multiple_of(FRAMES_PER_CHECK) {
            send(&self.check);
        }
    }
}

fn seal<'a>(outbound: &mut Outbound, out: &'a mut [u8], len: usize) -> &'a [u8] {
    let len = outbound.seal_rtcp(out, len).expect("room");
    &out[..len]
}
