//! A worker from outside: commands in, events out, datagrams over loopback, and how it ends.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use ringside::host::allowed_cores;
use ringside::ids::{PeerId, RoomId, Token, TransportId};
use ringside::limits;
use ringside::shard::ShardConfig;
use ringside::shard::command::{Command, Direction, Event, Reply, RoomSettings};
use ringside::shard::stats::WorkerStats;
use ringside::transport::dtls::Identity;
use ringside::uring::socket::SocketOptions;
use ringside::uring::{RingConfig, Socket};
use ringside::worker::{Exit, SpawnError, Worker, WorkerConfig, WorkerError, spawn, write_hlog};
use stun::agent::TransactionId;
use stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USERNAME, RawAttribute};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Getter, Message};
use stun::textattrs::Username;
use stun::xoraddr::XorMappedAddress;
use tokio::sync::mpsc;

/// Longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    worker: Worker,
    address: SocketAddr,
    events: mpsc::Receiver<Event>,
    exits: mpsc::Receiver<Exit>,
}

fn config(socket: Socket) -> WorkerConfig {
    let shard = ShardConfig {
        identity: Identity::generate(),
        seed: [7; 32],
        unix_time: Duration::ZERO,
        ports: 1,
        history_bytes: 1 << 20,
        hold: Duration::from_millis(1),
    };
    let (core, ring) = (allowed_cores()[0], RingConfig::default());
    WorkerConfig { worker: 0, core, sockets: vec![socket], ring, shard, gather_max: limits::GATHER }
}

fn start(event_queue: usize) -> Running {
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
    let address = socket.address();
    let (events, event_receiver) = mpsc::channel(event_queue);
    let (exits, exit_receiver) = mpsc::channel(1);
    let worker = spawn(config(socket), events, exits).unwrap();
    Running { worker, address, events: event_receiver, exits: exit_receiver }
}

impl Running {
    async fn ask(&mut self, token: Token, command: Command) -> Reply {
        self.worker.handle().send(command).unwrap();
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap();
            if let Event::Reply { token: of, result } = event
                && of == token
            {
                return result.unwrap();
            }
        }
    }

    async fn stats(&mut self) -> WorkerStats {
        match self.ask(Token(99), Command::WorkerStats { token: Token(99) }).await {
            Reply::WorkerStats(stats) => *stats,
            reply => panic!("not statistics: {reply:?}"),
        }
    }

    /// Opens a room with one transport; returns its ufrag and password.
    async fn transport(&mut self) -> (String, String) {
        let (room, token) = (RoomId(1), Token(1));
        self.worker.handle().send(Command::OpenRoom { room, settings: RoomSettings::default() }).unwrap();
        let (peer, transport) = (PeerId(1), TransportId(1));
        let create = Command::CreateTransport { token, room, peer, transport, direction: Direction::Send };
        match self.ask(token, create).await {
            Reply::TransportCreated { ufrag, password, local: 0 } => (ufrag, password),
            reply => panic!("no transport: {reply:?}"),
        }
    }

    async fn end(mut self) -> Exit {
        self.worker.join();
        tokio::time::timeout(PATIENCE, self.exits.recv()).await.unwrap().unwrap()
    }
}

fn binding_request(ufrag: &str, password: &str) -> Message {
    let mut message = Message::new();
    message
        .build(&[
            Box::new(TransactionId::new()),
            Box::new(BINDING_REQUEST),
            Box::new(Username::new(ATTR_USERNAME, format!("{ufrag}:browser"))),
            Box::new(RawAttribute { typ: ATTR_PRIORITY, length: 4, value: vec![1, 2, 3, 4] }),
            Box::new(RawAttribute { typ: ATTR_ICE_CONTROLLING, length: 8, value: vec![9; 8] }),
            Box::new(MessageIntegrity::new_short_term_integrity(password.to_owned())),
            Box::new(FINGERPRINT),
        ])
        .unwrap();
    message
}

#[tokio::test]
async fn a_check_is_answered_over_the_workers_port() {
    let mut running = start(limits::EVENT_QUEUE);
    let (ufrag, password) = running.transport().await;
    let browser = UdpSocket::bind("127.0.0.1:0").unwrap();
    browser.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = binding_request(&ufrag, &password);
    browser.send_to(&request.raw, running.address).unwrap();
    let mut buffer = [0; 1500];
    let (bytes, source) = browser.recv_from(&mut buffer).unwrap();
    assert_eq!(source, running.address);
    let mut answer = Message { raw: buffer[..bytes].to_vec(), ..Message::default() };
    answer.decode().unwrap();
    assert_eq!((answer.typ, answer.transaction_id), (BINDING_SUCCESS, request.transaction_id));
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&answer).unwrap();
    assert_eq!(SocketAddr::new(mapped.ip, mapped.port), browser.local_addr().unwrap());
    let stats = running.stats().await;
    assert_eq!((stats.packets_received, stats.packets_sent, stats.messages_sent), (1, 1, 1));
    assert!(running.end().await.result.is_ok());
}

#[tokio::test]
async fn statistics_name_the_worker_its_port_and_every_refusal() {
    let mut running = start(limits::EVENT_QUEUE);
    // A tick counts once it is over, so the one that answers is not the first.
    running.stats().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    // RTP from an address that nobody knows, and a train of junk.
    let mut rtp = [0; 100];
    rtp[0] = 0x80;
    for _ in 0..10 {
        stranger.send_to(&rtp, running.address).unwrap();
        stranger.send_to(b"\xffjunk", running.address).unwrap();
    }
    let stats = loop {
        let stats = running.stats().await;
        if stats.packets_received == 20 {
            break stats;
        }
    };
    assert_eq!(stats.ports, [running.address.port()]);
    assert_eq!((stats.worker, stats.core), (1, Some(allowed_cores()[0])));
    let discarded = |name| stats.discards.iter().find(|(of, _)| *of == name).map(|(_, count)| *count);
    assert_eq!(discarded("unknown-source"), Some(10));
    assert_eq!(discarded("unclassified"), Some(10));
    assert_eq!(discarded("send-buffer-full"), Some(0));
    assert!(stats.ticks > 0 && stats.batch_packets.count > 0 && stats.tick_us.count == stats.ticks);
    assert!((0.0..=1.0).contains(&stats.busy));
    assert!(running.end().await.result.is_ok());
}

#[tokio::test]
async fn distributions_are_written_as_a_histogram_log() {
    let mut running = start(limits::EVENT_QUEUE);
    running.stats().await;
    let histograms = running.worker.handle().histograms().unwrap().await.unwrap();
    assert!(!histograms.tick_us.is_empty());
    let directory = std::env::temp_dir().join(format!("ringside-hlog-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path: PathBuf = write_hlog(&directory, &[histograms]).unwrap();
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(path.extension().unwrap(), "hlog");
    assert!(log.contains("Tag=worker-1.forwarding_us,"), "{log}");
    assert!(log.contains("Tag=worker-1.tick_us,"), "{log}");
    // "HISTFA": deflated, as the tools of HdrHistogram want it.
    let rows: Vec<&str> = log.lines().filter(|line| line.starts_with("Tag=")).collect();
    assert!(rows.iter().all(|row| row.rsplit(',').next().unwrap().starts_with("HISTFA")), "{log}");
}

#[tokio::test]
async fn a_worker_ends_in_order_when_its_last_handle_goes() {
    let running = start(limits::EVENT_QUEUE);
    let exit = running.end().await;
    assert_eq!((exit.worker, exit.core), (0, allowed_cores()[0]));
    assert!(exit.result.is_ok());
}

#[tokio::test]
async fn a_worker_whose_events_nobody_takes_ends_loudly() {
    let mut running = start(1);
    let handle = running.worker.handle();
    for _ in 0..3 {
        handle.send(Command::WorkerStats { token: Token(1) }).unwrap();
    }
    let exit = tokio::time::timeout(PATIENCE, running.exits.recv()).await.unwrap().unwrap();
    assert!(matches!(exit.result, Err(WorkerError::ControlPlaneStuck)), "{:?}", exit.result);
    // Commands to the dead worker are no error of their own.
    handle.send(Command::WorkerStats { token: Token(1) }).unwrap();
    drop(handle);
    running.worker.join();
}

#[tokio::test]
async fn a_flood_of_commands_is_refused_and_the_taken_ones_are_all_answered() {
    let mut running = start(limits::EVENT_QUEUE);
    let handle = running.worker.handle();
    let mut taken = 0;
    for n in 0..10 * limits::COMMAND_QUEUE as u64 {
        taken += u64::from(handle.send(Command::WorkerStats { token: Token(n) }).is_ok());
    }
    for _ in 0..taken {
        let event = tokio::time::timeout(PATIENCE, running.events.recv()).await.unwrap().unwrap();
        assert!(matches!(event, Event::Reply { result: Ok(_), .. }));
    }
    assert!(taken >= limits::COMMAND_QUEUE as u64);
    drop(handle);
    assert!(running.end().await.result.is_ok());
}

#[tokio::test]
async fn an_idle_worker_sleeps() {
    let mut running = start(limits::EVENT_QUEUE);
    let before = running.stats().await.ticks;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ticks = running.stats().await.ticks - before;
    assert!(ticks <= 5, "{ticks} ticks in two idle seconds");
}

#[test]
fn a_core_that_the_process_may_not_use_is_refused_by_name() {
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap();
    let (events, _) = mpsc::channel(1);
    let (exits, _) = mpsc::channel(1);
    let error = spawn(WorkerConfig { core: 4000, ..config(socket) }, events, exits).err().unwrap();
    assert!(matches!(error, SpawnError::CoreNotAllowed { core: 4000, .. }));
    assert!(error.to_string().contains("core 4000"), "{error}");
}
