//! What the operator may choose: flags, environment, a TOML file and defaults, in this order.
//!
//! Every setting is one row of [`table`]; flags, variables, file keys, `--help`, `--print-config` and
//! `docs/settings.md` all follow from it. Reading is pure (arguments, environment and files come in as
//! arguments), so that a test can be any operator. Called once by `main`; must never touch a socket.

mod error;
mod invocation;
mod page;
mod table;

#[cfg(test)]
mod tests;

pub use error::ConfigError;
pub use invocation::{Chosen, Invocation, Mode, Origin, Settings, read};
pub use page::{help, markdown, toml};
pub use table::{Group, SETTINGS, Setting, ValueKind};

use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::log::LogTag;
use crate::signaling::settings::{SignalingConfig, TlsFiles};

/// Every setting with its effective value.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the control plane is told; `announced` and `tls` are empty until [`Config::signaling`] fills them.
    pub signaling: SignalingConfig,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,

    /// Addresses as the operator wrote them; [`Config::announced_addresses`] makes them numbers.
    pub announced_ip: Vec<String>,
    /// Address that media sockets are bound to; `::` receives IPv4 too.
    pub rtc_listen_ip: IpAddr,
    pub rtc_min_port: u16,
    /// Inclusive.
    pub rtc_max_port: u16,
    pub ports_per_worker: u16,
    /// Receive and send buffer of each socket; 0 is the kernel's default.
    pub socket_buffer_bytes: usize,
    /// `None` is one for each allowed core.
    pub workers: Option<usize>,

    /// How long the first packet of a video frame may wait for the last one.
    pub hold: Duration,
    /// How long packets that could leave may wait for company when a worker runs out of time.
    pub gather_max: Duration,
    /// Payload bytes that each worker keeps for retransmission.
    pub history_bytes: usize,

    pub log_level: LevelFilter,
    pub log_tags: Vec<LogTag>,
    /// Where the workers' histogram logs go.
    pub hlog_dir: PathBuf,
}

impl Default for Config {
    /// The defaults of the table.
    fn default() -> Self {
        Settings::default().config
    }
}

impl Config {
    /// How many workers run on a host that allows this many cores.
    pub fn worker_count(&self, allowed_cores: usize) -> usize {
        self.workers.unwrap_or(allowed_cores).max(1)
    }

    /// The UDP ports of a worker, counted from 0: its slice of the range, from the bottom up.
    /// [`Config::check`] has made sure that there are as many.
    pub fn worker_ports(&self, worker: usize) -> impl Iterator<Item = u16> + use<> {
        let per_worker = usize::from(self.ports_per_worker);
        (self.rtc_min_port..=self.rtc_max_port).skip(worker * per_worker).take(per_worker)
    }

    /// The control plane's settings in full, once the announced addresses are known.
    pub fn signaling(&self, announced: Vec<IpAddr>) -> SignalingConfig {
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
        SignalingConfig { announced, tls, ..self.signaling.clone() }
    }

    /// Refuses settings that are sound alone and wrong together.
    pub fn check(&self, allowed_cores: usize) -> Result<(), ConfigError> {
        let (min, max) = (self.rtc_min_port, self.rtc_max_port);
        if min > max {
            return Err(ConfigError::RangeInverted { min, max });
        }
        let workers = self.worker_count(allowed_cores);
        let have = usize::from(max - min) + 1;
        let need = workers * usize::from(self.ports_per_worker);
        if need > have {
            return Err(ConfigError::RangeTooSmall { min, max, have, need, workers });
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => return Err(ConfigError::TlsHalf { given: "--tls-cert", missing: "--tls-key" }),
            (None, Some(_)) => return Err(ConfigError::TlsHalf { given: "--tls-key", missing: "--tls-cert" }),
            _ => {}
        }
        Ok(())
    }

    /// The addresses that browsers are told, as numbers. A host name is looked up here, once; of its
    /// addresses those count that media sockets can receive on.
    pub fn announced_addresses(&self) -> Result<Vec<IpAddr>, ConfigError> {
        let mut addresses = Vec::new();
        for text in &self.announced_ip {
            let refuse = |problem: String| ConfigError::Announced { text: text.clone(), problem };
            let mut found: Vec<IpAddr> = match text.parse() {
                Ok(address) => vec![address],
                Err(_) => {
                    let found = (text.as_str(), 0).to_socket_addrs().map_err(|error| refuse(error.to_string()))?;
                    found.map(|address| address.ip()).collect()
                }
            };
            if found.iter().any(|address| address.is_unspecified() || address.is_multicast()) {
                return Err(refuse("no browser can send to it".to_owned()));
            }
            found.retain(|address| receives(self.rtc_listen_ip, *address));
            if found.is_empty() {
                return Err(ConfigError::AnnouncedElsewhere { text: text.clone(), listen: self.rtc_listen_ip });
            }
            for address in found {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Ok(addresses)
    }
}

/// Whether what is sent to `announced` can reach a socket on `listen`: address translation changes the
/// address on the way but not its family, and :: takes both.
fn receives(listen: IpAddr, announced: IpAddr) -> bool {
    listen.is_ipv4() == announced.is_ipv4() || listen == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}
