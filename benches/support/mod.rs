//! What the benches share: the command line, and how repeats become one figure.
//!
//! Every bench interleaves what it compares and reports ratios, because this machine's speed changes from
//! second to second while the ratio of two neighbours does not.
#![allow(dead_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

/// `--quick`: few repeats, to show that the bench still runs. Its figures mean nothing.
pub fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// Repeats of one measurement in nanoseconds per unit of work.
#[derive(Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// One repeat: `time` for `units` of work.
    pub fn add(&mut self, time: Duration, units: u64) {
        self.0.push(time.as_nanos() as f64 / units.max(1) as f64);
    }

    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The least disturbed repeat.
    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// `median (least)`, in whole nanoseconds.
    pub fn show(&self) -> String {
        format!("{:.0} ({:.0})", self.median(), self.least())
    }
}

/// Small pure operations side by side: timed in loops, in turns, one row of a table for each.
#[derive(Default)]
pub struct Bench<'a> {
    cases: Vec<Case<'a>>,
}

struct Case<'a> {
    name: &'static str,
    /// So many operations in one go.
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
    count: u64,
    samples: Samples,
}

impl<'a> Bench<'a> {
    /// What `operation` returns is not optimised away.
    pub fn case<T>(&mut self, name: &'static str, mut operation: impl FnMut() -> T + 'a) {
        let run = Box::new(move |count| {
            let start = Instant::now();
            for _ in 0..count {
                black_box(operation());
            }
            start.elapsed()
        });
        self.cases.push(Case { name, run, count: 1, samples: Samples::default() });
    }

    /// Runs the cases in turns and prints `median (least)` nanoseconds per operation.
    pub fn run(mut self) -> Measured {
        let (repeats, repeat) = if quick() { (5, Duration::from_micros(200)) } else { (31, Duration::from_millis(5)) };
        self.cases.iter_mut().for_each(|case| case.fill(repeat));
        for _ in 0..repeats {
            for case in &mut self.cases {
                let time = (case.run)(case.count);
                case.samples.add(time, case.count);
            }
        }
        let width = self.cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
        for case in &self.cases {
            let Case { name, samples, .. } = case;
            println!("{name:<width$} {:>10.1} ({:.1}) ns", samples.median(), samples.least());
        }
        Measured(self.cases.into_iter().map(|case| (case.name, case.samples)).collect())
    }
}

impl Case<'_> {
    /// Finds the number of operations that fill one repeat.
    fn fill(&mut self, repeat: Duration) {
        while (self.run)(self.count) < repeat && self.count < 1 << 30 {
            self.count *= 2;
        }
    }
}

pub struct Measured(Vec<(&'static str, Samples)>);

impl Measured {
    /// How many times what `that` costs `this` costs.
    pub fn ratio(&self, this: &str, that: &str) -> f64 {
        let median = |name| self.0.iter().find(|case| case.0 == name).map_or(f64::NAN, |case| case.1.median());
        median(this) / median(that)
    }
}
