//! How much a peer's downlink carries, estimated by the sender, in the manner of Google congestion control.
//!
//! One [`Estimator`] per transport that carries consumers with the transport-cc extension or REMB. The
//! shard reports every datagram with [`sent`](Estimator::sent), every feedback as it comes, and asks for the
//! [estimate](Estimator::estimate_bps); it sends [padding](Estimator::padding) when a probe wants some. No
//! clock, no packets, no allocation but the record of sent packets, which grows with the path. What feedback
//! claims is bounded by what was sent. The rules, with why, are in docs/bandwidth-estimation.md.

use std::time::{Duration, Instant};

use crate::limits::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS};
use crate::media::allocation::Downlink;
use crate::media::pacer::Path;
use crate::media::report::RateMeter;
use crate::packet::rtcp::TransportCc;
use crate::packet::seq::{ReferenceTimeUnwrapper, SeqNo};

mod delay;
mod least;
mod limited;
mod loss;
mod probe;
mod rate;
mod sent;
mod throughput;
mod trickle;

#[cfg(test)]
mod link;
#[cfg(test)]
mod tests;

use delay::{DelayTrend, Usage};
use least::Least;
use limited::SendBudget;
use loss::LossLimit;
use probe::{Prober, Wish};
use rate::{DelayRate, Moment};
pub use sent::Fate;
use sent::SentRing;
use throughput::{Bursts, Throughput};
use trickle::{Lasting, Trickle};

/// Before anything is known: two small cameras and audio. The first probe tries three times that at once.
const START_BPS: u64 = 600_000;

/// While packets leave, the shard calls [`Estimator::poll`] this often.
const POLL: Duration = Duration::from_millis(100);

/// Sending without any feedback for so long: it is lost on the way back, as media is on the way there.
const FEEDBACK_MISSING_US: u64 = 1_500_000;
const FEEDBACK_MISSING_STEP_US: u64 = 1_000_000;
const FEEDBACK_MISSING_FACTOR: f64 = 0.8;

/// Without any media for so long, what was lost of the last of it is forgotten.
const MEDIA_GONE_US: u64 = 2_000_000;

/// A jam begins when the estimate falls below this share of what is sent all the time. Down to there it is enough to leave out
/// frames, which needs no key frame.
const JAM_PERCENT: u64 = 60;

/// A jam ends when packets wait for less than this, or is none after so long: what stands in the queue is others'.
const JAM_ENDS_US: i64 = 50_000;
const JAM_LONGEST_US: u64 = 3_000_000;

/// In a jam this part of the estimate is left free, so that a queue of 300 ms is gone within a second, and the first key
/// frame is a small one.
const DRAIN_SHARE: u64 = 3;

/// A packet that waited less than this found no queue: what arrives beside it is carried.
const NO_QUEUE_US: i64 = 30_000;

/// Of what arrives without a queue the estimate is at least so much, as it would be with one.
const CARRIED_PERCENT: u64 = 85;

/// A change of the estimate smaller than this share is not worth a new allocation.
const NOTEWORTHY_PERCENT: u64 = 5;

/// Audio that is counted with the next numbered packet: two hundred ms of five speakers.
const UNNUMBERED_MOST: u16 = 6_000;
/// What left longer before it has nothing to do with it: no picture flows, and the packet is a probe's.
const UNNUMBERED_US: u64 = 200_000;

/// So much of what leaves arrives where there is no shortage: one is measured over a second, the other over half of it.
const ALL_PERCENT: u64 = 95;

/// Where answers take so much longer than they did, a queue stands in front of the path, whatever it is measured by: what comes out
/// of it is what the path carries, and that nearly all does only says how slowly it grows.
const QUEUED_US: i64 = 250_000;

/// The least of this stretch and the last is what answers take without a queue: a path may have become longer.
const ROUND_STRETCH_US: u64 = 30_000_000;

/// Loss may be the path's own. The most generous reading forgives so much of it, as far as delay shows no queue.
const FORGIVEN_NUMERATOR: u64 = 5;
const FORGIVEN_DENOMINATOR: u64 = 3;

const RTT_DEFAULT_US: u64 = 100_000;
const RTT_MAX: Duration = Duration::from_secs(2);

/// Loss thresholds of receiver reports where there is no transport-cc (draft-ietf-rmcat-gcc-02 section 6).
const REPORT_LOSS_LOW: f64 = 0.02;
const REPORT_LOSS_HIGH: f64 = 0.10;

/// One transport's estimate.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Estimator {
    // What each packet that leaves touches.
    epoch: Instant,
    sent: SentRing,
    /// Bytes outside transport-cc since the last packet within it: audio shares the path.
    unnumbered: u16,
    last_sent_us: Option<u64>,
    last_numbered_us: Option<u64>,
    last_media_us: Option<u64>,
    /// When the first numbered packet left of those that no feedback has answered.
    unanswered_us: Option<u64>,
    budget: SendBudget,
    /// What leaves, by our own clock: no feedback proves more than this.
    leaving: RateMeter,
    prober: Prober,

    // What feedback touches.
    references: ReferenceTimeUnwrapper,
    throughput: Throughput,
    bursts: Bursts,
    lasting: Lasting,
    trickle: Trickle,
    delay: DelayTrend,
    rate: DelayRate,
    loss: LossLimit,
    rtt_us: u64,
    /// Between a packet's leaving and the last feedback that spoke of none later: what it waited on the way is in it.
    round_us: u64,
    least_round: Least,
    remb_bps: Option<u64>,
    /// The limit by receiver reports, for peers without transport-cc.
    report_limit_bps: Option<f64>,
    next_bps: u64,
    all_bps: u64,
    last_feedback_us: Option<u64>,
    last_overuse_us: Option<u64>,
    lowered_for_silence_us: Option<u64>,
    /// Since when the queue is full of what the path no longer carries.
    jammed_us: Option<u64>,
    polled_us: u64,
    estimate_bps: u64,
    told_bps: u64,
}

impl Estimator {
    pub fn new(now: Instant) -> Estimator {
        Estimator {
            epoch: now,
            sent: SentRing::default(),
            references: ReferenceTimeUnwrapper::default(),
            throughput: Throughput::default(),
            bursts: Bursts::default(),
            lasting: Lasting::default(),
            trickle: Trickle::default(),
            delay: DelayTrend::new(),
            rate: DelayRate::new(START_BPS, 0),
            loss: LossLimit::default(),
            budget: SendBudget::default(),
            prober: Prober::new(),
            leaving: RateMeter::default(),
            unnumbered: 0,
            rtt_us: RTT_DEFAULT_US,
            round_us: 0,
            least_round: Least::default(),
            remb_bps: None,
            report_limit_bps: None,
            next_bps: 0,
            all_bps: 0,
            last_sent_us: None,
            last_numbered_us: None,
            last_media_us: None,
            last_feedback_us: None,
            unanswered_us: None,
            last_overuse_us: None,
            lowered_for_silence_us: None,
            jammed_us: None,
            polled_us: 0,
            estimate_bps: START_BPS,
            told_bps: START_BPS,
        }
    }

    /// A datagram with this transport-wide number leaves, padding or media; `bytes` is its length.
    #[inline]
    pub fn sent(&mut self, number: SeqNo, bytes: usize, now: Instant) {
        let now_us = self.micros(now);
        let bytes = bytes.min(u16::MAX as usize) as u16;
        let since_us = now_us.saturating_sub(self.last_numbered_us.replace(now_us).unwrap_or(0));
        let mut counted = bytes;
        let unnumbered = std::mem::take(&mut self.unnumbered);
        if since_us < UNNUMBERED_US {
            counted = counted.saturating_add(unnumbered);
        }
        if self.prober.tag() == 0 {
            self.last_media_us = Some(now_us);
        }
        if self.unanswered_us.is_none() || since_us >= FEEDBACK_MISSING_US {
            self.unanswered_us = Some(now_us);
        }
        self.sent.push(number, counted, self.prober.tag(), now_us);
        self.prober.sent(counted, now_us);
        self.count(bytes, now, now_us);
    }

    /// A datagram without a transport-wide number leaves (audio, by the client's contract).
    #[inline]
    pub fn sent_unnumbered(&mut self, bytes: usize, now: Instant) {
        let bytes = bytes.min(u16::MAX as usize) as u16;
        // Peers without transport-cc send no numbers at all: what waits must not swell the first one.
        self.unnumbered = self.unnumbered.saturating_add(bytes).min(UNNUMBERED_MOST);
        let now_us = self.micros(now);
        if self.sent.is_empty() {
            self.prober.sent(bytes, now_us);
        }
        self.count(bytes, now, now_us);
    }

    /// Padding leaves without a transport-wide number: its receiver reckons by itself (REMB).
    pub fn padded(&mut self, bytes: usize, now: Instant) {
        let now_us = self.micros(now);
        let bytes = bytes.min(u16::MAX as usize) as u16;
        self.prober.sent(bytes, now_us);
        self.count(bytes, now, now_us);
    }

    #[inline]
    fn count(&mut self, bytes: u16, now: Instant, now_us: u64) {
        self.leaving.add(bytes as usize, now);
        self.budget.sent(bytes);
        self.last_sent_us = Some(now_us);
    }

    /// Transport-cc feedback. Numbers that were never sent, or were told before, are ignored.
    pub fn feedback(&mut self, feedback: &TransportCc<'_>, now: Instant) {
        let now_us = self.micros(now);
        let reference_us = (self.references.unwrap(feedback.reference) as i64).saturating_mul(64_000);
        let (mut packets, mut found, mut bytes, mut newest_sent_us) = (0, 0, 0, None);
        for (number, since_reference_us) in feedback.arrivals() {
            let Some((packet, was_lost)) = self.sent.arrived(number, now_us) else { continue };
            let arrival_us = reference_us.saturating_add(since_reference_us).max(0) as u64;
            packets += u32::from(!was_lost.0);
            found += i64::from(was_lost.0);
            bytes += packet.bytes as u64;
            newest_sent_us = newest_sent_us.max(Some(packet.sent_us));
            self.throughput.add(arrival_us, packet.bytes);
            self.bursts.add(packet.sent_us, arrival_us, packet.bytes);
            if packet.probe == 0 {
                self.delay.packet(packet.sent_us, arrival_us, now_us);
                let height_us = self.delay.newest_height_us();
                self.trickle.packet(packet.sent_us, arrival_us, packet.bytes, height_us);
            } else {
                self.prober.arrived(&packet, arrival_us);
            }
        }
        let (lost, lost_bytes) = self.sent.lost(feedback.base, feedback.status_count);
        // Of nothing that flew: fabricated, or repeated.
        let Some(newest_sent_us) = newest_sent_us else { return };
        self.last_feedback_us = Some(now_us);
        self.unanswered_us = None;
        // With the wait for the feedback in it; a receiver report's is better and replaces it.
        self.round_us = now_us.saturating_sub(newest_sent_us);
        self.least_round.add(self.round_us as i64, now_us, ROUND_STRETCH_US);
        self.rtt_us = self.rtt_us.min(self.round_us.max(1_000));
        self.loss.add(packets + lost, lost as i64 - found, bytes + lost_bytes, now_us);
        self.adjust(now, now_us);
    }

    /// What became of the datagram that left under this number.
    pub fn fate(&self, number: SeqNo) -> Fate {
        self.sent.fate(number)
    }

    fn adjust(&mut self, now: Instant, now_us: u64) {
        let usage = self.delay.usage(self.estimate_bps);
        let lasting_bps = self.lasting.update(self.leaving.bitrate_bps(now), now_us);
        let trickle_bps = self.trickle.bps(lasting_bps);
        if usage == Usage::Over || trickle_bps.is_some() {
            self.last_overuse_us = Some(now_us);
        }
        let delivered_bps = self.delivered_bps(now);
        let burst_bps = self.bursts.bps(self.throughput.newest_us()).filter(|_| self.delay.queue_is_short());
        let limited = self.budget.update(self.estimate_bps, now_us);
        // While loss holds the estimate down, calm delays prove nothing about a higher rate.
        let bounded = self.loss.bps().is_some();
        let moment = Moment { usage, delivered_bps, burst_bps, rtt_us: self.rtt_us, limited, bounded, now_us };
        let before = self.rate.bps();
        let lowered = match trickle_bps {
            Some(bps) => self.rate.fall(bps, now_us),
            None => self.rate.update(&moment),
        };
        if lowered && self.rate.bps() < before * 2 / 3 {
            self.prober.path_changed(now_us);
        }
        if lowered && self.rate.bps() * 100 < lasting_bps * JAM_PERCENT {
            self.jammed_us = Some(now_us);
        }
        self.end_jam(now_us);
        // What arrives without a queue is a probe's answer as well. After a dip far more may be sent than is allowed: pictures of a
        // single size do not stop for it.
        let carried_bps = delivered_bps.unwrap_or(0) * CARRIED_PERCENT / 100;
        let is_calm = usage == Usage::Normal && !limited && self.delay.newest_height_us() < NO_QUEUE_US;
        if is_calm && carried_bps * 2 > self.rate.bps() * 3 {
            self.rate.set(carried_bps, now_us);
        }
        let answer = self.prober.answer();
        if let Some(answer) = &answer {
            self.loss.probed(answer.measured_bps);
            // Only upwards: a probe that found less found the queue that it made itself.
            if answer.measured_bps > self.rate.bps() {
                self.rate.set(answer.measured_bps, now_us);
            }
        }
        self.loss.update(self.rate.bps(), delivered_bps, now_us);
        let before = self.estimate_bps;
        self.combine();
        if let Some(answer) = answer {
            self.prober.judge(&answer, before, self.estimate_bps, now_us);
        }
    }

    fn end_jam(&mut self, now_us: u64) {
        let stands = self.delay.newest_height_us() >= JAM_ENDS_US;
        self.jammed_us = self.jammed_us.filter(|at| stands && now_us.saturating_sub(*at) < JAM_LONGEST_US);
    }

    /// What arrives per second, at most what leaves: a receiver may lie about its clock.
    fn delivered_bps(&self, now: Instant) -> Option<u64> {
        let leaving_bps = self.leaving.bitrate_bps(now);
        self.throughput.bps().map(|bps| bps.min(leaving_bps * 3 / 2))
    }

    /// The least of what delay, loss and the receiver allow.
    fn combine(&mut self) {
        let by_feedback = self.last_feedback_us.map(|_| self.loss.bps().unwrap_or(u64::MAX).min(self.rate.bps()));
        let by_receiver = match (self.remb_bps, self.report_limit_bps) {
            (remb, Some(limit)) if by_feedback.is_none() => Some(remb.unwrap_or(u64::MAX).min(limit as u64)),
            (remb, _) => remb,
        };
        let estimate = match (by_feedback, by_receiver) {
            (None, None) => self.rate.bps(),
            (feedback, receiver) => feedback.unwrap_or(u64::MAX).min(receiver.unwrap_or(u64::MAX)),
        };
        self.estimate_bps = estimate.clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS);
    }

    /// The receiver's own maximum (draft-alvestrand-rmcat-remb): a cap beside transport-cc, the estimate
    /// itself where there is none.
    pub fn remb(&mut self, bitrate_bps: u64) {
        self.remb_bps = Some(bitrate_bps);
        self.combine();
    }

    /// A receiver report about a consumer of this transport: 0 to 1 lost, and the round-trip time it gave.
    pub fn receiver_report(&mut self, fraction_lost: f64, rtt: Option<Duration>) {
        if let Some(rtt) = rtt {
            self.rtt_us = rtt.min(RTT_MAX).as_micros() as u64;
        }
        if self.last_feedback_us.is_some() {
            return;
        }
        let estimate = self.estimate_bps as f64;
        if fraction_lost > REPORT_LOSS_HIGH {
            self.report_limit_bps = Some(estimate * (1.0 - 0.5 * fraction_lost.min(1.0)));
        } else if fraction_lost < REPORT_LOSS_LOW {
            self.report_limit_bps =
                self.report_limit_bps.map(|limit| limit * 1.08).filter(|limit| *limit < 2.0 * estimate);
        }
        self.combine();
    }

    /// What the allocation could use: the estimate at which somebody would be raised (`None`: nobody can be),
    /// and what everybody's best costs. Probes try for the former and not beyond the latter. Call with
    /// `None` when the transport has no way to send padding.
    pub fn want(&mut self, next_raise_bps: Option<u64>, wanted_bps: u64) {
        let next_bps = next_raise_bps.unwrap_or(0).min(ESTIMATE_MAX_BPS);
        if self.next_bps == 0 && next_bps > 0 {
            self.prober.wished_anew();
        }
        self.next_bps = next_bps;
        self.all_bps = wanted_bps.min(ESTIMATE_MAX_BPS);
    }

    /// Bytes of padding that should leave now, for a probe. Send them as one or more packets and report each
    /// with [`sent`](Estimator::sent); sending less only slows the probe.
    pub fn padding(&self, now: Instant) -> Option<usize> {
        self.prober.padding(self.micros(now)).map(|bytes| bytes as usize)
    }

    /// Probes begin and expire here, and silence of the other side is noticed.
    pub fn poll(&mut self, now: Instant) {
        let now_us = self.micros(now);
        self.polled_us = now_us;
        self.prober.expire(now_us);
        if self.last_media_us.is_some_and(|at| now_us.saturating_sub(at) >= MEDIA_GONE_US) && self.loss.bps().is_some()
        {
            // What was lost of media that flows no more says nothing of what could; a probe's few packets do not either.
            // Neither proves more than was known: a probe has to.
            self.rate.set(self.estimate_bps.min(self.rate.bps()), now_us);
            self.loss = LossLimit::default();
            self.combine();
        }
        self.notice_missing_feedback(now_us);
        self.end_jam(now_us);
        // Where nothing that could be answered leaves, only a probe can tell.
        let has_lasted = |at: u64| now_us.saturating_sub(at) >= FEEDBACK_MISSING_US;
        let is_quiet = self.last_numbered_us.is_none_or(has_lasted);
        let answered = self.last_feedback_us.is_some() && (is_quiet || !self.unanswered_us.is_some_and(has_lasted));
        if answered || (self.last_feedback_us.is_none() && self.remb_bps.is_some()) {
            let wish = Wish {
                estimate_bps: self.estimate_bps,
                next_bps: self.next_bps,
                all_bps: self.all_bps,
                last_overuse_us: self.last_overuse_us,
                is_answered: answered,
            };
            self.prober.plan(&wish, now_us);
        }
    }

    fn notice_missing_feedback(&mut self, now_us: u64) {
        let (Some(sent_us), Some(unanswered_us)) = (self.last_numbered_us, self.unanswered_us) else { return };
        if self.last_feedback_us.is_none() {
            return;
        }
        let lowered_us = self.lowered_for_silence_us.unwrap_or(0).max(unanswered_us);
        let silent = sent_us.saturating_sub(unanswered_us) >= FEEDBACK_MISSING_US;
        if silent && sent_us.saturating_sub(lowered_us) >= FEEDBACK_MISSING_STEP_US {
            self.lowered_for_silence_us = Some(now_us);
            let lower = (self.rate.bps() as f64 * FEEDBACK_MISSING_FACTOR) as u64;
            self.rate.set(lower, now_us);
            self.combine();
        }
    }

    /// When to [`poll`](Estimator::poll) and look for [`padding`](Estimator::padding); `None` while nothing
    /// is sent.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sending = self.last_sent_us.is_some_and(|at| at + POLL.as_micros() as u64 >= self.polled_us);
        let at_us = match self.prober.next_portion_us(self.polled_us) {
            Some(portion_us) => portion_us,
            None if sending => self.polled_us + POLL.as_micros() as u64,
            None => return None,
        };
        Some(self.epoch + Duration::from_micros(at_us))
    }

    /// What may be sent to this peer, all streams together, in bits of datagrams per second.
    pub fn estimate_bps(&self) -> u64 {
        self.estimate_bps
    }

    /// The same once the receiver has said anything of its path.
    pub fn measured_bps(&self) -> Option<u64> {
        let is_measured = self.last_feedback_us.is_some() || self.remb_bps.is_some();
        is_measured.then_some(self.estimate_bps)
    }

    /// Whether transport-cc feedback ever came.
    pub fn is_answered(&self) -> bool {
        self.last_feedback_us.is_some()
    }

    /// The estimate, or what gets through if that is more: while more is sent than an estimate allows, what arrives is
    /// what the path carries. Where nearly all arrives, or nothing is known, no limit is known either.
    fn carried_bps(&self, waiting: u64, now: Instant) -> u64 {
        if self.measured_bps().is_none() {
            return ESTIMATE_MAX_BPS;
        }
        let most_bps = self.remb_bps.unwrap_or(ESTIMATE_MAX_BPS);
        // What waits would have left as well.
        let wish_bps = self.leaving.bitrate_bps(now) + waiting * 8;
        let is_queued = self.least_round.get().is_some_and(|least_us| self.round_us as i64 >= least_us + QUEUED_US);
        let delivered_bps = match self.delivered_bps(now) {
            Some(bps) if !is_queued && bps * 100 >= wish_bps * ALL_PERCENT => ESTIMATE_MAX_BPS,
            delivered => delivered.unwrap_or(0),
        };
        self.estimate_bps.max(delivered_bps.min(most_bps))
    }

    /// The most that the path may carry, if loss is not its fault but its nature.
    fn plausible_bps(&self, carried_bps: u64) -> u64 {
        if !self.is_answered() {
            return carried_bps;
        }
        carried_bps.max(self.by_delay_bps().min(forgiven(carried_bps)))
    }

    /// What a picture that is new may count on: the estimate, or where loss holds that down what delay allows, which a probe may
    /// have found, but not more than such loss would explain.
    fn beginning_bps(&self) -> u64 {
        if !self.is_answered() {
            return self.estimate_bps;
        }
        self.estimate_bps.max(self.by_delay_bps().min(forgiven(self.estimate_bps)))
    }

    fn by_delay_bps(&self) -> u64 {
        self.rate.bps().min(self.remb_bps.unwrap_or(u64::MAX))
    }

    /// The estimate, if it changed by a twentieth since this last said so: time for a new allocation.
    pub fn take_change(&mut self) -> Option<u64> {
        let apart = self.estimate_bps.abs_diff(self.told_bps);
        if apart * 100 < self.told_bps * NOTEWORTHY_PERCENT {
            return None;
        }
        self.told_bps = self.estimate_bps;
        Some(self.estimate_bps)
    }

    /// The path carries much less than it did, and the queue in front of it is full of what it no longer carries: that has to
    /// drain before anything else comes through.
    pub fn is_jammed(&self) -> bool {
        self.jammed_us.is_some()
    }

    /// What the allocation goes by; `waiting` bytes were to leave and wait for room, so it is not for want of a wish that no more
    /// leaves.
    pub fn downlink(&self, waiting: u64, now: Instant) -> Downlink {
        let carried_bps = self.carried_bps(waiting, now);
        Downlink {
            estimate_bps: self.estimate_bps(),
            carried_bps,
            plausible_bps: self.plausible_bps(carried_bps),
            beginning_bps: self.beginning_bps(),
            is_answered: self.is_answered(),
            drain_bps: if self.is_jammed() { self.estimate_bps() / DRAIN_SHARE } else { 0 },
        }
    }

    /// What is known of the path besides.
    pub fn path(&self) -> Path {
        match (self.is_jammed(), self.rate.is_capacity_known()) {
            (true, _) => Path::Jammed,
            (false, true) => Path::Narrow,
            (false, false) => Path::Open,
        }
    }

    /// Smoothed by nothing; from receiver reports where there are any.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us)
    }

    /// How long an answer takes where a queue stands in front of the path: as long as the last did. Receiver reports tell that
    /// some seconds late. `None` where no queue has shown what the path carries.
    pub fn queued_round(&self) -> Option<Duration> {
        let round = Duration::from_micros(self.round_us).min(RTT_MAX);
        (self.path() != Path::Open).then_some(round)
    }

    /// Probes begun.
    pub fn probes(&self) -> u64 {
        self.prober.count()
    }

    #[inline]
    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.epoch);
        since.as_secs() * 1_000_000 + since.subsec_micros() as u64
    }
}

/// A rate that loss holds down, if the loss is the path's nature.
fn forgiven(bps: u64) -> u64 {
    bps * FORGIVEN_NUMERATOR / FORGIVEN_DENOMINATOR
}
