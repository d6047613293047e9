//! A simulated path for tests: a bottleneck with a queue, delay, loss and other people's traffic; a receiver
//! that answers with real feedback packets; senders of several tempers. Virtual time in steps of 1 ms, one seed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Estimator;
use crate::ids::Ssrc;
use crate::media::allocation::{Allocator, Demand};
use crate::media::spec::SourceClass;
use crate::media::transport_cc::ArrivalRecord;
use crate::packet::rtcp::{RtcpPacket, TransportCcHead, packets, write_transport_cc};
use crate::packet::seq::SeqNo;

pub(super) const MS: Duration = Duration::from_millis(1);

/// Largest datagram of the simulated sender.
const DATAGRAM: usize = 1200;

pub(super) struct Path {
    /// Bits per second at a moment (ms).
    pub capacity_bps: Box<dyn Fn(u64) -> u64>,
    /// Of others through the same bottleneck.
    pub cross_bps: Box<dyn Fn(u64) -> u64>,
    pub rtt_ms: u64,
    /// Drop-tail queue.
    pub queue_ms: u64,
    pub loss: f64,
    pub feedback_loss: f64,
    /// Up to this much is added to each packet's delay, keeping their order.
    pub jitter_ms: u64,
}

impl Path {
    pub fn steady(bps: u64) -> Path {
        Path {
            capacity_bps: Box::new(move |_| bps),
            cross_bps: Box::new(|_| 0),
            rtt_ms: 50,
            queue_ms: 300,
            loss: 0.0,
            feedback_loss: 0.0,
            jitter_ms: 0,
        }
    }
}

pub(super) enum Sender {
    /// Video that always uses the whole estimate up to this: 30 frames a second, each sent at once.
    Elastic(u64),
    /// A steady rate, whatever the estimate.
    Constant(u64),
    /// Consumers as the shard has them: the allocation picks layers, key frames are ten times a frame.
    Layers(Box<Layered>),
}

pub(super) struct Layered {
    pub allocator: Allocator,
    pub demands: Vec<Demand>,
    /// A key frame each so many ms, on all; 0 for none.
    pub key_frame_ms: u64,
    pub switches: Vec<u64>,
}

pub(super) struct Simulation {
    pub estimator: Estimator,
    pub path: Path,
    pub sender: Sender,
    start: Instant,
    pub ms: u64,
    seed: u64,
    number: u16,
    receiver: ArrivalRecord,
    /// Bytes in the bottleneck, with fractions.
    queued: f64,
    in_flight: VecDeque<(u64, SeqNo)>,
    last_arrival_us: u64,
    feedbacks: VecDeque<(u64, Vec<u8>)>,
    owed_bytes: f64,
    /// Each 100 ms: estimate, bits per second delivered, queueing delay in ms.
    pub estimates: Vec<u64>,
    pub delivered: Vec<u64>,
    pub queue_ms: Vec<u64>,
    delivered_bytes: u64,
    pub padding_bytes: u64,
    pub media_bytes: u64,
}

impl Simulation {
    pub fn new(path: Path, sender: Sender) -> Simulation {
        let start = Instant::now();
        Simulation {
            estimator: Estimator::new(start),
            path,
            sender,
            start,
            ms: 0,
            seed: 0x9e37_79b9_7f4a_7c15,
            number: 65_000,
            receiver: ArrivalRecord::new(start),
            queued: 0.0,
            in_flight: VecDeque::new(),
            last_arrival_us: 0,
            feedbacks: VecDeque::new(),
            owed_bytes: 0.0,
            estimates: Vec::new(),
            delivered: Vec::new(),
            queue_ms: Vec::new(),
            delivered_bytes: 0,
            padding_bytes: 0,
            media_bytes: 0,
        }
    }

    pub fn run(&mut self, for_ms: u64) -> &mut Simulation {
        for _ in 0..for_ms {
            self.step();
        }
        self
    }

    fn step(&mut self) {
        self.ms += 1;
        let capacity = (self.path.capacity_bps)(self.ms);
        let room = (self.path.queue_ms * capacity) as f64 / 8000.0 - self.queued;
        self.queued += ((self.path.cross_bps)(self.ms) as f64 / 8000.0).min(room.max(0.0));
        self.queued = (self.queued - capacity as f64 / 8000.0).max(0.0);
        self.deliver();
        self.produce();
        if let Some(bytes) = self.estimator.padding(self.now()) {
            for part in chunks(bytes) {
                self.padding_bytes += part as u64;
                self.send(part);
            }
        }
        if self.estimator.next_deadline().is_none_or(|at| at <= self.now()) {
            self.estimator.poll(self.now());
        }
        if self.ms.is_multiple_of(1000) {
            let rtt = Duration::from_millis(self.path.rtt_ms + self.queue_delay_ms());
            self.estimator.receiver_report(self.path.loss, Some(rtt));
        }
        if self.ms.is_multiple_of(100) {
            self.estimates.push(self.estimator.estimate_bps());
            self.delivered.push(std::mem::take(&mut self.delivered_bytes) * 80);
            self.queue_ms.push(self.queue_delay_ms());
        }
    }

    fn produce(&mut self) {
        let bytes = match &mut self.sender {
            Sender::Constant(bps) => smooth(&mut self.owed_bytes, *bps, self.ms),
            Sender::Elastic(most) => {
                self.estimator.want(Some(*most), *most);
                smooth(&mut self.owed_bytes, self.estimator.estimate_bps().min(*most), self.ms)
            }
            Sender::Layers(_) => self.produce_layers(),
        };
        for part in chunks(bytes) {
            self.media_bytes += part as u64;
            self.send(part);
        }
    }

    fn produce_layers(&mut self) -> usize {
        let (now, ms) = (self.start + MS * self.ms as u32, self.ms);
        let Sender::Layers(layered) = &mut self.sender else { return 0 };
        if ms % 200 == 1 {
            let before: Vec<_> = layered.demands.iter().map(|demand| demand.grant.layers).collect();
            let link = self.estimator.downlink(0, now);
            let allocated = layered.allocator.allocate(Some(link), 0, now, &mut layered.demands);
            self.estimator.want(allocated.next_raise_bps, allocated.wanted_bps);
            let changed = layered.demands.iter().zip(before).any(|(demand, old)| demand.grant.layers != old);
            if changed {
                layered.switches.push(ms);
            }
        }
        let mut bytes = 0.0;
        for (n, demand) in layered.demands.iter().enumerate() {
            if demand.class == SourceClass::Microphone {
                if ms.is_multiple_of(20) {
                    self.estimator.sent_unnumbered(100, now);
                    self.queued += 100.0;
                }
                continue;
            }
            // Thirty frames a second, the cameras out of step.
            if (ms + n as u64 * 7).is_multiple_of(33) {
                let bps = demand.grant.layers.map_or(0, |layers| demand.offer.bps(layers));
                let at = ms + n as u64 * 311;
                let key = layered.key_frame_ms > 0 && at % layered.key_frame_ms < 33;
                bytes += bps as f64 * 0.033 / 8.0 * if key { 10.0 } else { 1.0 };
            }
        }
        bytes as usize
    }

    fn send(&mut self, bytes: usize) {
        let (number, now) = (SeqNo(self.number), self.now());
        self.number = self.number.wrapping_add(1);
        self.estimator.sent(number, bytes, now);
        if self.random() < self.path.loss {
            return;
        }
        if self.overflows() {
            return;
        }
        self.queued += bytes as f64;
        let capacity = (self.path.capacity_bps)(self.ms).max(1);
        let queue_us = (self.queued * 8e6 / capacity as f64) as u64;
        let jitter_us = (self.random() * self.path.jitter_ms as f64 * 1000.0) as u64;
        let arrival_us = self.ms * 1000 + self.path.rtt_ms * 500 + queue_us + jitter_us;
        self.last_arrival_us = self.last_arrival_us.max(arrival_us);
        self.in_flight.push_back((self.last_arrival_us, number));
        self.delivered_bytes += bytes as u64;
    }

    /// Whether the queue drops a packet of ours. Others lose their share, which is why ours is not all of it.
    fn overflows(&mut self) -> bool {
        let (capacity, others) = ((self.path.capacity_bps)(self.ms) as f64, (self.path.cross_bps)(self.ms) as f64);
        let ours = self.estimator.estimate_bps() as f64;
        let share = match others > 0.0 {
            true => (1.0 - capacity / (others + ours)).clamp(0.01, 1.0),
            false => 1.0,
        };
        // With others, the queue is never seen above its limit, only at it.
        self.queue_delay_ms() + u64::from(others > 0.0) * 3 > self.path.queue_ms && self.random() < share
    }

    fn deliver(&mut self) {
        let now_us = self.ms * 1000;
        while self.in_flight.front().is_some_and(|(at, _)| *at <= now_us) {
            let (at, number) = self.in_flight.pop_front().unwrap();
            self.receiver.receive(number, self.start + Duration::from_micros(at));
        }
        let now = self.now();
        let mut out = [0u8; 1400];
        let mut drafted = Vec::new();
        while let Some(draft) = self.receiver.take(now) {
            let head =
                TransportCcHead { sender: Ssrc(1), media: Ssrc(2), base: draft.base, feedback_count: draft.count };
            let statuses = draft.arrivals().map(|(_, at)| at.map(|at| at.as_micros() as u64));
            let written = write_transport_cc(&mut out, &head, statuses).expect("drafts can be written");
            assert_eq!(written.statuses as usize, draft.len(), "a draft fits into one packet");
            drafted.push(out[..written.len].to_vec());
        }
        for bytes in drafted {
            if self.random() >= self.path.feedback_loss {
                self.feedbacks.push_back((self.ms + self.path.rtt_ms / 2, bytes));
            }
        }
        while self.feedbacks.front().is_some_and(|(at, _)| *at <= self.ms) {
            let (_, bytes) = self.feedbacks.pop_front().unwrap();
            let Some(Ok(RtcpPacket::TransportCc(feedback))) = packets(&bytes).next() else { panic!("not feedback") };
            self.estimator.feedback(&feedback, now);
        }
    }

    pub fn now(&self) -> Instant {
        self.start + MS * self.ms as u32
    }

    fn queue_delay_ms(&self) -> u64 {
        (self.queued * 8000.0 / (self.path.capacity_bps)(self.ms).max(1) as f64) as u64
    }

    fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as f64 / (1u64 << 31) as f64
    }

    /// Share of what others leave of the bottleneck that was used between two seconds, in percent.
    pub fn used_percent(&self, from_s: usize, to_s: usize) -> u64 {
        let free = |ms| (self.path.capacity_bps)(ms).saturating_sub((self.path.cross_bps)(ms));
        let capacity: u64 = (from_s as u64 * 10..to_s as u64 * 10).map(|n| free(n * 100)).sum();
        100 * self.delivered[from_s * 10..to_s * 10].iter().sum::<u64>() / capacity
    }

    /// How long after a second the estimate is for a whole second as it should be; ms.
    pub fn settled_ms(&self, from_s: usize, holds: impl Fn(u64) -> bool) -> u64 {
        let mut seconds = self.estimates[from_s * 10..].windows(10);
        seconds.position(|second| second.iter().all(|bps| holds(*bps))).map_or(u64::MAX, |n| n as u64 * 100)
    }

    /// Layer switches of all consumers together, between two seconds.
    pub fn switches(&self, from_s: u64, to_s: u64) -> usize {
        let Sender::Layers(layered) = &self.sender else { return 0 };
        layered.switches.iter().filter(|ms| (from_s * 1000..to_s * 1000).contains(ms)).count()
    }

    /// What the consumers have, microphones left out.
    pub fn layers(&self) -> Vec<Option<(u8, u8)>> {
        let Sender::Layers(layered) = &self.sender else { return Vec::new() };
        let video = layered.demands.iter().filter(|demand| demand.class != SourceClass::Microphone);
        video.map(|demand| demand.grant.layers.map(|layers| (layers.spatial, layers.temporal))).collect()
    }
}

pub(super) fn mean(series: &[u64]) -> u64 {
    series.iter().sum::<u64>() / series.len() as u64
}

/// Bytes of a frame each 33 ms.
fn smooth(owed: &mut f64, bps: u64, ms: u64) -> usize {
    *owed += bps as f64 / 8000.0;
    if !ms.is_multiple_of(33) {
        return 0;
    }
    let bytes = owed.floor();
    *owed -= bytes;
    bytes as usize
}

fn chunks(bytes: usize) -> impl Iterator<Item = usize> {
    let whole = bytes / DATAGRAM;
    let rest = bytes % DATAGRAM;
    std::iter::repeat_n(DATAGRAM, whole).chain((rest > 0).then_some(rest.max(60)))
}
