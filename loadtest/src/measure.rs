//! What is counted while a load runs. The event loop writes here; `report` reads the result. Latencies are nanoseconds
//! from the time at which a packet was *due*.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

use crate::client::stream::{Counts, SILENCE, Stream};
use crate::proc::Usage;
use crate::random::Random;
use crate::schedule::Nanos;

/// Packets opened per second at most, beyond which a sample is taken.
const OPENED_PER_SECOND: u64 = 50_000;
/// At least one packet in so many is opened at any rate.
const SAMPLE_MAX: u64 = 64;
const LONGEST: Nanos = 60_000_000_000;

pub struct Measures {
    pub now: Totals,
    /// Due to received, of packets that were opened.
    pub forward: Histogram<u64>,
    /// The same since the last second's end.
    pub interval: Histogram<u64>,
    /// Due to sent: how late the load test itself was.
    pub lag: Histogram<u64>,
    pub join: Joins,
    /// Streams that are gone.
    pub gone: StreamSum,
    pub seconds: Vec<Second>,
    /// End of each measured second and its latencies, packed: a soak has many.
    intervals: Vec<(Nanos, Vec<u8>)>,
    pub sampler: Sampler,
    pub errors: Vec<String>,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub sent_packets: u64,
    pub sent_bytes: u64,
    /// Media as the server forwarded it: neither what came again on request nor probes and fillers.
    pub received: Flow,
    /// Of `received`, sound.
    pub received_audio: Flow,
    /// Came again on request (RTX).
    pub repairs: Flow,
    /// Padding alone: probes of a bandwidth estimate, and fillers.
    pub probes: Flow,
    /// Of streams that nobody announced.
    pub unknown: Flow,
    /// Everything that came, of any kind.
    pub datagrams: Flow,
    /// Receive calls that brought something, and runs that the kernel delivered: how well receives are batched.
    pub receive_calls: u64,
    pub received_runs: u64,
    pub opened: u64,
    pub forged: u64,
    /// Packets that were sent to receivers as the numbers tell, and those that came, at first or on request.
    pub expected: u64,
    pub arrived: u64,
    pub freezes: u64,
    pub send_failures: u64,
    pub key_frames_asked: u64,
    pub nacked: u64,
    pub resent: u64,
    pub joined: u64,
    pub left: u64,
    pub join_failures: u64,
    /// Failures of any kind.
    pub failed: u64,
}

/// Packets of one kind, with their RTP headers and tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    pub packets: u64,
    pub bytes: u64,
}

impl Flow {
    pub fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    fn since(self, then: Flow) -> Flow {
        Flow { packets: self.packets - then.packets, bytes: self.bytes - then.bytes }
    }
}

impl Totals {
    /// What was counted since an earlier moment.
    pub fn since(&self, then: &Totals) -> Totals {
        Totals {
            sent_packets: self.sent_packets - then.sent_packets,
            sent_bytes: self.sent_bytes - then.sent_bytes,
            received: self.received.since(then.received),
            received_audio: self.received_audio.since(then.received_audio),
            repairs: self.repairs.since(then.repairs),
            probes: self.probes.since(then.probes),
            unknown: self.unknown.since(then.unknown),
            datagrams: self.datagrams.since(then.datagrams),
            receive_calls: self.receive_calls - then.receive_calls,
            received_runs: self.received_runs - then.received_runs,
            opened: self.opened - then.opened,
            forged: self.forged - then.forged,
            expected: self.expected - then.expected,
            arrived: self.arrived - then.arrived,
            freezes: self.freezes - then.freezes,
            send_failures: self.send_failures - then.send_failures,
            key_frames_asked: self.key_frames_asked - then.key_frames_asked,
            nacked: self.nacked - then.nacked,
            resent: self.resent - then.resent,
            joined: self.joined - then.joined,
            left: self.left - then.left,
            join_failures: self.join_failures - then.join_failures,
            failed: self.failed - then.failed,
        }
    }
}

/// Time from the moment at which a participant was due to join.
pub struct Joins {
    /// The server has made the transports.
    pub signaling: Histogram<u64>,
    pub ice: Histogram<u64>,
    pub dtls: Histogram<u64>,
    pub first_media: Histogram<u64>,
    pub first_key_frame: Histogram<u64>,
}

/// What streams have seen, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSum {
    pub streams: u64,
    /// Pictures that were wanted and never came.
    pub silent: u64,
    pub expected: u64,
    pub counts: Counts,
}

/// One line of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Second {
    pub at_s: f64,
    pub measured: bool,
    pub participants: u64,
    pub sent_packets: u64,
    pub received_packets: u64,
    pub received_bits: u64,
    /// Packets that were due to receivers in this second and have not come by its end.
    pub lost_packets: u64,
    pub freezes: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Cores in use.
    pub server_cores: f64,
    pub server_resident_bytes: u64,
    pub own_cores: f64,
}

impl Default for Measures {
    fn default() -> Self {
        Measures {
            now: Totals::default(),
            forward: histogram(),
            interval: histogram(),
            lag: histogram(),
            join: Joins::default(),
            gone: StreamSum::default(),
            seconds: Vec::new(),
            intervals: Vec::new(),
            sampler: Sampler::default(),
            errors: Vec::new(),
        }
    }
}

impl Default for Joins {
    fn default() -> Self {
        Joins {
            signaling: histogram(),
            ice: histogram(),
            dtls: histogram(),
            first_media: histogram(),
            first_key_frame: histogram(),
        }
    }
}

/// 1 us to 60 s with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LONGEST, 3).expect("valid bounds")
}

/// Counts a time; one beyond the histogram's range counts as the largest.
pub fn record(histogram: &mut Histogram<u64>, nanos: Nanos) {
    histogram.saturating_record(nanos);
}

impl Measures {
    /// Notes a failure once in full; afterwards only its number.
    pub fn fail(&mut self, why: String) {
        const KEPT: usize = 20;
        self.now.failed += 1;
        if self.errors.len() < KEPT && !self.errors.contains(&why) {
            self.errors.push(why);
        }
    }

    /// End of each measured second and its latencies.
    pub fn intervals(&self) -> impl Iterator<Item = (Nanos, Histogram<u64>)> {
        self.intervals
            .iter()
            .filter_map(|(end, packed)| Some((*end, Deserializer::new().deserialize(&mut &packed[..]).ok()?)))
    }

    /// Ends the second that lasted from `before` and returns its line.
    pub fn end_second(&mut self, at: Nanos, before: &SecondStart, measured: bool, usages: [Usage; 2]) -> Second {
        let span_s = (at - before.at) as f64 / 1e9;
        let ms = |quantile: f64| self.interval.value_at_quantile(quantile) as f64 / 1e6;
        let totals = self.now.since(&before.totals);
        let per_s = |count: u64| (count as f64 / span_s) as u64;
        let cores = |usage: &Usage, then: &Usage| ((usage.running_s - then.running_s) / span_s).max(0.0);
        let second = Second {
            at_s: at as f64 / 1e9,
            measured,
            participants: self.now.joined - self.now.left,
            sent_packets: per_s(totals.sent_packets),
            received_packets: per_s(totals.received.packets),
            received_bits: 8 * per_s(totals.received.bytes),
            lost_packets: totals.expected.saturating_sub(totals.arrived),
            freezes: totals.freezes,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: self.interval.max() as f64 / 1e6,
            server_cores: cores(&usages[0], &before.usages[0]),
            server_resident_bytes: usages[0].resident_bytes,
            own_cores: cores(&usages[1], &before.usages[1]),
        };
        self.sampler.adapt(second.received_packets);
        self.seconds.push(second);
        let interval = std::mem::replace(&mut self.interval, histogram());
        if measured && !interval.is_empty() {
            let mut packed = Vec::new();
            if V2Serializer::new().serialize(&interval, &mut packed).is_ok() {
                self.intervals.push((at, packed));
            }
        }
        second
    }
}

/// Where a second began.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecondStart {
    pub at: Nanos,
    pub totals: Totals,
    /// Server and load test.
    pub usages: [Usage; 2],
}

impl StreamSum {
    pub fn add(&mut self, stream: &Stream, now: Nanos) {
        // A server may forward the loudest speakers only, so only pictures are missed.
        let overdue = stream.video && stream.wanted_since.is_some_and(|since| now > since + SILENCE);
        self.streams += 1;
        self.silent += u64::from(overdue && !stream.has_started());
        self.expected += stream.expected();
        let (sum, one) = (&mut self.counts, &stream.counts);
        sum.packets += one.packets;
        sum.bytes += one.bytes;
        sum.duplicates += one.duplicates;
        sum.reordered += one.reordered;
        sum.repaired += one.repaired;
        sum.fillers += one.fillers;
        sum.frames += one.frames;
        sum.freezes += one.freezes;
        sum.frozen_ns += one.frozen_ns;
    }

    /// What happened since an earlier sum; numbers of streams are those of this one.
    pub fn since(&self, before: &StreamSum) -> StreamSum {
        let (now, then) = (&self.counts, &before.counts);
        StreamSum {
            streams: self.streams,
            silent: self.silent,
            expected: self.expected.saturating_sub(before.expected),
            counts: Counts {
                packets: now.packets - then.packets,
                bytes: now.bytes - then.bytes,
                duplicates: now.duplicates - then.duplicates,
                reordered: now.reordered - then.reordered,
                repaired: now.repaired - then.repaired,
                fillers: now.fillers - then.fillers,
                frames: now.frames - then.frames,
                freezes: now.freezes - then.freezes,
                frozen_ns: now.frozen_ns - then.frozen_ns,
            },
        }
    }

    /// Packets that did not come when they were sent first.
    pub fn lost_at_first(&self) -> u64 {
        self.lost() + self.counts.repaired
    }

    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.counts.packets)
    }
}

/// Chooses the packets to open: all at low rates, a random share at high ones, so that bursts do not beat with it.
pub struct Sampler {
    one_in: u64,
    random: Random,
}

impl Default for Sampler {
    fn default() -> Self {
        Sampler { one_in: 1, random: Random::new(0, 0x7361_6d70) }
    }
}

impl Sampler {
    pub fn take(&mut self) -> bool {
        self.one_in == 1 || self.random.below(self.one_in) == 0
    }

    pub fn one_in(&self) -> u64 {
        self.one_in
    }

    fn adapt(&mut self, packets_per_second: u64) {
        self.one_in = packets_per_second.div_ceil(OPENED_PER_SECOND).clamp(1, SAMPLE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_opened_at_low_rates_and_a_sixty_fourth_at_the_highest() {
        let mut sampler = Sampler::default();
        sampler.adapt(OPENED_PER_SECOND);
        assert!((0..1000).all(|_| sampler.take()));
        sampler.adapt(100_000_000);
        let taken = (0..64_000).filter(|_| sampler.take()).count();
        assert!((800..1200).contains(&taken), "{taken} of 64000");
    }

    #[test]
    fn a_seconds_latencies_come_back_as_they_were() {
        let mut measures = Measures::default();
        (1..=500).for_each(|n| record(&mut measures.interval, n * 100_000));
        let expected = measures.interval.clone();
        measures.end_second(1_000_000_000, &SecondStart::default(), true, [Usage::default(); 2]);
        let (end, histogram) = measures.intervals().next().unwrap();
        assert_eq!((end, histogram), (1_000_000_000, expected));
        assert!(measures.interval.is_empty(), "the next second starts anew");
        assert!(measures.intervals[0].1.len() < 10_000, "a second takes {} bytes", measures.intervals[0].1.len());
    }

    #[test]
    fn a_time_beyond_the_range_counts_as_the_longest() {
        let mut histogram = histogram();
        record(&mut histogram, 2 * LONGEST);
        assert_eq!(histogram.len(), 1);
        assert!(histogram.max() >= LONGEST);
    }
}
