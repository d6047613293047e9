//! From what was measured to what is needed: cores, bandwidth and memory for R rooms of P people. The measured run is
//! scaled by the packets that the same view brings each person in a room of another size. A room lives on one worker, so
//! cores are filled with whole rooms.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::cli::Plan;
use crate::compare::Comparison;
use crate::expect::{audio_to_each, receivers, sent, video_to_each};
use crate::report::{Rate, Report};
use crate::scenario::Scenario;

/// IPv4 and UDP headers, which counts of bytes leave out.
const HEADER_BYTES: f64 = 28.0;
/// A server forwards everybody's sound if it forwards this part of it; else it has chosen the loudest.
const ALL_VOICES: f64 = 0.9;

/// What a deployment needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Needs {
    /// Media from the server.
    pub packets_per_second: f64,
    /// On the wire with IPv4 and UDP headers: repairs, probes and RTCP are in what leaves, media alone in what comes.
    pub out_bits_per_second: f64,
    pub in_bits_per_second: f64,
    /// CPU time per second, as if cores could be filled.
    pub busy_cores: f64,
    /// What one room takes of a core.
    pub room_cores: f64,
    /// Whole rooms that a core carries within the busy share; 0 when one does not fit.
    pub rooms_per_core: u64,
    /// `None` when no number of cores is enough.
    pub cores: Option<u64>,
    /// At most: what a server has once is counted for each transport too.
    pub peak_bytes: f64,
}

pub fn command(command: &Plan) -> anyhow::Result<()> {
    let report = measured(&command.report, &command.of)?;
    let (rooms, people, busy) = (command.rooms, command.people, command.busy);
    let needs = needs(&report, rooms, people, busy)?;
    println!(
        "measured: {} rooms of {} people, {:.2} us of CPU per packet, {:.0} packets/s to each receiver ({})",
        report.scenario.rooms,
        report.scenario.participants,
        report.cost.map_or(0.0, |cost| cost.cpu_us_per_packet),
        report.received.packets_per_second / receivers(&report.scenario),
        report.server,
    );
    println!(
        "for {rooms} rooms of {people} people: {:.0} packets/s out, {:.2} Gbit/s out and {:.2} in, at most {:.0} MiB, {:.2} cores' \
         worth of work, {:.3} of a core for each room",
        needs.packets_per_second,
        needs.out_bits_per_second / 1e9,
        needs.in_bits_per_second / 1e9,
        needs.peak_bytes / f64::from(1 << 20),
        needs.busy_cores,
        needs.room_cores
    );
    for doubt in report.doubts() {
        println!("doubt: {doubt}");
    }
    match needs.cores {
        Some(cores) => println!(
            "for {rooms} rooms of {people} people you need {cores} cores ({} rooms on each, at most {:.0} % busy) and {:.2} Gbit/s",
            needs.rooms_per_core,
            busy * 100.0,
            (needs.out_bits_per_second + needs.in_bits_per_second) / 1e9
        ),
        None => println!(
            "a room of {people} people does not fit: it takes {:.2} of a core, lives on one, and {:.0} % may be busy; {}",
            needs.room_cores,
            busy * 100.0,
            match largest_room(&report, people, busy)? {
                0 => "no smaller one fits either".to_owned(),
                people => format!("up to {people} people fit, or a smaller view"),
            }
        ),
    }
    Ok(())
}

/// The run to plan with: a report's own, or of a comparison the server's run with the median cost.
fn measured(path: &Path, of: &str) -> anyhow::Result<Report> {
    if !Comparison::is_in(path) {
        return Report::load(path);
    }
    let found = Comparison::load(path)?;
    let names: Vec<&str> = found.servers.iter().map(|server| server.name.as_str()).collect();
    let server = found.servers.iter().find(|server| server.name == of);
    let server =
        server.with_context(|| format!("no server \"{of}\" was compared: --of is one of {}", names.join(", ")))?;
    let mut reports: Vec<&Report> = server.runs.iter().map(|run| &run.report).collect();
    let cost = |report: &Report| report.cost.map_or(f64::INFINITY, |cost| cost.cpu_us_per_packet);
    reports.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    ensure!(!reports.is_empty(), "no run of {of} succeeded");
    Ok(reports[reports.len() / 2].clone())
}

pub fn needs(report: &Report, rooms: u64, people: u64, busy: f64) -> anyhow::Result<Needs> {
    ensure!(rooms > 0 && people > 0, "rooms and people must be at least 1");
    ensure!(busy > 0.0 && busy <= 1.0, "--busy is a share of a core, up to 1");
    let cost = report.cost.context("the report has no server cost: measure with the server on the same machine")?;
    let scenario = &report.scenario;
    ensure!(report.received.packets > 0, "nobody received anything in the measured scenario");
    let resized = Scenario {
        rooms: rooms as usize,
        participants: people as usize,
        // A webinar stays one: whoever did not send still does not.
        senders: scenario.senders.map(|senders| senders.min(people as usize)),
        receivers: scenario.receivers.map(|receivers| scale(receivers, scenario.participants, people as usize)),
        ..scenario.clone()
    };
    let each = receivers(&resized) / receivers(scenario);
    let video = minus(report.received, report.received_audio);
    let video = times(video, each * ratio(video_to_each(&resized), video_to_each(scenario)));
    let audio = times(report.received_audio, each * audio_growth(report, &resized));
    let packets_per_second = video.packets_per_second + audio.packets_per_second;
    // Repairs, probes and RTCP grow with the media.
    let other = minus(report.datagrams, report.received);
    let other = times(other, packets_per_second / report.received.packets_per_second);
    let coming = times(report.sent, ratio(sent(&resized), sent(scenario)));
    let busy_cores = packets_per_second * cost.cpu_us_per_packet / 1e6;
    let room_cores = busy_cores / rooms as f64;
    let rooms_per_core = (busy / room_cores).floor() as u64;
    let transports = |scenario: &Scenario| (scenario.rooms * (scenario.senders() + scenario.receivers())) as f64;
    Ok(Needs {
        packets_per_second,
        out_bits_per_second: on_the_wire(video) + on_the_wire(audio) + on_the_wire(other),
        in_bits_per_second: on_the_wire(coming),
        busy_cores,
        room_cores,
        rooms_per_core,
        cores: (rooms_per_core > 0).then(|| rooms.div_ceil(rooms_per_core)),
        peak_bytes: cost.peak_bytes as f64 * (transports(&resized) / transports(scenario)).max(1.0),
    })
}

/// The largest room, below one of `people`, that fits on a core; 0 where none does.
fn largest_room(report: &Report, people: u64, busy: f64) -> anyhow::Result<u64> {
    let (mut fits, mut too_large) = (0, people);
    while too_large - fits > 1 {
        let middle = u64::midpoint(fits, too_large);
        match needs(report, 1, middle, busy)?.cores {
            Some(_) => fits = middle,
            None => too_large = middle,
        }
    }
    Ok(fits)
}

/// How the sound that each receiver gets grows. A server that forwards the loudest only does so in a larger room too.
fn audio_growth(report: &Report, resized: &Scenario) -> f64 {
    let scenario = &report.scenario;
    let (before, after) = (audio_to_each(scenario), audio_to_each(resized));
    let forwarded = report.received_audio.packets_per_second / receivers(scenario);
    match forwarded {
        0.0 => 0.0,
        forwarded if forwarded < ALL_VOICES * before => (after / forwarded).min(1.0),
        _ => ratio(after, before),
    }
}

fn on_the_wire(rate: Rate) -> f64 {
    rate.bits_per_second + 8.0 * HEADER_BYTES * rate.packets_per_second
}

fn minus(whole: Rate, part: Rate) -> Rate {
    Rate {
        packets: whole.packets.saturating_sub(part.packets),
        bytes: whole.bytes.saturating_sub(part.bytes),
        packets_per_second: (whole.packets_per_second - part.packets_per_second).max(0.0),
        bits_per_second: (whole.bits_per_second - part.bits_per_second).max(0.0),
    }
}

fn times(rate: Rate, factor: f64) -> Rate {
    Rate {
        packets_per_second: rate.packets_per_second * factor,
        bits_per_second: rate.bits_per_second * factor,
        ..rate
    }
}

/// 0 where there was nothing before.
fn ratio(after: f64, before: f64) -> f64 {
    if before > 0.0 { after / before } else { 0.0 }
}

fn scale(part: usize, whole: usize, to: usize) -> usize {
    (part * to).div_ceil(whole.max(1)).min(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    /// A run whose rooms of three take `room_cores` of a core each.
    fn run(room_cores: f64) -> Report {
        let mut report = sample();
        let packets = report.received.packets_per_second;
        report.cost.as_mut().unwrap().cpu_us_per_packet = 2.0 * room_cores * 1e6 / packets;
        report
    }

    #[test]
    fn twice_the_rooms_need_twice_of_everything() {
        let report = sample();
        let (one, two) = (needs(&report, 2, 3, 0.6).unwrap(), needs(&report, 4, 3, 0.6).unwrap());
        assert!((one.packets_per_second - 200.0).abs() < 1e-6);
        let figures = |needs: &Needs| [needs.packets_per_second, needs.out_bits_per_second, needs.in_bits_per_second];
        for (one, two) in figures(&one).into_iter().zip(figures(&two)) {
            assert!((two / one - 2.0).abs() < 1e-9);
        }
    }

    #[test]
    fn bandwidth_counts_both_directions_and_every_packets_headers() {
        let report = sample();
        let needs = needs(&report, 2, 3, 0.6).unwrap();
        assert!((needs.out_bits_per_second - (164_000.0 + 210.0 * 28.0 * 8.0)).abs() < 1e-6);
        assert!((needs.in_bits_per_second - (80_000.0 + 100.0 * 28.0 * 8.0)).abs() < 1e-6);
    }

    #[test]
    fn cores_are_filled_with_whole_rooms() {
        let cores = |room_cores: f64, rooms: u64| needs(&run(room_cores), rooms, 3, 0.6).unwrap().cores;
        assert_eq!(cores(0.25, 4), Some(2), "two rooms on each core, though 1.67 cores' worth would do");
        assert_eq!(cores(0.35, 4), Some(4), "one room on each");
        assert_eq!(cores(0.01, 4), Some(1));
        assert_eq!(cores(0.7, 4), None, "a room does not fit");
    }

    #[test]
    fn the_largest_room_that_fits_is_named() {
        let report = run(0.1);
        let fits = largest_room(&report, 100, 0.6).unwrap();
        assert!((5..=9).contains(&fits), "{fits}");
        assert!(needs(&report, 1, fits, 0.6).unwrap().cores.is_some());
        assert!(needs(&report, 1, fits + 1, 0.6).unwrap().cores.is_none());
    }

    #[test]
    fn sound_of_the_loudest_does_not_grow_with_the_room() {
        let mut report = sample();
        report.scenario = Scenario::parse("rooms = 1\nparticipants = 10\n[microphone]\nsilence = 'send'\n").unwrap();
        let audio_of = |per_receiver: f64, people: u64| {
            let mut report = report.clone();
            report.received.packets_per_second = 10.0 * per_receiver;
            report.received_audio = report.received;
            needs(&report, 1, people, 0.6).unwrap().packets_per_second / people as f64
        };
        assert!((audio_of(150.0, 40) - 150.0).abs() < 1e-6, "the loudest three");
        assert!((audio_of(150.0, 2) - 50.0).abs() < 1e-6, "there is one other");
        assert!((audio_of(450.0, 40) - 39.0 * 50.0).abs() < 1e-6, "everybody");
    }

    #[test]
    fn a_comparison_is_planned_with_by_the_servers_median_run() {
        let folder = std::env::temp_dir().join(format!("ringside-loadtest-plan-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("compared.json");
        std::fs::write(&path, serde_json::to_vec(&crate::compare::tests::comparison()).unwrap()).unwrap();
        assert_eq!(measured(&path, "ringside").unwrap().server, "ringside");
        assert_eq!(measured(&path, "janus").unwrap().cost.unwrap().cpu_us_per_packet, 20.0);
        assert!(measured(&path, "another").unwrap_err().to_string().contains("ringside, janus"));
        std::fs::write(&path, serde_json::to_vec(&sample()).unwrap()).unwrap();
        assert_eq!(measured(&path, "ringside").unwrap().server, "ringside");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_report_without_the_servers_cost_plans_nothing() {
        let mut report = sample();
        report.cost = None;
        assert!(needs(&report, 1, 1, 0.6).is_err());
    }
}
