//! Peers that ask for anything in any order, and workers that answer late, in another order, or with a refusal:
//! every request is answered once, and when all have left nothing of them is left.

use std::collections::HashSet;

use super::*;
use crate::shard::command::Refusal;

struct Chaos {
    stage: Stage,
    seed: u64,
    peers: Vec<ConnectionId>,
    /// Ids that were told to anybody; of transports, to whom.
    transports: Vec<(ConnectionId, Value)>,
    producers: Vec<Value>,
    consumers: Vec<Value>,
    unanswered: Vec<Command>,
    asked: Vec<(ConnectionId, u64)>,
    answered: HashSet<(ConnectionId, u64)>,
}

impl Chaos {
    fn new(seed: u64) -> Chaos {
        let mut stage = Stage::with(|config| {
            config.peers_per_room = 4;
            config.message_burst = 1_000_000;
            config.transports_per_peer = 4;
            config.reconnect_grace = Duration::from_secs(seed % 2 * 3);
        });
        stage.workers_answer = false;
        Chaos {
            stage,
            seed,
            peers: Vec::new(),
            transports: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            unanswered: Vec::new(),
            asked: Vec::new(),
            answered: HashSet::new(),
        }
    }

    fn number(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) as usize % below.max(1)
    }

    fn one_of(&mut self, ids: &[Value]) -> Value {
        // The newest are likelier to be there still.
        let place = self.number(ids.len().min(12) + 1);
        ids.iter().rev().nth(place).cloned().unwrap_or(json!("1"))
    }

    /// Mostly one of its own.
    fn transport_for(&mut self, connection: ConnectionId) -> Value {
        let any = self.number(5) == 0;
        let fits = |(owner, _): &&(ConnectionId, Value)| any || *owner == connection;
        let ids: Vec<Value> = self.transports.iter().filter(fits).map(|(_, id)| id.clone()).collect();
        self.one_of(&ids)
    }

    fn step(&mut self) {
        match self.number(40) {
            0 | 1 => self.come(),
            2 if self.peers.len() > 2 => self.go(),
            3..=18 => self.ask(),
            _ => self.answer(),
        }
        let commands = std::mem::take(&mut self.stage.commands);
        self.unanswered.extend(commands.into_iter().map(|(_, command)| command).filter(|c| c.token().is_some()));
        self.learn();
    }

    fn come(&mut self) {
        let (room, peer) = (format!("room{}", self.number(2)), format!("peer{}", self.number(6)));
        self.peers.extend(self.stage.try_connect(hello(&room, &peer)));
    }

    fn go(&mut self) {
        let place = self.number(self.peers.len());
        let connection = self.peers.swap_remove(place);
        self.stage.disconnect(connection);
    }

    fn ask(&mut self) {
        if self.peers.is_empty() {
            return;
        }
        let place = self.number(self.peers.len());
        let connection = self.peers[place];
        let transport = self.transport_for(connection);
        let producer = self.one_of(&self.producers.clone());
        let consumer = self.one_of(&self.consumers.clone());
        let (method, data) = match self.number(13) {
            0 | 1 => ("create-transport", json!({"direction": (["send", "recv"][self.number(2)])})),
            2 => ("join", json!({"produce": self.number(2) == 0})),
            3 | 4 => {
                let mut body = parsed([MIC, SIMULCAST][self.number(2)]);
                body["transportId"] = transport;
                ("produce", body)
            }
            5 | 6 => ("consume", json!({"producerId": producer, "rtpCapabilities": parsed(CAPABILITIES)})),
            7 => ("close-transport", json!({"transportId": transport})),
            8 => ("close-producer", json!({"producerId": producer})),
            9 => ("close-consumer", json!({"consumerId": consumer})),
            10 => (["pause-producer", "resume-producer"][self.number(2)], json!({"producerId": producer})),
            11 => ("resume-consumer", json!({"consumerId": consumer})),
            _ => ("get-stats", json!({"transportId": transport})),
        };
        let serial = self.stage.send(connection, method, data);
        self.asked.push((connection, serial));
    }

    /// A worker answers something, or never; or a transport dies by itself.
    fn answer(&mut self) {
        if self.unanswered.is_empty() {
            return;
        }
        let place = self.number(self.unanswered.len().min(3));
        let command = self.unanswered.remove(place);
        match self.number(30) {
            0 => self.stage.control.handle_event(fake_worker::refusal(&command, Refusal::NotFound).unwrap()),
            1 => self.stage.control.command_refused(command.token().unwrap()),
            2 => self.stage.pass(Duration::from_secs(1)),
            3 => {
                let transport = self.transport_for(ConnectionId(0));
                let transport = transport.as_str().unwrap().parse().unwrap();
                self.stage.control.handle_event(Event::TransportClosed { transport });
            }
            _ => self.stage.control.handle_event(fake_worker::answer(&command).unwrap()),
        }
        self.stage.settle();
    }

    /// Takes note of what was answered, and of the ids in it.
    fn learn(&mut self) {
        for ((connection, serial), answer) in std::mem::take(&mut self.stage.answers) {
            let serial = serial.unwrap();
            assert!(self.answered.insert((connection, serial)), "request {serial} is answered once");
            let Ok(answer) = answer else { continue };
            for options in [&answer, &answer["sendTransport"], &answer["recvTransport"]] {
                let Some(id) = options.get("id").cloned() else { continue };
                match options {
                    options if options.get("iceParameters").is_some() => self.transports.push((connection, id)),
                    options if options.get("rtpParameters").is_some() => self.consumers.push(id),
                    _ => self.producers.push(id),
                }
            }
        }
    }
}

#[test]
fn every_request_is_answered_once_and_nothing_is_left_when_all_have_gone() {
    let mut consumed = 0;
    for seed in 0..40 {
        let mut chaos = Chaos::new(seed);
        for _ in 0..500 {
            chaos.step();
        }
        // Whoever is asked no more answers no more: the deadlines do it.
        chaos.stage.pass(limits::REPLY_TIMEOUT);
        chaos.learn();
        for (connection, serial) in &chaos.asked {
            assert!(chaos.answered.contains(&(*connection, *serial)), "seed {seed}, request {serial}");
        }
        consumed += chaos.consumers.len();
        for connection in std::mem::take(&mut chaos.peers) {
            chaos.stage.disconnect(connection);
        }
        chaos.stage.pass(Duration::from_secs(10));
        for (what, left) in chaos.stage.control.totals() {
            assert_eq!(left, 0, "seed {seed}: {what}");
        }
        let loads = chaos.stage.control.registry.placement.loads();
        assert!(loads.iter().all(|load| load.load == 0 && load.rooms == 0), "seed {seed}: {loads:?}");
        assert_eq!(chaos.stage.control.next_deadline(), None, "seed {seed}");
        assert!(chaos.stage.control.joins.is_empty(), "seed {seed}");
    }
    assert!(consumed > 100, "the chaos gets as far as consuming: {consumed}");
}
