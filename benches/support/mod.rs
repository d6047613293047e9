//! What the benches share: the command line, and how repeats become one figure.
//!
//! Every bench interleaves what it compares and reports ratios, because this machine's speed changes from
//! second to second while the ratio of two neighbours does not.
#![allow(dead_code)]

use std::time::Duration;

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
