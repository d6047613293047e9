//! What a worker knows about its own speed: distributions since its start, and the last second.
//!
//! Filled by the worker on its own core and copied out on request; no other thread reads it. Where much leaves it is
//! sampled, one in [`SAMPLE`], so that measuring stays below one percent of what it measures; ticks are all recorded,
//! because the longest one is the interesting one.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::limits;
use crate::shard::outbox::{Destination, Outbox};
use crate::shard::stats::{Distribution, WorkerStats};
use crate::uring::{Ring, clock};

/// One run in this many is measured: a record costs some 10 ns and a run at least 1,000, so all of them would
/// cost one percent of the core, and these cost a sixteenth of that.
const SAMPLE: u32 = 16;
/// Departures of one second up to which each is measured: a layer's frame is one of them whatever the number of its
/// receivers, so a webinar of one camera has 30. Above, so many at least are, and at most twice as many until there are
/// [`SAMPLE`] times as many. Each may cost a system call of its own, a tenth of a percent of the core in all.
const MEASURED_PER_S: u64 = 256;

/// Over what "the last second" is taken.
const SECOND: Duration = Duration::from_secs(1);
/// As long as ten times the longest gathering.
const MOMENT: Duration = Duration::from_millis(50);

/// Upper bounds of the buckets in which monitoring sees the distributions. Latency is told apart best around the
/// millisecond that a frame may wait; 10 and 20 ms are what alerts and `--latency-limit-ms` ask for.
const FORWARDING_BOUNDS_US: [u64; 15] =
    [50, 100, 200, 500, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 50_000, 100_000, 500_000];
const TICK_BOUNDS_US: [u64; 15] =
    [5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000];
const BATCH_BOUNDS: [u64; 15] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256];
/// Up to [`limits::RUN_SEGMENTS`].
const RUN_BOUNDS: [u64; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64];

/// Distributions of one worker since its start.
#[derive(Clone)]
pub struct Histograms {
    /// Index of the worker.
    pub worker: usize,
    /// Microseconds from the kernel's receipt of a run's first packet to its submitted send. A sampled one counts for
    /// those that it stands for.
    pub forwarding_us: Histogram<u64>,
    /// Microseconds from the end of one wait to the beginning of the next.
    pub tick_us: Histogram<u64>,
    /// Datagrams that one tick took, of the ticks that had any: the sum of up to [`limits::DRAINS_PER_TICK`] drains of the
    /// ring, each of up to [`limits::RECEIVE_SLOTS`] slots with a train of one sender in each.
    pub batch_packets: Histogram<u64>,
    /// Datagrams per message sent, sampled.
    pub run_segments: Histogram<u64>,
    started_at: SystemTime,
}

pub(super) struct Measure {
    histograms: Histograms,
    runs: Sampler,
    departures: Sampler,
    /// When the first packets of this tick's measured runs arrived.
    arrivals: Vec<Instant>,
    second: Second,
    moment: Moment,
}

/// A stretch of [`MOMENT`] that is being counted, short enough to notice a rush before datagrams pile up.
struct Moment {
    start: Instant,
    cpu_at_start: Duration,
    /// The share of the last full one that has not been taken.
    busy: Option<f64>,
}

/// The second that is being counted, and what the last full one came to.
struct Second {
    start: Instant,
    /// CPU time of the thread at `start`.
    cpu_at_start: Duration,
    forwarding_us: Histogram<u64>,
    tick_us: Histogram<u64>,
    /// Runs that left in it.
    departures: u64,
    /// One departure in this many is measured, by how many there were in the second before.
    every: u32,
    /// How many have been told.
    number: u64,
    busy: f64,
    p99_us: u64,
    late_us: u64,
    samples: u64,
    tick_p99_us: u64,
}

impl Measure {
    /// On the worker's own thread, whose CPU time it reads.
    pub(super) fn new(worker: usize, now: Instant) -> Measure {
        Measure {
            histograms: Histograms {
                worker,
                forwarding_us: microseconds(),
                tick_us: microseconds(),
                batch_packets: counts(),
                run_segments: counts(),
                started_at: SystemTime::now(),
            },
            runs: Sampler::default(),
            departures: Sampler::default(),
            arrivals: Vec::with_capacity(limits::SAMPLES_PER_TICK),
            moment: Moment { start: now, cpu_at_start: clock::thread_cpu(), busy: None },
            second: Second {
                start: now,
                cpu_at_start: clock::thread_cpu(),
                forwarding_us: microseconds(),
                tick_us: microseconds(),
                departures: 0,
                every: 1,
                number: 0,
                busy: 0.0,
                p99_us: 0,
                late_us: 0,
                samples: 0,
                tick_p99_us: 0,
            },
        }
    }

    /// One tick took so many.
    pub(super) fn drained(&mut self, datagrams: u64) {
        if datagrams > 0 {
            self.histograms.batch_packets.saturating_record(datagrams);
        }
    }

    /// Takes the arrival times of the runs that leave in this tick. `true`: some are measured, and wait for the
    /// time at which they are [`submitted`](Self::submitted).
    pub(super) fn departing(&mut self, arrivals: impl Iterator<Item = Instant>) -> bool {
        for arrival in arrivals {
            self.second.departures += 1;
            if self.departures.is_next(self.second.every) && self.arrivals.len() < limits::SAMPLES_PER_TICK {
                self.arrivals.push(arrival);
            }
        }
        !self.arrivals.is_empty()
    }

    /// Everything committed in this tick has been handed to the kernel at `now`.
    pub(super) fn submitted(&mut self, now: Instant) {
        for arrival in self.arrivals.drain(..) {
            let latency_us = micros(now.saturating_duration_since(arrival));
            self.histograms.forwarding_us.saturating_record_n(latency_us, self.second.every.into());
            self.second.forwarding_us.saturating_record(latency_us);
        }
    }

    pub(super) fn ticked(&mut self, start: Instant, end: Instant) {
        let tick_us = micros(end.saturating_duration_since(start));
        self.histograms.tick_us.saturating_record(tick_us);
        self.second.tick_us.saturating_record(tick_us);
        if end.saturating_duration_since(self.second.start) >= SECOND {
            self.second.turn(end);
        }
        if end.saturating_duration_since(self.moment.start) >= MOMENT {
            self.moment.turn(end);
        }
    }

    /// CPU time of the thread over the last [`MOMENT`], as a share of it; each is told once.
    pub(super) fn take_busy(&mut self) -> Option<f64> {
        self.moment.busy.take()
    }

    /// Adds what only the worker knows.
    pub(super) fn fill(&mut self, now: Instant, stats: &mut WorkerStats) {
        // An idle worker has no ticks that would turn the second.
        if now.saturating_duration_since(self.second.start) >= SECOND {
            self.second.turn(now);
        }
        stats.seconds = self.second.number;
        stats.busy = self.second.busy;
        stats.recent_p99_us = self.second.p99_us;
        stats.recent_late_us = self.second.late_us;
        stats.recent_samples = self.second.samples;
        stats.recent_tick_p99_us = self.second.tick_p99_us;
        stats.forwarding_us = distribution(&self.histograms.forwarding_us, &FORWARDING_BOUNDS_US);
        stats.tick_us = distribution(&self.histograms.tick_us, &TICK_BOUNDS_US);
        stats.batch_packets = distribution(&self.histograms.batch_packets, &BATCH_BOUNDS);
        stats.run_segments = distribution(&self.histograms.run_segments, &RUN_BOUNDS);
        stats.ticks = self.histograms.tick_us.len();
    }

    pub(super) fn histograms(&self) -> Histograms {
        self.histograms.clone()
    }
}

impl Moment {
    fn turn(&mut self, now: Instant) {
        let (wall, cpu) = (now.saturating_duration_since(self.start), clock::thread_cpu());
        self.busy = Some((cpu.saturating_sub(self.cpu_at_start).as_secs_f64() / wall.as_secs_f64()).min(1.0));
        (self.start, self.cpu_at_start) = (now, cpu);
    }
}

impl Second {
    /// CPU time, not wall time, is what "busy" counts: the kernel receives inside the call that also waits.
    fn turn(&mut self, now: Instant) {
        let wall = now.saturating_duration_since(self.start);
        let cpu = clock::thread_cpu();
        let worked = cpu.saturating_sub(self.cpu_at_start);
        self.busy = (worked.as_secs_f64() / wall.as_secs_f64()).min(1.0);
        self.number += 1;
        self.p99_us = self.forwarding_us.value_at_quantile(0.99);
        self.samples = self.forwarding_us.len();
        self.late_us = late(&self.forwarding_us);
        self.every = u32::try_from(self.departures / MEASURED_PER_S).unwrap_or(SAMPLE).clamp(1, SAMPLE);
        self.departures = 0;
        self.tick_p99_us = self.tick_us.value_at_quantile(0.99);
        self.forwarding_us.reset();
        self.tick_us.reset();
        (self.start, self.cpu_at_start) = (now, cpu);
    }
}

/// What the slowest one percent took at least, or the slowest [`limits::OVERLOAD_LATE_RUNS`] where those are more.
fn late(histogram: &Histogram<u64>) -> u64 {
    let (least, all) = (limits::OVERLOAD_LATE_RUNS, histogram.len());
    if all < least {
        return 0;
    }
    // Half a sample below the one that is meant, so that rounding never leads to the next.
    let share = ((all - least) as f64 + 0.5) / all as f64;
    histogram.value_at_quantile(share.min(0.99))
}

/// The ring as a shard sees it, with the length of one run in [`SAMPLE`] recorded.
pub(super) struct MeasuredOutbox<'a> {
    pub(super) ring: &'a mut Ring,
    pub(super) measure: &'a mut Measure,
}

impl Outbox for MeasuredOutbox<'_> {
    fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]> {
        self.ring.reserve(destination, capacity)
    }

    fn commit(&mut self, len: usize, segment: usize) {
        self.ring.commit(len, segment);
        if self.measure.runs.is_next(SAMPLE) {
            self.measure.histograms.run_segments.saturating_record(len.div_ceil(segment.max(1)) as u64);
        }
    }
}

/// Lets one in so many through.
#[derive(Default)]
struct Sampler(u32);

impl Sampler {
    fn is_next(&mut self, every: u32) -> bool {
        self.0 += 1;
        let is_next = self.0 >= every;
        if is_next {
            self.0 = 0;
        }
        is_next
    }
}

impl Histograms {
    fn each(&self) -> [(&'static str, &Histogram<u64>); 4] {
        [
            ("forwarding_us", &self.forwarding_us),
            ("tick_us", &self.tick_us),
            ("batch_packets", &self.batch_packets),
            ("run_segments", &self.run_segments),
        ]
    }
}

/// Writes one HdrHistogram log with the distributions of all workers since their start, tagged
/// `worker-1.forwarding_us` and so on; returns its path, `ringside-<seconds since 1970>.hlog` in `directory`. The
/// histograms are deflated (V2): HdrHistogram's own tools read no others from a log.
pub fn write_hlog(directory: &Path, workers: &[Histograms]) -> io::Result<PathBuf> {
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let path = directory.join(format!("ringside-{seconds}.hlog"));
    let mut file = BufWriter::new(File::create(&path)?);
    write_log(&mut file, now, workers)?;
    file.flush()?;
    Ok(path)
}

fn write_log(to: &mut impl Write, now: SystemTime, workers: &[Histograms]) -> io::Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("[Histogram log format version 1.3]");
    builder.add_comment("[Ringside: distributions since each worker's start; _us in microseconds]");
    let mut log = builder.begin_log_with(to, &mut serializer)?;
    for worker in workers {
        let start = worker.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let length = now.duration_since(worker.started_at).unwrap_or_default();
        for (name, histogram) in worker.each() {
            let tag = format!("worker-{}.{name}", worker.worker + 1);
            log.write_histogram(histogram, start, length, Tag::new(&tag)).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// One microsecond to one minute, two significant digits: 20 KiB.
fn microseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are in order")
}

/// One to 10,000, two significant digits: 8 KiB.
fn counts() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000, 2).expect("the bounds are in order")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Sorts what was recorded into buckets. A value is known within one percent, so a bound lies that far off at most,
/// always on the same side: what was counted in a bucket stays there.
fn distribution(histogram: &Histogram<u64>, bounds: &[u64]) -> Distribution {
    let mut buckets: Vec<(u64, u64)> = bounds.iter().chain([&u64::MAX]).map(|bound| (*bound, 0)).collect();
    let (mut sum, mut at) = (0, 0);
    for recorded in histogram.iter_recorded() {
        let (value, count) = (recorded.value_iterated_to(), recorded.count_at_value());
        while histogram.lowest_equivalent(value) > buckets[at].0 {
            at += 1;
        }
        buckets[at].1 += count;
        sum += histogram.median_equivalent(value) * count;
    }
    Distribution {
        sum,
        buckets,
        count: histogram.len(),
        p50: histogram.value_at_quantile(0.5),
        p90: histogram.value_at_quantile(0.9),
        p99: histogram.value_at_quantile(0.99),
        p999: histogram.value_at_quantile(0.999),
        max: histogram.max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn statistics_show_what_was_recorded() {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        measure.drained(0);
        measure.drained(6);
        assert!(measure.departing([start].into_iter()));
        measure.submitted(start + Duration::from_micros(150));
        measure.ticked(start, start + Duration::from_micros(40));
        let mut stats = WorkerStats::default();
        measure.fill(start + SECOND, &mut stats);
        assert_eq!((stats.forwarding_us.count, stats.forwarding_us.p50), (1, 150));
        assert_eq!((stats.tick_us.count, stats.tick_us.max, stats.ticks), (1, 40, 1));
        assert_eq!((stats.batch_packets.count, stats.batch_packets.p99), (1, 6));
        assert_eq!((stats.recent_p99_us, stats.recent_samples, stats.recent_tick_p99_us), (150, 1, 40));
        assert!((0.0..=1.0).contains(&stats.busy));
        assert_eq!(stats.seconds, 1);
        measure.fill(start + SECOND, &mut stats);
        assert_eq!(stats.seconds, 1, "the same second");
    }

    #[test]
    fn where_much_leaves_one_run_in_sixteen_is_measured_and_no_more_than_a_tick_may() {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        let each = u64::from(SAMPLE);
        measure.departing(std::iter::repeat_n(start, (each * MEASURED_PER_S) as usize));
        measure.submitted(start);
        assert_eq!(measure.histograms.forwarding_us.len(), limits::SAMPLES_PER_TICK as u64);
        measure.ticked(start, start + SECOND);
        measure.histograms.forwarding_us.reset();
        assert!(!measure.departing([start; SAMPLE as usize - 1].into_iter()));
        assert!(measure.departing([start; 3 * SAMPLE as usize].into_iter()));
        measure.submitted(start);
        assert_eq!(measure.second.forwarding_us.len(), 3);
        assert_eq!(measure.histograms.forwarding_us.len(), 3 * each, "each counts for those that it stands for");
        measure.departing(std::iter::repeat_n(start, SAMPLE as usize * limits::SAMPLES_PER_TICK * 2));
        measure.submitted(start);
        assert_eq!(measure.second.forwarding_us.len(), 3 + limits::SAMPLES_PER_TICK as u64);
    }

    /// What a second of a webinar says, in which so many of a camera's frames (30) and a microphone's sounds (50) are late.
    fn webinar(late: u32) -> WorkerStats {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        for number in 0..80 {
            let arrival = start + SECOND / 80 * number;
            assert!(measure.departing([arrival].into_iter()));
            measure.submitted(arrival + Duration::from_millis(if number < late { 500 } else { 1 }));
        }
        let mut stats = WorkerStats::default();
        measure.fill(start + SECOND, &mut stats);
        assert_eq!(stats.recent_samples, 80);
        stats
    }

    #[test]
    fn a_worker_with_one_camera_is_seen_to_be_late_whatever_the_number_of_its_receivers() {
        let is_late = |late| webinar(late).recent_late_us > 100_000;
        assert!(is_late(80) && is_late(limits::OVERLOAD_LATE_RUNS as u32));
        assert!(!is_late(limits::OVERLOAD_LATE_RUNS as u32 - 1), "a hiccup is not a late worker");
        assert!(webinar(1).recent_p99_us > 100_000, "and yet told");
    }

    #[test]
    fn where_much_leaves_one_in_a_hundred_is_what_counts() {
        let mut histogram = microseconds();
        histogram.record_n(1_000, 10_000).unwrap();
        assert_eq!(late(&Histogram::new_from(&histogram)), 0, "nothing left");
        histogram.record_n(500_000, 90).unwrap();
        assert!(late(&histogram) < 2_000);
        histogram.record_n(500_000, 20).unwrap();
        assert!(late(&histogram) > 100_000);
    }

    #[test]
    fn a_second_without_packets_forgets_the_one_before() {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        assert!(measure.departing([start].into_iter()));
        measure.submitted(start + Duration::from_millis(5));
        measure.ticked(start, start + SECOND);
        let mut stats = WorkerStats::default();
        measure.fill(start + SECOND * 2, &mut stats);
        assert_eq!((stats.recent_p99_us, stats.recent_samples, stats.recent_tick_p99_us), (0, 0, 0));
        assert_eq!(stats.forwarding_us.count, 1);
    }

    #[test]
    fn monitoring_finds_every_value_in_one_bucket_and_adds_them_up() {
        let mut histogram = microseconds();
        for (value, times) in [(7, 3), (50, 1), (51, 1), (10_000, 2), (90_000_000, 1)] {
            histogram.saturating_record_n(value, times);
        }
        let seen = distribution(&histogram, &FORWARDING_BOUNDS_US);
        let bounds: Vec<u64> = seen.buckets.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds, [FORWARDING_BOUNDS_US.as_slice(), &[u64::MAX]].concat());
        let filled: Vec<(u64, u64)> = seen.buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(50, 4), (100, 1), (10_000, 2), (u64::MAX, 1)]);
        assert_eq!(seen.count, 8);
        let exact = 3.0 * 7.0 + 50.0 + 51.0 + 2.0 * 10_000.0 + 60_000_000.0;
        assert!((seen.sum as f64 / exact - 1.0).abs() < 0.02, "{} is {exact}", seen.sum);
    }

    #[test]
    fn the_buckets_of_runs_reach_as_far_as_a_run_may() {
        assert_eq!(*RUN_BOUNDS.last().unwrap(), limits::RUN_SEGMENTS as u64);
        for bounds in [&FORWARDING_BOUNDS_US[..], &TICK_BOUNDS_US, &BATCH_BOUNDS, &RUN_BOUNDS] {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
        }
    }

    #[test]
    fn each_full_moment_tells_once_how_busy_it_was() {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        measure.ticked(start, start + MOMENT / 2);
        assert_eq!(measure.take_busy(), None);
        measure.ticked(start, start + MOMENT);
        assert!(measure.take_busy().is_some());
        assert_eq!(measure.take_busy(), None);
    }

    #[test]
    fn values_beyond_the_range_count_as_its_end() {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        measure.ticked(start, start + Duration::from_secs(3600));
        assert_eq!(measure.histograms.tick_us.len(), 1);
        assert!(measure.histograms.tick_us.max() >= 60_000_000);
    }

    #[test]
    fn the_log_reads_back_with_every_distribution_of_each_worker() {
        let now = Instant::now();
        let mut first = Measure::new(0, now);
        (1..=100).for_each(|micros| first.ticked(now, now + Duration::from_micros(micros)));
        let second = Measure::new(1, now);
        let mut bytes = Vec::new();
        write_log(&mut bytes, SystemTime::now(), &[first.histograms(), second.histograms()]).unwrap();
        let mut read = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            let LogEntry::Interval(interval) = entry.unwrap() else { continue };
            // Deflated, version 2: the four bytes by which the tools know it (0x1c849304).
            assert!(interval.encoded_histogram().starts_with("HISTFA"), "{}", interval.encoded_histogram());
            let histogram = from_base64(interval.encoded_histogram());
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &*histogram).unwrap();
            read.push((interval.tag().unwrap().as_str().to_owned(), histogram));
        }
        assert_eq!(read.len(), 8);
        let find = |tag: &str| &read.iter().find(|(found, _)| found == tag).unwrap().1;
        assert_eq!(find("worker-1.tick_us"), &first.histograms.tick_us);
        assert_eq!(find("worker-1.tick_us").value_at_quantile(0.5), 50);
        assert!(find("worker-2.run_segments").is_empty());
    }

    /// RFC 4648 section 4.
    fn from_base64(text: &str) -> Vec<u8> {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let digits = text.bytes().filter(|byte| *byte != b'=');
        let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
        for digit in digits {
            let value = ALPHABET.iter().position(|byte| *byte == digit).unwrap();
            (bits, held) = (bits << 6 | value as u32, held + 6);
            if held >= 8 {
                held -= 8;
                bytes.push((bits >> held) as u8);
            }
        }
        bytes
    }
}
