//! The same scenario against Ringside and others, started here one after another and in turns, so that whatever the
//! machine does meanwhile falls on all of them. Ends with one ratio per line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::cli::{Compare, Grow, Peer};
use crate::peers::start::{Kind, Place};
use crate::ramp::{self, Bounds};
use crate::report::{Report, html, terminal};
use crate::run;
use crate::scenario::Scenario;
use crate::sys;

const KNEE_STEP_S: f64 = 4.0;
const KNEE_BOUNDS: Bounds = Bounds { p99_ms: 20.0, loss: 0.001 };

/// Several runs of one server.
#[derive(Default)]
struct Series {
    reports: Vec<Report>,
    /// Packets per second that a receiver side got at the knee.
    knees: Vec<f64>,
}

/// A figure with its spread over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

pub fn command(command: &Compare) -> anyhow::Result<()> {
    let scenario = run::scenario(&command.load)?;
    ensure!(command.repeats > 0, "--repeats must be at least 1");
    let cores = sys::allowed_cores();
    for core in [command.server_core, command.core] {
        ensure!(cores.contains(&core), "core {core} is not one that this process may use");
    }
    let (kinds, absent) = present(command)?;
    println!(
        "{}: one server worker on core {}, the load on core {}, {} runs of each in turns, loopback, default socket buffers",
        scenario.name, command.server_core, command.core, command.repeats
    );
    let mut all: BTreeMap<usize, Series> = BTreeMap::new();
    for repeat in 0..command.repeats {
        for (number, kind) in kinds.iter().enumerate() {
            let place = place(command, (repeat * kinds.len() + number) as u16);
            let report = measure(&scenario, kind, place, command)?;
            println!(
                "  {:<26} {:>7.2} us/packet  {:>9} packets/s  loss {:.3} %  p99 {:.2} ms  {}",
                report.server,
                report.cost.map_or(0.0, |cost| cost.cpu_us_per_packet),
                terminal::grouped(report.received.packets_per_second as u64),
                report.quality.loss * 100.0,
                report.forward_ms.p99,
                report.srtp_profile
            );
            for doubt in report.doubts() {
                println!("    doubt: {doubt}");
            }
            all.entry(number).or_default().reports.push(report);
        }
    }
    if command.knee {
        for (number, kind) in kinds.iter().enumerate() {
            let knee = knee(&scenario, kind, place(command, (command.repeats * kinds.len() + number) as u16), command)?;
            println!("  {:<26} knee at {} packets/s", kind.name(), terminal::grouped(knee as u64));
            all.entry(number).or_default().knees.push(knee);
        }
    }
    write(command, &all)?;
    for (kind, why) in &absent {
        println!("{} is absent: {why}", kind.name());
    }
    for line in ratios(&all) {
        println!("{line}");
    }
    Ok(())
}

/// Ringside first, then the peers that can run here; and those that cannot, with the reason.
#[expect(clippy::type_complexity, reason = "a pair of two short lists")]
fn present(command: &Compare) -> anyhow::Result<(Vec<Kind>, Vec<(Kind, String)>)> {
    let beside = || std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("ringside")));
    let program = command.ringside.clone().or_else(beside).context("where is ringside? name it with --ringside")?;
    let ringside = Kind::Ringside { program };
    if let Some(why) = ringside.absent() {
        anyhow::bail!("{why}");
    }
    let (mut kinds, mut absent) = (vec![ringside], Vec::new());
    for peer in &command.peers {
        let wanted = match peer {
            Peer::Mediasoup => vec![Kind::Mediasoup { folder: command.mediasoup.clone() }],
            Peer::Janus => vec![Kind::Janus { event_loops: None }, Kind::Janus { event_loops: Some(1) }],
        };
        for kind in wanted {
            match kind.absent() {
                None => kinds.push(kind),
                Some(why) => absent.push((kind, why)),
            }
        }
    }
    Ok((kinds, absent))
}

/// Every run has ports of its own, so that none waits for another's to be free.
fn place(command: &Compare, number: u16) -> Place {
    let udp_first = 20_000 + (number % 20) * 2_000;
    Place { core: command.server_core, tcp_port: command.port + number, udp_first, udp_last: udp_first + 1_999 }
}

fn measure(scenario: &Scenario, kind: &Kind, place: Place, command: &Compare) -> anyhow::Result<Report> {
    let mut running = kind.start(place).with_context(|| kind.name())?;
    running.service.placement += &format!(", load on core {}", command.core);
    let before = sys::allowed_cores();
    sys::run_on_cores(&[command.core])?;
    let result = run::run(scenario, &running.service, command.load.sockets()).with_context(|| kind.name());
    sys::run_on_cores(&before)?;
    Ok(result?.0)
}

fn knee(scenario: &Scenario, kind: &Kind, place: Place, command: &Compare) -> anyhow::Result<f64> {
    let mut running = kind.start(place).with_context(|| kind.name())?;
    running.service.placement += &format!(", load on core {}", command.core);
    let before = sys::allowed_cores();
    sys::run_on_cores(&[command.core])?;
    let mut best = 0.0f64;
    let search = ramp::search(1.0, |factor| {
        let step = ramp::grown(scenario, Grow::Rate, factor, KNEE_STEP_S)?;
        let (report, _) = run::run(&step, &running.service, command.load.sockets())?;
        let good = KNEE_BOUNDS.hold(&report);
        println!("    {}", ramp::line(factor, &report, good));
        if good {
            best = best.max(report.received.packets_per_second);
        }
        Ok(good)
    });
    sys::run_on_cores(&before)?;
    search.map(|_| best)
}

fn write(command: &Compare, all: &BTreeMap<usize, Series>) -> anyhow::Result<()> {
    let Some(base) = &command.load.out else { return Ok(()) };
    if let Some(folder) = base.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let reports: Vec<&Report> = all.values().flat_map(|series| &series.reports).collect();
    let firsts: Vec<Report> = all.values().filter_map(|series| series.reports.first().cloned()).collect();
    let json = PathBuf::from(format!("{}.json", base.display()));
    std::fs::write(&json, serde_json::to_string_pretty(&reports)?)?;
    std::fs::write(format!("{}.html", base.display()), html::page(&firsts))?;
    println!("wrote {} and its .html", json.display());
    Ok(())
}

/// What is compared, and how it is read from a report.
type Figure = (&'static str, fn(&Report) -> f64);

/// The lines that the comparison ends with.
fn ratios(all: &BTreeMap<usize, Series>) -> Vec<String> {
    let Some(own) = all.get(&0) else { return Vec::new() };
    let mut lines = Vec::new();
    for peer in all.iter().filter(|(number, _)| **number > 0).map(|(_, series)| series) {
        let Some(name) = peer.reports.first().map(|report| &report.server) else { continue };
        let figures: [Figure; 3] = [
            ("cpu per packet", |report| report.cost.map_or(f64::NAN, |cost| cost.cpu_us_per_packet)),
            ("p99 latency", |report| report.forward_ms.p99),
            ("peak memory", |report| report.cost.map_or(f64::NAN, |cost| cost.peak_bytes as f64)),
        ];
        for (what, figure) in figures {
            let pairs = peer.reports.iter().zip(&own.reports).map(|(theirs, ours)| figure(theirs) / figure(ours));
            if let Some(spread) = spread(pairs.collect()) {
                lines.push(format!(
                    "{name}/ringside {what}: {:.1}  ({:.1} to {:.1} in {} runs)",
                    spread.median,
                    spread.least,
                    spread.most,
                    peer.reports.len()
                ));
            }
        }
        if let (Some(theirs), Some(ours)) = (peer.knees.first(), own.knees.first()) {
            lines.push(format!("ringside/{name} packets per second at the knee: {:.1}", ours / theirs));
        }
    }
    lines
}

/// Median and extremes; `None` without a number.
pub fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => return None,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    };
    Some(Spread { median, least: values[0], most: values[values.len() - 1] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn ratios_are_of_runs_that_stood_side_by_side() {
        let run = |server: &str, us: f64| {
            let mut report = sample();
            report.server = server.into();
            report.cost.as_mut().unwrap().cpu_us_per_packet = us;
            report
        };
        let own = Series { reports: vec![run("ringside", 1.0), run("ringside", 2.0)], knees: vec![800.0] };
        let peer = Series { reports: vec![run("mediasoup", 9.0), run("mediasoup", 20.0)], knees: vec![100.0] };
        let lines = ratios(&BTreeMap::from([(0, own), (1, peer)]));
        assert_eq!(lines[0], "mediasoup/ringside cpu per packet: 9.5  (9.0 to 10.0 in 2 runs)");
        assert!(lines.contains(&"ringside/mediasoup packets per second at the knee: 8.0".to_owned()));
    }

    #[test]
    fn a_figure_that_was_not_measured_has_no_spread() {
        assert_eq!(spread(vec![f64::NAN, f64::INFINITY]), None);
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
    }
}
