//! Logging: the names of the subsystems, and which of them speak at which level.
//!
//! A line belongs to a subsystem by its target: either one of the constants below or the path of the
//! module that wrote it. `--log-level` sets how much is said; `--log-tags` narrows lines below
//! warnings to the subsystems named. Warnings and errors always pass.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

pub const INFO: &str = "ringside::info";
pub const ICE: &str = "ringside::ice";
pub const DTLS: &str = "ringside::dtls";
pub const RTP: &str = "ringside::rtp";
pub const SRTP: &str = "ringside::srtp";
pub const RTCP: &str = "ringside::rtcp";

/// A subsystem of `--log-tags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTag {
    /// Everything that is none of the others: start, stop, rooms, signaling, workers.
    Info,
    Ice,
    Dtls,
    Rtp,
    Srtp,
    Rtcp,
}

impl LogTag {
    pub const ALL: [LogTag; 6] = [LogTag::Info, LogTag::Ice, LogTag::Dtls, LogTag::Rtp, LogTag::Srtp, LogTag::Rtcp];

    pub const fn name(self) -> &'static str {
        match self {
            LogTag::Info => "info",
            LogTag::Ice => "ice",
            LogTag::Dtls => "dtls",
            LogTag::Rtp => "rtp",
            LogTag::Srtp => "srtp",
            LogTag::Rtcp => "rtcp",
        }
    }

    pub fn from_name(name: &str) -> Option<LogTag> {
        LogTag::ALL.into_iter().find(|tag| tag.name() == name)
    }

    /// Prefixes of targets; the longest that fits a line decides.
    const fn targets(self) -> &'static [&'static str] {
        match self {
            LogTag::Info => &["ringside"],
            LogTag::Ice => &[ICE, "ringside::transport::ice", "ringside::packet::stun"],
            LogTag::Dtls => &[DTLS, "ringside::transport::dtls", "dimpl"],
            LogTag::Rtp => &[RTP, "ringside::media", "ringside::packet"],
            LogTag::Srtp => &[SRTP, "ringside::transport::srtp"],
            LogTag::Rtcp => &[RTCP, "ringside::packet::rtcp", "ringside::media::report"],
        }
    }
}

/// What is said, by target. Libraries never say more than warnings, whatever the level.
pub fn filter(level: LevelFilter, tags: &[LogTag]) -> Targets {
    let quiet = level.min(LevelFilter::WARN);
    let of_tag = |tag: LogTag| if tags.contains(&tag) { level } else { quiet };
    let targets =
        LogTag::ALL.into_iter().flat_map(|tag| tag.targets().iter().map(move |target| (*target, of_tag(tag))));
    Targets::new().with_default(quiet).with_targets(targets)
}

/// Sends log lines of the whole process to stderr. Once, from `main`.
pub fn start(level: LevelFilter, tags: &[LogTag]) {
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(filter(level, tags)).init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn a_tag_that_is_not_named_says_warnings_only() {
        let filter = filter(LevelFilter::DEBUG, &[LogTag::Ice]);
        assert!(filter.would_enable(ICE, &Level::DEBUG));
        assert!(filter.would_enable("ringside::transport::ice", &Level::DEBUG));
        for target in [DTLS, "ringside::transport::dtls", "ringside::signaling::session", INFO] {
            assert!(!filter.would_enable(target, &Level::INFO), "{target}");
            assert!(filter.would_enable(target, &Level::WARN), "{target}");
        }
    }

    #[test]
    fn modules_belong_to_the_subsystem_of_their_longest_prefix() {
        let filter = filter(LevelFilter::DEBUG, &[LogTag::Rtp]);
        assert!(filter.would_enable("ringside::packet::rtp", &Level::DEBUG));
        assert!(!filter.would_enable("ringside::packet::rtcp::nack", &Level::DEBUG));
        assert!(!filter.would_enable("ringside::packet::stun", &Level::DEBUG));
    }

    #[test]
    fn the_level_bounds_every_tag() {
        let filter = filter(LevelFilter::ERROR, &LogTag::ALL);
        assert!(filter.would_enable(INFO, &Level::ERROR));
        assert!(!filter.would_enable(INFO, &Level::WARN));
        assert!(!filter.would_enable("hyper::proto", &Level::WARN));
    }

    #[test]
    fn libraries_never_chatter() {
        assert!(!filter(LevelFilter::TRACE, &LogTag::ALL).would_enable("hyper::proto", &Level::INFO));
    }
}
