//! Reports that Ringside sends: what arrived (to senders), what was sent and when (to receivers), and the
//! arrival times that a sender's bandwidth estimate needs.

use std::time::{Duration, Instant};

use crate::ids::Ssrc;
use crate::limits::{REFERENCE_TIMES, RTCP_BYTES, TRANSPORT_CC_PER_REPORT};
use crate::media::report::{Echo, Report};
use crate::packet::ntp::Ntp;
use crate::packet::rtcp::{
    DlrrReport, ReportBlock, SenderInfo, TransportCcHead, write_dlrr, write_receiver_reference_time,
    write_receiver_report, write_remb, write_sender_report, write_source_description, write_transport_cc,
};
use crate::shard::Shard;
use crate::shard::consumer::Consumer;
use crate::shard::table::Key;
use crate::shard::transport::Transport;
use crate::shard::upkeep::REPORTER;

/// Between reports; browsers use about the same for video. Loss and round trips are known while they help.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Report blocks of one packet (RFC 3550 section 6.4.2).
const BLOCKS: usize = 31;

/// A sender report for a stream that was silent for longer would align nothing.
const SILENT: Duration = Duration::from_secs(10);

impl Shard {
    /// Tells a sender when its packets arrived (transport-wide congestion control).
    pub(super) fn send_transport_feedback(&mut self, now: Instant, key: Key<Transport>) {
        for _ in 0..TRANSPORT_CC_PER_REPORT {
            let Some(transport) = self.transports.at_mut(key) else { return };
            let Some(mut arrivals) = transport.arrivals.take() else { return };
            let media = transport.streams.first().map_or(REPORTER, |stream| stream.ssrc);
            let draft = arrivals.take(now);
            let is_last = draft.is_none();
            if let Some(draft) = draft {
                let head = TransportCcHead { sender: REPORTER, media, base: draft.base, feedback_count: draft.count };
                self.send_rtcp(now, key, |out| {
                    let statuses = draft.arrivals().map(|(_, at)| at.map(|at| at.as_micros() as u64));
                    Some(write_transport_cc(out, &head, statuses)?.len)
                });
            }
            if let Some(transport) = self.transports.at_mut(key) {
                transport.arrivals = Some(arrivals);
            }
            if is_last {
                return;
            }
        }
    }

    pub(super) fn send_reports(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        if transport.next_report.is_none_or(|at| at > now) {
            return;
        }
        let has_media = !transport.producers.is_empty() || !transport.consumers.is_empty();
        transport.next_report = has_media.then(|| now + REPORT_INTERVAL);
        if transport.keys.as_ref().is_some_and(|keys| keys.inbound.is_used()) {
            transport.dtls.settle();
        }
        self.check_sounds(now, key);
        self.trim_indices(key);
        self.send_receiver_report(now, key);
        self.send_uplink_limit(now, key);
        self.send_sender_reports(now, key);
    }

    /// One compound: what arrived of each layer, who says so, the answers to the peer's reference times, and a reference
    /// time that a sender answers: it reports on nothing, so the round trip to it is known by that alone.
    fn send_receiver_report(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        let mut references = std::mem::take(&mut transport.reference_times);
        let (mut blocks, mut count) = ([ReportBlock::default(); BLOCKS], 0);
        for producer_key in &transport.producers {
            let Some(producer) = self.producers.at_mut(*producer_key) else { continue };
            for layer in &mut producer.layers {
                let Some(ssrc) = layer.ssrc else { continue };
                let Some(report) = layer.reception.report_block(now) else { continue };
                if let Some(place) = blocks.get_mut(count) {
                    *place = block_of(ssrc, &report);
                    count += 1;
                }
            }
        }
        let (mut answers, answered) = ([DlrrReport::default(); REFERENCE_TIMES], references.len());
        for (place, (ssrc, time)) in answers.iter_mut().zip(references.drain(..)) {
            *place = DlrrReport { ssrc, last_rr: time.ntp_middle, delay_since_last_rr: time.delay(now) };
        }
        let time = Ntp::from_unix(self.clock.unix(now));
        if let Some(transport) = self.transports.at_mut(key) {
            transport.reference_times = references;
            if count > 0 {
                transport.own_references = [Some(Echo::new(time.0, now)), transport.own_references[0]];
            }
        }
        if count == 0 && answered == 0 {
            return;
        }
        self.send_rtcp(now, key, |out| {
            let mut at = write_receiver_report(out, REPORTER, blocks[..count].iter().copied())?;
            at += write_source_description(&mut out[at..], REPORTER, "ringside")?;
            if count > 0 {
                at += write_receiver_reference_time(&mut out[at..], REPORTER, time)?;
            }
            if answered > 0 {
                at += write_dlrr(&mut out[at..], REPORTER, &answers[..answered])?;
            }
            Some(at)
        });
    }

    /// A room's cap on what each peer sends, in the one form that every browser obeys.
    fn send_uplink_limit(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at(key) else { return };
        let Some(room) = self.rooms.at(transport.room) else { return };
        let Some(limit_bps) = room.settings.uplink_bitrate_bps else { return };
        let (mut ssrcs, mut count) = ([Ssrc::default(); BLOCKS], 0);
        for (place, stream) in ssrcs.iter_mut().zip(transport.streams.iter().filter(|stream| !stream.is_rtx)) {
            *place = stream.ssrc;
            count += 1;
        }
        if count > 0 {
            self.send_rtcp(now, key, |out| write_remb(out, REPORTER, u64::from(limit_bps), &ssrcs[..count]));
        }
    }

    /// Sender reports with the names of their sources, as many in each datagram as fit.
    fn send_sender_reports(&mut self, now: Instant, key: Key<Transport>) {
        let Some(transport) = self.transports.at_mut(key) else { return };
        // In a quiet room nobody's consumers are looked at.
        match transport.last_left {
            Some((packets, at)) if packets == transport.sent.packets => {
                if now.saturating_duration_since(at) > SILENT {
                    return;
                }
            }
            _ => transport.last_left = Some((transport.sent.packets, now)),
        }
        let (mut buffer, mut at) = ([0; RTCP_BYTES], 0);
        for position in 0..transport.consumers.len() {
            let Some(consumer) = self.transports.at(key).and_then(|t| t.consumers.get(position).copied()) else {
                break;
            };
            let Some(info) = self.sender_info(now, consumer) else { continue };
            let Some(cname) = self.consumers.at(consumer).map(|consumer| consumer.rest.cname.as_str()) else {
                continue;
            };
            let written = write_pair(&mut buffer[at..], &info, cname);
            match written {
                Some(len) => at += len,
                None => {
                    let again = std::mem::take(&mut at);
                    self.send_rtcp(now, key, |out| copy(out, &buffer[..again]));
                    let Some(consumer) = self.consumers.at(consumer) else { continue };
                    at = write_pair(&mut buffer, &info, &consumer.rest.cname).unwrap_or(0);
                }
            }
        }
        if at > 0 {
            self.send_rtcp(now, key, |out| copy(out, &buffer[..at]));
        }
    }

    /// The producer's own clock, carried on to now and into the consumer's timestamps: what two consumers of one
    /// peer say stays aligned (lip sync). Nothing is said before the producer did.
    fn sender_info(&mut self, now: Instant, key: Key<Consumer>) -> Option<SenderInfo> {
        let consumer = self.consumers.at_mut(key)?;
        let layer = consumer.selector.flowing()?;
        if now.saturating_duration_since(consumer.transmission.last_sent()?) > SILENT {
            return None;
        }
        let producer = self.producers.at(consumer.producer)?;
        let reference = producer.layers.get(layer as usize)?.reception.reference()?;
        let (ntp, timestamp) = reference.at(now, producer.clock_rate);
        let rtp_timestamp = consumer.timestamp_of(timestamp);
        let sent = consumer.transmission.sender_report(ntp, now);
        Some(SenderInfo {
            ssrc: consumer.ssrc,
            ntp: Ntp(ntp),
            rtp_timestamp,
            packets: sent.packets,
            octets: sent.octets,
        })
    }
}

fn write_pair(out: &mut [u8], info: &SenderInfo, cname: &str) -> Option<usize> {
    let at = write_sender_report(out, info, [])?;
    Some(at + write_source_description(&mut out[at..], info.ssrc, cname)?)
}

fn copy(out: &mut [u8], bytes: &[u8]) -> Option<usize> {
    out.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}

fn block_of(ssrc: Ssrc, report: &Report) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: report.fraction_lost,
        cumulative_lost: report.cumulative_lost,
        highest_sequence: report.highest_sequence,
        jitter: report.jitter,
        last_sr: report.last_sender_report,
        delay_since_last_sr: report.delay_since_sender_report,
    }
}
