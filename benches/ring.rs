//! What a datagram costs on its way into and out of the kernel: mechanism by burst, batch, slots, coalescing.
//!
//! CPU time of the measuring thread per datagram of 1,200 bytes on loopback, median (least) of interleaved repeats.
//! Sending over loopback includes the receiver's half of the stack. `cargo bench --bench ring [-- --quick]`.

mod support;

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use ringside::limits;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::uring::socket::SocketOptions;
use ringside::uring::{Ring, RingConfig, Socket, clock};
use support::Samples;

const BYTES: usize = 1200;
const DESTINATIONS: usize = 49;
const BURSTS: [usize; 4] = [1, 3, 6, 12];

fn main() {
    let effort = if support::quick() { Effort { repeats: 2, rounds: 2 } } else { Effort { repeats: 15, rounds: 12 } };
    send_mechanisms(effort);
    submit_batches(effort);
    send_slots(effort);
    receive_coalescing(effort);
}

#[derive(Clone, Copy)]
struct Effort {
    /// Interleaved repeats of the whole table.
    repeats: usize,
    /// Bursts to every destination per repeat.
    rounds: usize,
}

/// Sockets that are sent to, read empty between measurements.
struct Sinks(Vec<UdpSocket>);

impl Sinks {
    fn open() -> Sinks {
        let sinks = (0..DESTINATIONS).map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        Sinks(sinks.collect())
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|sink| sink.local_addr().unwrap()).collect()
    }

    /// Reads everything; returns how many datagrams there were.
    fn drain(&self) -> u64 {
        let mut buffer = [0; 2048];
        self.0.iter().map(|sink| std::iter::from_fn(|| sink.recv(&mut buffer).ok()).count() as u64).sum()
    }
}

/// A way to send `burst` datagrams to each destination.
trait Mechanism {
    fn send(&mut self, burst: usize);
}

struct SendTo {
    socket: UdpSocket,
    to: Vec<SocketAddr>,
}

impl Mechanism for SendTo {
    fn send(&mut self, burst: usize) {
        let payload = [7; BYTES];
        for to in &self.to {
            for _ in 0..burst {
                self.socket.send_to(&payload, to).unwrap();
            }
        }
    }
}

/// 64 messages per system call.
struct SendMmsg {
    socket: UdpSocket,
    to: Vec<SocketAddr>,
    headers: MultiHeaders<SockaddrStorage>,
}

impl Mechanism for SendMmsg {
    fn send(&mut self, burst: usize) {
        let payload = [7; BYTES];
        let message = [IoSlice::new(&payload)];
        let each = |to: &SocketAddr| std::iter::repeat_n(Some(SockaddrStorage::from(*to)), burst);
        let addresses: Vec<Option<SockaddrStorage>> = self.to.iter().flat_map(each).collect();
        for chunk in addresses.chunks(64) {
            let messages = std::iter::repeat_n(&message, chunk.len());
            sendmmsg(self.socket.as_raw_fd(), &mut self.headers, messages, chunk, [], MsgFlags::empty()).unwrap();
        }
    }
}

/// The product's ring. `run` datagrams leave in one message.
struct RingSend {
    ring: Ring,
    to: Vec<Destination>,
    segmented: bool,
}

impl RingSend {
    fn unconnected(to: &[SocketAddr], config: RingConfig, segmented: bool) -> RingSend {
        let ring = Ring::open(config, vec![bind()]).unwrap();
        let to = to.iter().map(|address| Destination { address: *address, local: 0 }).collect();
        RingSend { ring, to, segmented }
    }

    fn connected(to: &[SocketAddr]) -> RingSend {
        let connected = |address: &SocketAddr| {
            let mut socket = bind();
            socket.connect(*address).unwrap();
            socket
        };
        let ring = Ring::open(RingConfig::default(), to.iter().map(connected).collect()).unwrap();
        let destination =
            |(local, address): (usize, &SocketAddr)| Destination { address: *address, local: local as u8 };
        RingSend { ring, to: to.iter().enumerate().map(destination).collect(), segmented: false }
    }
}

impl Mechanism for RingSend {
    fn send(&mut self, burst: usize) {
        for to in &self.to {
            let (runs, run) = if self.segmented { (1, burst * BYTES) } else { (burst, BYTES) };
            for _ in 0..runs {
                let slot = self.ring.reserve(*to, run).expect("slots come back with each submit");
                slot.fill(7);
                self.ring.commit(run, BYTES);
            }
        }
        self.ring.submit().unwrap();
    }
}

fn bind() -> Socket {
    Socket::bind("127.0.0.1:0".parse().unwrap(), SocketOptions::default()).unwrap()
}

fn plain() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// CPU time per datagram of `rounds` bursts to every destination. What arrives is read outside of the measured time.
fn measure(mechanism: &mut dyn Mechanism, burst: usize, rounds: usize, sinks: &Sinks, samples: &mut Samples) {
    let mut spent = Duration::ZERO;
    let mut arrived = 0;
    for _ in 0..rounds {
        let before = clock::thread_cpu();
        mechanism.send(burst);
        spent += clock::thread_cpu() - before;
        arrived += sinks.drain();
    }
    let sent = (rounds * burst * DESTINATIONS) as u64;
    assert_eq!(arrived, sent, "a datagram was lost on loopback");
    samples.add(spent, sent);
}

fn send_mechanisms(effort: Effort) {
    let sinks = Sinks::open();
    let to = sinks.addresses();
    let mut mechanisms: Vec<(&str, Box<dyn Mechanism>)> = vec![
        ("sendto", Box::new(SendTo { socket: plain(), to: to.clone() })),
        (
            "sendmmsg 64",
            Box::new(SendMmsg { socket: plain(), to: to.clone(), headers: MultiHeaders::preallocate(64, None) }),
        ),
        ("ring", Box::new(RingSend::unconnected(&to, RingConfig::default(), false))),
        ("ring, connected", Box::new(RingSend::connected(&to))),
        ("ring, GSO", Box::new(RingSend::unconnected(&to, RingConfig::default(), true))),
    ];
    let mut table = vec![vec![Samples::default(); BURSTS.len()]; mechanisms.len()];
    for _ in 0..effort.repeats {
        for (column, burst) in BURSTS.into_iter().enumerate() {
            for (row, (_, mechanism)) in mechanisms.iter_mut().enumerate() {
                measure(mechanism.as_mut(), burst, effort.rounds, &sinks, &mut table[row][column]);
            }
        }
    }
    println!("\nsend to {DESTINATIONS} destinations, ns per datagram");
    header("burst", &BURSTS);
    for ((name, _), row) in mechanisms.iter().zip(&table) {
        line(name, row);
    }
    let ratio = |row: usize, column: usize| table[2][column].least() / table[row][column].least();
    println!("ring/connected at burst 1: {:.2}", ratio(3, 0));
    println!("ring/GSO at bursts 3, 6, 12: {:.2} {:.2} {:.2}", ratio(4, 1), ratio(4, 2), ratio(4, 3));
}

fn submit_batches(effort: Effort) {
    const BATCHES: [usize; 5] = [4, 8, 16, 32, 64];
    let configs = BATCHES.map(|submit_batch| RingConfig { submit_batch, send_slots: 128, ..RingConfig::default() });
    ring_table("runs per submit", &BATCHES, &configs, effort);
}

fn send_slots(effort: Effort) {
    const SLOTS: [usize; 5] = [16, 32, 64, 128, 256];
    let configs = SLOTS.map(|slots| RingConfig {
        send_slots: slots as u16,
        submit_batch: limits::SUBMIT_BATCH.min(slots),
        ..RingConfig::default()
    });
    ring_table("send slots", &SLOTS, &configs, effort);
}

fn ring_table(what: &str, columns: &[usize], configs: &[RingConfig], effort: Effort) {
    const ROWS: [(&str, usize, bool); 3] =
        [("single datagrams", 1, false), ("GSO of 6", 6, true), ("GSO of 12", 12, true)];
    let sinks = Sinks::open();
    let to = sinks.addresses();
    let mut rings: Vec<[RingSend; 2]> =
        configs.iter().map(|config| [false, true].map(|gso| RingSend::unconnected(&to, *config, gso))).collect();
    let mut table = vec![vec![Samples::default(); columns.len()]; ROWS.len()];
    for _ in 0..effort.repeats {
        for (row, (_, burst, gso)) in ROWS.into_iter().enumerate() {
            for (column, ring) in rings.iter_mut().enumerate() {
                measure(&mut ring[usize::from(gso)], burst, effort.rounds, &sinks, &mut table[row][column]);
            }
        }
    }
    println!("\nring, ns per datagram");
    header(what, columns);
    for ((name, ..), row) in ROWS.iter().zip(&table) {
        line(name, row);
    }
}

/// Draining a ring of 96 datagrams that arrived as runs, with and without coalescing, for several numbers of slots.
fn receive_coalescing(effort: Effort) {
    const WAITING: usize = 96;
    const SLOTS: [usize; 4] = [16, 64, 128, 256];
    const RUNS: [usize; 3] = [1, 6, 12];
    println!("\nreceive {WAITING} waiting datagrams, ns per datagram");
    header("receive slots", &SLOTS);
    for coalesce in [false, true] {
        let options = SocketOptions { coalesce, ..SocketOptions::default() };
        let mut rings = SLOTS.map(|slots| {
            let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), options).unwrap();
            let to = vec![socket.address()];
            let config = RingConfig { receive_slots: slots as u16, ..RingConfig::default() };
            (Ring::open(config, vec![socket]).unwrap(), RingSend::unconnected(&to, RingConfig::default(), true))
        });
        for run in RUNS {
            let mut row = vec![Samples::default(); SLOTS.len()];
            for _ in 0..effort.repeats {
                for ((ring, sender), samples) in rings.iter_mut().zip(&mut row) {
                    let mut spent = Duration::ZERO;
                    for _ in 0..effort.rounds {
                        ring.wait(Some(Duration::ZERO)).unwrap();
                        (0..WAITING / run).for_each(|_| sender.send(run));
                        let before = clock::thread_cpu();
                        assert_eq!(drain(ring, WAITING), WAITING);
                        spent += clock::thread_cpu() - before;
                    }
                    samples.add(spent, (effort.rounds * WAITING) as u64);
                }
            }
            line(&format!("{} runs of {run}", if coalesce { "GRO," } else { "single," }), &row);
        }
    }
}

fn drain(ring: &mut Ring, wanted: usize) -> usize {
    let mut seen = 0;
    while seen < wanted {
        ring.wait(Some(Duration::from_secs(1))).unwrap();
        while let Some(mut received) = ring.receive() {
            seen += received.datagrams().len();
        }
    }
    seen
}

fn header(what: &str, columns: &[usize]) {
    println!("{what:<22}{}", columns.iter().map(|column| format!("{column:>16}")).collect::<String>());
}

fn line(name: &str, row: &[Samples]) {
    println!("{name:<22}{}", row.iter().map(|samples| format!("{:>16}", samples.show())).collect::<String>());
}
