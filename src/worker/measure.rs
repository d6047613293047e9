//! What a worker knows about its own speed: distributions since its start, and the last second.
//!
//! Filled by the worker on its own core and copied out on request; no other thread reads it. Runs are sampled, one
//! in [`SAMPLE`], so that measuring stays below one percent of what it measures; ticks are all recorded, because the
//! longest one is the interesting one.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::limits;
use crate::shard::outbox::{Destination, Outbox};
use crate::shard::stats::{Percentiles, WorkerStats};
use crate::uring::{Ring, clock};

/// One run in this many is measured: a record costs some 10 ns and a run at least 1,000, so all of them would
/// cost one percent of the core, and these cost a sixteenth of that.
const SAMPLE: u32 = 16;

/// Over what "the last second" is taken.
const SECOND: Duration = Duration::from_secs(1);

/// Distributions of one worker since its start.
#[derive(Clone)]
pub struct Histograms {
    /// Index of the worker.
    pub worker: usize,
    /// Microseconds from the kernel's receipt of a packet to its submitted send, sampled.
    pub forwarding_us: Histogram<u64>,
    /// Microseconds from the end of one wait to the beginning of the next.
    pub tick_us: Histogram<u64>,
    /// Datagrams per drain of the ring, of the drains that had any.
    pub batch_packets: Histogram<u64>,
    /// Datagrams per message sent, sampled.
    pub run_segments: Histogram<u64>,
    started_at: SystemTime,
}

pub(super) struct Measure {
    histograms: Histograms,
    runs: Sampler,
    departures: Sampler,
    /// When the first packets of this tick's sampled runs arrived.
    arrivals: Vec<Instant>,
    second: Second,
}

/// The second that is being counted, and what the last full one came to.
struct Second {
    start: Instant,
    /// CPU time of the thread at `start`.
    cpu_at_start: Duration,
    forwarding_us: Histogram<u64>,
    busy: f64,
    /// `busy` has not been taken.
    is_news: bool,
    p99_us: u64,
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
            second: Second {
                start: now,
                cpu_at_start: clock::thread_cpu(),
                forwarding_us: microseconds(),
                busy: 0.0,
                is_news: false,
                p99_us: 0,
            },
        }
    }

    pub(super) fn drained(&mut self, datagrams: u64) {
        if datagrams > 0 {
            self.histograms.batch_packets.saturating_record(datagrams);
        }
    }

    /// Takes the arrival times of the runs that leave in this tick. `true`: some are sampled, and wait for the
    /// time at which they are [`submitted`](Self::submitted).
    pub(super) fn departing(&mut self, arrivals: impl Iterator<Item = Instant>) -> bool {
        for arrival in arrivals {
            if self.departures.is_next() && self.arrivals.len() < limits::SAMPLES_PER_TICK {
                self.arrivals.push(arrival);
            }
        }
        !self.arrivals.is_empty()
    }

    /// Everything committed in this tick has been handed to the kernel at `now`.
    pub(super) fn submitted(&mut self, now: Instant) {
        for arrival in self.arrivals.drain(..) {
            let latency_us = micros(now.saturating_duration_since(arrival));
            self.histograms.forwarding_us.saturating_record(latency_us);
            self.second.forwarding_us.saturating_record(latency_us);
        }
    }

    pub(super) fn ticked(&mut self, start: Instant, end: Instant) {
        self.histograms.tick_us.saturating_record(micros(end.saturating_duration_since(start)));
        if end.saturating_duration_since(self.second.start) >= SECOND {
            self.second.turn(end);
        }
    }

    /// Share of the last full second that the thread was on its core; each second is told once.
    pub(super) fn take_busy(&mut self) -> Option<f64> {
        std::mem::take(&mut self.second.is_news).then_some(self.second.busy)
    }

    /// Adds what only the worker knows.
    pub(super) fn fill(&mut self, now: Instant, stats: &mut WorkerStats) {
        // An idle worker has no ticks that would turn the second.
        if now.saturating_duration_since(self.second.start) >= SECOND {
            self.second.turn(now);
        }
        stats.busy = self.second.busy;
        stats.recent_p99_us = self.second.p99_us;
        stats.forwarding_us = percentiles(&self.histograms.forwarding_us);
        stats.tick_us = percentiles(&self.histograms.tick_us);
        stats.batch_packets = percentiles(&self.histograms.batch_packets);
        stats.run_segments = percentiles(&self.histograms.run_segments);
        stats.ticks = self.histograms.tick_us.len();
    }

    pub(super) fn histograms(&self) -> Histograms {
        self.histograms.clone()
    }
}

impl Second {
    /// CPU time, not wall time, is what "busy" counts: the kernel receives inside the call that also waits.
    fn turn(&mut self, now: Instant) {
        let wall = now.saturating_duration_since(self.start);
        let cpu = clock::thread_cpu();
        let worked = cpu.saturating_sub(self.cpu_at_start);
        self.busy = (worked.as_secs_f64() / wall.as_secs_f64()).min(1.0);
        self.is_news = true;
        self.p99_us = self.forwarding_us.value_at_quantile(0.99);
        self.forwarding_us.reset();
        (self.start, self.cpu_at_start) = (now, cpu);
    }
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
        if self.measure.runs.is_next() {
            self.measure.histograms.run_segments.saturating_record(len.div_ceil(segment.max(1)) as u64);
        }
    }
}

/// Lets one in [`SAMPLE`] through.
#[derive(Default)]
struct Sampler(u32);

impl Sampler {
    fn is_next(&mut self) -> bool {
        self.0 += 1;
        let is_next = self.0 == SAMPLE;
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

fn percentiles(histogram: &Histogram<u64>) -> Percentiles {
    Percentiles {
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
        assert!(measure.departing([start; SAMPLE as usize].into_iter()));
        measure.submitted(start + Duration::from_micros(150));
        measure.ticked(start, start + Duration::from_micros(40));
        let mut stats = WorkerStats::default();
        measure.fill(start + SECOND, &mut stats);
        assert_eq!((stats.forwarding_us.count, stats.forwarding_us.p50), (1, 150));
        assert_eq!((stats.tick_us.count, stats.tick_us.max, stats.ticks), (1, 40, 1));
        assert_eq!((stats.batch_packets.count, stats.batch_packets.p99), (1, 6));
        assert_eq!(stats.recent_p99_us, 150);
        assert!((0.0..=1.0).contains(&stats.busy));
    }

    #[test]
    fn one_run_in_sixteen_is_sampled_and_no_more_than_a_tick_may() {
        let now = Instant::now();
        let mut measure = Measure::new(0, now);
        assert!(!measure.departing([now; SAMPLE as usize - 1].into_iter()));
        assert!(measure.departing([now; 3 * SAMPLE as usize].into_iter()));
        measure.submitted(now);
        assert_eq!(measure.histograms.forwarding_us.len(), 3);
        measure.departing(std::iter::repeat_n(now, SAMPLE as usize * limits::SAMPLES_PER_TICK * 2));
        measure.submitted(now);
        assert_eq!(measure.histograms.forwarding_us.len(), 3 + limits::SAMPLES_PER_TICK as u64);
    }

    #[test]
    fn a_second_without_packets_forgets_the_one_before() {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        assert!(measure.departing([start; SAMPLE as usize].into_iter()));
        measure.submitted(start + Duration::from_millis(5));
        measure.ticked(start, start + SECOND);
        let mut stats = WorkerStats::default();
        measure.fill(start + SECOND * 2, &mut stats);
        assert_eq!(stats.recent_p99_us, 0);
        assert_eq!(stats.forwarding_us.count, 1);
    }

    #[test]
    fn each_full_second_tells_once_how_busy_it_was() {
        let start = Instant::now();
        let mut measure = Measure::new(0, start);
        measure.ticked(start, start + SECOND / 2);
        assert_eq!(measure.take_busy(), None);
        measure.ticked(start, start + SECOND);
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
