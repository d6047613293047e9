//! The table of settings: one row each.
//!
//! A row's name is the flag, the key in the file and, as `RINGSIDE_UPPER_CASE`, the variable. To add
//! a setting: a row here and a field of [`Config`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;
use tracing::level_filters::LevelFilter;

use super::Config;
use crate::limits;
use crate::log::LogTag;

/// A setting of Ringside.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub group: Group,
    /// A variable that users of the replaced system have already; the setting's own variable wins.
    pub alias: Option<&'static str>,
    /// What stands for the value in the help: its unit or kind.
    pub value: &'static str,
    pub kind: ValueKind,
    /// As a flag would give it; empty is "not set".
    pub default: &'static str,
    /// What "not set" means; empty where there is a default.
    pub unset: &'static str,
    pub help: &'static str,
    pub(super) store: fn(&mut Config, &str) -> Result<(), String>,
}

impl Setting {
    /// The setting's own environment variable.
    pub fn variable(&self) -> String {
        format!("RINGSIDE_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    pub fn named(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// How a value is written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    Number,
    Text,
    /// Comma-separated or repeated as a flag; an array in the file.
    List,
    /// Text that is never shown.
    Secret,
    /// `true` or `false`; the flag alone is `true`.
    Switch,
}

/// Headings of the help, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Http,
    Rooms,
    Network,
    Media,
    Logging,
}

impl Group {
    pub const ALL: [Group; 5] = [Group::Http, Group::Rooms, Group::Network, Group::Media, Group::Logging];

    pub const fn title(self) -> &'static str {
        match self {
            Group::Http => "HTTP and signaling",
            Group::Rooms => "Rooms and peers",
            Group::Network => "Network and workers",
            Group::Media => "Media",
            Group::Logging => "Logging",
        }
    }
}

/// What a row says where nothing else is said.
const ROW: Setting = Setting {
    name: "",
    group: Group::Http,
    alias: None,
    value: "N",
    kind: ValueKind::Number,
    default: "",
    unset: "",
    help: "",
    store: |_, _| Ok(()),
};

pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        value: "IP",
        kind: ValueKind::Text,
        default: "0.0.0.0",
        help: "Address that HTTP and signaling listen on",
        store: |config, text| address(text).map(|ip| config.signaling.listen.set_ip(ip)),
        ..ROW
    },
    Setting {
        name: "port",
        alias: Some("PORT"),
        value: "PORT",
        default: "8100",
        help: "TCP port of HTTP and signaling; 0 lets the kernel choose one",
        store: |config, text| number(text, 0, u16::MAX).map(|port| config.signaling.listen.set_port(port)),
        ..ROW
    },
    Setting {
        name: "tls-cert",
        value: "FILE",
        kind: ValueKind::Text,
        unset: "plain HTTP, which browsers give a camera only on localhost",
        help: "Certificate for HTTPS and secure WebSockets, with its chain (PEM); needs --tls-key",
        store: |config, text| put(&mut config.tls_cert, Ok(Some(text.into()))),
        ..ROW
    },
    Setting {
        name: "tls-key",
        value: "FILE",
        kind: ValueKind::Text,
        unset: "plain HTTP",
        help: "Private key of --tls-cert (PEM)",
        store: |config, text| put(&mut config.tls_key, Ok(Some(text.into()))),
        ..ROW
    },
    Setting {
        name: "cors-origin",
        value: "ORIGIN",
        kind: ValueKind::List,
        default: "*",
        help: "Sites whose pages may use Socket.IO and the API, such as https://example.org; * is all",
        store: |config, text| put(&mut config.signaling.cors_origins, list(text, origin)),
        ..ROW
    },
    Setting {
        name: "api-token",
        value: "TOKEN",
        kind: ValueKind::Secret,
        unset: "everybody may use it",
        help: "What /api/* wants as Authorization: Bearer, at least 16 bytes",
        store: |config, text| put(&mut config.signaling.api_token, secret(text)),
        ..ROW
    },
    Setting {
        name: "token-secret",
        value: "SECRET",
        kind: ValueKind::Secret,
        unset: "everybody may join",
        help: "Key that join tokens (JWT, HS256) are signed with, at least 16 bytes; better in the environment than as \
               a flag, where ps shows it",
        store: |config, text| put(&mut config.signaling.token_secret, secret(text)),
        ..ROW
    },
    Setting {
        name: "max-rooms",
        group: Group::Rooms,
        value: "ROOMS",
        default: "10000",
        help: "Rooms at the same time; a further one is refused",
        store: |config, text| put(&mut config.signaling.rooms, number(text, 1, 100_000)),
        ..ROW
    },
    Setting {
        name: "max-peers-per-room",
        group: Group::Rooms,
        value: "PEERS",
        default: "50",
        help: "Participants of one room; a further one is told that the room is full",
        store: |config, text| put(&mut config.signaling.peers_per_room, number(text, 1, 1_000)),
        ..ROW
    },
    Setting {
        name: "rooms-by-api-only",
        group: Group::Rooms,
        value: "BOOL",
        kind: ValueKind::Switch,
        default: "false",
        help: "Only rooms that POST /api/rooms opened may be entered; otherwise the first peer opens a room",
        store: |config, text| put(&mut config.signaling.rooms_by_api_only, switch(text)),
        ..ROW
    },
    Setting {
        name: "max-transports-per-peer",
        group: Group::Rooms,
        value: "TRANSPORTS",
        default: "8",
        help: "Transports of one participant; a client has two",
        store: |config, text| put(&mut config.signaling.transports_per_peer, number(text, 1, 64)),
        ..ROW
    },
    Setting {
        name: "max-producers-per-peer",
        group: Group::Rooms,
        value: "PRODUCERS",
        default: "16",
        help: "Microphones, cameras and screens of one participant",
        store: |config, text| put(&mut config.signaling.producers_per_peer, number(text, 1, 256)),
        ..ROW
    },
    Setting {
        name: "max-consumers-per-peer",
        group: Group::Rooms,
        value: "CONSUMERS",
        default: "1024",
        help: "What one participant may receive: one for each microphone, camera and screen of the others",
        store: |config, text| put(&mut config.signaling.consumers_per_peer, number(text, 1, 16_384)),
        ..ROW
    },
    Setting {
        name: "messages-per-s",
        group: Group::Rooms,
        value: "MESSAGES/S",
        default: "100",
        help: "Requests of one participant that are answered in the long run",
        store: |config, text| put(&mut config.signaling.messages_per_s, number(text, 1, 100_000)),
        ..ROW
    },
    Setting {
        name: "message-burst",
        group: Group::Rooms,
        value: "MESSAGES",
        default: "600",
        help: "Requests of one participant that are answered at once, as when it joins a full room",
        store: |config, text| put(&mut config.signaling.message_burst, number(text, 1, 100_000)),
        ..ROW
    },
    Setting {
        name: "keep-alive",
        group: Group::Rooms,
        value: "SECONDS",
        default: "15",
        help: "Silence after which a WebSocket is asked whether it is there; a second one closes it",
        store: |config, text| put(&mut config.signaling.keep_alive, number(text, 1, 3_600).map(Duration::from_secs)),
        ..ROW
    },
    Setting {
        name: "reconnect-grace",
        group: Group::Rooms,
        value: "SECONDS",
        default: "0",
        help: "How long a peer's media goes on after its signaling connection broke, for it to come back",
        store: |config, text| put(&mut config.signaling.reconnect_grace, seconds(text, 3_600)),
        ..ROW
    },
    Setting {
        name: "drain-deadline",
        group: Group::Rooms,
        value: "SECONDS",
        default: "5",
        help: "How long a server that was told to stop waits for its peers to leave",
        store: |config, text| put(&mut config.signaling.drain, seconds(text, 86_400)),
        ..ROW
    },
    Setting {
        name: "announced-ip",
        group: Group::Network,
        alias: Some("MEDIASOUP_ANNOUNCED_IP"),
        value: "IP",
        kind: ValueKind::List,
        default: "127.0.0.1",
        help: "Address under which browsers reach this machine: IPv4, IPv6 or a host name, which is looked up at start",
        store: |config, text| put(&mut config.announced_ip, at_least_one(text, announced)),
        ..ROW
    },
    Setting {
        name: "ice-servers",
        group: Group::Network,
        value: "JSON",
        kind: ValueKind::Text,
        unset: "none",
        help: "STUN and TURN servers for browsers, as RTCConfiguration.iceServers has them: [{\"urls\": \"turn:...\"}]",
        store: |config, text| put(&mut config.signaling.ice_servers, ice_servers(text)),
        ..ROW
    },
    Setting {
        name: "rtc-listen-ip",
        group: Group::Network,
        value: "IP",
        kind: ValueKind::Text,
        default: "0.0.0.0",
        help: "Address that media (UDP) is received on; :: is all of IPv4 and IPv6",
        store: |config, text| put(&mut config.rtc_listen_ip, address(text)),
        ..ROW
    },
    Setting {
        name: "rtc-min-port",
        group: Group::Network,
        alias: Some("MEDIASOUP_RTC_MIN_PORT"),
        value: "PORT",
        default: "10000",
        help: "First UDP port for media",
        store: |config, text| put(&mut config.rtc_min_port, number(text, 1, u16::MAX)),
        ..ROW
    },
    Setting {
        name: "rtc-max-port",
        group: Group::Network,
        alias: Some("MEDIASOUP_RTC_MAX_PORT"),
        value: "PORT",
        default: "10100",
        help: "Last UDP port for media",
        store: |config, text| put(&mut config.rtc_max_port, number(text, 1, u16::MAX)),
        ..ROW
    },
    Setting {
        name: "ports-per-worker",
        group: Group::Network,
        value: "PORTS",
        default: "1",
        help: "UDP ports that each worker opens, from the bottom of the range; all its transports share them",
        store: |config, text| put(&mut config.ports_per_worker, number(text, 1, 64)),
        ..ROW
    },
    Setting {
        name: "socket-buffer-kib",
        group: Group::Network,
        value: "KIB",
        default: "4096",
        help: "Receive and send buffer of each UDP port, as far as the kernel grants it; 0 leaves the kernel's default",
        store: |config, text| {
            put(&mut config.socket_buffer_bytes, number(text, 0, 1_048_576).map(|kib: usize| kib << 10))
        },
        ..ROW
    },
    Setting {
        name: "workers",
        group: Group::Network,
        value: "WORKERS",
        unset: "one for each core that this process may use",
        help: "Threads that forward media, each pinned to a core",
        store: |config, text| put(&mut config.workers, number(text, 1, 256).map(Some)),
        ..ROW
    },
    Setting {
        name: "busy-limit-percent",
        group: Group::Network,
        value: "PERCENT",
        default: "90",
        help: "A worker that spends more than this of its core takes nobody new: CPU time of its thread, two seconds in a \
               row; three better ones end it",
        store: |config, text| {
            put(&mut config.signaling.busy_limit, number(text, 1, 100).map(|percent: u32| f64::from(percent) / 100.0))
        },
        ..ROW
    },
    Setting {
        name: "latency-limit-ms",
        group: Group::Network,
        value: "MILLISECONDS",
        default: "20",
        help: "A worker that takes longer than this to forward one packet in a hundred takes nobody new: two seconds in \
               a row; three better ones end it",
        store: |config, text| {
            put(&mut config.signaling.latency_limit, number(text, 1, 10_000).map(Duration::from_millis))
        },
        ..ROW
    },
    Setting {
        name: "audio-top-n",
        group: Group::Media,
        value: "SPEAKERS",
        default: "3",
        help: "Loudest speakers of a room whose audio is forwarded; 0 forwards everybody's",
        store: |config, text| put(&mut config.signaling.room.audio_top_n, number(text, 0, u8::MAX)),
        ..ROW
    },
    Setting {
        name: "uplink-bitrate-bps",
        group: Group::Media,
        value: "BIT/S",
        unset: "no cap",
        help: "Cap on what each participant sends, told to its browser by REMB",
        store: |config, text| {
            put(
                &mut config.signaling.room.uplink_bitrate_bps,
                number(text, limits::UPLINK_LIMIT_MIN_BPS, u32::MAX).map(Some),
            )
        },
        ..ROW
    },
    Setting {
        name: "hold-max-us",
        group: Group::Media,
        value: "MICROSECONDS",
        default: "1000",
        help: "How long the first packets of a video frame wait for the rest, to leave together; a receiver cannot show \
               the frame sooner anyway. 0 sends each at once, for more CPU per packet",
        store: |config, text| put(&mut config.hold, number(text, 0, 5_000).map(Duration::from_micros)),
        ..ROW
    },
    Setting {
        name: "gather-max-us",
        group: Group::Media,
        value: "MICROSECONDS",
        default: "5000",
        help: "How long packets may wait for others to the same receiver, to leave together, while a worker is short of \
               CPU: nothing while its thread uses up to 50 % of its core, all of this from 80 % on. 0 never waits",
        store: |config, text| put(&mut config.gather_max, number(text, 0, 5_000).map(Duration::from_micros)),
        ..ROW
    },
    Setting {
        name: "history-mib",
        group: Group::Media,
        value: "MIB",
        default: "16",
        help: "Most memory of each worker for packets that receivers may ask for again, 2 s of video and 1 s of sound, taken \
               as it is needed; 16 are 2 s of 60 Mbit/s arriving",
        store: |config, text| put(&mut config.history_bytes, number(text, 1, 4_096).map(|mib: usize| mib << 20)),
        ..ROW
    },
    Setting {
        name: "log-level",
        group: Group::Logging,
        value: "LEVEL",
        kind: ValueKind::Text,
        default: "info",
        help: "How much is logged: off, error, warn, info, debug or trace",
        store: |config, text| put(&mut config.log_level, level(text)),
        ..ROW
    },
    Setting {
        name: "log-tags",
        group: Group::Logging,
        value: "TAG",
        kind: ValueKind::List,
        default: "info,ice,dtls,rtp,srtp,rtcp",
        help: "Subsystems that log below warnings: info, ice, dtls, rtp, srtp, rtcp",
        store: |config, text| put(&mut config.log_tags, list(text, tag)),
        ..ROW
    },
    Setting {
        name: "hlog-dir",
        group: Group::Logging,
        value: "DIRECTORY",
        kind: ValueKind::Text,
        default: ".",
        help: "Where SIGUSR1 writes the workers' latency, tick and batch distributions, as an HdrHistogram log",
        store: |config, text| put(&mut config.hlog_dir, Ok(PathBuf::from(text))),
        ..ROW
    },
];

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    value.map(|value| *field = value)
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(text: &str, least: T, most: T) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(value) if (&least..=&most).contains(&&value) => Ok(value),
        _ => Err(format!("must be a whole number from {least} to {most}")),
    }
}

fn seconds(text: &str, most: u64) -> Result<Duration, String> {
    number(text, 0, most).map(Duration::from_secs)
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "is no IPv4 or IPv6 address: 0.0.0.0 listens on all IPv4 addresses, :: on all".to_owned())
}

fn list<T>(text: &str, entry: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(entry).collect()
}

fn at_least_one<T>(text: &str, entry: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    list(text, entry).and_then(|list| if list.is_empty() { Err("must not be empty".to_owned()) } else { Ok(list) })
}

fn announced(text: &str) -> Result<String, String> {
    let host_name =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if text.parse::<IpAddr>().is_ok() || (host_name(text) && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.')) {
        return Ok(text.to_owned());
    }
    Err("is neither an IPv4 nor an IPv6 address nor a host name: give the address under which browsers reach this \
         machine, without a port"
        .to_owned())
}

fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        _ if text == "*" => Ok(text.to_owned()),
        Some(host) if !host.is_empty() && !host.contains('/') => Ok(text.to_owned()),
        _ => Err("must read like https://example.org, without a path, or *".to_owned()),
    }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn ice_servers(text: &str) -> Result<Option<Value>, String> {
    let wanted = |_| "must be a JSON array such as [{\"urls\": \"stun:stun.example.org\"}]".to_owned();
    let servers: Vec<Value> = serde_json::from_str(text).map_err(wanted)?;
    if servers.iter().all(|server| server.get("urls").is_some_and(|urls| urls.is_string() || urls.is_array())) {
        return Ok(Some(Value::Array(servers)));
    }
    Err("needs urls in each entry, such as [{\"urls\": \"stun:stun.example.org\"}]".to_owned())
}

fn secret(text: &str) -> Result<Option<String>, String> {
    if text.len() < 16 { Err("is too short: at least 16 bytes".to_owned()) } else { Ok(Some(text.to_owned())) }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "off" | "error" | "warn" | "info" | "debug" | "trace" => Ok(text.parse().unwrap_or(LevelFilter::INFO)),
        // mediasoup's own word for "off".
        "none" => Ok(LevelFilter::OFF),
        _ => Err("must be off, error, warn, info, debug or trace".to_owned()),
    }
}

fn tag(text: &str) -> Result<LogTag, String> {
    LogTag::from_name(text).ok_or_else(|| "may hold info, ice, dtls, rtp, srtp and rtcp".to_owned())
}
