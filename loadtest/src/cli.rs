//! The command line: what `ringside-loadtest` can be asked.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::scenario;
use crate::sys::ClientSockets;

/// Load tests and capacity planning for Ringside, with real clients of its public protocol.
#[derive(Debug, Parser)]
#[command(name = "ringside-loadtest", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a scenario against a server and reports what participants would notice and what it cost
    Run(Run),
    /// Finds the knee: the largest load with loss below 0.1 % and p99 below a bound
    Ramp(Ramp),
    /// Turns a result into "for R rooms of P people you need N cores and B Gbit/s"
    Plan(Plan),
    /// Runs the same scenario against Ringside and other servers, started here one after another, and tells the ratios
    Compare(Compare),
    /// Shows how many packets per second the load test itself can take on one core
    Selftest(SelfTest),
}

#[derive(Args, Debug)]
pub struct Load {
    /// Scenario: a file (TOML), or the name of a shipped one, as they are in loadtest/scenarios
    #[arg(default_value = scenario::DEFAULT)]
    pub scenario: PathBuf,
    /// Changes one setting of the scenario, as `--set duration_s=5` or `--set camera.layers=1`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Bytes of receive buffer of each client socket, so that a moment in which the load test does not look is not taken for
    /// the server's loss; the kernel allows up to net.core.rmem_max. 0 leaves the system's default
    #[arg(long, default_value_t = 4 << 20)]
    pub receive_buffer: u32,
    /// Clients take datagrams one by one. With UDP GRO, which is the default, loopback hands a server's GSO message over
    /// whole and spares the server the cutting; without it the kernel cuts it, on the server's CPU time
    #[arg(long)]
    pub no_gro: bool,
    /// Where the report goes: PATH.json, PATH.html and PATH.hlog
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
}

impl Load {
    pub fn sockets(&self) -> ClientSockets {
        ClientSockets { gro: !self.no_gro, receive_buffer_bytes: self.receive_buffer }
    }
}

#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub server: Server,
    /// Core that the load runs on; any by default
    #[arg(long)]
    pub core: Option<usize>,
}

#[derive(Args, Debug)]
pub struct Server {
    /// Signaling address of the server
    #[arg(long, default_value = "127.0.0.1:8100")]
    pub server: SocketAddr,
    /// What runs there
    #[arg(long, value_enum, default_value_t = Speaks::Protoo)]
    pub speaks: Speaks,
    /// Process to watch, with its children; found by its listening port where it runs on this machine
    #[arg(long)]
    pub server_pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Speaks {
    /// Ringside's signaling; the mediasoup peer in loadtest/peers speaks it too
    Protoo,
    /// Janus' videoroom over its WebSocket transport
    Janus,
}

#[derive(Args, Debug)]
pub struct Ramp {
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub server: Server,
    /// What grows from step to step
    #[arg(long, value_enum, default_value_t = Grow::Rate)]
    pub by: Grow,
    /// First step, as a multiple of the scenario's own load
    #[arg(long, default_value_t = 1.0)]
    pub from: f64,
    /// Largest p99 of the forwarding latency, ms
    #[arg(long, default_value_t = 20.0)]
    pub p99_ms: f64,
    /// Largest loss, %
    #[arg(long, default_value_t = 0.1)]
    pub loss_percent: f64,
    /// Length of one step, s
    #[arg(long, default_value_t = 5.0)]
    pub step_s: f64,
    #[arg(long)]
    pub core: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Grow {
    /// Frames per second of a constant source, or frame sizes of a recorded one
    Rate,
    /// Rooms
    Rooms,
    /// Senders in each room
    Senders,
}

#[derive(Args, Debug)]
pub struct Plan {
    /// Report (JSON) of a run, or of a comparison, with the kind of load that is planned
    pub report: PathBuf,
    /// Whose runs of a comparison are planned with
    #[arg(long, default_value = "ringside")]
    pub of: String,
    #[arg(long)]
    pub rooms: u64,
    #[arg(long)]
    pub people: u64,
    /// Busy share of a core that the plan allows
    #[arg(long, default_value_t = 0.6)]
    pub busy: f64,
}

#[derive(Args, Debug)]
pub struct Compare {
    #[command(flatten)]
    pub load: Load,
    /// Other servers to run
    #[arg(long = "peer", value_enum, required_unless_present = "baseline")]
    pub peers: Vec<Peer>,
    /// Another build of ringside, run beside this one as the peer "baseline"
    #[arg(long, value_name = "PATH")]
    pub baseline: Option<PathBuf>,
    /// Runs of each server, alternating
    #[arg(long, default_value_t = 3)]
    pub repeats: usize,
    /// Ringside's program; beside this one by default
    #[arg(long)]
    pub ringside: Option<PathBuf>,
    /// Folder with the mediasoup peer
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/mediasoup"))]
    pub mediasoup: PathBuf,
    /// Core of the server
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// Core of the load
    #[arg(long, default_value_t = 1)]
    pub core: usize,
    /// First TCP port to use; UDP ports are chosen from 20000 to 31999
    #[arg(long, default_value_t = 18_100)]
    pub port: u16,
    /// Buffers of each media socket of the servers, in KiB; 0 leaves the kernel's default. Near the knee a server that takes
    /// ten times as much needs ten times the buffer for the same hiccup of the machine. Janus has no setting for it
    #[arg(long, default_value_t = 0)]
    pub socket_buffer_kib: u32,
    /// Also ramps each server to its knee by rate
    #[arg(long)]
    pub knee: bool,
    /// Knees of each server, alternating
    #[arg(long, default_value_t = 1)]
    pub knee_repeats: usize,
}

#[derive(Args, Debug)]
pub struct SelfTest {
    /// Clients that receive
    #[arg(long, default_value_t = 49)]
    pub receivers: usize,
    /// Packets of 1130 bytes that the sender puts into one message
    #[arg(long, default_value_t = 6)]
    pub packets_per_message: usize,
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Core that receives
    #[arg(long, default_value_t = 1)]
    pub core: usize,
    /// Core that sends
    #[arg(long, default_value_t = 0)]
    pub server_core: usize,
    /// Clients take datagrams one by one
    #[arg(long)]
    pub no_gro: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    Mediasoup,
    /// As Debian ships it, and with one event loop
    Janus,
}
