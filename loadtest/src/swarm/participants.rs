//! Participants come, say what signaling wants, watch what their view wants, and go.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use super::{JOIN_TIMEOUT, Phase, SECOND, Swarm, Task, Token};
use crate::client::dtls::Handshake;
use crate::client::ice::Ice;
use crate::client::sending::Sending;
use crate::client::signaling::{Consumer, Direction, Offer, OfferedSource, Producer, Remote, Say, Signal, Signaling};
use crate::client::stream::Stream;
use crate::client::stun::Role;
use crate::client::transport::{Arrivals, Found, Keys, Streams, Transport};
use crate::client::wire::Wire;
use crate::measure;
use crate::media::source::{Class, Source};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::schedule::Nanos;
use crate::sys;
use crate::view::{Wish, wish};

pub(super) struct Participant {
    pub room: usize,
    /// Place among the participants of its room; whoever replaces it has the same.
    pub index: usize,
    /// When it was due to join.
    pub due: Nanos,
    wire: Option<Wire>,
    signaling: Option<Box<dyn Signaling>>,
    /// Sending and receiving.
    pub transports: [Option<usize>; 2],
    offer: Offer,
    /// Sources until their transport is there.
    sendings: Vec<Sending>,
    watching: HashMap<String, Watching>,
    pub has_media: bool,
    pub has_key_frame: bool,
    gone: bool,
    /// It is among the failed joins.
    join_failed: bool,
}

/// One producer that this participant knows of.
struct Watching {
    producer: Producer,
    /// Place of its owner in the room.
    of: usize,
    wish: Wish,
    asked: bool,
    consumer: Option<(String, u32)>,
}

/// Participants that churn asks to leave before it gives up for this time.
const CHURN_DRAWS: usize = 16;

/// Whether the room still has a sender without whoever has this seat (room and index): otherwise what is measured would
/// stop until it is replaced.
fn may_leave(seat: (usize, usize), mut present: impl Iterator<Item = (usize, usize)>, scenario: &Scenario) -> bool {
    !scenario.sends(seat.1) || present.any(|other| other != seat && other.0 == seat.0 && scenario.sends(other.1))
}

impl Participant {
    /// Somebody whom nothing connects to a server yet.
    fn new(room: usize, index: usize, offer: Offer) -> Participant {
        Participant {
            room,
            index,
            due: 0,
            wire: None,
            signaling: None,
            transports: [None; 2],
            offer,
            sendings: Vec::new(),
            watching: HashMap::new(),
            has_media: false,
            has_key_frame: false,
            gone: false,
            join_failed: false,
        }
    }

    /// Whether a transport that it should have is not connected.
    pub fn is_incomplete(&self, transports: &[Option<Transport>]) -> bool {
        let connected = |place: usize| {
            self.transports[place].is_some_and(|at| transports[at].as_ref().is_some_and(|one| one.keys.is_some()))
        };
        let sends = self.offer.sources.is_empty() || connected(Direction::Send as usize);
        let receives = !self.offer.receives || connected(Direction::Receive as usize);
        !(self.gone || sends && receives)
    }
}

impl Swarm {
    pub(super) fn join(&mut self, room: usize, index: usize, due: Nanos) {
        let place = self.participants.len();
        let mut random = Random::new(self.scenario.seed, 1 + place as u64);
        let (offer, sendings) = self.offer(index, place, &mut random);
        let room_name = format!("{}{room}", self.target.room_prefix);
        let name = format!("p{index}-{place}");
        let path = (self.target.protocol.path)(&room_name, &name);
        let signaling = (self.target.protocol.signaling)(&room_name, &name, offer.clone());
        let mut participant =
            Participant { due, signaling: Some(signaling), sendings, ..Participant::new(room, index, offer) };
        match Wire::connect(self.target.server, &path, self.target.protocol.name) {
            Ok(wire) => {
                if let Some(Err(error)) =
                    wire.stream().map(|stream| self.epoll.watch_edges(stream, Token::Wire(place).to_u64()))
                {
                    self.measures.fail(format!("cannot watch a socket: {error}"));
                }
                participant.wire = Some(wire);
            }
            Err(error) => {
                self.measures.fail(format!("{error:#}"));
                self.measures.now.join_failures += 1;
                (participant.gone, participant.join_failed) = (true, true);
            }
        }
        self.measures.now.joined += 1;
        self.participants.push(participant);
        self.schedule.push(due + JOIN_TIMEOUT, Task::GiveUpJoin { participant: place });
        self.listen(place);
    }

    pub(super) fn give_up_join(&mut self, place: usize) {
        if self.participants[place].is_incomplete(&self.transports) {
            self.measures.fail("a participant was not connected after 20 s".into());
            self.note_join_failure(place);
        }
    }

    /// Somebody who is connected already and receives one stream, without signaling: for the test of the load test itself.
    pub(super) fn seat(&mut self, socket: UdpSocket, keys: Keys, stream: Stream) -> anyhow::Result<()> {
        let (place, at) = (self.participants.len(), self.transports.len());
        let (offer, sendings) = self.offer(place, place, &mut Random::new(self.scenario.seed, 1 + place as u64));
        let offer = Offer { receives: true, sources: Vec::new(), ..offer };
        let transports = [None, Some(at)];
        self.participants.push(Participant { transports, sendings, ..Participant::new(0, place, offer) });
        let nobody = Remote {
            address: socket.peer_addr()?,
            credentials: Ice::credentials(&mut self.random),
            fingerprints: Vec::new(),
            ice_role: Role::Controlling,
            dtls_client: true,
        };
        self.add_transport(place, Direction::Receive, socket, nobody, Vec::new())?;
        let transport = self.transports[at].as_mut().expect("it was just added");
        transport.keys = Some(keys);
        transport.streams.add(stream, None);
        Ok(())
    }

    /// Counts a participant that did not get in, once.
    pub(super) fn note_join_failure(&mut self, place: usize) {
        let already = std::mem::replace(&mut self.participants[place].join_failed, true);
        self.measures.now.join_failures += u64::from(!already);
    }

    fn offer(&mut self, index: usize, place: usize, random: &mut Random) -> (Offer, Vec<Sending>) {
        let mut sources = Vec::new();
        if self.scenario.sends(index) {
            if let Some(microphone) = &self.scenario.microphone {
                sources.push(Source::microphone(microphone, random));
            }
            if let Some(camera) = &self.scenario.camera {
                sources.push(Source::video(Class::Camera, camera, random));
            }
            if let Some(share) = self.scenario.screen_share.as_ref().filter(|_| self.scenario.shares(index)) {
                sources.push(Source::video(Class::Share, &share.video, random));
            }
        }
        let mut offered = Vec::new();
        let mut sendings = Vec::new();
        for (number, source) in sources.into_iter().enumerate() {
            // Odd and even, so that no two are the same on one transport.
            let mut ssrc = || random.draw() as u32 | 1;
            let ssrcs: Vec<u32> = (0..source.layers).map(|_| ssrc()).collect();
            let with_rtx = self.scenario.nack && source.class.is_video();
            let rtx_ssrcs = if with_rtx { ssrcs.iter().map(|ssrc| ssrc & !1).collect() } else { Vec::new() };
            let mid = number.to_string();
            let one = OfferedSource { class: source.class, mid, ssrcs, rtx_ssrcs, rids: source.rids() };
            sendings.push(Sending::new(source, self.sources, one.clone(), with_rtx));
            offered.push(one);
            self.sources += 1;
        }
        let offer = Offer {
            sources: offered,
            receives: self.scenario.receives(index),
            feedback: self.scenario.feedback,
            nack: self.scenario.nack,
            tile_temporal: self.scenario.view.tile_temporal,
            fingerprint: self.identity.fingerprint.clone(),
            credentials: [Ice::credentials(random), Ice::credentials(random)],
            cname: format!("load{place}"),
        };
        (offer, sendings)
    }

    /// Goes on with a participant's signaling.
    pub(super) fn listen(&mut self, place: usize) {
        let participant = &mut self.participants[place];
        let (Some(wire), Some(mut signaling)) = (&mut participant.wire, participant.signaling.take()) else { return };
        let heard = wire.receive();
        let mut say = Say::default();
        let mut failure = None;
        if heard.opened {
            signaling.opened(&mut say);
        }
        for text in &heard.texts {
            if let Err(error) = signaling.heard(text, &mut say) {
                failure = Some(format!("{error:#}"));
            }
        }
        participant.signaling = Some(signaling);
        self.carry_out(place, say);
        if heard.more {
            self.schedule.push(self.clock.now(), Task::Listen { participant: place });
        }
        if let Some(why) = failure.or(heard.closed).filter(|_| !self.participants[place].gone) {
            self.measures.fail(format!("signaling: {why}"));
        }
    }

    fn carry_out(&mut self, place: usize, say: Say) {
        for signal in say.signals {
            match signal {
                Signal::Transport(direction, remote) => {
                    if let Err(error) = self.open_transport(place, direction, *remote) {
                        self.measures.fail(format!("cannot open a transport: {error:#}"));
                    }
                }
                Signal::Produced(source) => self.may_send(place, source),
                Signal::Available(producer) => self.notice(place, producer),
                Signal::Gone(producer) => {
                    let watching = self.participants[place].watching.remove(&producer);
                    if let Some((_, ssrc)) = watching.and_then(|watching| watching.consumer) {
                        self.expect_stream(place, ssrc, false);
                    }
                }
                Signal::Consuming(consumer) => self.consuming(place, &consumer),
            }
        }
        if let Some(wire) = &mut self.participants[place].wire {
            for text in say.texts {
                wire.send(text);
            }
        }
    }

    /// Lets `speak` say something through a participant's signaling.
    fn say(&mut self, place: usize, speak: impl FnOnce(&mut dyn Signaling, &mut Say)) {
        let Some(mut signaling) = self.participants[place].signaling.take() else { return };
        let mut say = Say::default();
        speak(&mut *signaling, &mut say);
        self.participants[place].signaling = Some(signaling);
        self.carry_out(place, say);
    }

    fn open_transport(&mut self, place: usize, direction: Direction, remote: Remote) -> anyhow::Result<()> {
        let now = self.clock.now();
        let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).and_then(|socket| {
            if remote.address.ip().is_loopback() { Ok(socket) } else { UdpSocket::bind("0.0.0.0:0") }
        })?;
        socket.connect(remote.address)?;
        let at = self.transports.len();
        let participant = &mut self.participants[place];
        participant.transports[direction as usize] = Some(at);
        let is_whole =
            participant.transports[Direction::Send as usize].is_some() || participant.offer.sources.is_empty();
        if is_whole && (participant.transports[Direction::Receive as usize].is_some() || !participant.offer.receives) {
            measure::record(&mut self.measures.join.signaling, now - participant.due);
        }
        let sendings =
            if direction == Direction::Send { std::mem::take(&mut participant.sendings) } else { Vec::new() };
        self.add_transport(place, direction, socket, remote, sendings)?;
        self.schedule.push(now, Task::Ice { transport: at });
        Ok(())
    }

    /// A transport over a connected socket that nothing has come through yet.
    fn add_transport(
        &mut self,
        place: usize,
        direction: Direction,
        socket: UdpSocket,
        remote: Remote,
        sendings: Vec<Sending>,
    ) -> anyhow::Result<()> {
        let now = self.clock.now();
        socket.set_nonblocking(true)?;
        sys::tune(&socket, self.target.sockets)?;
        let at = self.transports.len();
        self.epoll.watch_readable(&socket, Token::Transport(at).to_u64())?;
        let local = self.participants[place].offer.credentials[direction as usize].clone();
        let random = Random::new(self.random.draw(), at as u64);
        let ice = Ice::new(local, remote.credentials, remote.ice_role, random, now);
        let instant = self.clock.instant(now);
        let mut handshake = Handshake::new(&self.identity, remote.fingerprints, remote.dtls_client, instant);
        if !remote.dtls_client {
            handshake.handle_timeout(instant, |_| {});
        }
        self.transports.push(Some(Transport {
            participant: place,
            direction,
            socket,
            ice,
            handshake,
            keys: None,
            connected_at: None,
            closed: false,
            sendings,
            streams: Streams::default(),
            own_ssrc: self.random.draw() as u32,
            transport_cc: 1,
            resends_left: 0,
            arrivals: Arrivals::default(),
            repairing: false,
        }));
        Ok(())
    }

    fn may_send(&mut self, place: usize, source: usize) {
        let participant = &mut self.participants[place];
        let transport = participant.transports[Direction::Send as usize];
        let sending = match transport.and_then(|at| self.transports[at].as_mut()) {
            Some(transport) => transport.sendings.get_mut(source),
            None => participant.sendings.get_mut(source),
        };
        if let Some(sending) = sending {
            sending.may_send = true;
        }
        if let Some(at) = transport {
            self.begin_sending(at);
        }
    }

    fn notice(&mut self, place: usize, producer: Producer) {
        let of = producer.peer.strip_prefix('p').and_then(|rest| rest.split('-').next()?.parse().ok()).unwrap_or(0);
        let id = producer.id.clone();
        let participant = &mut self.participants[place];
        if !participant.offer.receives || participant.watching.contains_key(&id) {
            return;
        }
        let watching = Watching { producer, of, wish: Wish::Nothing, asked: false, consumer: None };
        participant.watching.insert(id.clone(), watching);
        self.arrange(place, &id);
    }

    pub(super) fn rearrange_room(&mut self, room: usize) {
        for place in 0..self.participants.len() {
            let participant = &self.participants[place];
            if participant.room == room && !participant.gone {
                let ids: Vec<String> = participant.watching.keys().cloned().collect();
                for id in ids {
                    self.arrange(place, &id);
                }
            }
        }
    }

    /// Brings one subscription to what the view wants.
    fn arrange(&mut self, place: usize, id: &str) {
        let (senders, speaker) = (self.scenario.senders(), self.turns.speaker(self.participants[place].room));
        let participant = &mut self.participants[place];
        let own = participant.index;
        let Some(watching) = participant.watching.get_mut(id) else { return };
        let wanted = wish(&self.scenario.view, &watching.producer, own, watching.of, senders, speaker);
        let before = std::mem::replace(&mut watching.wish, wanted);
        if before == wanted {
            return;
        }
        match (wanted, watching.consumer.clone()) {
            (Wish::Watch(layer), None) if !watching.asked => {
                watching.asked = true;
                self.say(place, |signaling, say| signaling.consume(id, layer, say));
            }
            (_, None) => {}
            (Wish::Nothing, Some((consumer, ssrc))) => {
                self.expect_stream(place, ssrc, false);
                self.say(place, |signaling, say| signaling.pause(&consumer, say));
            }
            (Wish::Watch(layer), Some((consumer, ssrc))) => {
                if before == Wish::Nothing {
                    self.expect_stream(place, ssrc, true);
                }
                self.say(place, |signaling, say| {
                    if let Some(layer) = layer {
                        signaling.prefer(&consumer, layer, say);
                    }
                    if before == Wish::Nothing {
                        signaling.resume(&consumer, say);
                    }
                });
            }
        }
    }

    /// Packets of a stream are to come from here on, or none any more.
    fn expect_stream(&mut self, place: usize, ssrc: u32, wanted: bool) {
        let now = self.clock.now();
        let at = self.participants[place].transports[Direction::Receive as usize];
        if let Some(transport) = at.and_then(|at| self.transports[at].as_mut())
            && let Found::Media(stream) = transport.streams.find(ssrc)
        {
            stream.rest();
            stream.wanted_since = wanted.then_some(now);
        }
    }

    fn consuming(&mut self, place: usize, consumer: &Consumer) {
        let cadence = self.cadence(consumer.class);
        let participant = &mut self.participants[place];
        let Some(transport) =
            participant.transports[Direction::Receive as usize].and_then(|at| self.transports[at].as_mut())
        else {
            return;
        };
        let mut stream = Stream::new(consumer.ssrc, consumer.payload_type, consumer.class.is_video(), cadence);
        stream.wanted_since = Some(self.clock.now());
        transport.streams.add(stream, consumer.rtx.map(|(ssrc, _)| ssrc));
        if transport.arrivals.extension.is_none() && consumer.transport_cc.is_some() {
            transport.arrivals.extension = consumer.transport_cc;
            transport.arrivals.media_ssrc = consumer.ssrc;
        }
        let Some(watching) = participant.watching.get_mut(&consumer.producer) else { return };
        watching.consumer = Some((consumer.id.clone(), consumer.ssrc));
        if watching.wish == Wish::Nothing {
            self.expect_stream(place, consumer.ssrc, false);
            self.say(place, |signaling, say| signaling.pause(&consumer.id, say));
        }
    }

    fn cadence(&self, class: Class) -> Nanos {
        let video = match class {
            Class::Microphone => None,
            Class::Camera => self.scenario.camera.as_ref(),
            Class::Share => self.scenario.screen_share.as_ref().map(|share| &share.video),
        };
        video.map_or(0, |video| (1e9 / video.frames_per_second) as Nanos)
    }

    pub(super) fn keep_alive(&mut self) {
        for place in 0..self.participants.len() {
            if !self.participants[place].gone {
                self.say(place, |signaling, say| signaling.keep_alive(say));
            }
        }
    }

    /// Somebody leaves, and somebody else comes in the same place.
    pub(super) fn churn(&mut self, due: Nanos) {
        self.schedule.push(due + (60e9 / self.scenario.churn_per_minute) as Nanos, Task::Churn);
        if self.phase == Phase::Draining {
            return;
        }
        let here: Vec<usize> = (0..self.participants.len()).filter(|place| !self.participants[*place].gone).collect();
        // One who may not go is left alone, and another is asked; in a room of one sender that may be nobody.
        let mut drawn = (0..here.len().min(CHURN_DRAWS)).map(|_| here[self.random.below(here.len() as u64) as usize]);
        let Some(place) = drawn.find(|place| {
            let seat = |place: usize| (self.participants[place].room, self.participants[place].index);
            may_leave(seat(*place), here.iter().map(|other| seat(*other)), &self.scenario)
        }) else {
            return;
        };
        self.leave(place);
        let (room, index) = (self.participants[place].room, self.participants[place].index);
        self.schedule.push(due + SECOND, Task::Join { room, index });
    }

    fn leave(&mut self, place: usize) {
        let participant = &mut self.participants[place];
        participant.gone = true;
        participant.signaling = None;
        participant.watching.clear();
        if let Some(mut wire) = participant.wire.take() {
            wire.close();
        }
        self.measures.now.left += 1;
        for at in participant.transports.into_iter().flatten() {
            if let Some(mut transport) = self.transports[at].take() {
                let Transport { handshake, socket, streams, .. } = &mut transport;
                handshake.close(|datagram| drop(socket.send(datagram)));
                for stream in streams.iter() {
                    // Whoever leaves misses nothing.
                    self.measures.gone.add(stream, 0);
                }
            }
        }
    }

    /// Everybody leaves.
    pub(super) fn part(&mut self) {
        for place in 0..self.participants.len() {
            if !self.participants[place].gone {
                self.participants[place].gone = true;
                for at in self.participants[place].transports.into_iter().flatten() {
                    if let Some(Transport { handshake, socket, .. }) = &mut self.transports[at] {
                        handshake.close(|datagram| drop(socket.send(datagram)));
                    }
                }
                if let Some(wire) = &mut self.participants[place].wire {
                    wire.close();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sender_of_a_room_stays() {
        let scenario = Scenario::parse("rooms = 2\nparticipants = 3\nsenders = 2\n[camera]\n").unwrap();
        let all = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)];
        let may = |seat, present: &[(usize, usize)]| may_leave(seat, present.iter().copied(), &scenario);
        assert!(may((0, 0), &all), "another sends in its room");
        assert!(!may((0, 0), &[(0, 0), (0, 2), (1, 0), (1, 1)]), "only those of another room still send");
        assert!(may((0, 2), &[(0, 0), (0, 2)]), "it does not send");
    }
}
