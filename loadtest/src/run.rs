//! One run from a scenario to a report, as every command makes it.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;

use anyhow::{Context, ensure};

use crate::cli::{Load, Server, Speaks};
use crate::peers;
use crate::proc::Watched;
use crate::report::{Report, terminal};
use crate::scenario::Scenario;
use crate::swarm::{Outcome, Protocol, Swarm, Target};
use crate::sys::{self, ClientSockets};

/// A server that is up, and how to speak with it.
pub struct Service {
    pub name: String,
    /// As it calls itself; empty where that is not known.
    pub version: String,
    pub address: SocketAddr,
    pub speaks: Speaks,
    pub watched: Watched,
    /// Which cores it and the load run on, in words.
    pub placement: String,
}

impl Service {
    /// A server that somebody else started; the load runs on `core`, where one is named.
    pub fn found(server: &Server, core: Option<usize>) -> Service {
        let watched = match server.server_pid {
            Some(pid) => Watched::tree(pid),
            None => Watched::listening_on(server.server).unwrap_or_default(),
        };
        let name = match server.speaks {
            Speaks::Protoo => "server".to_owned(),
            Speaks::Janus => "janus".to_owned(),
        };
        let placement = core.map_or("load on any core".to_owned(), |core| format!("load on core {core}"));
        Service { name, version: String::new(), address: server.server, speaks: server.speaks, watched, placement }
    }

    fn protocol(&self) -> Protocol {
        match self.speaks {
            Speaks::Protoo => peers::protoo(),
            Speaks::Janus => peers::janus::protocol(),
        }
    }
}

/// Reads the scenario and applies `--set`.
pub fn scenario(load: &Load) -> anyhow::Result<Scenario> {
    let text = with_settings(&Scenario::text(&load.scenario)?, &load.settings)?;
    let name = load.scenario.file_stem().unwrap_or_default().to_string_lossy();
    Scenario::named(&text, &name).with_context(|| load.scenario.display().to_string())
}

/// Sets `a.b=value` in a TOML text; a value that is not TOML counts as a string.
fn with_settings(text: &str, settings: &[String]) -> anyhow::Result<String> {
    let mut table: toml::Table = toml::from_str(text)?;
    for setting in settings {
        let (key, value) = setting.split_once('=').with_context(|| format!("--set {setting}: write KEY=VALUE"))?;
        let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut parsed| parsed.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.to_owned()));
        let mut path: Vec<&str> = key.trim().split('.').collect();
        let last = path.pop().unwrap_or_default();
        let mut at = &mut table;
        for step in path {
            let entry = at.entry(step).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            at = entry.as_table_mut().with_context(|| format!("--set {setting}: {step} is not a table"))?;
        }
        at.insert(last.to_owned(), value);
    }
    Ok(toml::to_string(&table)?)
}

/// Binds the load to a core, where one is named.
pub fn pin(core: Option<usize>) -> anyhow::Result<()> {
    if let Some(core) = core {
        ensure!(sys::allowed_cores().contains(&core), "core {core} is not one that this process may use");
        sys::run_on_cores(&[core])?;
    }
    Ok(())
}

/// Runs a scenario against a service, with a live line where somebody watches.
pub fn run(scenario: &Scenario, service: &Service, sockets: ClientSockets) -> anyhow::Result<(Report, Outcome)> {
    let files = 3 * (scenario.rooms * scenario.participants) as u64 + 100;
    let allowed = sys::raise_open_files()?;
    ensure!(allowed >= files, "{files} sockets are needed and {allowed} open files allowed: ulimit -n {files}");
    let target = Target {
        server: service.address,
        protocol: service.protocol(),
        watched: service.watched.clone(),
        sockets,
        room_prefix: format!("load{}-", run_number()),
    };
    let live = std::io::stderr().is_terminal();
    let outcome = Swarm::new(scenario.clone(), target)?.run(&mut |second, phase, totals| {
        if live {
            let mut out = std::io::stderr().lock();
            let _ = write!(out, "\r\x1b[K{}", terminal::live(second, phase, totals));
            let _ = out.flush();
        }
    })?;
    if live {
        eprint!("\r\x1b[K");
    }
    let report = Report::new(service, scenario, sockets, &outcome);
    Ok((report, outcome))
}

/// Rooms of one run must not be those of another: the time tells runs apart well enough.
fn run_number() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64 % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_command_line_change_the_scenario() {
        let text = "rooms = 1\nparticipants = 50\n[camera]\nlayers = 3\n";
        let settings = ["participants=5", "camera.layers=1", "camera.source=constant", "microphone.speakers=1"];
        let text = with_settings(text, &settings.map(str::to_owned)).unwrap();
        let scenario = Scenario::parse(&text).unwrap();
        assert_eq!((scenario.participants, scenario.camera.unwrap().layers), (5, 1));
        assert_eq!(scenario.microphone.unwrap().speakers, 1);
    }
}
