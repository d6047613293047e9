//! The knee: the largest load that a server carries within bounds. Loads grow by half until one fails, then the span
//! between the last good and the first bad one is halved until it is small.

use crate::cli::{Grow, Ramp};
use crate::expect::{receivers, video_to_each};
use crate::report::{Report, terminal};
use crate::run::{self, Service};
use crate::scenario::{Scenario, VideoSource};
use crate::swarm::Outcome;

use anyhow::{bail, ensure};

/// The search ends when good and bad are this close.
const PRECISION: f64 = 1.05;
const GROWTH: f64 = 1.5;
const STEPS_MAX: usize = 30;
/// Part of the first step that is still tried.
const SMALLEST: f64 = 32.0;

/// What a step must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub p99_ms: f64,
    pub loss: f64,
}

impl Bounds {
    /// `before` is a smaller load that was good: what a server does not send is not lost by the numbers, so the delivered
    /// packets must have grown with the load.
    pub fn hold(&self, report: &Report, before: Option<&Report>) -> bool {
        let quality = &report.quality;
        let complete = quality.silent_streams == 0 && quality.stalled_streams == 0 && report.errors.is_empty();
        let grew = before.is_none_or(|before| has_grown(report, before));
        complete && grew && report.quality.loss < self.loss && report.forward_ms.p99 < self.p99_ms
    }
}

/// Whether video came as much more as the scenario has. (Sound may not: a server may forward the loudest only.)
fn has_grown(report: &Report, before: &Report) -> bool {
    const TOLERANCE: f64 = 0.9;
    let planned = |report: &Report| video_to_each(&report.scenario) * receivers(&report.scenario);
    let came = |report: &Report| report.received.packets_per_second - report.received_audio.packets_per_second;
    planned(before) == 0.0 || came(report) >= TOLERANCE * came(before) * planned(report) / planned(before)
}

pub fn command(command: &Ramp) -> anyhow::Result<()> {
    let scenario = run::scenario(&command.load)?;
    run::pin(command.core)?;
    let service = Service::found(&command.server, command.core);
    let bounds = Bounds { p99_ms: command.p99_ms, loss: command.loss_percent / 100.0 };
    let mut last: Option<(Report, Outcome)> = None;
    let knee = search(command.from, |factor| {
        let step = grown(&scenario, command.by, factor, command.step_s)?;
        let (found, good) = twice(|| {
            let (report, outcome) = run::run(&step, &service, command.load.sockets())?;
            let good = bounds.hold(&report, last.as_ref().map(|(before, _)| before));
            println!("{}", line(factor, &report, good));
            Ok(((report, outcome), good))
        })?;
        if good {
            last = Some(found);
        }
        Ok(good)
    })?;
    let Some((report, outcome)) = last else {
        bail!("even the smallest step is too much: choose a smaller --from");
    };
    println!("\nknee at {knee:.2} times the scenario");
    print!("{}", terminal::summary(&report));
    if let Some(base) = &command.load.out {
        for path in report.write(base, &outcome)? {
            println!("  wrote        {}", path.display());
        }
    }
    Ok(())
}

pub fn line(factor: f64, report: &Report, good: bool) -> String {
    format!(
        "x {factor:<6.2} {:>9} packets/s  loss {:.3} %  p99 {:.2} ms  server {:.2} cores  load {:.2} cores  {}",
        terminal::grouped(report.received.packets_per_second as u64),
        report.quality.loss * 100.0,
        report.forward_ms.p99,
        report.cost.map_or(0.0, |cost| cost.cores),
        report.generator.cores,
        match (good, report.generator.is_late()) {
            (true, false) => "good",
            (true, true) => "good, though the load test was late",
            (false, false) => "too much",
            (false, true) => "too much, perhaps for the load test itself",
        }
    )
}

/// A step that fails is tried once more before it counts: one hiccup of the machine is no knee.
pub fn twice<T>(mut attempt: impl FnMut() -> anyhow::Result<(T, bool)>) -> anyhow::Result<(T, bool)> {
    match attempt()? {
        (found, true) => Ok((found, true)),
        (_, false) => attempt(),
    }
}

/// The largest factor for which `is_good` holds, to within [`PRECISION`]; `from` where none does. Where the first is too
/// much, smaller ones are tried.
pub fn search(from: f64, mut is_good: impl FnMut(f64) -> anyhow::Result<bool>) -> anyhow::Result<f64> {
    let (mut good, mut bad) = (None, None);
    let mut factor = from;
    for _ in 0..STEPS_MAX {
        if is_good(factor)? {
            good = Some(factor);
        } else {
            bad = Some(factor);
        }
        factor = match (good, bad) {
            (Some(good), None) => good * GROWTH,
            (None, Some(bad)) if bad <= from / SMALLEST => break,
            (None, Some(bad)) => bad / 2.0,
            (Some(good), Some(bad)) if bad / good <= PRECISION => break,
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (None, None) => unreachable!("the first step set one of them"),
        };
    }
    Ok(good.unwrap_or(from))
}

/// The scenario with `factor` times its load.
pub fn grown(scenario: &Scenario, by: Grow, factor: f64, step_s: f64) -> anyhow::Result<Scenario> {
    let mut step = scenario.clone();
    step.duration_s = step_s;
    let times = |number: usize| ((number as f64 * factor).round() as usize).max(1);
    match by {
        Grow::Rooms => step.rooms = times(scenario.rooms),
        Grow::Senders => {
            let senders = times(scenario.senders());
            ensure!(
                senders <= scenario.participants,
                "more senders than participants: raise participants or ramp --by rooms"
            );
            step.senders = Some(senders);
        }
        Grow::Rate => {
            for video in step.camera.iter_mut().chain(step.screen_share.iter_mut().map(|share| &mut share.video)) {
                match video.source {
                    VideoSource::Constant => video.frames_per_second *= factor,
                    VideoSource::Recorded => video.bitrate_scale *= factor,
                }
            }
        }
    }
    Ok(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn the_search_ends_just_below_the_knee() {
        for knee in [0.1, 1.3, 7.0, 123.0] {
            let mut steps = 0;
            let found = search(1.0, |factor| {
                steps += 1;
                Ok(factor < knee)
            });
            let found = found.unwrap();
            assert!(found < knee && found * PRECISION * 1.001 >= knee, "{found} for {knee}");
            assert!(steps <= 20, "{steps} steps");
        }
    }

    #[test]
    fn a_server_that_sends_no_more_though_it_should_has_reached_its_knee() {
        let bounds = Bounds { p99_ms: 20.0, loss: 0.001 };
        let (before, mut double) = (sample(), sample());
        double.scenario.rooms *= 2;
        assert!(bounds.hold(&before, None));
        assert!(!bounds.hold(&double, Some(&before)), "the same packets for twice the rooms");
        double.received.packets_per_second *= 2.0;
        assert!(bounds.hold(&double, Some(&before)));
        double.quality.stalled_streams = 1;
        assert!(!bounds.hold(&double, Some(&before)), "a picture stands still");
    }

    #[test]
    fn a_step_that_fails_counts_when_it_fails_again() {
        let attempts = |results: &[bool]| {
            let mut results = results.iter();
            let (_, good) = twice(|| Ok(((), *results.next().unwrap()))).unwrap();
            (good, results.len())
        };
        assert_eq!(attempts(&[true, false]), (true, 1));
        assert_eq!(attempts(&[false, true]), (true, 0));
        assert_eq!(attempts(&[false, false]), (false, 0));
    }

    #[test]
    fn a_server_that_carries_nothing_is_asked_a_few_times() {
        let mut steps = 0;
        let found = search(1.0, |_| {
            steps += 1;
            Ok(false)
        });
        assert_eq!((found.unwrap(), steps), (1.0, 6));
    }
}
