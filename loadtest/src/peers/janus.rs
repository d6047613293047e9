//! Janus' videoroom over its WebSocket API: a session, one handle that publishes and hears of others, one that subscribes
//! to everything wanted in a single connection. Its negotiations run one at a time, so subscriptions are gathered while
//! one is under way.

use std::collections::HashMap;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::sdp;
use crate::client::signaling::{Consumer, Direction, Offer, Producer, Remote, Say, Signal, Signaling};
use crate::client::stun::Role;
use crate::media::source::Class;
use crate::swarm::Protocol;

/// The room exists already: whoever comes second hears this.
const ROOM_EXISTS: u64 = 427;

pub fn protocol() -> Protocol {
    Protocol {
        name: "janus-protocol",
        path: |_, _| "/".to_owned(),
        signaling: |room, name, offer| Box::new(Janus::new(room, name, offer)),
    }
}

struct Janus {
    room: u64,
    name: String,
    offer: Offer,
    asked: HashMap<String, Asked>,
    next: u64,
    session: u64,
    publisher: u64,
    subscriber: Option<u64>,
    /// Streams wished for and not asked for: feed, mid, layer.
    wanted: Vec<Wanted>,
    /// A negotiation of the subscriber is under way.
    negotiating: bool,
    subscribed: bool,
    /// Subscribed streams by the producer's id.
    consuming: HashMap<String, Option<u8>>,
    classes: HashMap<String, Class>,
    transport_is_open: bool,
}

struct Wanted {
    producer: String,
    layer: Option<u8>,
}

enum Asked {
    Session,
    Publisher,
    Room,
    Subscriber,
    Nothing,
}

impl Janus {
    fn new(room: &str, name: &str, offer: Offer) -> Janus {
        // Rooms have numbers. FNV-1a keeps names of one run apart.
        let hash = room
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Janus {
            room: hash >> 16,
            name: name.to_owned(),
            offer,
            asked: HashMap::new(),
            next: 0,
            session: 0,
            publisher: 0,
            subscriber: None,
            wanted: Vec::new(),
            negotiating: false,
            subscribed: false,
            consuming: HashMap::new(),
            classes: HashMap::new(),
            transport_is_open: false,
        }
    }

    fn ask(&mut self, mut message: Value, asked: Asked, say: &mut Say) {
        self.next += 1;
        let transaction = self.next.to_string();
        message["transaction"] = json!(transaction);
        if self.session != 0 {
            message["session_id"] = json!(self.session);
        }
        self.asked.insert(transaction, asked);
        say.texts.push(message.to_string());
    }

    fn tell(&mut self, handle: u64, body: Value, jsep: Option<(&str, String)>, asked: Asked, say: &mut Say) {
        let mut message = json!({ "janus": "message", "handle_id": handle, "body": body });
        if let Some((kind, sdp)) = jsep {
            message["jsep"] = json!({ "type": kind, "sdp": sdp });
        }
        self.ask(message, asked, say);
    }

    fn attach(&mut self, asked: Asked, say: &mut Say) {
        self.ask(json!({ "janus": "attach", "plugin": "janus.plugin.videoroom" }), asked, say);
    }

    fn succeeded(&mut self, asked: &Asked, message: &Value, say: &mut Say) -> anyhow::Result<()> {
        let id = || message["data"]["id"].as_u64().context("Janus left out an id");
        match asked {
            Asked::Session => {
                self.session = id()?;
                self.attach(Asked::Publisher, say);
            }
            Asked::Publisher => {
                self.publisher = id()?;
                let room = json!({
                    "request": "create", "room": self.room, "publishers": 1000, "bitrate": 0, "videocodec": "vp8",
                    "audiocodec": "opus", "fir_freq": 0, "notify_joining": false, "audiolevel_ext": true,
                    "transport_wide_cc_ext": true,
                });
                self.tell(self.publisher, room, None, Asked::Room, say);
            }
            Asked::Room => {
                let data = &message["plugindata"]["data"];
                if data["error_code"].as_u64().is_some_and(|code| code != ROOM_EXISTS) {
                    bail!("Janus made no room: {}", data["error"]);
                }
                let join = json!({ "request": "join", "ptype": "publisher", "room": self.room, "display": self.name });
                self.tell(self.publisher, join, None, Asked::Nothing, say);
            }
            Asked::Subscriber => {
                self.subscriber = Some(id()?);
                self.subscribe(say);
            }
            Asked::Nothing => {}
        }
        Ok(())
    }

    fn event(&mut self, message: &Value, say: &mut Say) -> anyhow::Result<()> {
        let data = &message["plugindata"]["data"];
        if data["error_code"].is_u64() {
            bail!("Janus refused: {}", data["error"]);
        }
        if data["videoroom"] == "joined" && !self.offer.sources.is_empty() {
            let publish = json!({ "request": "publish" });
            self.tell(self.publisher, publish, Some(("offer", sdp::offer(&self.offer))), Asked::Nothing, say);
            self.trickled(self.publisher, say);
        }
        self.notice_publishers(&data["publishers"], say);
        for gone in ["unpublished", "leaving"] {
            if let Some(feed) = data[gone].as_u64() {
                let ids: Vec<String> =
                    self.classes.keys().filter(|id| id.starts_with(&format!("{feed}:"))).cloned().collect();
                for id in ids {
                    self.classes.remove(&id);
                    say.signals.push(Signal::Gone(id));
                }
            }
        }
        match (message["jsep"]["type"].as_str(), message["jsep"]["sdp"].as_str()) {
            (Some("answer"), Some(sdp)) => self.published(sdp, say)?,
            (Some("offer"), Some(sdp)) => self.offered(sdp, &data["streams"], say)?,
            _ if data["started"] == "ok" => {
                self.negotiating = false;
                self.subscribe(say);
            }
            _ => {}
        }
        Ok(())
    }

    fn notice_publishers(&mut self, publishers: &Value, say: &mut Say) {
        for publisher in publishers.as_array().into_iter().flatten() {
            let (Some(feed), Some(peer)) = (publisher["id"].as_u64(), publisher["display"].as_str()) else { continue };
            let mut cameras = 0;
            for stream in publisher["streams"].as_array().into_iter().flatten() {
                let class = match stream["type"].as_str() {
                    Some("audio") => Class::Microphone,
                    // The second picture of a participant is its screen.
                    Some("video") if cameras > 0 => Class::Share,
                    Some("video") => Class::Camera,
                    _ => continue,
                };
                cameras += usize::from(class == Class::Camera);
                let id = format!("{feed}:{}", stream["mid"].as_str().unwrap_or("0"));
                self.classes.insert(id.clone(), class);
                say.signals.push(Signal::Available(Producer { id, peer: peer.to_owned(), class }));
            }
        }
    }

    fn published(&mut self, answer: &str, say: &mut Say) -> anyhow::Result<()> {
        let remote = remote(&sdp::read(answer)?, Role::Controlling);
        say.signals.push(Signal::Transport(Direction::Send, Box::new(remote)));
        say.signals.extend((0..self.offer.sources.len()).map(Signal::Produced));
        Ok(())
    }

    fn offered(&mut self, offer: &str, streams: &Value, say: &mut Say) -> anyhow::Result<()> {
        let Some(handle) = self.subscriber else { return Ok(()) };
        let description = sdp::read(offer)?;
        if !self.transport_is_open {
            self.transport_is_open = true;
            let remote = remote(&description, Role::Controlled);
            say.signals.push(Signal::Transport(Direction::Receive, Box::new(remote)));
        }
        let answer = sdp::answer(&description, &self.offer);
        self.tell(handle, json!({ "request": "start" }), Some(("answer", answer)), Asked::Nothing, say);
        self.trickled(handle, say);
        for stream in streams.as_array().into_iter().flatten() {
            let (Some(feed), Some(feed_mid)) = (stream["feed_id"].as_u64(), stream["feed_mid"].as_str()) else {
                continue;
            };
            let producer = format!("{feed}:{feed_mid}");
            let mid = stream["mid"].as_str().unwrap_or_default();
            let Some(section) = description.sections.iter().find(|section| section.mid == mid) else { continue };
            let Some(layer) = self.consuming.get_mut(&producer) else { continue };
            let (Some(ssrc), layer) = (section.ssrc, layer.take()) else { continue };
            let rtx = section.rtx_ssrc.zip(section.rtx_type).filter(|_| self.offer.nack);
            say.signals.push(Signal::Consuming(Box::new(Consumer {
                id: mid.to_owned(),
                class: self.classes.get(&producer).copied().unwrap_or(Class::Camera),
                producer,
                ssrc,
                payload_type: section.payload_types.first().copied().unwrap_or_default(),
                rtx,
                transport_cc: section.transport_cc,
                layers: layer.is_some(),
            })));
            if let Some(layer) = layer {
                self.prefer(mid, layer, say);
            }
        }
        // Told once: a later offer lists the same streams again.
        self.consuming
            .retain(|producer, _| !streams.as_array().is_some_and(|all| all.iter().any(|one| is_of(one, producer))));
        Ok(())
    }

    /// Asks for everything wanted, unless something is under way.
    fn subscribe(&mut self, say: &mut Say) {
        if self.wanted.is_empty() || self.negotiating || !self.offer.receives {
            return;
        }
        let Some(handle) = self.subscriber else {
            self.negotiating = true;
            self.attach(Asked::Subscriber, say);
            self.negotiating = false;
            return;
        };
        let mut streams = Vec::new();
        for Wanted { producer, layer } in std::mem::take(&mut self.wanted) {
            let Some((feed, mid)) = producer.split_once(':') else { continue };
            streams.push(json!({ "feed": feed.parse::<u64>().unwrap_or_default(), "mid": mid }));
            self.consuming.insert(producer, layer);
        }
        self.negotiating = true;
        let body = if self.subscribed {
            json!({ "request": "subscribe", "streams": streams })
        } else {
            json!({ "request": "join", "ptype": "subscriber", "room": self.room, "streams": streams })
        };
        self.subscribed = true;
        self.tell(handle, body, None, Asked::Nothing, say);
    }

    /// Our address is found by our own checks: there are no candidates to come.
    fn trickled(&mut self, handle: u64, say: &mut Say) {
        let message = json!({ "janus": "trickle", "handle_id": handle, "candidate": { "completed": true } });
        self.ask(message, Asked::Nothing, say);
    }

    fn configure(&mut self, stream: Value, say: &mut Say) {
        if let Some(handle) = self.subscriber {
            self.tell(handle, json!({ "request": "configure", "streams": [stream] }), None, Asked::Nothing, say);
        }
    }
}

impl Signaling for Janus {
    fn opened(&mut self, say: &mut Say) {
        self.ask(json!({ "janus": "create" }), Asked::Session, say);
    }

    fn heard(&mut self, text: &str, say: &mut Say) -> anyhow::Result<()> {
        let message: Value = serde_json::from_str(text).context("Janus said something that is not JSON")?;
        match message["janus"].as_str() {
            Some("success") => {
                let asked = message["transaction"].as_str().and_then(|transaction| self.asked.remove(transaction));
                asked.map_or(Ok(()), |asked| self.succeeded(&asked, &message, say))
            }
            Some("event") => self.event(&message, say),
            Some("error") => bail!("Janus refused: {}", message["error"]["reason"]),
            _ => Ok(()),
        }
    }

    fn consume(&mut self, producer: &str, layer: Option<u8>, say: &mut Say) {
        self.wanted.push(Wanted { producer: producer.to_owned(), layer });
        if self.subscriber.is_some() || !self.asked.values().any(|asked| matches!(asked, Asked::Subscriber)) {
            self.subscribe(say);
        }
    }

    fn pause(&mut self, consumer: &str, say: &mut Say) {
        self.configure(json!({ "mid": consumer, "send": false }), say);
    }

    fn resume(&mut self, consumer: &str, say: &mut Say) {
        self.configure(json!({ "mid": consumer, "send": true }), say);
    }

    fn prefer(&mut self, consumer: &str, layer: u8, say: &mut Say) {
        self.configure(json!({ "mid": consumer, "substream": layer }), say);
    }

    fn keep_alive(&mut self, say: &mut Say) {
        self.ask(json!({ "janus": "keepalive" }), Asked::Nothing, say);
    }
}

fn is_of(stream: &Value, producer: &str) -> bool {
    let (feed, mid) = (stream["feed_id"].as_u64().unwrap_or_default(), stream["feed_mid"].as_str().unwrap_or_default());
    producer.split_once(':').is_some_and(|(wanted, wanted_mid)| wanted.parse() == Ok(feed) && wanted_mid == mid)
}

fn remote(description: &sdp::Description, ice_role: Role) -> Remote {
    Remote {
        address: description.address,
        credentials: description.credentials.clone(),
        fingerprints: vec![description.fingerprint.clone()],
        ice_role,
        dtls_client: true,
    }
}
