//! From what was measured to what is needed: cores, bandwidth and memory for R rooms of P people. The measured run is
//! scaled by the number of packets that the same view brings each person in a room of another size.

use crate::cli::Plan;
use crate::media::recording::Recording;
use crate::report::Report;
use crate::scenario::{Scenario, Silence, Video, VideoSource};

use anyhow::{Context, ensure};

/// What a deployment needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Needs {
    pub packets_per_second: f64,
    pub bits_per_second: f64,
    /// CPU time per second, as if cores could be filled.
    pub busy_cores: f64,
    pub cores: u64,
    /// What one room takes of a core. A room lives on one worker: above 1 it does not fit.
    pub room_cores: f64,
    pub peak_bytes: f64,
}

pub fn command(command: &Plan) -> anyhow::Result<()> {
    let report = Report::load(&command.report)?;
    let needs = needs(&report, command.rooms, command.people, command.busy)?;
    println!(
        "measured: {} rooms of {} people, {:.2} us of CPU per packet, {:.0} packets/s to each receiver ({})",
        report.scenario.rooms,
        report.scenario.participants,
        report.cost.map_or(0.0, |cost| cost.cpu_us_per_packet),
        report.received.packets_per_second / receivers(&report.scenario),
        report.server,
    );
    println!(
        "for {} rooms of {} people: {:.0} packets/s out, {:.0} MiB, {:.2} cores' worth of work",
        command.rooms,
        command.people,
        needs.packets_per_second,
        needs.peak_bytes / f64::from(1 << 20),
        needs.busy_cores
    );
    for doubt in report.doubts() {
        println!("doubt: {doubt}");
    }
    if needs.room_cores > command.busy {
        println!(
            "doubt: one such room takes {:.2} of a core, and a room lives on one: plan smaller rooms or a smaller view",
            needs.room_cores
        );
    }
    println!(
        "for {} rooms of {} people you need {} cores (at most {:.0} % busy) and {:.2} Gbit/s",
        command.rooms,
        command.people,
        needs.cores,
        command.busy * 100.0,
        needs.bits_per_second / 1e9
    );
    Ok(())
}

pub fn needs(report: &Report, rooms: u64, people: u64, busy: f64) -> anyhow::Result<Needs> {
    ensure!(rooms > 0 && people > 0, "rooms and people must be at least 1");
    ensure!(busy > 0.0 && busy <= 1.0, "--busy is a share of a core, up to 1");
    let cost = report.cost.context("the report has no server cost: measure with the server on the same machine")?;
    let scenario = &report.scenario;
    let resized = Scenario {
        rooms: rooms as usize,
        participants: people as usize,
        // A webinar stays one: whoever did not send still does not.
        senders: scenario.senders.map(|senders| senders.min(people as usize)),
        receivers: scenario.receivers.map(|receivers| scale(receivers, scenario.participants, people as usize)),
        ..scenario.clone()
    };
    let before = receivers(scenario) * packets_to_each(scenario);
    ensure!(before > 0.0, "nobody received anything in the measured scenario");
    let factor = receivers(&resized) * packets_to_each(&resized) / before;
    let packets_per_second = report.received.packets_per_second * factor;
    let busy_cores = packets_per_second * cost.cpu_us_per_packet / 1e6;
    let transports = |scenario: &Scenario| (scenario.rooms * (scenario.senders() + scenario.receivers())) as f64;
    Ok(Needs {
        packets_per_second,
        bits_per_second: report.received.bits_per_second * factor,
        busy_cores,
        room_cores: busy_cores / rooms as f64,
        cores: (busy_cores / busy).ceil().max(1.0) as u64,
        peak_bytes: cost.peak_bytes as f64 * (transports(&resized) / transports(scenario)).max(1.0),
    })
}

fn receivers(scenario: &Scenario) -> f64 {
    (scenario.rooms * scenario.receivers()) as f64
}

fn scale(part: usize, whole: usize, to: usize) -> usize {
    (part * to).div_ceil(whole.max(1)).min(to)
}

/// Packets per second that the view of a scenario brings each receiver, from the sources' own rates.
fn packets_to_each(scenario: &Scenario) -> f64 {
    let others = |senders: usize| {
        let overlap = scenario.senders() + scenario.receivers() > scenario.participants;
        senders.saturating_sub(usize::from(overlap)) as f64
    };
    let mut packets = 0.0;
    if let Some(microphone) = scenario.microphone.as_ref().filter(|_| scenario.view.audio) {
        let talking = microphone.speakers.min(scenario.senders()) as f64;
        let silent = (others(scenario.senders()) - talking).max(0.0);
        packets += 50.0 * talking + silent * silent_packets(microphone.silence);
    }
    if let Some(camera) = &scenario.camera {
        let others = others(scenario.senders());
        packets += match scenario.view.tiles {
            None => others * video_packets(camera, camera.layers - 1),
            Some(tiles) => {
                let speaker = if scenario.view.speaker { video_packets(camera, camera.layers - 1) } else { 0.0 };
                others.min(tiles as f64) * video_packets(camera, 0) + speaker
            }
        };
    }
    if let Some(share) = scenario.screen_share.as_ref().filter(|_| scenario.view.shares) {
        let shares = share.per_room.min(scenario.senders()) as f64;
        packets += shares * video_packets(&share.video, share.video.layers - 1);
    }
    packets
}

/// Packets per second of a microphone whose owner is silent.
fn silent_packets(silence: Silence) -> f64 {
    match silence {
        Silence::Send => 50.0,
        Silence::Dtx => 2.5,
        Silence::Mute => 0.0,
    }
}

fn video_packets(video: &Video, layer: usize) -> f64 {
    const SECONDS_OF_FRAMES: u64 = 180;
    match video.source {
        VideoSource::Constant => video.frames_per_second * video.packets_per_frame as f64,
        VideoSource::Recorded => {
            let recording = &Recording::chromium().video;
            let recorded = recording.layers.len() - video.layers + layer;
            let packets: f64 = (0..SECONDS_OF_FRAMES)
                .map(|frame| (recording.frame_bytes(recorded, frame) as f64 * video.bitrate_scale / 1154.0).ceil())
                .sum();
            packets * 1e9 / recording.offset(SECONDS_OF_FRAMES) as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    #[test]
    fn twice_the_rooms_need_twice_of_everything() {
        let report = sample();
        let (one, two) = (needs(&report, 2, 3, 0.6).unwrap(), needs(&report, 4, 3, 0.6).unwrap());
        assert!((one.packets_per_second - 200.0).abs() < 1e-6);
        assert!((two.packets_per_second / one.packets_per_second - 2.0).abs() < 1e-9);
        assert!((two.bits_per_second / one.bits_per_second - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_view_of_tiles_does_not_grow_with_the_square_of_the_room() {
        let text =
            |people: usize, view: &str| format!("rooms = 1\nparticipants = {people}\n[camera]\n[view]\n{view}\n");
        let rate = |people, view| packets_to_each(&Scenario::parse(&text(people, view)).unwrap());
        assert_eq!(rate(40, "tiles = 16"), rate(20, "tiles = 16"));
        assert!(rate(40, "") > 1.9 * rate(20, ""));
    }

    #[test]
    fn a_report_without_the_servers_cost_plans_nothing() {
        let mut report = sample();
        report.cost = None;
        assert!(needs(&report, 1, 1, 0.6).is_err());
    }
}
