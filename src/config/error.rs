//! What an operator can get wrong. Each reads as one line that names the cause and the cure.

use std::net::IpAddr;

use super::Origin;

/// Ringside does not start; exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0}")]
    Arguments(String),
    #[error("--{name} {text:?} ({origin}) {problem}")]
    Value { name: &'static str, text: String, origin: Origin, problem: String },
    #[error("{file}: cannot be read ({problem}): check --config")]
    FileUnreadable { file: String, problem: String },
    #[error("{file}, line {line}: not TOML: {problem}")]
    FileSyntax { file: String, line: usize, problem: String },
    #[error("{file}: there is no setting {key:?}: did you mean {nearest:?}? (ringside --help lists them all)")]
    UnknownKey { file: String, key: String, nearest: &'static str },
    #[error("--rtc-min-port {min} is above --rtc-max-port {max}: swap them, or set both")]
    RangeInverted { min: u16, max: u16 },
    #[error(
        "ports {min} to {max} are {have}, but {workers} worker(s) need {need}: raise --rtc-max-port, or lower \
         --workers or --ports-per-worker"
    )]
    RangeTooSmall { min: u16, max: u16, have: usize, need: usize, workers: usize },
    #[error(
        "--announced-ip {text:?} is no address that browsers can reach ({problem}): give the IPv4 or IPv6 address, or \
         the host name, under which this machine is known to them"
    )]
    Announced { text: String, problem: String },
    #[error(
        "--announced-ip {text:?} is of another family than --rtc-listen-ip {listen}: browsers would send where nobody \
         listens; --rtc-listen-ip :: receives IPv4 and IPv6"
    )]
    AnnouncedElsewhere { text: String, listen: IpAddr },
    #[error("{given} without {missing}: HTTPS needs both")]
    TlsHalf { given: &'static str, missing: &'static str },
}
