//! Ringside's signaling in its protoo framing: `{request, id, method, data}` and notifications, as an application with
//! mediasoup-client speaks it. Requests whose answers do not depend on each other are not held back.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::ice::Credentials;
use super::signaling::{
    Consumer, Direction, OPUS, Offer, OfferedSource, Producer, Remote, Say, Signal, Signaling, VP8, VP8_RTX,
};
use super::stun::Role;
use crate::media::rtp::extension_id;
use crate::media::source::Class;
use crate::scenario::Feedback;

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RTP_STREAM_ID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RTP_STREAM_ID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

pub struct Protoo {
    offer: Offer,
    asked: HashMap<u64, Asked>,
    next_id: u64,
    capabilities: Option<Value>,
    receiving: Option<String>,
    /// Subscriptions wished for before the receiving transport was there.
    early: Vec<(String, Option<u8>)>,
    classes: HashMap<String, Class>,
}

enum Asked {
    Capabilities,
    Transport(Direction),
    Produce(usize),
    Consume {
        layer: Option<u8>,
    },
    /// The answer carries nothing that we need.
    Done,
}

impl Protoo {
    pub fn new(offer: Offer) -> Protoo {
        Protoo {
            offer,
            asked: HashMap::new(),
            next_id: 1,
            capabilities: None,
            receiving: None,
            early: Vec::new(),
            classes: HashMap::new(),
        }
    }

    fn ask(&mut self, method: &str, data: Value, asked: Asked, say: &mut Say) {
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, asked);
        say.texts.push(json!({ "request": true, "id": id, "method": method, "data": data }).to_string());
    }

    fn ask_layers(&mut self, consumer: &Value, layer: u8, say: &mut Say) {
        let temporal = if layer == 0 { self.offer.tile_temporal } else { 2 };
        let layers = json!({ "consumerId": consumer, "spatialLayer": layer, "temporalLayer": temporal });
        self.ask("set-preferred-layers", layers, Asked::Done, say);
    }

    fn answered(&mut self, asked: Asked, data: &Value, say: &mut Say) -> anyhow::Result<()> {
        match asked {
            Asked::Done => {}
            Asked::Capabilities => {
                self.capabilities = Some(receiving_capabilities(&data["rtpCapabilities"], &self.offer));
                self.consume_early(say);
            }
            Asked::Transport(direction) => self.transport_created(direction, data, say)?,
            Asked::Produce(source) => say.signals.push(Signal::Produced(source)),
            Asked::Consume { layer } => {
                let consumer = self.consumer(data)?;
                let id = json!(consumer.id);
                if let Some(layer) = layer.filter(|_| consumer.layers) {
                    self.ask_layers(&id, layer, say);
                }
                say.signals.push(Signal::Consuming(Box::new(consumer)));
                self.ask("resume-consumer", json!({ "consumerId": id }), Asked::Done, say);
            }
        }
        Ok(())
    }

    fn transport_created(&mut self, direction: Direction, data: &Value, say: &mut Say) -> anyhow::Result<()> {
        let id = text(data, "id")?.to_owned();
        say.signals.push(Signal::Transport(direction, Box::new(remote(data)?)));
        let fingerprints = json!([{ "algorithm": "sha-256", "value": self.offer.fingerprint }]);
        let dtls = json!({ "role": "client", "fingerprints": fingerprints });
        self.ask("connect-transport", json!({ "transportId": id, "dtlsParameters": dtls }), Asked::Done, say);
        match direction {
            Direction::Send => {
                for place in 0..self.offer.sources.len() {
                    let data = produce_data(&id, &self.offer.sources[place], &self.offer);
                    self.ask("produce", data, Asked::Produce(place), say);
                }
            }
            Direction::Receive => {
                self.receiving = Some(id);
                self.consume_early(say);
            }
        }
        Ok(())
    }

    fn consume_early(&mut self, say: &mut Say) {
        if self.capabilities.is_some() && self.receiving.is_some() {
            for (producer, layer) in std::mem::take(&mut self.early) {
                self.consume(&producer, layer, say);
            }
        }
    }

    fn notified(&mut self, method: &str, data: &Value, say: &mut Say) -> anyhow::Result<()> {
        match method {
            "new-producer" => {
                let id = text(data, "producerId")?.to_owned();
                let class = match (text(data, "kind")?, data["appData"]["source"].as_str()) {
                    ("audio", _) => Class::Microphone,
                    (_, Some("screen")) => Class::Share,
                    _ => Class::Camera,
                };
                self.classes.insert(id.clone(), class);
                let peer = text(data, "peerId")?.to_owned();
                say.signals.push(Signal::Available(Producer { id, peer, class }));
            }
            "producer-closed" => {
                let id = text(data, "producerId")?;
                self.classes.remove(id);
                say.signals.push(Signal::Gone(id.to_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    fn consumer(&self, data: &Value) -> anyhow::Result<Consumer> {
        let parameters = &data["rtpParameters"];
        let producer = text(data, "producerId")?.to_owned();
        let codecs = parameters["codecs"].as_array().context("a consumer without codecs")?;
        let payload_type = |codec: &Value| codec["payloadType"].as_u64().unwrap_or_default() as u8;
        let rtx_type = codecs.iter().find(|codec| codec["parameters"]["apt"].is_number()).map(payload_type);
        let encoding = &parameters["encodings"][0];
        let ssrc = |value: &Value| value.as_u64().map(|ssrc| ssrc as u32);
        let extensions = parameters["headerExtensions"].as_array();
        let transport_cc = extensions.and_then(|all| all.iter().find(|one| one["uri"] == TRANSPORT_CC));
        Ok(Consumer {
            id: text(data, "id")?.to_owned(),
            class: self.classes.get(&producer).copied().unwrap_or(Class::Camera),
            producer,
            ssrc: ssrc(&encoding["ssrc"]).context("a consumer without an SSRC")?,
            payload_type: codecs.first().map(payload_type).context("a consumer without a codec")?,
            rtx: ssrc(&encoding["rtx"]["ssrc"]).zip(rtx_type),
            transport_cc: transport_cc.and_then(|one| one["id"].as_u64()).map(|id| id as u8),
            layers: data["type"] != "simple",
        })
    }
}

impl Signaling for Protoo {
    fn opened(&mut self, say: &mut Say) {
        self.ask("get-rtp-capabilities", json!({}), Asked::Capabilities, say);
        if !self.offer.sources.is_empty() {
            let asked = Asked::Transport(Direction::Send);
            self.ask("create-transport", json!({ "direction": "send" }), asked, say);
        }
        if self.offer.receives {
            let asked = Asked::Transport(Direction::Receive);
            self.ask("create-transport", json!({ "direction": "recv" }), asked, say);
        }
    }

    fn heard(&mut self, text: &str, say: &mut Say) -> anyhow::Result<()> {
        let message: Value = serde_json::from_str(text).context("the server said something that is not JSON")?;
        if message["notification"] == true {
            let method = message["method"].as_str().unwrap_or_default().to_owned();
            return self.notified(&method, &message["data"], say);
        }
        let Some(asked) = message["id"].as_u64().and_then(|id| self.asked.remove(&id)) else { return Ok(()) };
        if message["ok"] == true {
            return self.answered(asked, &message["data"], say);
        }
        let (code, reason) = (&message["errorCode"], &message["errorReason"]);
        match asked {
            // The producer or consumer went while the request was on its way.
            Asked::Consume { .. } | Asked::Done if code == "not-found" => Ok(()),
            _ => bail!("refused: {} ({})", code.as_str().unwrap_or("?"), reason.as_str().unwrap_or("no reason")),
        }
    }

    fn consume(&mut self, producer: &str, layer: Option<u8>, say: &mut Say) {
        let (Some(capabilities), Some(transport)) = (&self.capabilities, &self.receiving) else {
            self.early.push((producer.to_owned(), layer));
            return;
        };
        let data = json!({ "transportId": transport, "producerId": producer, "rtpCapabilities": capabilities });
        self.ask("consume", data, Asked::Consume { layer }, say);
    }

    fn pause(&mut self, consumer: &str, say: &mut Say) {
        self.ask("pause-consumer", json!({ "consumerId": consumer }), Asked::Done, say);
    }

    fn resume(&mut self, consumer: &str, say: &mut Say) {
        self.ask("resume-consumer", json!({ "consumerId": consumer }), Asked::Done, say);
    }

    fn prefer(&mut self, consumer: &str, layer: u8, say: &mut Say) {
        self.ask_layers(&json!(consumer), layer, say);
    }

    fn keep_alive(&mut self, _: &mut Say) {}
}

fn text<'a>(data: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    data[field].as_str().with_context(|| format!("the server left out \"{field}\""))
}

fn remote(data: &Value) -> anyhow::Result<Remote> {
    let ice = &data["iceParameters"];
    let candidates = data["iceCandidates"].as_array().context("a transport without candidates")?;
    let candidate = candidates.iter().find(|one| one["protocol"] == "udp").context("no UDP candidate")?;
    let address = candidate["address"].as_str().or(candidate["ip"].as_str()).context("a candidate without address")?;
    let ip: IpAddr = address.parse().with_context(|| format!("the candidate's address is \"{address}\""))?;
    let fingerprints = data["dtlsParameters"]["fingerprints"].as_array().context("no fingerprints")?;
    let sha256 = fingerprints.iter().filter(|one| one["algorithm"] == "sha-256");
    Ok(Remote {
        address: SocketAddr::new(ip, candidate["port"].as_u64().unwrap_or_default() as u16),
        credentials: Credentials {
            ufrag: text(ice, "usernameFragment")?.to_owned(),
            password: text(ice, "password")?.to_owned(),
        },
        fingerprints: sha256.filter_map(|one| one["value"].as_str().map(str::to_owned)).collect(),
        ice_role: Role::Controlling,
        dtls_client: true,
    })
}

/// The router's capabilities cut down to what these clients take, with the router's own numbers.
fn receiving_capabilities(router: &Value, offer: &Offer) -> Value {
    let with_feedback = offer.feedback == Feedback::TransportCc;
    let known = |uri: &str| [MID, ABS_SEND_TIME, AUDIO_LEVEL].contains(&uri) || (with_feedback && uri == TRANSPORT_CC);
    let empty = Vec::new();
    let mut codecs = router["codecs"].as_array().unwrap_or(&empty).clone();
    codecs.retain(|codec| {
        let mime = codec["mimeType"].as_str().unwrap_or_default().to_ascii_lowercase();
        ["audio/opus", "video/vp8"].contains(&mime.as_str()) || (offer.nack && mime == "video/rtx")
    });
    for codec in &mut codecs {
        if let Some(feedback) = codec["rtcpFeedback"].as_array_mut() {
            feedback.retain(|one| match one["type"].as_str() {
                Some("transport-cc") => with_feedback,
                Some("goog-remb") => false,
                Some("nack") => offer.nack || one["parameter"] == "pli",
                _ => true,
            });
        }
    }
    let mut extensions = router["headerExtensions"].as_array().unwrap_or(&empty).clone();
    extensions.retain(|one| one["uri"].as_str().is_some_and(known));
    for extension in &mut extensions {
        extension["direction"] = json!("sendrecv");
    }
    json!({ "codecs": codecs, "headerExtensions": extensions })
}

fn produce_data(transport: &str, source: &OfferedSource, offer: &Offer) -> Value {
    let with_feedback = offer.feedback == Feedback::TransportCc;
    let mut extensions = vec![(MID, extension_id::MID), (ABS_SEND_TIME, extension_id::ABS_SEND_TIME)];
    if with_feedback {
        extensions.push((TRANSPORT_CC, extension_id::TRANSPORT_CC));
    }
    let mut feedback = Vec::new();
    if with_feedback {
        feedback.push(json!({ "type": "transport-cc", "parameter": "" }));
    }
    let codecs = if source.class == Class::Microphone {
        extensions.push((AUDIO_LEVEL, extension_id::AUDIO_LEVEL));
        let parameters = json!({ "minptime": 10, "useinbandfec": 1 });
        json!([{ "mimeType": "audio/opus", "payloadType": OPUS, "clockRate": 48000, "channels": 2,
                 "parameters": parameters, "rtcpFeedback": feedback }])
    } else {
        if !source.rids.is_empty() {
            extensions.push((RTP_STREAM_ID, extension_id::RTP_STREAM_ID));
            extensions.push((REPAIRED_RTP_STREAM_ID, extension_id::REPAIRED_RTP_STREAM_ID));
        }
        feedback.push(json!({ "type": "ccm", "parameter": "fir" }));
        feedback.push(json!({ "type": "nack", "parameter": "pli" }));
        if offer.nack {
            feedback.push(json!({ "type": "nack", "parameter": "" }));
        }
        let mut codecs = vec![json!({ "mimeType": "video/VP8", "payloadType": VP8, "clockRate": 90000,
                                      "parameters": {}, "rtcpFeedback": feedback })];
        if offer.nack {
            codecs.push(json!({ "mimeType": "video/rtx", "payloadType": VP8_RTX, "clockRate": 90000,
                                "parameters": { "apt": VP8 }, "rtcpFeedback": [] }));
        }
        json!(codecs)
    };
    let encodings: Vec<_> = if source.rids.is_empty() {
        let mut encoding = json!({ "ssrc": source.ssrcs[0] });
        if let Some(rtx) = source.rtx_ssrcs.first() {
            encoding["rtx"] = json!({ "ssrc": rtx });
        }
        vec![encoding]
    } else {
        source.rids.iter().map(|rid| json!({ "rid": rid, "scalabilityMode": "L1T3", "active": true })).collect()
    };
    let extensions: Vec<_> = extensions
        .iter()
        .map(|(uri, id)| json!({ "uri": uri, "id": id, "encrypt": false, "parameters": {} }))
        .collect();
    json!({
        "transportId": transport,
        "kind": if source.class.is_video() { "video" } else { "audio" },
        "rtpParameters": {
            "mid": source.mid, "codecs": codecs, "headerExtensions": extensions, "encodings": encodings,
            "rtcp": { "cname": offer.cname, "reducedSize": true },
        },
        "appData": { "source": source.class.name() },
    })
}
