//! What is due to be sent: frames of sources, connectivity checks, DTLS flights.

use super::{RUN_PACKETS, SECOND, Swarm, Task};
use crate::client::dtls::Progress;
use crate::client::sending::{Moment, PACKET_BYTES_MAX};
use crate::client::signaling::Direction;
use crate::client::transport::{Keys, Transport};
use crate::measure;
use crate::media::source::Class;
use crate::scenario::Feedback;
use crate::schedule::Nanos;
use crate::sys;

/// Interval of transport-cc feedback, as libwebrtc has it.
const FEEDBACK_INTERVAL: Nanos = 100_000_000;

/// Packets that are sent again within a moment; beyond it no more than are sent for the first time, as libwebrtc's rate
/// limiter has it: a server that is late does not make its clients send many times what they have to say.
const RESENDS_AT_ONCE: u32 = 64;

impl Swarm {
    /// Starts sources of a connected transport that may send and do not yet, each at a phase of its own.
    pub(super) fn begin_sending(&mut self, at: usize) {
        let now = self.clock.now();
        let Some(transport) = &mut self.transports[at] else { return };
        if transport.keys.is_none() {
            return;
        }
        for (place, sending) in transport.sendings.iter_mut().enumerate() {
            if sending.may_send && !sending.source.has_begun() {
                let phase = self.random.below(sending.source.interval());
                sending.source.begin(now + phase);
                self.schedule.push(now + phase, Task::Frame { transport: at, sending: place });
            }
        }
    }

    /// Sends everything of a source that is due, and says when to come again.
    pub(super) fn send_frames(&mut self, at: usize, place: usize, now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        let participant = &self.participants[transport.participant];
        let speaks = self.turns.speaks(participant.room, participant.index);
        let Transport { sendings, keys, socket, transport_cc, resends_left, .. } = transport;
        let (Some(keys), Some(sending)) = (keys, sendings.get_mut(place)) else { return };
        while sending.source.due() <= now {
            self.drafts.clear();
            sending.source.next_frame(speaks, &mut self.drafts);
            sending.queue.extend(self.drafts.drain(..));
        }

        let segmented = sending.source.segmented();
        let with_cc = self.scenario.feedback == Feedback::TransportCc;
        let mut run = Run::default();
        while let Some(draft) = sending.queue.pop_front_if(|draft| draft.due <= now) {
            let sent_at = self.clock.now();
            let number = if with_cc { Some(&mut *transport_cc) } else { None };
            let moment = Moment { now: sent_at, transport_cc: number, keys: &keys.send };
            let len = sending.write(&draft, moment, &mut self.scratch[run.len..run.len + PACKET_BYTES_MAX]);
            measure::record(&mut self.measures.lag, sent_at - draft.due);
            self.measures.now.sent_packets += 1;
            *resends_left = (*resends_left + 1).min(RESENDS_AT_ONCE);
            self.measures.now.sent_bytes += len as u64;
            if self.scenario.loss > 0.0 && self.random.share() < self.scenario.loss {
                continue;
            }
            if !segmented {
                self.measures.now.send_failures += u64::from(socket.send(&self.scratch[..len]).is_err());
                continue;
            }
            if run.packets > 0 && (len != run.segment || run.packets == RUN_PACKETS) {
                let sent = sys::send_run(socket, &self.scratch[..run.len], run.segment as u16);
                self.measures.now.send_failures += u64::from(sent.is_err());
                self.scratch.copy_within(run.len..run.len + len, 0);
                run = Run::default();
            }
            run = Run { packets: run.packets + 1, segment: len, len: run.len + len };
        }
        if run.packets > 0 {
            let sent = sys::send_run(socket, &self.scratch[..run.len], run.segment as u16);
            self.measures.now.send_failures += u64::from(sent.is_err());
        }
        let next = sending.source.due().min(sending.queue.front().map_or(Nanos::MAX, |draft| draft.due));
        self.schedule.push(next, Task::Frame { transport: at, sending: place });
    }

    /// A connectivity or consent check.
    pub(super) fn check(&mut self, at: usize, now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        if transport.closed {
            return;
        }
        match transport.ice.poll(now) {
            Some(request) => {
                drop(transport.socket.send(&request));
                self.schedule.push(transport.ice.next_at, Task::Ice { transport: at });
            }
            None => {
                transport.closed = true;
                self.measures.fail("the server stopped answering consent checks".into());
            }
        }
    }

    /// ICE has found the server: begin the handshake, if it is ours to begin.
    pub(super) fn ice_connected(&mut self, at: usize, now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        if transport.direction == Direction::Receive
            || !self.scenario.receives(self.participants[transport.participant].index)
        {
            measure::record(&mut self.measures.join.ice, now - self.participants[transport.participant].due);
        }
        self.handshake_timeout(at, now);
    }

    pub(super) fn handshake_timeout(&mut self, at: usize, now: Nanos) {
        let instant = self.clock.instant(now);
        let Some(transport) = &mut self.transports[at] else { return };
        if transport.keys.is_some() || transport.closed || transport.handshake.next_at.is_some_and(|at| at > instant) {
            return;
        }
        let socket = &transport.socket;
        let progress = transport.handshake.handle_timeout(instant, |datagram| drop(socket.send(datagram)));
        self.handshake_went_on(at, progress, now);
    }

    pub(super) fn handshake_went_on(&mut self, at: usize, progress: Progress, now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        match progress {
            Progress::Going => {
                if let Some(next) = transport.handshake.next_at.filter(|_| transport.keys.is_none()) {
                    self.schedule.push(self.clock.of_instant(next), Task::Dtls { transport: at });
                }
            }
            Progress::Closed => transport.closed = true,
            Progress::Failed(why) => {
                transport.closed = true;
                self.measures.fail(format!("DTLS: {why}"));
            }
            Progress::Keys { profile, send, receive } => {
                self.profile = profile;
                transport.keys = Some(Keys { profile, send: *send, receive: *receive });
                transport.connected_at = Some(now);
                let due = self.participants[transport.participant].due;
                measure::record(&mut self.measures.join.dtls, now - due);
                let phase = self.random.below(SECOND);
                self.schedule.push(now + phase, Task::Report { transport: at });
                if transport.direction == Direction::Receive && self.scenario.feedback == Feedback::TransportCc {
                    let phase = self.random.below(FEEDBACK_INTERVAL);
                    self.schedule.push(now + phase, Task::Feedback { transport: at });
                }
                self.begin_sending(at);
            }
        }
    }

    /// The server asks for packets again.
    pub(super) fn send_again(&mut self, at: usize, ssrc: u32, lost: &[u16], now: Nanos) {
        let Some(Transport { sendings, keys: Some(keys), socket, transport_cc, resends_left, .. }) =
            &mut self.transports[at]
        else {
            return;
        };
        let Some(sending) = sendings.iter_mut().find(|sending| sending.layer_of(ssrc).is_some()) else { return };
        for sequence in lost {
            if *resends_left == 0 {
                break;
            }
            let with_cc = self.scenario.feedback == Feedback::TransportCc;
            let number = if with_cc { Some(&mut *transport_cc) } else { None };
            let moment = Moment { now, transport_cc: number, keys: &keys.send };
            if let Some(len) = sending.write_again(ssrc, *sequence, moment, &mut self.scratch) {
                *resends_left -= 1;
                self.measures.now.resent += 1;
                if self.scenario.loss > 0.0 && self.random.share() < self.scenario.loss {
                    continue;
                }
                drop(socket.send(&self.scratch[..len]));
            }
        }
    }

    pub(super) fn key_frame_asked(&mut self, at: usize, ssrc: u32) {
        let Some(transport) = &mut self.transports[at] else { return };
        self.measures.now.key_frames_asked += 1;
        for sending in &mut transport.sendings {
            if let Some(layer) = sending.layer_of(ssrc).filter(|_| sending.source.class != Class::Microphone) {
                sending.source.want_key_frame(layer);
            }
        }
    }

    pub(super) fn feedback_again(&mut self, at: usize, due: Nanos) {
        self.schedule.push(due + FEEDBACK_INTERVAL, Task::Feedback { transport: at });
    }
}

/// Packets of equal size at the start of the scratch buffer.
#[derive(Default)]
struct Run {
    packets: usize,
    segment: usize,
    len: usize,
}
