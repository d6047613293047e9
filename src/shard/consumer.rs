//! One receiver's copy of a producer: which layer it gets, under which numbers, and how it fares.
//!
//! `accept` decides for each packet and says what it becomes; egress writes it. What the data path touches
//! stands first, what only reports and statistics need is boxed apart, so that a run over 500 consumers
//! walks few cache lines of each.

use std::time::{Duration, Instant};

use crate::discard::Discard;
use crate::ids::{ConsumerId, PeerId, ProducerId, Ssrc};
use crate::media::allocation::Grant;
use crate::media::header::HeaderLayout;
use crate::media::history::Packet;
use crate::media::report::Transmission;
use crate::media::rewriter::{NO_TOP, Rewrite, Rewriter, Skipped};
use crate::media::selector::{Choice, Selector};
use crate::media::spec::{ConsumerSpec, Feedback, Kind, Layers, Reason};
use crate::shard::producer::Producer;
use crate::shard::table::Key;
use crate::shard::transport::Transport;

/// How far the timestamp at a switch may be from what the time that has passed would make it: layers of one frame are
/// sent a few hundred ms apart at most. A receiver plays out by these timestamps, so a sender report that is wrong by an
/// hour, or a stream that starts over, would freeze its picture for as long.
const TIMESTAMP_SLACK: Duration = Duration::from_millis(500);

/// In the order in which a packet needs it: who it is for and what it becomes fill the first two lines of the cache.
#[repr(C)]
pub struct Consumer {
    pub transport: Key<Transport>,
    pub selector: Selector,
    pub paused: bool,
    /// Whether what is lost can leave again: on a stream for it.
    pub has_rtx: bool,
    pub ssrc: Ssrc,
    pub header: HeaderLayout,
    pub rewriter: Rewriter,
    pub transmission: Transmission,
    pub rest: Box<Rest>,
    pub producer: Key<Producer>,
    /// Of the layer that flows; the next one is aligned to it.
    timestamp_layer: Option<u8>,
}

/// What the data path does not touch.
pub struct Rest {
    pub id: ConsumerId,
    pub producer_id: ProducerId,
    pub peer: PeerId,
    pub kind: Kind,
    pub clock_rate: u32,
    pub mid: String,
    pub cname: String,
    pub feedback: Feedback,
    pub rtx: Option<Rtx>,
    pub priority: u8,
    /// What the bandwidth allows, and the memory of it.
    pub grant: Grant,
    /// It begins as soon as the next allocation says with what, if with anything.
    pub begins: bool,
    pub nacks: u64,
    pub nacked_packets: u64,
    pub resent: u64,
    pub plis: u64,
    pub firs: u64,
    pub last_fir_sequence: Option<u8>,
    pub told: Option<(Option<Layers>, Reason)>,
    pub told_score: Option<(u8, u8)>,
}

/// The retransmission stream of a consumer (RFC 4588).
pub struct Rtx {
    pub ssrc: Ssrc,
    pub header: HeaderLayout,
    /// Extended number of the last packet sent on it.
    pub sequence: u64,
    pub resent: Vec<(u16, Instant)>,
}

/// What becomes of a packet for this consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Send(Rewrite),
    /// Nothing of it is sent but its number: an empty packet that fills the hole it would leave.
    Fill(Rewrite),
    Discard(Discard),
}

impl Consumer {
    pub fn new(
        spec: ConsumerSpec,
        producer: &Producer,
        producer_key: Key<Producer>,
        transport: Key<Transport>,
        peer: PeerId,
        first_sequence: u16,
        first_rtx_sequence: u16,
    ) -> Self {
        let rtx = spec.rtx_ssrc.zip(spec.rtx_payload_type).map(|(ssrc, payload_type)| Rtx {
            ssrc,
            header: HeaderLayout::new(payload_type, ssrc, &spec.mid, spec.extensions),
            sequence: u64::from(first_rtx_sequence & 0x7fff),
            resent: Vec::new(),
        });
        Consumer {
            transport,
            producer: producer_key,
            selector: Selector::new(
                producer.needs_key_frame(),
                spec.preferred,
                producer.offer.declared().temporal,
                producer.is_layered(),
            ),
            rewriter: Rewriter::new(first_sequence),
            header: HeaderLayout::new(spec.payload_type, spec.ssrc, &spec.mid, spec.extensions),
            ssrc: spec.ssrc,
            paused: spec.paused,
            has_rtx: rtx.is_some(),
            timestamp_layer: None,
            transmission: Transmission::new(),
            rest: Box::new(Rest {
                id: spec.id,
                producer_id: spec.producer,
                peer,
                kind: producer.kind,
                clock_rate: producer.clock_rate,
                mid: spec.mid,
                cname: spec.cname,
                feedback: spec.feedback,
                rtx,
                priority: spec.priority,
                grant: Grant::default(),
                begins: false,
                nacks: 0,
                nacked_packets: 0,
                resent: 0,
                plis: 0,
                firs: 0,
                last_fir_sequence: None,
                told: None,
                told_score: None,
            }),
        }
    }

    /// Decides about one packet of `layer`. `producer` is only looked at where a layer begins.
    #[inline]
    pub fn accept(&mut self, layer: u8, packet: &Packet, producer: &Producer) -> Verdict {
        let choice = match self.selector.is_layered() {
            true => self.selector.accept_layered(packet, self.rewriter.is_behind(packet)),
            false => self.selector.accept(layer, packet),
        };
        match choice {
            Choice::Forward => {}
            Choice::SwitchAndForward => self.begin(layer, packet, producer),
            Choice::TurnAndForward => self.rewriter.turn(packet, self.top()),
            Choice::LeaveOut => {
                return match self.rewriter.skip(packet) {
                    Skipped::Closed => Verdict::Discard(self.left_out(packet)),
                    Skipped::Hole(rewrite) => Verdict::Fill(rewrite),
                    Skipped::BeforeSwitch => Verdict::Discard(Discard::BeforeSwitch),
                };
            }
            Choice::Refuse(discard) => return Verdict::Discard(discard),
        }
        match self.rewriter.accept(packet) {
            Some(rewrite) => Verdict::Send(rewrite),
            None => Verdict::Discard(Discard::BeforeSwitch),
        }
    }

    /// Numbers go on where they stood; timestamps go on in the time of the layer that flowed before, about as far as
    /// time has, and in any case forward.
    #[cold]
    fn begin(&mut self, layer: u8, packet: &Packet, producer: &Producer) {
        let mut distance = 0u32;
        if let Some(before) = self.timestamp_layer {
            distance = self.rewriter.timestamp_distance().wrapping_add(producer.timestamp_distance(layer, before));
            if let Some(expected) = self.timestamp_expected(layer, producer) {
                let apart = expected.wrapping_sub(packet.timestamp.wrapping_add(distance)) as i32;
                let slack = u64::from(self.rest.clock_rate) * TIMESTAMP_SLACK.as_millis() as u64 / 1000;
                if u64::from(apart.unsigned_abs()) > slack {
                    distance = distance.wrapping_add(apart as u32);
                }
            }
            let behind = self.rewriter.last_timestamp().wrapping_sub(packet.timestamp.wrapping_add(distance)) as i32;
            if behind >= 0 {
                distance = distance.wrapping_add(behind as u32 + 1);
            }
        }
        self.timestamp_layer = Some(layer);
        self.rewriter.switch(packet, distance, self.top());
    }

    /// Why a packet of the stream that flows is left out.
    fn left_out(&self, packet: &Packet) -> Discard {
        if packet.targets.is_empty() {
            return Discard::Unreadable;
        }
        let is_own_size = self.selector.current() == Some(packet.spatial);
        if self.selector.is_layered() && !is_own_size { Discard::OtherLayer } else { Discard::TemporalLayer }
    }

    /// The spatial layer within the stream that this receiver's pictures end with.
    fn top(&self) -> u8 {
        self.selector.current().filter(|_| self.selector.is_layered()).unwrap_or(NO_TOP)
    }

    /// The last timestamp carried on by the time that has passed until the newest packet of a layer.
    fn timestamp_expected(&self, layer: u8, producer: &Producer) -> Option<u32> {
        let arrived = producer.layers.get(layer as usize)?.last_packet?;
        self.transmission.timestamp_now(arrived, self.rest.clock_rate)
    }

    /// The layers that flow, as the client is told; a sound has none.
    pub fn layers(&self) -> Option<Layers> {
        if self.rest.kind == Kind::Audio {
            return None;
        }
        self.selector.current().map(|spatial| Layers { spatial, temporal: self.selector.temporal().min(2) })
    }

    /// What a packet of the source gets as RTP timestamp here.
    pub fn timestamp_of(&self, layer_timestamp: u32) -> u32 {
        layer_timestamp.wrapping_add(self.rewriter.timestamp_distance())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::spec::{Codec, EncodingSpec, ProducerSpec, SourceClass};
    use crate::packet::extension::{ExtensionMap, ExtensionSet};

    const SECOND: Duration = Duration::from_secs(1);

    fn camera() -> Producer {
        let spec = ProducerSpec {
            id: ProducerId(1),
            kind: Kind::Video,
            codec: Codec::Vp8,
            class: SourceClass::Camera,
            mid: None,
            payload_type: 96,
            rtx_payload_type: None,
            clock_rate: 90_000,
            encodings: vec![EncodingSpec::default(); 2],
            extensions: ExtensionMap::default(),
            feedback: Feedback::default(),
            cname: String::new(),
            paused: false,
        };
        Producer::new(spec, Key::dangling(), PeerId(1), Key::dangling())
    }

    fn viewer(producer: &Producer) -> Consumer {
        let spec = ConsumerSpec {
            id: ConsumerId(1),
            producer: ProducerId(1),
            payload_type: 101,
            rtx_payload_type: None,
            ssrc: Ssrc(1),
            rtx_ssrc: None,
            mid: "0".into(),
            extensions: ExtensionSet::default(),
            feedback: Feedback::default(),
            cname: String::new(),
            paused: false,
            priority: 1,
            preferred: None,
        };
        Consumer::new(spec, producer, Key::dangling(), Key::dangling(), PeerId(2), 0, 0)
    }

    /// A key frame of `layer` arrives and is sent; returns its timestamp for the viewer.
    fn key_frame(
        viewer: &mut Consumer,
        producer: &mut Producer,
        layer: u8,
        sequence: u16,
        timestamp: u32,
        at: Instant,
    ) -> u32 {
        producer.layers[layer as usize].reception.receive(sequence, timestamp, 90_000, at, 100);
        producer.layers[layer as usize].last_packet = Some(at);
        viewer.selector.choose(2, 1 << layer);
        let mut packet = Packet::new(u64::from(sequence), timestamp, 100);
        (packet.key_frame, packet.start_of_frame) = (true, true);
        let Verdict::Send(rewrite) = viewer.accept(layer, &packet, producer) else { panic!("a key frame is sent") };
        viewer.transmission.send(1, 100, rewrite.timestamp, at);
        rewrite.timestamp
    }

    #[test]
    fn a_sender_report_that_lies_does_not_move_a_switch_by_hours() {
        let start = Instant::now();
        for (wrong_s, expected) in [(0, 45_000..=46_000), (3600, 45_000..=46_000), (-7200, 45_000..=46_000)] {
            let (mut producer, ntp) = (camera(), 1_000_000u64);
            let mut viewer = viewer(&producer);
            producer.layers[0].reception.sender_report(ntp << 32, 10_000, start);
            let first = key_frame(&mut viewer, &mut producer, 0, 10, 10_000, start);
            let lie = ntp.wrapping_add_signed(wrong_s) << 32;
            producer.layers[1].reception.sender_report(lie, 900_000, start);
            // Captured half a second later.
            let second = key_frame(&mut viewer, &mut producer, 1, 77, 945_000, start + SECOND / 2);
            let step = second.wrapping_sub(first);
            assert!(expected.contains(&step), "a clock that is wrong by {wrong_s} s makes a step of {step}");
        }
    }

    #[test]
    fn a_source_that_starts_over_goes_on_in_the_time_of_its_viewer() {
        let (start, mut producer) = (Instant::now(), camera());
        let mut viewer = viewer(&producer);
        let first = key_frame(&mut viewer, &mut producer, 0, 10, 10_000, start);
        viewer.selector.stop();
        let second = key_frame(&mut viewer, &mut producer, 0, 30_000, 3_000_000_000, start + SECOND);
        assert_eq!(second.wrapping_sub(first), 90_000);
    }
}
