//! Starts a server on this machine for a comparison, on a core of its own, with settings that are the same for all:
//! socket buffers (Janus has no setting for them and the kernel's default), everybody's voice forwarded, nobody refused.
//! And ends it again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::cli::Speaks;
use crate::proc::Watched;
use crate::run::Service;
use crate::sys;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A server to measure.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Ringside {
        program: PathBuf,
    },
    /// Another build of it.
    Baseline {
        program: PathBuf,
    },
    Mediasoup {
        folder: PathBuf,
    },
    /// `None` is as shipped: an event loop per handle.
    Janus {
        event_loops: Option<u32>,
    },
}

/// A server that runs until this is dropped.
pub struct Running {
    pub service: Service,
    child: Child,
    folder: Option<PathBuf>,
}

/// Where a server may run and listen, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub core: usize,
    pub tcp_port: u16,
    pub udp_first: u16,
    pub udp_last: u16,
    /// Of each media socket, in both directions; 0 is the kernel's default.
    pub socket_buffer_kib: u32,
}

impl Kind {
    pub fn name(&self) -> String {
        match self {
            Kind::Ringside { .. } => "ringside".into(),
            Kind::Baseline { .. } => "baseline".into(),
            Kind::Mediasoup { .. } => "mediasoup".into(),
            Kind::Janus { event_loops: None } => "janus".into(),
            Kind::Janus { event_loops: Some(loops) } => format!("janus, event_loops = {loops}"),
        }
    }

    /// As its program or package calls itself; empty where it says nothing.
    pub fn version(&self) -> String {
        match self {
            Kind::Ringside { program } | Kind::Baseline { program } => {
                let version = first_line(Command::new(program).arg("--version"));
                let help = Command::new(program).arg("--help").output().map(|output| output.stdout).unwrap_or_default();
                match String::from_utf8_lossy(&help).contains("--socket-buffer-kib") {
                    true => version,
                    false => format!("{version}, with socket buffers of its own"),
                }
            }
            Kind::Mediasoup { folder } => {
                let text = fs::read_to_string(folder.join("node_modules/mediasoup/package.json")).unwrap_or_default();
                let package: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
                package["version"].as_str().map_or(String::new(), |version| format!("mediasoup {version}"))
            }
            Kind::Janus { .. } => first_line(Command::new("janus").arg("--version")),
        }
    }

    /// Why it cannot run here, if that is seen without starting it.
    pub fn absent(&self) -> Option<String> {
        match self {
            Kind::Ringside { program } | Kind::Baseline { program } if !program.exists() => {
                Some(format!("{} is missing: cargo build --release", program.display()))
            }
            Kind::Mediasoup { folder } if !folder.join("node_modules/mediasoup").exists() => {
                Some(format!("not installed: npm ci in {}", folder.display()))
            }
            Kind::Janus { .. } if !in_path("janus") => Some("not installed: apt-get install janus".into()),
            _ => None,
        }
    }

    /// Starts it and waits until it listens.
    pub fn start(&self, place: Place) -> anyhow::Result<Running> {
        let before = sys::allowed_cores();
        // A child runs where its parent's thread does.
        sys::run_on_cores(&[place.core]).with_context(|| format!("core {} for the server", place.core))?;
        let started = match self {
            Kind::Ringside { program } | Kind::Baseline { program } => ringside(program, place),
            Kind::Mediasoup { folder } => mediasoup(folder, place),
            Kind::Janus { event_loops } => janus(*event_loops, place),
        };
        sys::run_on_cores(&before)?;
        let mut running = started?;
        running.service.name = self.name();
        running.service.version = self.version();
        running.service.placement = format!("one server worker on core {}", place.core);
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        sys::ask_to_end(self.child.id());
        let deadline = Instant::now() + END_TIMEOUT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn ringside(program: &Path, place: Place) -> anyhow::Result<Running> {
    let child = Command::new(program)
        .args(["--workers", "1", "--listen", "127.0.0.1", "--announced-ip", "127.0.0.1"])
        .args(["--port", &place.tcp_port.to_string()])
        .args(["--rtc-min-port", &place.udp_first.to_string(), "--rtc-max-port", &place.udp_last.to_string()])
        // The others have no admission: a full core is what is looked for. They choose no loudest speakers either.
        .args(["--max-peers-per-room", "1000", "--busy-limit-percent", "100", "--latency-limit-ms", "10000"])
        .args(["--audio-top-n", "0"])
        // As a variable, because a baseline may be a build that has no such flag.
        .env("RINGSIDE_SOCKET_BUFFER_KIB", place.socket_buffer_kib.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let pid = child.id();
    listening(child, place.tcp_port, Speaks::Protoo, Watched::only(&[pid]), None)
}

fn mediasoup(folder: &Path, place: Place) -> anyhow::Result<Running> {
    let mut child = Command::new("node")
        .arg("server.mjs")
        .current_dir(folder)
        .args(["--workers", "1", "--port", &place.tcp_port.to_string()])
        .args(["--rtc-min-port", &place.udp_first.to_string(), "--rtc-max-port", &place.udp_last.to_string()])
        .args(["--socket-buffer", &(u64::from(place.socket_buffer_kib) << 10).to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("cannot start node: is it installed?")?;
    let lines = lines_of(&mut child)?;
    let mut workers = Vec::new();
    loop {
        let Ok(line) = lines.recv_timeout(START_TIMEOUT) else {
            let _ = child.kill();
            bail!(
                "the mediasoup peer did not start: is there a mediasoup-worker? ./build-worker in its folder makes one"
            );
        };
        if let Some(pids) = line.strip_prefix("worker pids ") {
            workers = pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        }
        if line == "ready" {
            break;
        }
    }
    // Only the worker counts: node would be the application's own process.
    listening(child, place.tcp_port, Speaks::Protoo, Watched::only(&workers), None)
}

fn janus(event_loops: Option<u32>, place: Place) -> anyhow::Result<Running> {
    let folder =
        std::env::temp_dir().join(format!("ringside-loadtest-janus-{}-{}", std::process::id(), place.tcp_port));
    fs::create_dir_all(&folder)?;
    let loops = event_loops.map_or(String::new(), |loops| format!("event_loops = {loops}\n"));
    let config = format!(
        "general: {{\nconfigs_folder = \"{0}\"\ndebug_level = 2\n{loops}}}\n\
         media: {{\nrtp_port_range = \"{1}-{2}\"\n}}\n\
         nat: {{\nice_enforce_list = \"127.0.0.1\"\n}}\n\
         plugins: {{\ndisable = \"{PLUGINS_LEFT_OUT}\"\n}}\n\
         transports: {{\ndisable = \"{TRANSPORTS_LEFT_OUT}\"\n}}\n",
        folder.display(),
        place.udp_first,
        place.udp_last
    );
    fs::write(folder.join("janus.jcfg"), config)?;
    fs::write(
        folder.join("janus.transport.websockets.jcfg"),
        format!(
            "general: {{\njson = \"compact\"\nws = true\nws_port = {}\nws_ip = \"127.0.0.1\"\n}}\n",
            place.tcp_port
        ),
    )?;
    fs::write(folder.join("janus.plugin.videoroom.jcfg"), "general: {\n}\n")?;
    let child = Command::new("janus")
        .arg("--configs-folder")
        .arg(&folder)
        .arg("--config")
        .arg(folder.join("janus.jcfg"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start janus")?;
    let pid = child.id();
    listening(child, place.tcp_port, Speaks::Janus, Watched::only(&[pid]), Some(folder))
}

const PLUGINS_LEFT_OUT: &str = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,\
    libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,libjanus_textroom.so,\
    libjanus_videocall.so,libjanus_voicemail.so";
const TRANSPORTS_LEFT_OUT: &str =
    "libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_pfunix.so,libjanus_rabbitmq.so";

/// Waits until the port answers.
fn listening(
    mut child: Child,
    tcp_port: u16,
    speaks: Speaks,
    watched: Watched,
    folder: Option<PathBuf>,
) -> anyhow::Result<Running> {
    let address = SocketAddr::from(([127, 0, 0, 1], tcp_port));
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("the server ended at once ({status}): is port {tcp_port} taken?");
        }
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        ensure!(Instant::now() < deadline, "nothing listens on {address} after {START_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let service =
        Service { name: String::new(), version: String::new(), address, speaks, watched, placement: String::new() };
    Ok(Running { service, child, folder })
}

fn lines_of(child: &mut Child) -> anyhow::Result<mpsc::Receiver<String>> {
    let output = child.stdout.take().context("no output to read")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// What a program says first, wherever it says it; nothing where it cannot be asked.
fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.stdin(Stdio::null()).output() else { return String::new() };
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
