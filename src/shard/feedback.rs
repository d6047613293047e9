//! RTCP that peers send: what receivers ask for and report, what senders say of their clocks.
//!
//! Each kind of packet has its own handler; what a handler decides is sent at the end of the tick or when its
//! policy says so. The work for one datagram is bounded by its bytes, whatever its counts claim.

use std::time::Instant;

use crate::discard::Discard;
use crate::ids::Ssrc;
use crate::limits::{RESENDS_PER_TICK, RESENDS_WAITING};
use crate::media::report::{Echo, Report};
use crate::media::spec::PROBATOR_SSRC;
use crate::packet::rtcp::{Fir, Nack, ReportBlock, RtcpPacket, SenderInfo, XrBlock, packets};
use crate::shard::Shard;
use crate::shard::consumer::Consumer;
use crate::shard::resend::Wanted;
use crate::shard::table::Key;
use crate::shard::transport::Transport;
use crate::shard::upkeep::REPORTER;
use crate::transport::srtp::SrtpError;

impl Shard {
    pub(super) fn receive_rtcp(&mut self, now: Instant, key: Key<Transport>, bytes: &mut [u8]) -> Result<(), Discard> {
        let transport = self.transports.at_mut(key).ok_or(Discard::UnknownSource)?;
        let keys = transport.keys.as_mut().ok_or(Discard::NoKeys)?;
        let len = keys.inbound.open_rtcp(bytes).map_err(|error| match error {
            SrtpError::Malformed => Discard::MalformedRtcp,
            SrtpError::Forged => Discard::Unauthenticated,
            SrtpError::Replayed => Discard::Replayed,
            SrtpError::TooManySsrcs => Discard::TooManyStreams,
        })?;
        transport.received.count(1, bytes.len(), now);
        for packet in packets(&bytes[..len]) {
            self.receive_control(now, key, packet.map_err(|_| Discard::MalformedRtcp)?);
        }
        self.arm(now, key);
        Ok(())
    }

    fn receive_control(&mut self, now: Instant, key: Key<Transport>, packet: RtcpPacket<'_>) {
        match packet {
            RtcpPacket::SenderReport(report) => {
                self.receive_sender_report(now, key, &report.info);
                report.reports().for_each(|block| self.receive_report(now, key, &block));
            }
            RtcpPacket::ReceiverReport(report) => {
                report.reports().for_each(|block| self.receive_report(now, key, &block));
            }
            RtcpPacket::Nack(nack) => self.receive_nack(key, &nack),
            RtcpPacket::Pli(pli) => self.receive_picture_loss(now, key, pli.media),
            RtcpPacket::Fir(fir) => self.receive_full_intra_request(now, key, &fir),
            RtcpPacket::ExtendedReport(report) => {
                let Some(transport) = self.transports.at_mut(key) else { return };
                for block in report.blocks() {
                    match block {
                        XrBlock::ReceiverReferenceTime(ntp) => {
                            transport.note_reference_time(report.sender, Echo::new(ntp.0, now));
                        }
                        XrBlock::Dlrr(dlrr) => {
                            let own = dlrr.reports().filter(|answer| answer.ssrc == REPORTER);
                            own.for_each(|answer| transport.reference_answered(&answer, now));
                        }
                        XrBlock::Other(_) => {}
                    }
                }
            }
            RtcpPacket::TransportCc(feedback) => self.receive_transport_cc(now, key, &feedback),
            RtcpPacket::Remb(remb) => self.receive_remb(now, key, remb.bitrate_bps),
            // Sources are named and ended by signaling.
            RtcpPacket::SourceDescription(_) | RtcpPacket::Goodbye(_) | RtcpPacket::Other { .. } => {}
        }
    }

    /// A sender's clock: aligns the layers of a source, and the sound with the picture.
    fn receive_sender_report(&mut self, now: Instant, key: Key<Transport>, info: &SenderInfo) {
        let Some(stream) = self.transports.at(key).and_then(|transport| transport.stream(info.ssrc)) else { return };
        if stream.is_rtx {
            return;
        }
        if let Some(producer) = self.producers.at_mut(stream.producer) {
            let layer = &mut producer.layers[stream.layer as usize];
            layer.reception.sender_report(info.ntp.0, info.rtp_timestamp, now);
        }
    }

    /// What a receiver says of a stream that it gets.
    fn receive_report(&mut self, now: Instant, key: Key<Transport>, block: &ReportBlock) {
        let Some((consumer_key, _)) = self.receiver_of(key, block.ssrc) else { return };
        let Some(consumer) = self.consumers.at_mut(consumer_key) else { return };
        if consumer.ssrc != block.ssrc {
            return;
        }
        let report = Report {
            fraction_lost: block.fraction_lost,
            cumulative_lost: block.cumulative_lost,
            highest_sequence: block.highest_sequence,
            jitter: block.jitter,
            last_sender_report: block.last_sr,
            delay_since_sender_report: block.delay_since_last_sr,
        };
        let rtt = consumer.transmission.receiver_report(&report, now);
        let lost = consumer.transmission.fraction_lost();
        let Some(transport) = self.transports.at_mut(key) else { return };
        transport.rtt = rtt.or(transport.rtt);
        if let Some(estimator) = &mut transport.estimator {
            estimator.receiver_report(lost, rtt);
        }
    }

    fn receive_nack(&mut self, key: Key<Transport>, nack: &Nack<'_>) {
        let Some((consumer_key, consumer)) = self.receiver_of(key, nack.media) else {
            return self.note_probator(nack.media);
        };
        consumer.rest.nacks += 1;
        let Some(transport) = self.transports.at_mut(key) else { return };
        // One receiver takes no more than its share of a tick, so that the others get theirs.
        let room = RESENDS_WAITING.saturating_sub(transport.resends_waiting);
        let room = room.min(RESENDS_PER_TICK.saturating_sub(self.resends.len()));
        let mut asked = 0;
        for sequence in nack.lost() {
            asked += 1;
            if asked <= room {
                let sequence = sequence.0;
                self.resends.push(Wanted { transport: key, consumer: consumer_key, sequence, is_lost: false });
            }
        }
        transport.resends_waiting += asked.min(room);
        self.discards.add(Discard::ResendRefused, asked.saturating_sub(room) as u64);
        self.repairs.downlink_packets_asked += asked as u64;
        if let Some(consumer) = self.consumers.at_mut(consumer_key) {
            consumer.rest.nacked_packets += asked as u64;
        }
    }

    fn receive_picture_loss(&mut self, now: Instant, key: Key<Transport>, media: Ssrc) {
        let Some((consumer_key, consumer)) = self.receiver_of(key, media) else { return self.note_probator(media) };
        consumer.rest.plis += 1;
        self.ask_key_frame(now, consumer_key);
    }

    fn receive_full_intra_request(&mut self, now: Instant, key: Key<Transport>, fir: &Fir<'_>) {
        for (media, sequence) in fir.requests() {
            let Some((consumer_key, consumer)) = self.receiver_of(key, media) else {
                self.note_probator(media);
                continue;
            };
            // A repetition carries the number of its original (RFC 5104 section 4.3.1).
            if consumer.rest.last_fir_sequence.replace(sequence) != Some(sequence) {
                consumer.rest.firs += 1;
                self.ask_key_frame(now, consumer_key);
            }
        }
    }

    /// Feedback that names no consumer: a client's video engine asks for what the probator lost, and for its key frame.
    fn note_probator(&mut self, media: Ssrc) {
        if media == PROBATOR_SSRC {
            self.discards.count(Discard::ProbatorAsked);
        }
    }

    /// The consumer that is sent on this transport under an SSRC.
    fn receiver_of(&mut self, key: Key<Transport>, ssrc: Ssrc) -> Option<(Key<Consumer>, &mut Consumer)> {
        let consumer = *self.transports.at(key)?.sent_ssrcs.get(&ssrc)?;
        Some((consumer, self.consumers.at_mut(consumer)?))
    }
}
