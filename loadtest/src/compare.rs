//! The same scenario against Ringside and others, started here one after another and in turns, so that whatever the
//! machine does meanwhile falls on all of them. A peer that fails is told and left out; what was measured stays. Ends with
//! one ratio per line.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::cli::{Compare, Grow, Peer};
use crate::peers::start::{Kind, Place};
use crate::ramp::{self, Bounds};
use crate::report::{Report, hlog, html, terminal};
use crate::run;
use crate::scenario::Scenario;
use crate::sys;

const KNEE_STEP_S: f64 = 4.0;
const KNEE_BOUNDS: Bounds = Bounds { p99_ms: 20.0, loss: 0.001 };
/// UDP ports of one run, and runs until they are used again: all below 32768, where the kernel's own choice begins.
const UDP_FIRST: u16 = 20_000;
const UDP_PORTS: u16 = 2_000;
const UDP_TURNS: u16 = 6;
/// Configurations of Janus have names that begin so.
const JANUS: &str = "janus";

/// Everything that a comparison found, as its JSON has it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Comparison {
    pub scenario: String,
    /// How it was measured, in words.
    pub conditions: String,
    pub servers: Vec<Measured>,
    /// Peers that did not run, and why.
    pub absent: Vec<Absence>,
    pub ratios: Vec<Ratio>,
}

/// Runs of one server.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Measured {
    pub name: String,
    pub version: String,
    pub runs: Vec<Run>,
    pub knees: Vec<Knee>,
    /// Runs that came to nothing, and why.
    pub failures: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Run {
    /// Runs of different servers with the same number stood side by side.
    pub number: usize,
    pub report: Report,
}

/// The largest load within bounds.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Knee {
    pub number: usize,
    /// What the receivers got; 0 when the smallest load was too much.
    pub packets_per_second: f64,
    /// The load test itself was late when the search ended: the server may carry more.
    pub load_was_late: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Absence {
    pub name: String,
    pub why: String,
}

/// One line that the comparison ends with.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Ratio {
    /// As "mediasoup/ringside cpu per packet".
    pub what: String,
    pub spread: Spread,
    pub runs: usize,
    pub doubts: Vec<String>,
}

/// A figure with its spread over the runs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

pub fn command(command: &Compare) -> anyhow::Result<()> {
    let scenario = run::scenario(&command.load)?;
    ensure!(command.repeats > 0 && command.knee_repeats > 0, "--repeats and --knee-repeats must be at least 1");
    let cores = sys::allowed_cores();
    for core in [command.server_core, command.core] {
        ensure!(cores.contains(&core), "core {core} is not one that this process may use");
    }
    let mut found =
        Comparison { scenario: scenario.name.clone(), conditions: conditions(command), ..Default::default() };
    println!("{}: {}", found.scenario, found.conditions);
    let mut places = Places { command, used: 0 };
    let kinds = present(command, &mut places, &mut found)?;
    for number in 1..=command.repeats {
        for (kind, server) in kinds.iter().zip(&mut found.servers) {
            let measured = measure(&scenario, kind, places.next(), command, number);
            note_run(server, number, measured);
        }
    }
    for number in 1..=command.knee_repeats.min(if command.knee { usize::MAX } else { 0 }) {
        for (kind, server) in kinds.iter().zip(&mut found.servers) {
            match knee(&scenario, kind, places.next(), command, number) {
                Ok(knee) => {
                    println!("  {:<26} knee at {}", server.name, knee.in_words());
                    server.knees.push(knee);
                }
                Err(error) => note_failure(server, &format!("knee {number}"), &error),
            }
        }
    }
    found.ratios = ratios(&found.servers);
    if let Some(base) = &command.load.out {
        write(base, &found)?;
    }
    for Absence { name, why } in &found.absent {
        println!("{name} is absent: {why}");
    }
    for line in found.lines() {
        println!("{line}");
    }
    Ok(())
}

/// The same for all servers, in words.
fn conditions(command: &Compare) -> String {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap_or_default();
        text.trim().parse::<u64>().map_or("unknown".to_owned(), |bytes| bytes.to_string())
    };
    let buffers = match command.socket_buffer_kib {
        0 => format!(
            "of all servers are the kernel's default (net.core.rmem_default {}, wmem_default {})",
            limit("rmem_default"),
            limit("wmem_default")
        ),
        kib => format!(
            "of {kib} KiB asked for by all servers but Janus (net.core.rmem_max {}, wmem_max {})",
            limit("rmem_max"),
            limit("wmem_max")
        ),
    };
    format!(
        "one server worker on core {}, the load on core {}, {} runs of each in turns, loopback; socket buffers {buffers}; \
         clients {} UDP GRO",
        command.server_core,
        command.core,
        command.repeats,
        if command.load.no_gro { "without" } else { "with" }
    )
}

/// Ringside first, then the peers that start here; those that do not are noted with the reason.
fn present(command: &Compare, places: &mut Places, found: &mut Comparison) -> anyhow::Result<Vec<Kind>> {
    let beside = || std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("ringside")));
    let program = command.ringside.clone().or_else(beside).context("where is ringside? name it with --ringside")?;
    let mut wanted = vec![Kind::Ringside { program }];
    wanted.extend(command.baseline.clone().map(|program| Kind::Baseline { program }));
    for peer in &command.peers {
        match peer {
            Peer::Mediasoup => wanted.push(Kind::Mediasoup { folder: command.mediasoup.clone() }),
            Peer::Janus => wanted.extend([None, Some(1)].map(|event_loops| Kind::Janus { event_loops })),
        }
    }
    let mut kinds = Vec::new();
    for (number, kind) in wanted.into_iter().enumerate() {
        // A trial: what does not start is better known before the first long run.
        let why = kind.absent().or_else(|| kind.start(places.next()).err().map(|error| format!("{error:#}")));
        match why {
            None => {
                let (name, version) = (kind.name(), kind.version());
                println!("  {name:<26} {version}");
                found.servers.push(Measured { name, version, ..Measured::default() });
                kinds.push(kind);
            }
            Some(why) if number == 0 => anyhow::bail!("ringside does not start: {why}"),
            Some(why) => found.absent.push(Absence { name: kind.name(), why }),
        }
    }
    Ok(kinds)
}

/// Every run has ports of its own, so that none waits for another's to be free.
struct Places<'a> {
    command: &'a Compare,
    used: u16,
}

impl Places<'_> {
    fn next(&mut self) -> Place {
        let number = self.used;
        self.used += 1;
        let udp_first = UDP_FIRST + number % UDP_TURNS * UDP_PORTS;
        Place {
            core: self.command.server_core,
            tcp_port: self.command.port.wrapping_add(number),
            udp_first,
            udp_last: udp_first + UDP_PORTS - 1,
            socket_buffer_kib: self.command.socket_buffer_kib,
        }
    }
}

/// Starts a server and has `load` done on the load's core.
fn with_server<T>(
    kind: &Kind,
    place: Place,
    core: usize,
    load: impl FnOnce(&run::Service) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut running = kind.start(place)?;
    running.service.placement += &format!(", load on core {core}");
    let before = sys::allowed_cores();
    sys::run_on_cores(&[core])?;
    let result = load(&running.service);
    sys::run_on_cores(&before)?;
    result
}

fn measure(scenario: &Scenario, kind: &Kind, place: Place, command: &Compare, number: usize) -> anyhow::Result<Report> {
    let (report, outcome) =
        with_server(kind, place, command.core, |service| run::run(scenario, service, command.load.sockets()))?;
    ensure!(report.received.packets > 0, "no packet came through");
    if let Some(base) = &command.load.out {
        let server: String = report.server.chars().filter(char::is_ascii_alphanumeric).collect();
        put(&format!("{}-{server}-{number}.hlog", base.display()), &hlog::log(&outcome)?)?;
    }
    Ok(report)
}

fn note_run(server: &mut Measured, number: usize, measured: anyhow::Result<Report>) {
    match measured {
        Ok(report) => {
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
            server.runs.push(Run { number, report });
        }
        Err(error) => note_failure(server, &format!("run {number}"), &error),
    }
}

fn note_failure(server: &mut Measured, what: &str, error: &anyhow::Error) {
    println!("  {:<26} {what} failed: {error:#}", server.name);
    server.failures.push(format!("{what}: {error:#}"));
}

fn knee(scenario: &Scenario, kind: &Kind, place: Place, command: &Compare, number: usize) -> anyhow::Result<Knee> {
    with_server(kind, place, command.core, |service| {
        let mut knee = Knee { number, packets_per_second: 0.0, load_was_late: false };
        let mut last: Option<Report> = None;
        ramp::search(1.0, |factor| {
            let step = ramp::grown(scenario, Grow::Rate, factor, KNEE_STEP_S)?;
            let attempt = || {
                let (report, _) = run::run(&step, service, command.load.sockets())?;
                let good = KNEE_BOUNDS.hold(&report, last.as_ref());
                println!("    {}", ramp::line(factor, &report, good));
                anyhow::Ok((report, good))
            };
            let (report, good) = ramp::twice(attempt)?;
            knee.load_was_late = report.generator.is_late();
            if good {
                knee.packets_per_second = knee.packets_per_second.max(report.received.packets_per_second);
                last = Some(report);
            }
            Ok(good)
        })?;
        Ok(knee)
    })
}

impl Knee {
    pub fn in_words(&self) -> String {
        let rate = match self.packets_per_second {
            0.0 => "less than the smallest load".to_owned(),
            rate => format!("{} packets/s", terminal::grouped(rate as u64)),
        };
        if self.load_was_late { format!("{rate}, or more: the load test was late itself") } else { rate }
    }
}

impl Comparison {
    pub fn load(path: &Path) -> anyhow::Result<Comparison> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a comparison of this load test", path.display()))
    }

    /// Whether a file is of a comparison rather than of one run.
    pub fn is_in(path: &Path) -> bool {
        let text = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&text).is_ok_and(|json: serde_json::Value| json["servers"].is_array())
    }

    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        self.servers.iter().flat_map(|server| server.runs.iter().map(|run| &run.report))
    }

    /// The lines that it ends with.
    pub fn lines(&self) -> Vec<String> {
        self.ratios.iter().map(Ratio::line).collect()
    }
}

impl Ratio {
    pub fn line(&self) -> String {
        let Spread { median, least, most } = self.spread;
        let doubts: String = self.doubts.iter().map(|doubt| format!("; doubt: {doubt}")).collect();
        let runs = if self.runs == 1 { "run" } else { "runs" };
        format!("{}: {median:.1}  ({least:.1} to {most:.1} in {} {runs}{doubts})", self.what, self.runs)
    }
}

fn write(base: &Path, found: &Comparison) -> anyhow::Result<()> {
    let json = put(&format!("{}.json", base.display()), &serde_json::to_vec_pretty(found)?)?;
    put(&format!("{}.html", base.display()), html::comparison(found).as_bytes())?;
    println!("wrote {}, its .html, and an .hlog for each run", json.display());
    Ok(())
}

fn put(path: &str, bytes: &[u8]) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(path);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What is compared, and how it is read from a report.
type Figure = (&'static str, fn(&Report) -> f64);

const FIGURES: [Figure; 3] = [
    ("cpu per packet", |report| report.cost.map_or(f64::NAN, |cost| cost.cpu_us_per_packet)),
    ("p99 latency", |report| report.forward_ms.p99),
    ("peak memory", |report| report.cost.map_or(f64::NAN, |cost| cost.peak_bytes as f64)),
];

/// Of every peer to Ringside, which is the first server.
fn ratios(servers: &[Measured]) -> Vec<Ratio> {
    let Some((own, peers)) = servers.split_first() else { return Vec::new() };
    let mut ratios = Vec::new();
    for peer in peers {
        for figure in FIGURES {
            ratios.extend(figure_ratio(&peer.name, peer, own, figure));
        }
        ratios.extend(knee_ratio(&peer.name, peer, own));
    }
    if let Some(better) = better_janus(peers) {
        let configuration = better.name.strip_prefix("janus, ").unwrap_or("as shipped");
        let name = format!("janus (better: {configuration})");
        ratios.extend(figure_ratio(&name, better, own, FIGURES[0]));
    }
    ratios
}

/// Of two configurations that ran, the one that spends less on a packet.
fn better_janus(peers: &[Measured]) -> Option<&Measured> {
    let cost = |peer: &Measured| spread(peer.runs.iter().map(|run| FIGURES[0].1(&run.report)).collect());
    let ran = peers.iter().filter(|peer| peer.name.starts_with(JANUS));
    let costs: Vec<_> = ran.filter_map(|peer| Some((peer, cost(peer)?.median))).collect();
    if costs.len() < 2 {
        return None;
    }
    costs.into_iter().min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(peer, _)| peer)
}

fn figure_ratio(name: &str, peer: &Measured, own: &Measured, (what, figure): Figure) -> Option<Ratio> {
    let pairs: Vec<(&Report, &Report)> =
        peer.runs.iter().filter_map(|run| Some((&run.report, beside(own, run)?))).collect();
    let values: Vec<f64> = pairs.iter().map(|(theirs, ours)| figure(theirs) / figure(ours)).collect();
    let spread = spread(values.clone())?;
    let mut doubts = Vec::new();
    let late = pairs.iter().filter(|(theirs, ours)| theirs.generator.is_late() || ours.generator.is_late()).count();
    if late > 0 {
        doubts.push(format!("the load test was late in {late} of them"));
    }
    if let Some((theirs, ours)) = pairs.iter().find(|(theirs, ours)| theirs.srtp_profile != ours.srtp_profile) {
        doubts.push(format!("other SRTP profile, {} and {}", theirs.srtp_profile, ours.srtp_profile));
    }
    if let Some((theirs, ours)) = pairs.iter().find(|(theirs, ours)| differ(theirs, ours)) {
        doubts.push(format!(
            "other work, {:.0} and {:.0} packets/s",
            theirs.received.packets_per_second, ours.received.packets_per_second
        ));
    }
    Some(Ratio { what: format!("{name}/ringside {what}"), spread, runs: finite(&values), doubts })
}

fn knee_ratio(name: &str, peer: &Measured, own: &Measured) -> Option<Ratio> {
    let pairs = peer.knees.iter().filter_map(|theirs| {
        let ours = own.knees.iter().find(|ours| ours.number == theirs.number)?;
        (theirs.packets_per_second > 0.0).then_some((theirs, ours))
    });
    let pairs: Vec<(&Knee, &Knee)> = pairs.collect();
    let values: Vec<f64> =
        pairs.iter().map(|(theirs, ours)| ours.packets_per_second / theirs.packets_per_second).collect();
    let spread = spread(values.clone())?;
    let mut doubts = Vec::new();
    if pairs.iter().any(|(_, ours)| ours.load_was_late) {
        doubts.push("the load test was late at ringside's knee, which may be higher".to_owned());
    }
    if pairs.iter().any(|(theirs, _)| theirs.load_was_late) {
        doubts.push(format!("the load test was late at {}'s knee, which may be higher", peer.name));
    }
    let what = format!("ringside/{name} packets per second at the knee");
    Some(Ratio { what, spread, runs: finite(&values), doubts })
}

/// Ringside's run that stood beside a peer's.
fn beside<'a>(own: &'a Measured, run: &Run) -> Option<&'a Report> {
    own.runs.iter().find(|ours| ours.number == run.number).map(|ours| &ours.report)
}

/// Servers that forward different numbers of packets do not do the same work.
fn differ(theirs: &Report, ours: &Report) -> bool {
    const TOLERANCE: f64 = 0.03;
    let (theirs, ours) = (theirs.received.packets_per_second, ours.received.packets_per_second);
    (theirs - ours).abs() > TOLERANCE * theirs.max(ours)
}

fn finite(values: &[f64]) -> usize {
    values.iter().filter(|value| value.is_finite()).count()
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
pub(crate) mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn measured(name: &str, costs: &[f64]) -> Measured {
        let run = |(place, us): (usize, &f64)| {
            let mut report = sample();
            report.server = name.into();
            report.cost.as_mut().unwrap().cpu_us_per_packet = *us;
            Run { number: place + 1, report }
        };
        let runs = costs.iter().enumerate().map(run).collect();
        Measured { name: name.into(), version: format!("{name} 1.2.3"), runs, ..Measured::default() }
    }

    fn knee(packets_per_second: f64) -> Knee {
        Knee { number: 1, packets_per_second, load_was_late: false }
    }

    pub fn comparison() -> Comparison {
        let servers = vec![
            measured("ringside", &[1.0, 2.0]),
            measured("janus", &[9.0, 20.0]),
            measured("janus, event_loops = 1", &[7.0, 14.6]),
        ];
        let absent = vec![Absence { name: "mediasoup".into(), why: "not installed".into() }];
        let ratios = ratios(&servers);
        Comparison { scenario: "sample".into(), conditions: "on loopback".into(), servers, absent, ratios }
    }

    fn lines(servers: &[Measured]) -> Vec<String> {
        ratios(servers).iter().map(Ratio::line).collect()
    }

    #[test]
    fn ratios_are_of_runs_that_stood_side_by_side() {
        let mut own = measured("ringside", &[1.0, 2.0, 0.1]);
        let mut peer = measured("mediasoup", &[9.0, 20.0]);
        (own.knees, peer.knees) = (vec![knee(800.0)], vec![knee(100.0)]);
        let found = lines(&[own.clone(), peer.clone()]);
        assert_eq!(found[0], "mediasoup/ringside cpu per packet: 9.5  (9.0 to 10.0 in 2 runs)");
        assert!(
            found.contains(&"ringside/mediasoup packets per second at the knee: 8.0  (8.0 to 8.0 in 1 run)".into())
        );

        own.runs.remove(0);
        let found = lines(&[own, peer]);
        assert_eq!(
            found[0], "mediasoup/ringside cpu per packet: 10.0  (10.0 to 10.0 in 1 run)",
            "the first run failed"
        );
    }

    #[test]
    fn the_better_configuration_of_janus_is_named() {
        let last = comparison().lines().pop().unwrap();
        assert_eq!(last, "janus (better: event_loops = 1)/ringside cpu per packet: 7.2  (7.0 to 7.3 in 2 runs)");
    }

    #[test]
    fn a_peer_without_a_knee_has_no_ratio() {
        let (mut own, mut peer) = (measured("ringside", &[1.0]), measured("mediasoup", &[9.0]));
        (own.knees, peer.knees) = (vec![knee(800.0)], vec![knee(0.0)]);
        assert!(lines(&[own, peer]).iter().all(|line| !line.contains("knee") && !line.contains("inf")));
    }

    #[test]
    fn a_ratio_says_why_it_is_to_be_doubted() {
        let (own, mut peer) = (measured("ringside", &[1.0]), measured("mediasoup", &[9.0]));
        let report = &mut peer.runs[0].report;
        report.generator.lag_ms.p99 = 30.0;
        report.srtp_profile = "AEAD_AES_128_GCM".into();
        report.received.packets_per_second /= 2.0;
        let line = lines(&[own, peer]).remove(0);
        for doubt in ["late in 1 of them", "other SRTP profile", "other work, 100 and 200 packets/s"] {
            assert!(line.contains(doubt), "{doubt} is missing in {line}");
        }
    }

    #[test]
    fn a_figure_that_was_not_measured_has_no_spread() {
        assert_eq!(spread(vec![f64::NAN, f64::INFINITY]), None);
        assert_eq!(spread(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, least: 1.0, most: 3.0 }));
    }

    #[test]
    fn a_comparison_is_the_same_after_writing_and_reading() {
        let found = comparison();
        let back: Comparison = serde_json::from_str(&serde_json::to_string(&found).unwrap()).unwrap();
        assert_eq!((back.ratios, back.absent), (found.ratios, found.absent));
        assert_eq!(back.servers.len(), 3);
    }
}
