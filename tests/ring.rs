//! The ring against the real kernel, on loopback: what goes in comes out, once, whole and with its source.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ringside::limits;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::uring::mailbox::{Handle, Mailbox, mailbox};
use ringside::uring::socket::{Buffers, SocketOptions};
use ringside::uring::{Ring, RingConfig, Socket, clock};

/// Longest that any wait of these tests may take before they fail.
const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn open(config: RingConfig) -> (Ring, SocketAddr) {
    let socket = Socket::bind(loopback(), SocketOptions::default()).unwrap();
    let address = socket.address();
    (Ring::open(config, vec![socket]).unwrap(), address)
}

fn plain_socket() -> UdpSocket {
    let socket = UdpSocket::bind(loopback()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Waits and receives until `done`, handing every datagram to `each` with its source.
fn receive_until(ring: &mut Ring, mut each: impl FnMut(SocketAddr, &mut [u8]), mut done: impl FnMut(&Ring) -> bool) {
    let start = Instant::now();
    while !done(ring) {
        assert!(start.elapsed() < PATIENCE, "not done in time: {:?}", ring.counters());
        ring.wait(Some(Duration::from_millis(100))).unwrap();
        while let Some(mut received) = ring.receive() {
            let source = received.source();
            received.datagrams().for_each(|datagram| each(source, datagram));
        }
    }
}

fn send_run(ring: &mut Ring, to: SocketAddr, segment: usize, datagrams: &[Vec<u8>]) {
    let run: Vec<u8> = datagrams.concat();
    let destination = Destination { address: to, local: 0 };
    let slot = ring.reserve(destination, run.len()).expect("a free send slot");
    slot[..run.len()].copy_from_slice(&run);
    ring.commit(run.len(), segment);
}

fn numbered(number: u32, bytes: usize) -> Vec<u8> {
    let mut datagram = vec![number as u8; bytes];
    datagram[..4].copy_from_slice(&number.to_be_bytes());
    datagram
}

fn number(datagram: &[u8]) -> u32 {
    u32::from_be_bytes(datagram[..4].try_into().unwrap())
}

#[test]
fn every_datagram_arrives_once_with_its_source_and_a_timestamp() {
    let (mut ring, address) = open(RingConfig::default());
    let senders: Vec<UdpSocket> = (0..4).map(|_| plain_socket()).collect();
    ring.wait(Some(Duration::ZERO)).unwrap();
    for n in 0..200u32 {
        senders[n as usize % 4].send_to(&numbered(n, 40 + n as usize), address).unwrap();
    }
    let mut seen = HashSet::new();
    let before = clock::realtime() - Duration::from_secs(60);
    let start = Instant::now();
    while seen.len() < 200 {
        assert!(start.elapsed() < PATIENCE);
        ring.wait(Some(Duration::from_millis(100))).unwrap();
        while let Some(mut received) = ring.receive() {
            assert!(received.received_at().is_some_and(|at| at > before && at <= clock::realtime()));
            let source = received.source();
            for datagram in received.datagrams() {
                let n = number(datagram);
                assert_eq!(datagram, numbered(n, 40 + n as usize));
                assert_eq!(source, senders[n as usize % 4].local_addr().unwrap());
                assert!(seen.insert(n), "datagram {n} came twice");
            }
        }
    }
    assert_eq!(ring.counters().datagrams_received, 200);
    assert_eq!(ring.counters().truncated + ring.counters().unknown_family, 0);
}

#[test]
fn an_own_address_answers_what_was_sent_to_it() {
    let all = Socket::bind("0.0.0.0:0".parse().unwrap(), SocketOptions::default()).unwrap();
    // The kernel would answer 127.0.0.1 from 127.0.0.1.
    let own = all.beside("127.0.0.9".parse().unwrap(), SocketOptions::default()).unwrap().unwrap();
    let asked = own.address();
    let mut ring = Ring::open(RingConfig::default(), vec![all, own]).unwrap();
    let browser = plain_socket();
    browser.send_to(b"check", asked).unwrap();
    let start = Instant::now();
    let tuple = loop {
        assert!(start.elapsed() < PATIENCE);
        ring.wait(Some(Duration::from_millis(100))).unwrap();
        if let Some(received) = ring.receive() {
            break Destination { address: received.source(), local: received.local() };
        }
    };
    ring.reserve(tuple, 6).expect("a free send slot")[..6].copy_from_slice(b"answer");
    ring.commit(6, 6);
    ring.submit().unwrap();
    let mut buffer = [0; 100];
    assert_eq!(browser.recv_from(&mut buffer).unwrap(), (6, asked));
}

#[test]
fn a_run_arrives_as_single_datagrams_at_a_plain_socket() {
    let (mut ring, address) = open(RingConfig::default());
    let receiver = plain_socket();
    for (segment, sizes) in
        [(1200, vec![1200, 1200, 1200, 300]), (100, vec![100; 16]), (700, vec![700]), (9, vec![9, 4])]
    {
        let datagrams: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(n, bytes)| numbered(n as u32, *bytes)).collect();
        send_run(&mut ring, receiver.local_addr().unwrap(), segment, &datagrams);
        ring.submit().unwrap();
        for expected in &datagrams {
            let mut buffer = [0; 2000];
            let (bytes, source) = receiver.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..bytes], expected);
            assert_eq!(source, address);
        }
    }
    assert_eq!(ring.counters().messages_sent, 4);
    assert_eq!(ring.counters().datagrams_sent, 4 + 16 + 1 + 2);
}

#[test]
fn a_train_is_split_where_its_sender_cut_it() {
    let (mut sender, from) = open(RingConfig::default());
    let (mut receiver, to) = open(RingConfig::default());
    receiver.wait(Some(Duration::ZERO)).unwrap();
    let datagrams: Vec<Vec<u8>> = (0..10).map(|n| numbered(n, if n == 9 { 33 } else { 1100 })).collect();
    send_run(&mut sender, to, 1100, &datagrams);
    sender.submit().unwrap();
    let mut got = Vec::new();
    receive_until(
        &mut receiver,
        |source, datagram| {
            assert_eq!(source, from);
            got.push(datagram.to_vec());
        },
        |ring| ring.counters().datagrams_received >= 10,
    );
    assert_eq!(got, datagrams);
    // Loopback passes the run on whole: one message in, ten datagrams out of it.
    assert_eq!(receiver.counters().messages_received, 1);
}

#[test]
fn the_longest_run_leaves_in_one_message_and_arrives_whole() {
    let (mut sender, _) = open(RingConfig::default());
    let (mut receiver, to) = open(RingConfig::default());
    receiver.wait(Some(Duration::ZERO)).unwrap();
    let largest = limits::RUN_BYTES / limits::DATAGRAM_BYTES;
    let small = limits::RUN_BYTES / limits::RUN_SEGMENTS;
    let most = limits::RUN_SEGMENTS;
    let mut arrived = 0;
    for (message, (count, bytes)) in (1..).zip([(largest, limits::DATAGRAM_BYTES), (most, small), (most, 40)]) {
        let datagrams: Vec<Vec<u8>> = (0..count as u32).map(|n| numbered(n, bytes)).collect();
        send_run(&mut sender, to, bytes, &datagrams);
        sender.submit().unwrap();
        arrived += count as u64;
        let mut got = Vec::new();
        receive_until(
            &mut receiver,
            |_, datagram| got.push(datagram.to_vec()),
            |ring| ring.counters().datagrams_received >= arrived,
        );
        assert_eq!(got, datagrams);
        assert_eq!((sender.counters().messages_sent, receiver.counters().messages_received), (message, message));
    }
}

#[test]
fn datagrams_can_be_changed_in_place() {
    let (mut ring, address) = open(RingConfig::default());
    plain_socket().send_to(b"sealed", address).unwrap();
    receive_until(
        &mut ring,
        |_, datagram| {
            datagram.make_ascii_uppercase();
            assert_eq!(datagram, b"SEALED");
        },
        |ring| ring.counters().datagrams_received == 1,
    );
}

#[test]
fn an_empty_datagram_does_not_stop_receiving() {
    let (mut ring, address) = open(RingConfig::default());
    let sender = plain_socket();
    ring.wait(Some(Duration::ZERO)).unwrap();
    for _ in 0..5 {
        sender.send_to(b"", address).unwrap();
        sender.send_to(b"full", address).unwrap();
    }
    let mut full = 0;
    let start = Instant::now();
    while full < 5 {
        assert!(start.elapsed() < PATIENCE);
        receive_until(&mut ring, |_, datagram| full += usize::from(datagram == b"full"), {
            let mut once = false;
            move |_| std::mem::replace(&mut once, true)
        });
    }
}

#[test]
fn no_slot_is_lost_over_a_hundred_thousand_datagrams() {
    let config = RingConfig { receive_slots: 16, send_slots: 8, submit_batch: 4 };
    let (mut here, here_address) = open(config);
    let (mut there, there_address) = open(config);
    let mut echoed = 0u32;
    let mut sent = 0u32;
    let start = Instant::now();
    while echoed < 100_000 {
        assert!(start.elapsed() < PATIENCE, "{echoed} of {sent}: {:?} {:?}", here.counters(), there.counters());
        while sent < 100_000 && sent - echoed < 64 {
            send_run(&mut here, there_address, 50, &[numbered(sent, 50), numbered(sent + 1, 50)]);
            sent += 2;
        }
        here.wait(Some(Duration::ZERO)).unwrap();
        there.wait(Some(Duration::ZERO)).unwrap();
        let mut back = Vec::new();
        while let Some(mut received) = there.receive() {
            received.datagrams().for_each(|datagram| back.push(datagram.to_vec()));
        }
        for datagram in &back {
            send_run(&mut there, here_address, 50, std::slice::from_ref(datagram));
        }
        there.submit().unwrap();
        while let Some(mut received) = here.receive() {
            received.datagrams().for_each(|datagram| {
                assert_eq!(number(datagram), echoed);
                echoed += 1;
            });
        }
    }
    for ring in [&here, &there] {
        assert_eq!(ring.counters().datagrams_received, 100_000);
        assert_eq!(ring.counters().datagrams_sent, 100_000);
    }
}

#[test]
fn a_flood_beyond_the_slots_waits_in_the_socket_and_is_received_in_full() {
    let config = RingConfig { receive_slots: 4, ..RingConfig::default() };
    let (mut ring, address) = open(config);
    let sender = plain_socket();
    ring.wait(Some(Duration::ZERO)).unwrap();
    for round in 0..20u32 {
        for n in 0..100 {
            sender.send_to(&numbered(round * 100 + n, 20), address).unwrap();
        }
        let mut expected = round * 100;
        receive_until(
            &mut ring,
            |_, datagram| {
                assert_eq!(number(datagram), expected);
                expected += 1;
            },
            |ring| ring.counters().datagrams_received == u64::from(round + 1) * 100,
        );
    }
    assert!(ring.counters().out_of_receive_slots >= 20, "{:?}", ring.counters());
}

#[test]
fn a_received_slot_is_not_overwritten_while_it_is_borrowed() {
    let config = RingConfig { receive_slots: 2, ..RingConfig::default() };
    let (mut ring, address) = open(config);
    let sender = plain_socket();
    sender.send_to(&numbered(1, 600), address).unwrap();
    while ring.counters().messages_received == 0 {
        ring.wait(Some(PATIENCE)).unwrap();
        if let Some(mut received) = ring.receive() {
            for n in 2..50 {
                sender.send_to(&numbered(n, 600), address).unwrap();
            }
            assert_eq!(received.datagrams().next().unwrap(), numbered(1, 600));
        }
    }
}

#[test]
fn when_every_send_slot_is_reserved_for_nothing_the_next_run_still_finds_one() {
    let config = RingConfig { send_slots: 1, submit_batch: 32, ..RingConfig::default() };
    let (mut ring, _) = open(config);
    let receiver = plain_socket();
    let to = receiver.local_addr().unwrap();
    let destination = Destination { address: to, local: 0 };
    // A reservation that is not committed never happened.
    assert!(ring.reserve(destination, 100).is_some());
    assert_eq!(ring.reserve(destination, limits::RUN_BYTES).unwrap().len(), limits::RUN_BYTES);
    for n in 0..20 {
        send_run(&mut ring, to, 10, &[numbered(n, 10)]);
    }
    ring.submit().unwrap();
    for n in 0..20 {
        let mut buffer = [0; 100];
        let bytes = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], numbered(n, 10));
    }
}

#[test]
fn what_cannot_be_sent_is_counted_and_its_slot_comes_back() {
    let config = RingConfig { send_slots: 2, ..RingConfig::default() };
    let (mut ring, _) = open(config);
    for _ in 0..10 {
        // An IPv6 destination from an IPv4 socket; a local port that does not exist.
        send_run(&mut ring, "[::1]:9".parse().unwrap(), 10, &[numbered(0, 10)]);
        let nowhere = Destination { address: "127.0.0.1:9".parse().unwrap(), local: 7 };
        ring.reserve(nowhere, 10).unwrap();
        ring.commit(10, 10);
    }
    ring.submit().unwrap();
    assert_eq!(ring.counters().unreachable, 20);
    assert_eq!(ring.counters().messages_sent, 0);
}

#[test]
fn an_ipv6_socket_reaches_both_families() {
    let options = SocketOptions { only_v6: false, ..SocketOptions::default() };
    let socket = Socket::bind("[::]:0".parse().unwrap(), options).unwrap();
    let port = socket.address().port();
    let mut ring = Ring::open(RingConfig::default(), vec![socket]).unwrap();
    for host in ["127.0.0.1", "::1"] {
        let peer = UdpSocket::bind((host, 0)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let peer_address = peer.local_addr().unwrap();
        peer.send_to(b"ping", (host, port)).unwrap();
        let before = ring.counters().datagrams_received;
        let mut source = None;
        receive_until(&mut ring, |from, _| source = Some(from), |ring| ring.counters().datagrams_received > before);
        assert_eq!(source, Some(peer_address));
        send_run(&mut ring, peer_address, 4, &[b"pong".to_vec(), b"pong".to_vec()]);
        ring.submit().unwrap();
        for _ in 0..2 {
            let mut buffer = [0; 10];
            assert_eq!(peer.recv_from(&mut buffer).unwrap(), (4, (host, port).to_socket_addr()));
        }
    }
}

trait ToSocketAddr {
    fn to_socket_addr(&self) -> SocketAddr;
}

impl ToSocketAddr for (&str, u16) {
    fn to_socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.0.parse().unwrap(), self.1)
    }
}

#[test]
fn each_socket_of_a_ring_keeps_its_own_index() {
    let sockets: Vec<Socket> = (0..3).map(|_| Socket::bind(loopback(), SocketOptions::default()).unwrap()).collect();
    let addresses: Vec<SocketAddr> = sockets.iter().map(Socket::address).collect();
    let mut ring = Ring::open(RingConfig::default(), sockets).unwrap();
    let peer = plain_socket();
    for (local, address) in addresses.iter().enumerate() {
        peer.send_to(&[local as u8], address).unwrap();
        let destination = Destination { address: peer.local_addr().unwrap(), local: local as u8 };
        ring.reserve(destination, 1).unwrap()[0] = local as u8;
        ring.commit(1, 1);
        ring.submit().unwrap();
        let mut buffer = [0; 1];
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (1, *address));
        assert_eq!(buffer, [local as u8]);
    }
    let mut seen = 0;
    while seen < 3 {
        ring.wait(Some(PATIENCE)).unwrap();
        while let Some(mut received) = ring.receive() {
            let local = received.local();
            assert_eq!(received.datagrams().next().unwrap(), [local]);
            seen += 1;
        }
    }
}

#[test]
fn a_run_that_does_not_fit_the_path_is_counted_and_the_next_one_goes_out() {
    let (mut ring, _) = open(RingConfig::default());
    let receiver = plain_socket();
    let to = receiver.local_addr().unwrap();
    // More segments than the kernel takes in one message: it refuses the run, and it goes out singly.
    let many: Vec<Vec<u8>> = (0..200).map(|n| numbered(n, 10)).collect();
    send_run(&mut ring, to, 10, &many);
    ring.submit().unwrap();
    for expected in &many {
        let mut buffer = [0; 100];
        let bytes = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], expected);
    }
    assert_eq!(ring.counters().segmentation_refused, 1);
    send_run(&mut ring, to, 10, &many[..16]);
    ring.submit().unwrap();
    assert_eq!(ring.counters().segmentation_refused, 1);
    assert_eq!(ring.counters().datagrams_sent, 216);
}

/// Runs `worker` on its own thread with a ring and a mailbox, and gives the handle to `body`.
fn with_mailbox<R: Send>(
    capacity: usize,
    worker: impl FnOnce(Ring, Mailbox<u32>) -> R + Send,
    body: impl FnOnce(Handle<u32>),
) -> R {
    let (handle, mailbox) = mailbox(capacity).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (mut ring, _) = open(RingConfig::default());
            ring.listen(&mailbox);
            worker(ring, mailbox)
        });
        body(handle);
        thread.join().unwrap()
    })
}

#[test]
fn a_message_wakes_an_idle_worker() {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let got = with_mailbox(
        4,
        |mut ring, mut mailbox| {
            ring.wait(Some(Duration::ZERO)).unwrap();
            let mut got = Vec::new();
            for _ in 0..3 {
                ready.send(()).unwrap();
                let message = loop {
                    if let Some(message) = mailbox.take() {
                        break message;
                    }
                    if mailbox.park() {
                        ring.wait(None).unwrap();
                        mailbox.unpark();
                    }
                };
                got.push(message);
            }
            got
        },
        |handle| {
            for n in 0..3 {
                is_ready.recv().unwrap();
                handle.send(n).unwrap();
            }
        },
    );
    assert_eq!(got, [0, 1, 2]);
}

#[test]
fn no_message_is_lost_among_a_hundred_thousand_from_four_threads() {
    const EACH: u32 = 25_000;
    let got = with_mailbox(
        64,
        |mut ring, mut mailbox| {
            let mut next = [0u32; 4];
            let mut sleeps = 0u32;
            while next.iter().sum::<u32>() < 4 * EACH {
                while let Some(message) = mailbox.take() {
                    let (thread, n) = ((message >> 24) as usize, message & 0xff_ffff);
                    assert_eq!(n, next[thread], "the messages of one sender stay in order");
                    next[thread] += 1;
                }
                if mailbox.park() {
                    sleeps += 1;
                    let before = Instant::now();
                    ring.wait(Some(PATIENCE)).unwrap();
                    assert!(before.elapsed() < PATIENCE, "a wake-up was lost");
                    mailbox.unpark();
                }
            }
            sleeps
        },
        |handle| {
            std::thread::scope(|scope| {
                for thread in 0..4u32 {
                    let handle = handle.clone();
                    scope.spawn(move || {
                        for n in 0..EACH {
                            while handle.send(thread << 24 | n).is_err() {
                                std::thread::yield_now();
                            }
                        }
                    });
                }
            });
        },
    );
    assert!(got > 0, "the worker slept now and then");
}

#[test]
fn an_idle_worker_sleeps() {
    let switches = std::thread::spawn(|| {
        let (mut ring, _) = open(RingConfig::default());
        let (_handle, mut mailbox) = mailbox::<u32>(4).unwrap();
        ring.listen(&mailbox);
        ring.wait(Some(Duration::ZERO)).unwrap();
        let before = clock::voluntary_switches();
        let end = Instant::now() + Duration::from_secs(2);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            assert!(mailbox.park());
            ring.wait(Some(left)).unwrap();
            mailbox.unpark();
        }
        clock::voluntary_switches() - before
    });
    let switches = switches.join().unwrap();
    assert!((1..=5).contains(&switches), "{switches} wake-ups in two idle seconds");
}

#[test]
fn a_deadline_ends_a_wait() {
    let (mut ring, _) = open(RingConfig::default());
    let start = Instant::now();
    ring.wait(Some(Duration::from_millis(20))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(ring.receive().is_none());
}

#[test]
fn a_full_send_buffer_loses_the_run_and_not_the_slot() {
    // The smallest buffer that the kernel grants holds less than one run.
    let buffers = Buffers { receive_bytes: 1, send_bytes: 1 };
    let socket = Socket::bind(loopback(), SocketOptions { buffers, ..SocketOptions::default() }).unwrap();
    let mut ring = Ring::open(RingConfig { send_slots: 1, ..RingConfig::default() }, vec![socket]).unwrap();
    let receiver = plain_socket();
    let run: Vec<Vec<u8>> = (0..12).map(|n| numbered(n, 1200)).collect();
    for _ in 0..50 {
        send_run(&mut ring, receiver.local_addr().unwrap(), 1200, &run);
    }
    ring.submit().unwrap();
    let counters = ring.counters();
    assert_eq!(counters.messages_sent + counters.send_buffer_full + counters.device_queue_full, 50, "{counters:?}");
}

#[test]
fn a_connected_socket_sends_to_its_peer_and_to_nobody_else() {
    let (peer, other) = (plain_socket(), plain_socket());
    let mut socket = Socket::bind(loopback(), SocketOptions::default()).unwrap();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let mut ring = Ring::open(RingConfig::default(), vec![socket]).unwrap();
    send_run(&mut ring, other.local_addr().unwrap(), 10, &[numbered(0, 10)]);
    send_run(&mut ring, peer.local_addr().unwrap(), 10, &[numbered(1, 10)]);
    send_run(&mut ring, peer.local_addr().unwrap(), 10, &[numbered(2, 10), numbered(3, 4)]);
    ring.submit().unwrap();
    for expected in [numbered(1, 10), numbered(2, 10), numbered(3, 4)] {
        let mut buffer = [0; 100];
        let bytes = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], expected);
    }
    assert_eq!((ring.counters().messages_sent, ring.counters().unreachable), (2, 1));
}
