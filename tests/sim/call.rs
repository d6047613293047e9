//! A whole call in virtual time: one shard, its clients, and the network between them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringside::ids::{ConsumerId, PeerId, ProducerId, RoomId, Ssrc, Token, TransportId};
use ringside::packet::extension::{Extension, ExtensionSet};
use ringside::shard::command::*;
use ringside::shard::outbox::{Destination, Outbox};
use ringside::shard::stats::{ConsumerStats, ProducerStats, Stats};
use ringside::shard::{Datagram, Shard, ShardConfig};
use ringside::transport::dtls::Identity;
use str0m::media::MediaKind;

use crate::client::{BROWSER, Client, Connection, ROUTER};
use crate::network::{Busy, Flight, Link, Network};
use crate::source::{Medium, Source};
use crate::viewer::Viewer;

pub const ROOM: RoomId = RoomId(1);
/// How often a viewer looks at what is missing, and every how many looks whether its picture moves.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: usize = 10;
const STUCK: Duration = Duration::from_secs(1);
/// Requests of the stack for one packet, a round trip apart or a tenth of a second where it knows none; and one more time
/// for the answer.
const REQUESTS: u32 = 5 + 1;
const REQUEST_LEAST: Duration = Duration::from_millis(105);
/// A packet that is missing so far back is not taken any more by the stack, and not asked for.
const WINDOW: u64 = 100;
const SERVER: &str = "10.0.0.1:10000";

pub struct Call {
    pub shard: Shard,
    pub now: Instant,
    pub start: Instant,
    pub connections: Vec<Connection>,
    pub clients: Vec<Client>,
    pub events: Vec<(Instant, Event)>,
    identity: Identity,
    network: Network,
    /// By connection: towards the shard, from the shard.
    pub up: Vec<Link>,
    pub down: Vec<Link>,
    busy: Vec<(Busy, Busy)>,
    addresses: HashMap<SocketAddr, usize>,
    next_id: u64,
    mids: HashMap<usize, u32>,
    published: HashMap<ProducerId, (Medium, usize)>,
    pub default_link: Link,
    /// Receivers take no retransmission streams.
    pub without_rtx: bool,
    /// Allocations that the shard made, where they are counted.
    pub allocations: Option<u64>,
    /// Datagrams that the shard sent, by the shard's own count and the outbox's.
    pub outbox: Sent,
}

/// An outbox that keeps datagrams for the network to carry.
#[derive(Default)]
pub struct Sent {
    slot: Vec<u8>,
    to: Option<Destination>,
    datagrams: Vec<(Destination, Vec<u8>)>,
    pub messages: u64,
    /// Refuses every so many reservations, to see what a full send pool does.
    pub refuse_every: Option<u64>,
    reservations: u64,
}

impl Outbox for Sent {
    fn reserve(&mut self, destination: Destination, capacity: usize) -> Option<&mut [u8]> {
        self.reservations += 1;
        if self.refuse_every.is_some_and(|every| self.reservations.is_multiple_of(every)) {
            return None;
        }
        assert!(capacity <= ringside::limits::RUN_BYTES);
        // This outbox allocates for what it keeps; it is not the shard that is counted then.
        allocation_counter::opt_out(|| self.slot = vec![0xee; capacity]);
        self.to = Some(destination);
        Some(&mut self.slot)
    }

    fn commit(&mut self, len: usize, segment: usize) {
        let to = self.to.take().expect("committed once, after a reservation");
        assert!(len > 0 && segment > 0 && segment <= len, "a message of {len} bytes in segments of {segment}");
        assert!(len.div_ceil(segment) <= ringside::limits::RUN_SEGMENTS);
        self.messages += 1;
        allocation_counter::opt_out(|| {
            let datagrams = self.slot[..len].chunks(segment);
            self.datagrams.extend(datagrams.map(|datagram| (to, datagram.to_vec())));
        });
    }
}

impl Call {
    pub fn new(seed: u64) -> Self {
        Self::with_settings(seed, RoomSettings::default())
    }

    pub fn with_settings(seed: u64, settings: RoomSettings) -> Self {
        // The clients' stack draws from this; a test has a thread of its own.
        fastrand::seed(seed);
        let start = Instant::now();
        let identity = Identity::generate();
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = ShardConfig {
            identity: identity.clone(),
            seed: bytes,
            unix_time: Duration::from_secs(1_790_000_000),
            ports: 1,
            history_bytes: 8 << 20,
            hold: Duration::from_millis(1),
        };
        let mut shard = Shard::new(config, start);
        shard.handle_command(start, Command::OpenRoom { room: ROOM, settings });
        Call {
            shard,
            now: start,
            start,
            connections: Vec::new(),
            clients: Vec::new(),
            events: Vec::new(),
            identity,
            network: Network::new(seed),
            up: Vec::new(),
            down: Vec::new(),
            busy: Vec::new(),
            addresses: HashMap::new(),
            next_id: 100,
            mids: HashMap::new(),
            published: HashMap::new(),
            default_link: Link::default(),
            without_rtx: false,
            allocations: None,
            outbox: Sent::default(),
        }
    }

    /// A peer with its two transports on their way up; returns its index.
    pub fn join(&mut self) -> usize {
        let peer = PeerId(self.id());
        let send = self.connect(peer, Direction::Send);
        let recv = self.connect(peer, Direction::Recv);
        self.clients.push(Client { peer, send, recv });
        self.clients.len() - 1
    }

    /// A peer that only receives.
    pub fn join_to_watch(&mut self) -> usize {
        let peer = PeerId(self.id());
        let recv = self.connect(peer, Direction::Recv);
        self.clients.push(Client { peer, send: recv, recv });
        self.clients.len() - 1
    }

    fn connect(&mut self, peer: PeerId, direction: Direction) -> usize {
        let transport = TransportId(self.id());
        let token = self.token();
        let reply = self.ask(token, Command::CreateTransport { token, room: ROOM, peer, transport, direction });
        let Ok(Reply::TransportCreated { ufrag, password, .. }) = reply else { panic!("{reply:?}") };
        let index = self.connections.len();
        let address: SocketAddr = format!("10.1.{}.{}:5000", index / 250, index % 250 + 1).parse().expect("an address");
        let numbers = if direction == Direction::Send { BROWSER } else { ROUTER };
        let mut connection = Connection::new(self.now, address, transport, numbers);
        let server = SERVER.parse().expect("an address");
        let fingerprint = connection.connect(server, ufrag, password, &self.identity.fingerprints()[0]);
        self.connections.push(connection);
        self.up.push(self.default_link);
        self.down.push(self.default_link);
        self.busy.push(Default::default());
        self.addresses.insert(address, index);
        let token = self.token();
        let connect =
            Command::ConnectTransport { token, transport, role: DtlsRole::Client, fingerprints: vec![fingerprint] };
        assert!(matches!(self.ask(token, connect), Ok(Reply::Done)));
        index
    }

    /// Begins to send a source; returns its producer.
    pub fn publish(&mut self, client: usize, source: Source) -> ProducerId {
        let connection = self.clients[client].send;
        let id = ProducerId(self.id());
        let (medium, is_screen) = (source.medium, source.is_screen);
        let encodings = source.encodings.iter().map(|encoding| EncodingSpec {
            ssrc: encoding.rid.is_none().then_some(Ssrc(*encoding.ssrc)),
            rtx_ssrc: encoding.rtx.filter(|_| encoding.rid.is_none()).map(|ssrc| Ssrc(*ssrc)),
            rid: encoding.rid.map(|rid| rid.to_string()),
            max_bitrate_bps: encoding
                .rid
                .map(|_| (encoding.packets_per_frame * encoding.payload_bytes * 8 * 30) as u32),
            spatial_layers: 1,
            temporal_layers: source.temporal_layers,
            dtx: false,
        });
        let encodings = encodings.collect();
        let is_video = medium == Medium::Vp8;
        let mid = self.connections[connection].publish(source);
        let spec = ProducerSpec {
            id,
            kind: if is_video { Kind::Video } else { Kind::Audio },
            codec: if is_video { Codec::Vp8 } else { Codec::Opus },
            class: match (is_video, is_screen) {
                (true, true) => SourceClass::ScreenShare,
                (true, false) => SourceClass::Camera,
                (false, _) => SourceClass::Microphone,
            },
            mid: Some(mid.to_string()),
            payload_type: if is_video { BROWSER.vp8 } else { BROWSER.opus },
            rtx_payload_type: is_video.then_some(BROWSER.rtx),
            clock_rate: if is_video { 90_000 } else { 48_000 },
            encodings,
            extensions: BROWSER.map(),
            feedback: Feedback { nack: is_video, pli: is_video, fir: is_video, transport_cc: true, remb: false },
            cname: format!("peer-{client}"),
            paused: false,
        };
        let transport = self.connections[connection].transport;
        let token = self.token();
        let reply = self.ask(token, Command::Produce { token, transport, producer: Box::new(spec) });
        assert!(matches!(reply, Ok(Reply::Done)), "{reply:?}");
        self.published.insert(id, (medium, client));
        id
    }

    /// Begins to receive a producer, not paused; returns the consumer and the SSRC that it arrives under.
    pub fn watch(&mut self, client: usize, producer: ProducerId) -> (ConsumerId, u32) {
        let (consumer, ssrc) = self.watch_paused(client, producer);
        self.resume(consumer);
        (consumer, ssrc)
    }

    pub fn watch_paused(&mut self, client: usize, producer: ProducerId) -> (ConsumerId, u32) {
        let connection = self.clients[client].recv;
        let (medium, publisher) = self.published[&producer];
        let is_video = medium == Medium::Vp8;
        let has_rtx = is_video && !self.without_rtx;
        let id = ConsumerId(self.id());
        let ssrc = 1_000_000 + 2 * self.id() as u32;
        let mid = self.mids.entry(connection).or_default();
        let name = mid.to_string();
        *mid += 1;
        let mut extensions = ExtensionSet::default().with(Extension::Mid).with(Extension::AbsSendTime);
        extensions = extensions.with(if is_video { Extension::TransportCc } else { Extension::AudioLevel });
        let spec = ConsumerSpec {
            id,
            producer,
            payload_type: if is_video { ROUTER.vp8 } else { ROUTER.opus },
            rtx_payload_type: has_rtx.then_some(ROUTER.rtx),
            ssrc: Ssrc(ssrc),
            rtx_ssrc: has_rtx.then_some(Ssrc(ssrc + 1)),
            mid: name.clone(),
            extensions,
            feedback: Feedback { nack: is_video, pli: is_video, fir: is_video, transport_cc: is_video, remb: false },
            cname: format!("peer-{publisher}"),
            paused: true,
            priority: 1,
            preferred: None,
        };
        let kind = if is_video { MediaKind::Video } else { MediaKind::Audio };
        self.connections[connection].expect(&name, kind, ssrc, has_rtx.then_some(ssrc + 1));
        if is_video {
            self.connections[connection].expect_probator();
        }
        let transport = self.connections[connection].transport;
        let token = self.token();
        let reply = self.ask(token, Command::Consume { token, transport, consumer: Box::new(spec) });
        assert!(matches!(reply, Ok(Reply::Done)), "{reply:?}");
        (id, ssrc)
    }

    pub fn resume(&mut self, consumer: ConsumerId) {
        let token = self.token();
        assert!(matches!(self.ask(token, Command::ResumeConsumer { token, consumer }), Ok(Reply::Done)));
    }

    pub fn pause(&mut self, consumer: ConsumerId) {
        let token = self.token();
        assert!(matches!(self.ask(token, Command::PauseConsumer { token, consumer }), Ok(Reply::Done)));
    }

    pub fn prefer(&mut self, consumer: ConsumerId, spatial: u8, temporal: Option<u8>) {
        let token = self.token();
        let command = Command::SetPreferredLayers { token, consumer, spatial, temporal };
        assert!(matches!(self.ask(token, command), Ok(Reply::Done)));
    }

    /// The peer leaves: everything that it had is closed.
    pub fn leave(&mut self, client: usize) {
        let peer = self.clients[client].peer;
        self.shard.handle_command(self.now, Command::ClosePeer { room: ROOM, peer });
    }

    pub fn command(&mut self, make: impl FnOnce(Token) -> Command) -> Result<Reply, Refusal> {
        let token = self.token();
        let command = make(token);
        self.ask(token, command)
    }

    fn ask(&mut self, token: Token, command: Command) -> Result<Reply, Refusal> {
        self.shard.handle_command(self.now, command);
        self.flush();
        let at =
            self.events.iter().position(|(_, event)| matches!(event, Event::Reply { token: t, .. } if *t == token));
        match self.events.remove(at.expect("each command is answered at once")) {
            (_, Event::Reply { result, .. }) => result,
            _ => unreachable!(),
        }
    }

    pub fn viewer(&self, client: usize, ssrc: u32) -> &Viewer {
        &self.connections[self.clients[client].recv].viewers[&ssrc]
    }

    /// Lets the call go on with viewers who ask for key frames as browsers do: every 200 ms until the first picture, when
    /// a packet is given up, and once the picture has stood for a second. (The stack asks five times for a packet, as long
    /// as it is among the last hundred, and then gives it up in silence; Chromium asks ten times, among the last thousand.)
    pub fn run_watched(&mut self, duration: Duration, eyes: &[(usize, u32)]) {
        let end = self.now + duration;
        let mut given_up = vec![0; eyes.len()];
        for look in 1.. {
            if self.now >= end {
                return;
            }
            self.run(LOOK.min(end - self.now));
            for (at, (client, ssrc)) in eyes.iter().enumerate() {
                let connection = self.clients[*client].recv;
                let round = (self.up[connection].delay + self.down[connection].delay).max(REQUEST_LEAST);
                let viewer = self.viewer(*client, *ssrc);
                let new = viewer.given_up(self.now, WINDOW, round * REQUESTS, given_up[at]);
                let is_stuck = || viewer.last_shown().is_none_or(|at| self.now - at > STUCK);
                if new.is_some() || (look % LOOKS == 0 && is_stuck()) {
                    let now = self.now;
                    self.connections[self.clients[*client].recv].request_key_frame(now, *ssrc);
                }
                given_up[at] = new.unwrap_or(given_up[at]);
            }
            self.flush();
        }
    }

    /// The links of a client's connections, of both directions.
    pub fn set_links(&mut self, client: usize, up: Link, down: Link) {
        for connection in [self.clients[client].send, self.clients[client].recv] {
            self.up[connection] = up;
            self.down[connection] = down;
        }
    }

    /// How many datagrams for a client's receiving connection found the queue in front of its link full.
    pub fn overflowed(&self, client: usize) -> u64 {
        self.busy[self.clients[client].recv].1.overflowed
    }

    pub fn source(&mut self, client: usize) -> &mut Source {
        let connection = self.clients[client].send;
        self.connections[connection].sources.values_mut().next().expect("a source")
    }

    pub fn stop_sources(&mut self, client: usize) {
        let connection = self.clients[client].send;
        self.connections[connection].sources.clear();
    }

    pub fn key_frame_requests(&self, client: usize) -> usize {
        self.connections[self.clients[client].send].key_frame_requests.len()
    }

    /// The layers of a consumer and the reason for them, as its client was told last.
    pub fn told(&self, wanted: ConsumerId) -> Option<(Option<Layers>, Reason)> {
        self.events.iter().rev().find_map(|(_, event)| match event {
            Event::ConsumerLayers { consumer, layers, reason } if *consumer == wanted => Some((*layers, *reason)),
            _ => None,
        })
    }

    pub fn consumer_stats(&mut self, consumer: ConsumerId) -> ConsumerStats {
        match self.command(|token| Command::ConsumerStats { token, consumer }) {
            Ok(Reply::Stats(rows)) => match rows.into_iter().next() {
                Some(Stats::Consumer(stats)) => stats,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    pub fn producer_stats(&mut self, producer: ProducerId) -> Vec<ProducerStats> {
        match self.command(|token| Command::ProducerStats { token, producer }) {
            Ok(Reply::Stats(rows)) => rows
                .into_iter()
                .map(|row| match row {
                    Stats::Producer(stats) => stats,
                    other => panic!("{other:?}"),
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Lets the call go on for so long.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let next = self.next_moment();
            if next > end {
                self.now = end;
                return;
            }
            self.now = next.max(self.now);
            self.step();
        }
    }

    fn next_moment(&self) -> Instant {
        let clients = self.connections.iter().map(Connection::next_deadline);
        let rest = [self.network.next_arrival(), self.shard.next_deadline()];
        clients.chain(rest.into_iter().flatten()).min().expect("a client always has a deadline")
    }

    fn step(&mut self) {
        while let Some(mut flight) = self.network.arrival(self.now) {
            match self.addresses.get(&flight.to) {
                Some(index) => self.connections[*index].receive(self.now, &flight),
                None => {
                    let source = flight.from;
                    let bytes = &mut flight.bytes;
                    let (shard, now) = (&mut self.shard, self.now);
                    counted(&mut self.allocations, || {
                        shard.handle_datagram(now, Datagram { source, local: 0, bytes, received_at: None });
                    });
                }
            }
        }
        for connection in &mut self.connections {
            if connection.next_deadline() <= self.now {
                connection.handle_timeout(self.now);
            }
        }
        let (shard, now) = (&mut self.shard, self.now);
        counted(&mut self.allocations, || shard.handle_timeout(now));
        self.flush();
    }

    fn flush(&mut self) {
        let (shard, now, outbox) = (&mut self.shard, self.now, &mut self.outbox);
        counted(&mut self.allocations, || shard.flush(now, outbox));
        while let Some(event) = self.shard.poll_event() {
            self.events.push((self.now, event));
        }
        for (destination, bytes) in std::mem::take(&mut self.outbox.datagrams) {
            let Some(index) = self.addresses.get(&destination.address).copied() else { continue };
            let from = SERVER.parse().expect("an address");
            let flight = Flight { from, to: destination.address, bytes };
            self.network.send(self.now, self.down[index], &mut self.busy[index].1, flight);
        }
        for index in 0..self.connections.len() {
            while let Some(flight) = self.connections[index].outgoing.pop_front() {
                self.network.send(self.now, self.up[index], &mut self.busy[index].0, flight);
            }
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn token(&mut self) -> Token {
        Token(self.id())
    }
}

/// Runs a part of the shard, and counts its allocations when somebody wants to know.
fn counted(count: &mut Option<u64>, part: impl FnOnce()) {
    match count {
        Some(count) => *count += allocation_counter::measure(part).count_total,
        None => part(),
    }
}

#[test]
fn a_seed_gives_the_same_call_each_time() {
    let seen = || {
        let mut call = Call::new(31);
        let jitter = Duration::from_millis(8);
        call.default_link = Link { loss: 0.03, jitter, rate_bps: Some(1_500_000), ..Link::default() };
        let (sender, viewer) = (call.join(), call.join());
        call.run(Duration::from_secs(3));
        let camera = call.publish(sender, Source::camera(5000, call.now));
        let (_, ssrc) = call.watch(viewer, camera);
        call.run(Duration::from_secs(20));
        let shown = call.viewer(viewer, ssrc).shown();
        shown.into_iter().map(|shown| (shown.at - call.start, shown.picture)).collect::<Vec<_>>()
    };
    let (once, again) = (seen(), seen());
    assert!(once.len() > 500, "{} frames", once.len());
    assert_eq!(once, again);
}
