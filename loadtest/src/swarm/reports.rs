//! RTCP that clients send by the clock: reports once a second, transport-cc feedback, requests for lost packets.

use super::{SECOND, Swarm, Task};
use crate::client::rtcp::{self, BLOCKS_MAX, Block};
use crate::client::signaling::Direction;
use crate::client::transport::Transport;
use crate::schedule::Nanos;

const REPAIR_INTERVAL: Nanos = 40_000_000;

impl Swarm {
    pub(super) fn report(&mut self, at: usize, due: Nanos, now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        if transport.closed {
            return;
        }
        match transport.direction {
            Direction::Send => self.send_sender_reports(at, now),
            Direction::Receive => self.send_receiver_reports(at, now),
        }
        self.schedule.push(due + SECOND, Task::Report { transport: at });
    }

    fn send_sender_reports(&mut self, at: usize, now: Nanos) {
        let ntp = self.clock.ntp(now);
        let Some(transport) = &mut self.transports[at] else { return };
        let cname = format!("load{}", transport.participant);
        let mut reports = Vec::new();
        for sending in transport.sendings.iter().filter(|sending| sending.source.has_begun()) {
            let timestamp = sending.source.timestamp_at(now);
            for (ssrc, packets, bytes) in sending.sent().filter(|(_, packets, _)| *packets > 0) {
                let mut compound = Vec::new();
                rtcp::sender_report(ssrc, ntp, timestamp, packets, bytes, &cname, &mut compound);
                reports.push(compound);
            }
        }
        for compound in reports {
            send(transport, compound);
        }
    }

    fn send_receiver_reports(&mut self, at: usize, now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        let cname = format!("load{}", transport.participant);
        let own = transport.own_ssrc;
        let mut blocks = Vec::new();
        let mut pictures_lost = Vec::new();
        for stream in transport.streams.iter_mut().filter(|stream| stream.has_started()) {
            let (fraction_lost, lost) = stream.loss_since_report();
            let (last_report, delay) = stream
                .last_report
                .map_or((0, 0), |(middle, heard)| (middle, (u128::from(now - heard) * 65_536 / 1_000_000_000) as u32));
            let highest = stream.highest_extended();
            blocks.push(Block { ssrc: stream.ssrc, fraction_lost, lost, highest, last_report, delay });
            if stream.video && !stream.has_key_frame {
                pictures_lost.push(stream.ssrc);
            }
        }
        if blocks.is_empty() {
            return;
        }
        for blocks in blocks.chunks(BLOCKS_MAX) {
            let mut compound = Vec::new();
            rtcp::receiver_report(own, blocks, &cname, &mut compound);
            send(transport, compound);
        }
        for ssrc in pictures_lost {
            let mut compound = Vec::new();
            rtcp::picture_loss(own, ssrc, &mut compound);
            send(transport, compound);
        }
    }

    pub(super) fn feedback(&mut self, at: usize, due: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        if transport.closed {
            return;
        }
        let arrivals = transport.arrivals.take();
        if !arrivals.is_empty() {
            let (own, media) = (transport.own_ssrc, transport.arrivals.media_ssrc);
            let mut compound = Vec::new();
            rtcp::transport_cc(own, media, transport.arrivals.feedback_count, &arrivals, &mut compound);
            transport.arrivals.feedback_count = transport.arrivals.feedback_count.wrapping_add(1);
            send(transport, compound);
        }
        self.feedback_again(at, due);
    }

    /// Asks for what is missing, and goes on while anything is that was not asked for often enough.
    pub(super) fn repair(&mut self, at: usize, now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        let mut requests = Vec::new();
        for stream in transport.streams.iter_mut().filter(|stream| stream.video && stream.has_started()) {
            let missing = stream.ask();
            if !missing.is_empty() {
                let mut compound = Vec::new();
                rtcp::nack(transport.own_ssrc, stream.ssrc, &missing, &mut compound);
                self.measures.now.nacked += missing.len() as u64;
                requests.push(compound);
            }
        }
        transport.repairing = !requests.is_empty();
        if transport.repairing {
            self.schedule.push(now + REPAIR_INTERVAL, Task::Repair { transport: at });
        }
        for compound in requests {
            send(transport, compound);
        }
    }
}

/// Seals and sends a compound; what the socket does not take is lost, as on any network.
fn send(transport: &mut Transport, mut compound: Vec<u8>) {
    if let Some(keys) = &mut transport.keys {
        keys.send.seal_rtcp(&mut compound);
        drop(transport.socket.send(&compound));
    }
}
