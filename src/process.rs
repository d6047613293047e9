//! The process of Ringside in the order of its life: host, ports, workers, signaling, signals, the end.
//!
//! Called once by `main`, which turns a [`Failure`] into one line and an exit code. Everything that can be
//! refused is asked for before the first worker runs, so that a mistake leaves nothing behind.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{Config, ConfigError};
use crate::host;
use crate::limits;
use crate::log;
use crate::shard::ShardConfig;
use crate::shard::command::Event;
use crate::signaling::hub::{QueueFull, WorkerLink};
use crate::signaling::server::{RunError, Server, StartError, Stop};
use crate::signaling::session::WorkerFacts;
use crate::transport::dtls::Identity;
use crate::uring::probe::ProbeError;
use crate::uring::socket::{self, BindError, Buffers, SocketOptions};
use crate::uring::{RingConfig, Socket, priority};
use crate::worker::{self, Exit, Handle, SpawnError, Worker, WorkerConfig};

/// Why Ringside did not start, or did not go on. Each is one line with cause and cure.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Host(#[from] ProbeError),
    #[error(transparent)]
    Udp(#[from] BindError),
    #[error(transparent)]
    Http(#[from] StartError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{0}")]
    WorkerDied(String),
}

impl Failure {
    /// What the process ends with: 1 something broke, 2 the settings are wrong, 3 the host forbids io_uring.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Udp(_) | Failure::Http(_) => 2,
            Failure::Host(_) => 3,
            Failure::Spawn(_) | Failure::Run(_) | Failure::WorkerDied(_) => 1,
        }
    }
}

/// Runs until it is told to stop (SIGINT, SIGTERM) or something dies.
pub fn run(config: &Config) -> Result<(), Failure> {
    let cores = host::allowed_cores();
    config.check(cores.len())?;
    let announced = config.announced_addresses()?;
    host::io_uring_permission()?;
    let server = Server::bind(config.signaling(announced.clone()))?;
    let sockets = media_sockets(config, config.worker_count(cores.len()), &announced)?;
    let Fleet { workers, handles, links, events, exits } = Fleet::start(config, &cores, sockets)?;
    // This thread shares the workers' cores; it may always step back, whatever became of their own wish.
    priority::renice(priority::SIGNALING);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let mut watch = {
        let _context = runtime.enter();
        Watch {
            signals: Signals::listen().map_err(RunError::Runtime)?,
            exits,
            handles,
            hlog_dir: config.hlog_dir.clone(),
        }
    };
    greet(&server.url(), &announced);
    runtime.block_on(server.serve(links, events, watch.stop()))?;
    let Watch { mut exits, handles, .. } = watch;
    let count = workers.len();
    drop((runtime, handles));
    workers.into_iter().for_each(Worker::join);
    // One may have died while the others said goodbye.
    while let Ok(exit) = exits.try_recv() {
        if exit.result.is_err() {
            return Err(Failure::WorkerDied(obituary(&exit, count)));
        }
    }
    tracing::info!(target: log::INFO, "stopped");
    Ok(())
}

/// Each worker's sockets: one for each port of its slice, then one more for each announced address that is this machine's
/// own, so that browsers are answered from the address that they sent to.
fn media_sockets(config: &Config, workers: usize, announced: &[IpAddr]) -> Result<Vec<Vec<Socket>>, BindError> {
    let everywhere = config.rtc_listen_ip.is_unspecified();
    // An IPv6 socket on :: serves IPv4 too, under mapped addresses.
    let buffers = Buffers::both(config.socket_buffer_bytes);
    let options = SocketOptions { buffers, only_v6: !everywhere, ..SocketOptions::default() };
    let of_worker = |worker: usize| {
        let bind = |port: u16| bind_when_free(SocketAddr::new(config.rtc_listen_ip, port), options);
        let mut sockets: Vec<Socket> = config.worker_ports(worker).map(bind).collect::<Result<_, _>>()?;
        let ports = sockets.len();
        for address in announced.iter().take(limits::OWN_ADDRESSES).filter(|_| everywhere) {
            for port in 0..ports {
                sockets.extend(sockets[port].beside(*address, options)?);
            }
        }
        Ok(sockets)
    };
    (0..workers).map(of_worker).collect()
}

/// The kernel takes a ring apart in the background and gives its ports back about 30 ms after the process ended
/// (measured): a server that is started again at once waits for those of the one before.
fn bind_when_free(address: SocketAddr, options: SocketOptions) -> Result<Socket, BindError> {
    let deadline = Instant::now() + limits::PORT_RELEASE;
    loop {
        match Socket::bind(address, options) {
            Err(BindError::InUse(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
}

/// All workers of the process, as the control plane meets them.
struct Fleet {
    workers: Vec<Worker>,
    handles: Vec<Arc<Handle>>,
    links: Vec<WorkerLink>,
    events: mpsc::Receiver<Event>,
    exits: mpsc::Receiver<Exit>,
}

impl Fleet {
    fn start(config: &Config, cores: &[usize], sockets: Vec<Vec<Socket>>) -> Result<Fleet, SpawnError> {
        let identity = Identity::generate();
        let count = sockets.len();
        let (event_sender, events) = mpsc::channel(limits::EVENT_QUEUE);
        let (exit_sender, exits) = mpsc::channel(count);
        let mut fleet = Fleet { workers: Vec::new(), handles: Vec::new(), links: Vec::new(), events, exits };
        for (index, sockets) in sockets.into_iter().enumerate() {
            // More workers than cores share them in turn.
            let core = cores[index % cores.len()];
            let ports = socket::ports(&sockets);
            let shard = ShardConfig {
                identity: identity.clone(),
                seed: seed(),
                unix_time: Duration::ZERO,
                ports: ports.len() as u8,
                history_bytes: config.history_bytes,
                hold: config.hold,
            };
            let (ring, gather_max) = (RingConfig::default(), config.gather_max);
            let settings = WorkerConfig { worker: index, core, sockets, ring, shard, gather_max };
            let worker = worker::spawn(settings, event_sender.clone(), exit_sender.clone())?;
            tracing::info!(target: log::INFO, "worker {}/{count} on core {core}, udp {}", index + 1, list(&ports));
            let handle = Arc::new(worker.handle());
            fleet.links.push(link(&handle, ports, &identity));
            fleet.handles.push(handle);
            fleet.workers.push(worker);
        }
        match fleet.workers.iter().all(Worker::goes_first) {
            true => tracing::debug!(target: log::INFO, "workers go before other threads (nice {})", priority::MEDIA),
            false => tracing::info!(
                target: log::INFO,
                "workers take turns with whatever else runs on their cores; LimitNICE={0} in the service unit, or a \
                 container's --cap-add SYS_NICE, lets them go first",
                priority::MEDIA
            ),
        }
        Ok(fleet)
    }
}

/// The control plane only borrows a worker's handle: a worker ends with its last one, and must not wait for
/// whatever a library of the control plane still holds when that is over.
fn link(handle: &Arc<Handle>, ports: Vec<u16>, identity: &Identity) -> WorkerLink {
    let handle = Arc::downgrade(handle);
    WorkerLink {
        facts: WorkerFacts { ports, fingerprints: identity.fingerprints().to_vec() },
        send: Box::new(move |command| match handle.upgrade() {
            Some(handle) => handle.send(command).map_err(|_| QueueFull),
            // The process ends; nobody is left to obey.
            None => Ok(()),
        }),
    }
}

/// From the system's secure source.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).expect("the system yields random bytes");
    seed
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" ")
}

/// The one line that a newcomer looks for; on stdout, where log lines do not bury it.
fn greet(url: &str, announced: &[IpAddr]) {
    let _ = writeln!(io::stdout(), "Ringside is up: open {url}");
    if announced.iter().all(IpAddr::is_loopback) {
        let hint = "only browsers on this machine can join; --announced-ip <its address> lets others in";
        tracing::info!(target: log::INFO, "{hint}");
    }
}

/// The signals that Ringside answers to. From here on they do not end the process by themselves.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// SIGUSR1: write the workers' distributions.
    measure: Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            measure: signal(SignalKind::user_defined1())?,
        })
    }
}

/// What can end the process, and what an operator can ask of it while it runs.
struct Watch {
    signals: Signals,
    exits: mpsc::Receiver<Exit>,
    handles: Vec<Arc<Handle>>,
    hlog_dir: PathBuf,
}

impl Watch {
    /// Waits for a reason to stop; from the first request on, a second one ends the process at once.
    async fn stop(&mut self) -> Stop {
        loop {
            let Signals { interrupt, terminate, measure } = &mut self.signals;
            tokio::select! {
                exit = self.exits.recv() => {
                    let message = exit.map(|exit| obituary(&exit, self.handles.len()));
                    return Stop::WorkerEnded(message.unwrap_or_else(|| "all workers are gone".to_owned()));
                }
                _ = measure.recv() => write_distributions(&self.handles, &self.hlog_dir).await,
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
            }
        }
        if let Ok(signals) = Signals::listen() {
            tokio::spawn(stop_at_once(signals));
        }
        tracing::info!(target: log::INFO, "asked to stop: telling the peers");
        Stop::Asked
    }
}

/// Somebody who asks twice does not want to wait.
async fn stop_at_once(Signals { mut interrupt, mut terminate, .. }: Signals) {
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    eprintln!("ringside: asked twice to stop: the peers that were still there are cut off");
    std::process::exit(1);
}

async fn write_distributions(handles: &[Arc<Handle>], directory: &Path) {
    let mut histograms = Vec::new();
    for handle in handles {
        let Ok(answer) = handle.histograms() else { continue };
        histograms.extend(answer.await);
    }
    match worker::write_hlog(directory, &histograms) {
        Ok(path) => tracing::info!(target: log::INFO, "distributions written to {}", path.display()),
        Err(error) => {
            let directory = directory.display();
            tracing::warn!(target: log::INFO, "cannot write distributions to {directory} ({error}): see --hlog-dir");
        }
    }
}

/// The last line of a process whose worker died.
fn obituary(exit: &Exit, workers: usize) -> String {
    let (worker, core) = (exit.worker + 1, exit.core);
    match &exit.result {
        Ok(()) => format!("worker {worker}/{workers} on core {core} ended by itself"),
        Err(error) => format!("worker {worker}/{workers} on core {core} died: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::WorkerError;

    #[test]
    fn a_dead_worker_is_named_with_its_last_words() {
        let exit = Exit { worker: 0, core: 3, result: Err(WorkerError::Panicked("index out of bounds".to_owned())) };
        let failure = Failure::WorkerDied(obituary(&exit, 2));
        assert_eq!(failure.to_string(), "worker 1/2 on core 3 died: panicked: index out of bounds");
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn announced_addresses_of_this_machine_get_sockets_of_their_own_and_others_still_arrive() {
        let free = std::net::UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let config = Config { rtc_min_port: free, rtc_max_port: free, ..Config::default() };
        // RFC 5737: no machine has it; a translator in front of this one does, or a container's published port.
        let announced = [[127, 0, 0, 1].into(), [203, 0, 113, 7].into()];
        let sockets = media_sockets(&config, 1, &announced).unwrap().remove(0);
        let addresses: Vec<String> = sockets.iter().map(|socket| socket.address().ip().to_string()).collect();
        assert_eq!(addresses, ["0.0.0.0", "127.0.0.1"]);
        assert_eq!(socket::ports(&sockets), [free]);
    }

    #[test]
    fn exit_codes_tell_settings_host_and_accidents_apart() {
        let settings = Failure::from(ConfigError::RangeInverted { min: 2, max: 1 });
        let host = Failure::from(ProbeError::Disabled { value: 2 });
        assert_eq!((settings.exit_code(), host.exit_code()), (2, 3));
    }
}
