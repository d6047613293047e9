//! What sockets bring: the way of a received datagram, from the kernel to a count.

use super::{Phase, Swarm, Task};
use crate::client::ice::Outcome;
use crate::client::rtcp::{self, Item};
use crate::client::srtp;
use crate::client::stream::{Seen, Stream};
use crate::client::stun;
use crate::client::transport::{Arrivals, Found, Transport};
use crate::measure::{self, Measures};
use crate::media::rtp::{self, Header};
use crate::media::stamp::Stamp;
use crate::media::vp8;
use crate::schedule::Nanos;
use crate::sys::Receiver;

/// A missing packet is asked for again after this long, in case it was only late.
const REORDERING: Nanos = 10_000_000;
/// A padded video packet that carries no more than this may be padding alone, which only opening it tells. Real frames that
/// small are rare.
const FILLER_BYTES_MAX: usize = 64;

impl Swarm {
    pub(super) fn receive_datagrams(&mut self, at: usize, receiver: &mut Receiver) {
        let Some(transport) = &mut self.transports[at] else { return };
        let runs = match receiver.receive(&transport.socket) {
            Ok(runs) => runs,
            Err(error) => {
                // ECONNREFUSED: the server's port is closed. Said once for each transport.
                if !std::mem::replace(&mut transport.closed, true) {
                    self.measures.fail(format!("receiving: {error}"));
                }
                return;
            }
        };
        let now = self.clock.now();
        self.measures.now.receive_calls += u64::from(runs > 0);
        self.measures.now.received_runs += runs as u64;
        for slot in 0..runs {
            let run = receiver.run(slot);
            let received_at = run.received_ns.map_or(now, |real| self.clock.of_kernel(real, now));
            for datagram in run.bytes.chunks_mut(run.segment_bytes) {
                if self.scenario.loss > 0.0 && self.random.share() < self.scenario.loss {
                    continue;
                }
                self.receive(at, datagram, received_at, now);
            }
        }
    }

    fn receive(&mut self, at: usize, datagram: &mut [u8], received_at: Nanos, now: Nanos) {
        self.measures.now.datagrams.add(datagram.len());
        match datagram.first() {
            Some(128..=191) if rtcp::is_rtcp(datagram) => self.receive_rtcp(at, datagram, now),
            Some(128..=191) => self.receive_rtp(at, datagram, received_at),
            Some(20..=63) => self.receive_dtls(at, datagram, now),
            Some(0..=3) if stun::is_stun(datagram) => self.receive_stun(at, datagram, now),
            _ => {}
        }
    }

    fn receive_stun(&mut self, at: usize, datagram: &[u8], now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        let Ok(from) = transport.socket.peer_addr() else { return };
        match transport.ice.receive(datagram, from, now) {
            Outcome::Nothing => {}
            Outcome::Answer(answer) => drop(transport.socket.send(&answer)),
            Outcome::Connected => self.ice_connected(at, now),
        }
    }

    fn receive_dtls(&mut self, at: usize, datagram: &[u8], now: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        let socket = &transport.socket;
        let progress = transport.handshake.receive(datagram, |flight| drop(socket.send(flight)));
        self.handshake_went_on(at, progress, now);
    }

    fn receive_rtcp(&mut self, at: usize, datagram: &mut [u8], now: Nanos) {
        let Some(Transport { keys: Some(keys), .. }) = &self.transports[at] else { return };
        let Ok(compound) = keys.receive.open_rtcp(datagram) else {
            self.measures.now.forged += 1;
            return;
        };
        for item in rtcp::read(compound) {
            match item {
                Item::KeyFrameRequest(ssrc) => self.key_frame_asked(at, ssrc),
                Item::Nack(ssrc, lost) => self.send_again(at, ssrc, &lost, now),
                Item::SenderReport(ssrc, middle) => {
                    if let Some(transport) = &mut self.transports[at]
                        && let Found::Media(stream) = transport.streams.find(ssrc)
                    {
                        stream.last_report = Some((middle, now));
                    }
                }
            }
        }
    }

    /// The hot path: every forwarded packet comes through here.
    fn receive_rtp(&mut self, at: usize, datagram: &mut [u8], received_at: Nanos) {
        let Some(transport) = &mut self.transports[at] else { return };
        let Transport { keys: Some(keys), streams, arrivals, participant, repairing, .. } = transport else { return };
        let Some(header) = Header::read(datagram) else { return };
        let totals = &mut self.measures.now;
        let bytes = datagram.len();
        note_arrival(arrivals, datagram, &header, received_at);
        let stream = match streams.find(header.ssrc) {
            Found::Media(stream) => stream,
            Found::Rtx(stream) => {
                let rollover = stream.rtx_rollover(header.sequence);
                match keys.receive.open_rtp(datagram, header.len, rollover) {
                    Err(_) => totals.forged += 1,
                    Ok(payload) => match without_padding(payload, header.padded) {
                        [high, low, media @ ..] if !media.is_empty() => {
                            totals.repairs.add(bytes);
                            let seen = stream.accept_repaired(u16::from_be_bytes([*high, *low]), media.len());
                            totals.arrived += u64::from(seen != Seen::Duplicate);
                        }
                        // Padding alone is a probe of the server's bandwidth estimate, not a packet that comes again.
                        _ => totals.probes.add(bytes),
                    },
                }
                return;
            }
            Found::Unknown => return totals.unknown.add(bytes),
        };
        let (newest, expected) = (stream.highest_extended(), stream.expected());
        let (seen, rollover) = stream.accept(&header, bytes);
        totals.expected += stream.expected() - expected;
        totals.arrived += u64::from(seen != Seen::Duplicate);
        let gap = seen == Seen::New && stream.counts.packets > 1 && stream.highest_extended() != newest + 1;
        if gap && self.scenario.nack && stream.video && !*repairing {
            *repairing = true;
            self.schedule.push(received_at + REORDERING, Task::Repair { transport: at });
        }

        let awaits_key_frame = stream.video && !stream.has_key_frame;
        let may_be_filler = stream.video && header.padded && bytes <= header.len + FILLER_BYTES_MAX + srtp::TAG_BYTES;
        let is_sample = self.measures.sampler.take() || !stream.opened || awaits_key_frame || may_be_filler;
        let mut payload: &[u8] = &[];
        if is_sample {
            match keys.receive.open_rtp(datagram, header.len, rollover) {
                Ok(opened) => payload = without_padding(opened, header.padded),
                Err(_) => return totals.forged += 1,
            }
            totals.opened += 1;
            if payload.is_empty() {
                stream.notice_filler();
                return totals.probes.add(bytes);
            }
        }
        totals.received.add(bytes);
        if !stream.video {
            totals.received_audio.add(bytes);
        } else if seen == Seen::New {
            let freezes = stream.counts.freezes;
            stream.notice_frame(header.timestamp, received_at);
            totals.freezes += stream.counts.freezes - freezes;
        }
        if !is_sample {
            return;
        }
        let participant = &mut self.participants[*participant];
        let (has_media, has_key_frame) = (&mut participant.has_media, &mut participant.has_key_frame);
        note_first(&mut self.measures, stream, payload, received_at, participant.due, has_media, has_key_frame);
        if let Some(stamp) = Stamp::read(payload).filter(|_| self.phase == Phase::Measuring) {
            let latency = received_at.saturating_sub(stamp.due);
            measure::record(&mut self.measures.forward, latency);
            measure::record(&mut self.measures.interval, latency);
        }
    }
}

fn note_arrival(arrivals: &mut Arrivals, datagram: &[u8], header: &Header, at: Nanos) {
    let Some(id) = arrivals.extension else { return };
    if let Some([high, low]) = rtp::extension(datagram, header, id) {
        arrivals.note(u16::from_be_bytes([*high, *low]), at);
    }
}

/// First media and first key frame of a participant.
fn note_first(
    measures: &mut Measures,
    stream: &mut Stream,
    payload: &[u8],
    at: Nanos,
    due: Nanos,
    has_media: &mut bool,
    has_key_frame: &mut bool,
) {
    stream.opened = true;
    if !*has_media {
        *has_media = true;
        measure::record(&mut measures.join.first_media, at.saturating_sub(due));
    }
    if stream.video && !stream.has_key_frame && vp8::begins_key_frame(payload) {
        stream.has_key_frame = true;
        if !*has_key_frame {
            *has_key_frame = true;
            measure::record(&mut measures.join.first_key_frame, at.saturating_sub(due));
        }
    }
}

/// RFC 3550 section 5.1: the last byte counts the padding, itself included.
fn without_padding(payload: &[u8], padded: bool) -> &[u8] {
    match payload.last() {
        Some(padding) if padded => &payload[..payload.len().saturating_sub(usize::from(*padding))],
        _ => payload,
    }
}
