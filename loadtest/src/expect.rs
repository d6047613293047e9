//! Packets per second that a scenario should bring, from its sources' own rates and its views: to each receiver, and from
//! the senders of a room. Pure arithmetic; `plan` scales what was measured by it, `ramp` sees with it whether a server
//! keeps up.

use crate::media::recording::Recording;
use crate::scenario::{Microphone, Scenario, Silence, Video, VideoSource};

/// Packets per second of Opus.
const AUDIO_RATE: f64 = 50.0;

/// People of all rooms who receive.
pub fn receivers(scenario: &Scenario) -> f64 {
    (scenario.rooms * scenario.receivers()) as f64
}

/// Cameras and shares, as their view brings them to each receiver.
pub fn video_to_each(scenario: &Scenario) -> f64 {
    let mut packets = 0.0;
    if let Some(camera) = &scenario.camera {
        let others = others(scenario);
        packets += match scenario.view.tiles {
            None => others * video_packets(camera, camera.layers - 1),
            Some(tiles) => {
                let speaker = if scenario.view.speaker { video_packets(camera, camera.layers - 1) } else { 0.0 };
                others.min(tiles as f64) * video_packets(camera, 0) * frames_of(scenario.view.tile_temporal) + speaker
            }
        };
    }
    if let Some(share) = scenario.screen_share.as_ref().filter(|_| scenario.view.shares) {
        let shares = share.per_room.min(scenario.senders()) as f64;
        packets += shares * video_packets(&share.video, share.video.layers - 1);
    }
    packets
}

/// Everybody's microphone, as it comes to each receiver where a server chooses no loudest speakers.
pub fn audio_to_each(scenario: &Scenario) -> f64 {
    let Some(microphone) = scenario.microphone.as_ref().filter(|_| scenario.view.audio) else { return 0.0 };
    others(scenario) * microphones(microphone, scenario) / scenario.senders().max(1) as f64
}

/// All microphones of a room.
fn microphones(microphone: &Microphone, scenario: &Scenario) -> f64 {
    let talking = microphone.speakers.min(scenario.senders());
    AUDIO_RATE * talking as f64 + (scenario.senders() - talking) as f64 * silent_packets(microphone.silence)
}

/// What all senders send together.
pub fn sent(scenario: &Scenario) -> f64 {
    let senders = scenario.senders() as f64;
    let mut of_room = 0.0;
    if let Some(microphone) = &scenario.microphone {
        of_room += microphones(microphone, scenario);
    }
    let all_layers = |video: &Video| (0..layers(video)).map(|layer| video_packets(video, layer)).sum::<f64>();
    if let Some(camera) = &scenario.camera {
        of_room += senders * all_layers(camera);
    }
    if let Some(share) = &scenario.screen_share {
        of_room += (share.per_room as f64).min(senders) * all_layers(&share.video);
    }
    of_room * scenario.rooms as f64
}

/// Senders whom a receiver may watch, on average: all but itself, where it sends too.
fn others(scenario: &Scenario) -> f64 {
    let both = (scenario.senders() + scenario.receivers()).saturating_sub(scenario.participants);
    scenario.senders() as f64 - both as f64 / scenario.receivers().max(1) as f64
}

/// A constant source has one layer, whatever the number of a recorded one.
fn layers(video: &Video) -> usize {
    if video.source == VideoSource::Constant { 1 } else { video.layers }
}

/// Packets per second of a microphone whose owner is silent.
fn silent_packets(silence: Silence) -> f64 {
    match silence {
        Silence::Send => AUDIO_RATE,
        Silence::Dtx => 2.5,
        Silence::Mute => 0.0,
    }
}

/// The share of a camera's frames that are in its lower temporal layers (L1T3).
fn frames_of(temporal: u8) -> f64 {
    [0.25, 0.5, 1.0][usize::from(temporal.min(2))]
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

    #[test]
    fn a_view_of_tiles_does_not_grow_with_the_square_of_the_room() {
        let text =
            |people: usize, view: &str| format!("rooms = 1\nparticipants = {people}\n[camera]\n[view]\n{view}\n");
        let rate = |people, view| video_to_each(&Scenario::parse(&text(people, view)).unwrap());
        assert_eq!(rate(40, "tiles = 16"), rate(20, "tiles = 16"));
        assert!(rate(40, "") > 1.9 * rate(20, ""));
    }

    #[test]
    fn a_constant_source_sends_what_it_says() {
        let text = "rooms = 2\nparticipants = 10\nsenders = 1\nreceivers = 9\n\
            [camera]\nsource = 'constant'\nframes_per_second = 50\npackets_per_frame = 6\n";
        let scenario = Scenario::parse(text).unwrap();
        assert_eq!((sent(&scenario), video_to_each(&scenario)), (600.0, 300.0));
    }

    #[test]
    fn nobody_watches_himself() {
        let text = "rooms = 1\nparticipants = 10\n[microphone]\nsilence = 'send'\n";
        assert!((audio_to_each(&Scenario::parse(text).unwrap()) - 9.0 * 50.0).abs() < 1e-9);
    }
}
