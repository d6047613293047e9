//! What a load is: rooms, participants, what they send and what they look at. Read from TOML; every field but `rooms`
//! and `participants` has a default. Nothing here knows sockets or servers.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// What `run` runs when nobody says.
pub const DEFAULT: &str = "study-room-10x50";

/// The scenarios that ship with the load test, by name.
pub const SHIPPED: &[(&str, &str)] = &[
    ("churn", include_str!("../scenarios/churn.toml")),
    ("evenly-300", include_str!("../scenarios/evenly-300.toml")),
    ("fanout-1x49", include_str!("../scenarios/fanout-1x49.toml")),
    ("fanout-1x499", include_str!("../scenarios/fanout-1x499.toml")),
    ("full-mesh", include_str!("../scenarios/full-mesh.toml")),
    ("idle-500", include_str!("../scenarios/idle-500.toml")),
    ("idle-server", include_str!("../scenarios/idle-server.toml")),
    ("joins-1000", include_str!("../scenarios/joins-1000.toml")),
    ("screen-share", include_str!("../scenarios/screen-share.toml")),
    ("soak", include_str!("../scenarios/soak.toml")),
    ("study-room-10x50", include_str!("../scenarios/study-room-10x50.toml")),
    ("study-room-thumbnails", include_str!("../scenarios/study-room-thumbnails.toml")),
    ("webinar-1x500", include_str!("../scenarios/webinar-1x500.toml")),
];

/// Most participants in all rooms that one load test process drives.
pub const PARTICIPANTS_MAX: usize = 20_000;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub description: String,
    pub rooms: usize,
    /// In each room; with 0 only the server is watched.
    pub participants: usize,
    /// How many of a room's participants send; the first ones. All by default.
    pub senders: Option<usize>,
    /// Receivers are a room's last participants. All by default.
    pub receivers: Option<usize>,
    #[serde(default = "default_joins_per_second")]
    pub joins_per_second: f64,
    /// So many participants, the last ones, join while it is measured; the others before. All before by default.
    #[serde(default)]
    pub joins_measured: usize,
    /// Time between the last join before the measurement and its start.
    #[serde(default = "default_warmup_s")]
    pub warmup_s: f64,
    #[serde(default = "default_duration_s")]
    pub duration_s: f64,
    /// Participants, of all rooms together, that leave and are replaced each minute.
    #[serde(default)]
    pub churn_per_minute: f64,
    /// Share that each client throws away, 0 to 1: of the RTP packets that it sends (they count as sent), first ones and
    /// repeated ones, and of all datagrams that come in.
    #[serde(default)]
    pub loss: f64,
    #[serde(default = "default_seed")]
    pub seed: u64,
    #[serde(default)]
    pub feedback: Feedback,
    /// Receivers ask for lost video packets, and senders answer, as browsers do (RFC 4585, RFC 4588).
    #[serde(default)]
    pub nack: bool,
    #[serde(default)]
    pub view: View,
    pub microphone: Option<Microphone>,
    pub camera: Option<Video>,
    pub screen_share: Option<ScreenShare>,
}

/// Congestion feedback that clients negotiate and send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feedback {
    #[default]
    None,
    TransportCc,
}

/// What a participant subscribes to.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct View {
    /// Hears every microphone of the room.
    pub audio: bool,
    /// Cameras shown small (the lowest layer); everybody's where absent, at the best layer.
    pub tiles: Option<usize>,
    /// Temporal layers of the small ones, as an application asks for them: 2 is every frame of the camera, 1 every second
    /// one, 0 every fourth.
    pub tile_temporal: u8,
    /// Shows who speaks at the best layer. Only with `tiles`.
    pub speaker: bool,
    pub shares: bool,
}

impl Default for View {
    fn default() -> Self {
        View { audio: true, tiles: None, tile_temporal: 2, speaker: false, shares: true }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Microphone {
    #[serde(default)]
    pub codec: AudioCodec,
    /// How many people of a room talk at a time.
    #[serde(default = "default_speakers")]
    pub speakers: usize,
    /// Mean length of a turn of speech.
    #[serde(default = "default_turn_s")]
    pub turn_s: f64,
    #[serde(default)]
    pub silence: Silence,
}

/// What a microphone sends while its owner is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Silence {
    /// A small packet each 400 ms (Opus discontinuous transmission).
    #[default]
    Dtx,
    /// 50 packets per second with the level of silence.
    Send,
    /// Nothing at all: the microphone is muted.
    Mute,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Video {
    pub codec: VideoCodec,
    pub source: VideoSource,
    /// Simulcast layers of a recorded source, 1 to 3.
    pub layers: usize,
    /// Frame sizes of a recorded source are multiplied by it.
    pub bitrate_scale: f64,
    /// Of a constant source; a recorded one has its own.
    pub frames_per_second: f64,
    pub packets_per_frame: usize,
    /// RTP payload of each packet of a constant source.
    pub payload_bytes: usize,
    /// Gap between the packets of one frame; 0 sends them back to back.
    pub packet_gap_us: u64,
    /// Packets of one frame that are due together and of equal size leave in one system call (UDP GSO). Browsers send
    /// each by itself; this spares the load test's core.
    pub segmented: bool,
}

impl Default for Video {
    fn default() -> Self {
        Video {
            codec: VideoCodec::Vp8,
            source: VideoSource::Recorded,
            layers: 3,
            bitrate_scale: 1.0,
            frames_per_second: 30.0,
            packets_per_frame: 1,
            payload_bytes: 1130,
            packet_gap_us: 30,
            segmented: false,
        }
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ScreenShare {
    #[serde(default = "default_shares_per_room")]
    pub per_room: usize,
    #[serde(default = "default_share")]
    pub video: Video,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioCodec {
    #[default]
    Opus,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VideoCodec {
    #[default]
    Vp8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VideoSource {
    /// Sizes, layers and cadence of a real browser's camera.
    #[default]
    Recorded,
    /// The same number of equal packets in each frame, one layer.
    Constant,
}

impl Scenario {
    /// A scenario's text: of a file, or of a shipped scenario by its name.
    pub fn text(path: &Path) -> anyhow::Result<String> {
        let shipped = SHIPPED.iter().find(|(name, _)| path.as_os_str() == *name);
        if let Some((_, text)) = shipped.filter(|_| !path.is_file()) {
            return Ok((*text).to_owned());
        }
        let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}; shipped scenarios are {}", path.display(), names.join(", ")))
    }

    /// Reads a text; a scenario without a name is called `name`.
    pub fn named(text: &str, name: &str) -> anyhow::Result<Scenario> {
        let mut scenario = Scenario::parse(text)?;
        if scenario.name.is_empty() {
            scenario.name = name.to_owned();
        }
        Ok(scenario)
    }

    pub fn parse(text: &str) -> anyhow::Result<Scenario> {
        let scenario: Scenario = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    pub fn senders(&self) -> usize {
        self.senders.unwrap_or(self.participants).min(self.participants)
    }

    pub fn receivers(&self) -> usize {
        self.receivers.unwrap_or(self.participants).min(self.participants)
    }

    /// Whether the participant with this index in its room sends.
    pub fn sends(&self, index: usize) -> bool {
        index < self.senders()
    }

    pub fn receives(&self, index: usize) -> bool {
        index >= self.participants - self.receivers()
    }

    pub fn shares(&self, index: usize) -> bool {
        self.screen_share.as_ref().is_some_and(|share| index < share.per_room && self.sends(index))
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.rooms > 0, "rooms must be at least 1");
        ensure!(
            self.rooms * self.participants <= PARTICIPANTS_MAX,
            "more than {PARTICIPANTS_MAX} participants: run several load tests"
        );
        ensure!(self.participants == 0 || self.senders() > 0, "nobody sends: senders must be at least 1");
        ensure!(
            self.joins_measured == 0 || self.joins_measured < self.rooms * self.participants,
            "joins_measured counts the last participants: somebody must be there before them"
        );
        ensure!(self.joins_per_second > 0.0, "joins_per_second must be above 0");
        ensure!(self.duration_s > 0.0, "duration_s must be above 0");
        ensure!((0.0..1.0).contains(&self.loss), "loss is a share: 0.02 is 2 %");
        ensure!(
            self.participants == 0 || self.microphone.is_some() || self.camera.is_some() || self.screen_share.is_some(),
            "nothing is sent: add [microphone], [camera] or [screen_share]"
        );
        for video in self.camera.iter().chain(self.screen_share.iter().map(|share| &share.video)) {
            ensure!((1..=3).contains(&video.layers), "layers is 1, 2 or 3");
            ensure!((40..=1180).contains(&video.payload_bytes), "payload_bytes is 40 to 1180");
            ensure!((1..=64).contains(&video.packets_per_frame), "packets_per_frame is 1 to 64");
            ensure!(video.frames_per_second > 0.0 && video.bitrate_scale > 0.0, "rates must be above 0");
        }
        Ok(())
    }
}

fn default_joins_per_second() -> f64 {
    50.0
}
fn default_warmup_s() -> f64 {
    3.0
}
fn default_duration_s() -> f64 {
    30.0
}
fn default_seed() -> u64 {
    1
}
fn default_speakers() -> usize {
    2
}
fn default_turn_s() -> f64 {
    6.0
}
fn default_shares_per_room() -> usize {
    1
}

/// A slide or an editor: few frames per second, several packets each.
fn default_share() -> Video {
    Video {
        source: VideoSource::Constant,
        layers: 1,
        frames_per_second: 5.0,
        packets_per_frame: 8,
        payload_bytes: 1130,
        ..Video::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_setting_is_refused_by_name() {
        let error = Scenario::parse("rooms = 1\nparticipants = 2\nduration = 3\n[camera]\n").unwrap_err();
        assert!(error.to_string().contains("duration"), "{error}");
    }

    #[test]
    fn a_scenario_in_which_nobody_sends_is_refused_unless_nobody_is_there() {
        assert!(Scenario::parse("rooms = 1\nparticipants = 2\n").is_err());
        assert!(Scenario::parse("rooms = 1\nparticipants = 0\n").is_ok());
    }

    #[test]
    fn shipped_scenarios_are_found_by_name_and_unknown_ones_are_answered_with_the_names() {
        let text = Scenario::text(Path::new(DEFAULT)).unwrap();
        assert_eq!(Scenario::parse(&text).unwrap().participants, 50);
        let error = Scenario::text(Path::new("study-room")).unwrap_err().to_string();
        assert!(error.contains("study-room-10x50"), "{error}");
    }

    #[test]
    fn senders_come_first_and_receivers_last() {
        let scenario =
            Scenario::parse("rooms = 1\nparticipants = 50\nsenders = 1\nreceivers = 49\n[camera]\n").unwrap();
        assert!(scenario.sends(0) && !scenario.receives(0));
        assert!(!scenario.sends(1) && scenario.receives(1) && scenario.receives(49));
    }
}
