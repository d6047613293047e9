//! What a client may ask: every method of the protocol with its typed body, free of any framing.
//!
//! A framing hands in a [`Request`]; [`Call::parse`] turns it into one [`Call`] or into a refusal that
//! names the field. Unknown fields are ignored, because applications add their own; known fields are
//! strict in their type. Nothing here looks at any state.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::ids::{ConsumerId, ProducerId, TransportId};
use crate::limits;
use crate::shard::command::{Direction, DtlsRole, Fingerprint, FingerprintHash, Kind};
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::negotiation::{RtpCapabilities, RtpParameters};

/// A request as every framing delivers it. A missing body is `Value::Null` and means `{}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub method: String,
    pub data: Value,
}

/// A request that is understood.
#[derive(Clone, Debug)]
pub enum Call {
    RouterCapabilities,
    CreateTransport(CreateTransport),
    ConnectTransport(ConnectTransport),
    Produce(Box<Produce>),
    Consume(Box<Consume>),
    ResumeConsumer(OneConsumer),
    Join(Box<Join>),
    Producers,
    PauseConsumer(OneConsumer),
    CloseConsumer(OneConsumer),
    SetPreferredLayers(SetPreferredLayers),
    SetConsumerPriority(SetConsumerPriority),
    RequestKeyFrame(OneConsumer),
    PauseProducer(OneProducer),
    ResumeProducer(OneProducer),
    CloseProducer(OneProducer),
    RestartIce(OneTransport),
    Stats(Subject),
    CloseTransport(OneTransport),
    Leave,
}

/// Every method by the name that is on the wire, the six of mediasoup applications first.
pub const METHODS: [&str; 20] = [
    "get-rtp-capabilities",
    "create-transport",
    "connect-transport",
    "produce",
    "consume",
    "resume-consumer",
    "join",
    "get-producers",
    "pause-consumer",
    "close-consumer",
    "set-preferred-layers",
    "set-consumer-priority",
    "request-key-frame",
    "pause-producer",
    "resume-producer",
    "close-producer",
    "restart-ice",
    "get-stats",
    "close-transport",
    "leave",
];

impl Call {
    /// `unknown-method`, or `bad-request` with what serde says about the field.
    pub fn parse(request: Request) -> Result<Call, Failure> {
        let data = request.data;
        Ok(match request.method.as_str() {
            "get-rtp-capabilities" => Call::RouterCapabilities,
            "create-transport" => Call::CreateTransport(body(data)?),
            "connect-transport" => Call::ConnectTransport(body(data)?),
            "produce" => Call::Produce(body(data)?),
            "consume" => Call::Consume(body(data)?),
            "resume-consumer" => Call::ResumeConsumer(body(data)?),
            "join" => Call::Join(body(data)?),
            "get-producers" => Call::Producers,
            "pause-consumer" => Call::PauseConsumer(body(data)?),
            "close-consumer" => Call::CloseConsumer(body(data)?),
            "set-preferred-layers" => Call::SetPreferredLayers(body(data)?),
            "set-consumer-priority" => Call::SetConsumerPriority(body(data)?),
            "request-key-frame" => Call::RequestKeyFrame(body(data)?),
            "pause-producer" => Call::PauseProducer(body(data)?),
            "resume-producer" => Call::ResumeProducer(body(data)?),
            "close-producer" => Call::CloseProducer(body(data)?),
            "restart-ice" => Call::RestartIce(body(data)?),
            "get-stats" => Call::Stats(body::<StatsOf>(data)?.subject()?),
            "close-transport" => Call::CloseTransport(body(data)?),
            "leave" => Call::Leave,
            _ => return Err(ErrorCode::UnknownMethod.into()),
        })
    }
}

fn body<T: serde::de::DeserializeOwned>(data: Value) -> Result<T, Failure> {
    let data = if data.is_null() { Value::Object(serde_json::Map::new()) } else { data };
    serde_json::from_value(data).map_err(|error| Failure::bad_request(shortened(error.to_string())))
}

/// serde quotes the offending text, which may be as long as the message.
fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(limits::ERROR_DETAIL_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// `forceTcp` and `sctpCapabilities` are accepted and have no effect: candidates are UDP, and there
/// are no data channels (an answer without `sctpParameters` says so).
#[derive(Clone, Debug, Deserialize)]
pub struct CreateTransport {
    pub direction: Direction,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectTransport {
    #[serde(deserialize_with = "id")]
    pub transport_id: TransportId,
    pub dtls_parameters: DtlsParameters,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Produce {
    #[serde(deserialize_with = "id")]
    pub transport_id: TransportId,
    pub kind: Kind,
    pub rtp_parameters: RtpParameters,
    #[serde(default)]
    pub paused: bool,
    #[serde(default)]
    pub app_data: Value,
}

/// `paused` of the request is ignored: a consumer always starts paused, because a key frame that
/// arrives before the client is ready is lost.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consume {
    /// Absent: the peer's own receiving transport.
    #[serde(default, deserialize_with = "optional_id")]
    pub transport_id: Option<TransportId>,
    #[serde(deserialize_with = "id")]
    pub producer_id: ProducerId,
    /// Absent: those of `join`.
    #[serde(default)]
    pub rtp_capabilities: Option<RtpCapabilities>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub rtp_capabilities: Option<RtpCapabilities>,
    /// Whether a sending transport is wanted.
    #[serde(default = "yes")]
    pub produce: bool,
    /// Whether a receiving transport is wanted.
    #[serde(default = "yes")]
    pub consume: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OneTransport {
    #[serde(deserialize_with = "id")]
    pub transport_id: TransportId,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OneProducer {
    #[serde(deserialize_with = "id")]
    pub producer_id: ProducerId,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OneConsumer {
    #[serde(deserialize_with = "id")]
    pub consumer_id: ConsumerId,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetPreferredLayers {
    #[serde(deserialize_with = "id")]
    pub consumer_id: ConsumerId,
    pub spatial_layer: u8,
    #[serde(default)]
    pub temporal_layer: Option<u8>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetConsumerPriority {
    #[serde(deserialize_with = "id")]
    pub consumer_id: ConsumerId,
    /// 1 (least) to 255 (most).
    pub priority: std::num::NonZeroU8,
}

/// What `get-stats` asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    Transport(TransportId),
    Producer(ProducerId),
    Consumer(ConsumerId),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatsOf {
    #[serde(default, deserialize_with = "optional_id")]
    transport_id: Option<TransportId>,
    #[serde(default, deserialize_with = "optional_id")]
    producer_id: Option<ProducerId>,
    #[serde(default, deserialize_with = "optional_id")]
    consumer_id: Option<ConsumerId>,
}

impl StatsOf {
    fn subject(self) -> Result<Subject, Failure> {
        match (self.transport_id, self.producer_id, self.consumer_id) {
            (Some(transport), None, None) => Ok(Subject::Transport(transport)),
            (None, Some(producer), None) => Ok(Subject::Producer(producer)),
            (None, None, Some(consumer)) => Ok(Subject::Consumer(consumer)),
            _ => Err(Failure::bad_request("exactly one of transportId, producerId and consumerId is needed")),
        }
    }
}

/// The client's half of the DTLS handshake, as mediasoup-client announces it.
#[derive(Clone, Debug, Deserialize)]
pub struct DtlsParameters {
    #[serde(default)]
    role: Role,
    fingerprints: Vec<FingerprintText>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    #[default]
    Auto,
    Client,
    Server,
}

#[derive(Clone, Debug, Deserialize)]
struct FingerprintText {
    algorithm: String,
    value: String,
}

impl DtlsParameters {
    /// The role that the peer takes.
    pub fn role(&self) -> DtlsRole {
        match self.role {
            Role::Auto => DtlsRole::Auto,
            Role::Client => DtlsRole::Client,
            Role::Server => DtlsRole::Server,
        }
    }

    /// The fingerprints of hashes that Ringside knows; one of a known hash that is no fingerprint is refused.
    pub fn fingerprints(&self) -> Result<Vec<Fingerprint>, Failure> {
        if self.fingerprints.len() > limits::FINGERPRINTS {
            return Err(Failure::bad_request("dtlsParameters.fingerprints: too many"));
        }
        let known = self.fingerprints.iter().filter_map(FingerprintText::parse).collect::<Result<Vec<_>, _>>()?;
        if known.is_empty() {
            return Err(Failure::bad_request("dtlsParameters.fingerprints: none is sha-256, sha-384 or sha-512"));
        }
        Ok(known)
    }
}

impl FingerprintText {
    fn parse(&self) -> Option<Result<Fingerprint, Failure>> {
        let (hash, bytes) = match self.algorithm.to_ascii_lowercase().as_str() {
            "sha-256" => (FingerprintHash::Sha256, 32),
            "sha-384" => (FingerprintHash::Sha384, 48),
            "sha-512" => (FingerprintHash::Sha512, 64),
            _ => return None,
        };
        let value = (self.value.len() == bytes * 3 - 1).then(|| colon_hex(&self.value)).flatten();
        let problem = || Failure::bad_request("dtlsParameters.fingerprints: a value is not hex bytes with colons");
        Some(value.map(|value| Fingerprint { hash, value }).ok_or_else(problem))
    }
}

/// `AA:BB:..` (RFC 8122 section 5) in either case.
fn colon_hex(text: &str) -> Option<Vec<u8>> {
    let byte = |pair: &str| {
        let plain = pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        plain.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
    };
    text.split(':').map(byte).collect()
}

fn yes() -> bool {
    true
}

/// An id that could never have been handed out is read as 0, which never is: it is an unknown id
/// (`not-found`) rather than a wrong type (`bad-request`).
fn id<'de, D: Deserializer<'de>, Id: FromStr + From<Unknown>>(deserializer: D) -> Result<Id, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.parse().unwrap_or_else(|_| Id::from(Unknown)))
}

fn optional_id<'de, D: Deserializer<'de>, Id: FromStr + From<Unknown>>(
    deserializer: D,
) -> Result<Option<Id>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.map(|text| text.parse().unwrap_or_else(|_| Id::from(Unknown))))
}

struct Unknown;

macro_rules! unknown {
    ($($id:ident),+) => {$(
        impl From<Unknown> for $id {
            fn from(_: Unknown) -> $id {
                $id(0)
            }
        }
    )+};
}

unknown!(TransportId, ProducerId, ConsumerId);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(method: &str, data: Value) -> Result<Call, Failure> {
        Call::parse(Request { method: method.to_owned(), data })
    }

    #[test]
    fn every_method_is_known_and_refuses_a_body_that_is_no_object() {
        for method in METHODS {
            if let Err(failure) = parse(method, json!({})) {
                assert_eq!(failure.code, ErrorCode::BadRequest, "{method}");
            }
            let takes_a_body = !matches!(method, "get-rtp-capabilities" | "get-producers" | "leave");
            assert_eq!(parse(method, json!([1])).is_err(), takes_a_body, "{method}");
        }
        assert_eq!(parse("dance", json!({})).unwrap_err().code, ErrorCode::UnknownMethod);
    }

    #[test]
    fn a_missing_body_is_an_empty_one() {
        assert!(matches!(parse("join", Value::Null), Ok(Call::Join(join)) if join.produce && join.consume));
        assert!(matches!(parse("get-producers", Value::Null), Ok(Call::Producers)));
    }

    #[test]
    fn wrong_types_are_refused_and_what_is_wrong_is_named() {
        for (method, data, named) in [
            ("create-transport", json!({"direction": 1}), "integer `1`"),
            ("create-transport", json!({"direction": "sideways"}), "sideways"),
            ("create-transport", json!({}), "direction"),
            ("connect-transport", json!({"transportId": "1"}), "dtlsParameters"),
            ("connect-transport", json!({"transportId": 1, "dtlsParameters": {"fingerprints": []}}), "string"),
            ("consume", json!({"producerId": null}), "string"),
            ("resume-consumer", json!({}), "consumerId"),
            ("set-preferred-layers", json!({"consumerId": "1", "spatialLayer": -1}), "-1"),
            ("set-consumer-priority", json!({"consumerId": "1", "priority": 0}), "nonzero"),
            ("set-consumer-priority", json!({"consumerId": "1", "priority": 256}), "256"),
            ("produce", json!({"transportId": "1", "kind": "smell", "rtpParameters": {}}), "smell"),
            ("join", json!({"displayName": 7}), "string"),
            ("get-stats", json!({}), "exactly one"),
            ("get-stats", json!({"transportId": "1", "consumerId": "2"}), "exactly one"),
        ] {
            let failure = parse(method, data.clone()).unwrap_err();
            assert_eq!(failure.code, ErrorCode::BadRequest, "{method} {data}");
            assert!(failure.detail.as_deref().unwrap().contains(named), "{failure} names {named}");
        }
    }

    #[test]
    fn what_applications_add_is_ignored() {
        let data = json!({"direction": "send", "forceTcp": false, "sctpCapabilities": {"numStreams": {}}, "x": [1]});
        assert!(matches!(parse("create-transport", data), Ok(Call::CreateTransport(_))));
    }

    #[test]
    fn an_id_that_was_never_given_is_unknown_and_not_malformed() {
        let call = parse("resume-consumer", json!({"consumerId": "no-hex"})).unwrap();
        assert!(matches!(call, Call::ResumeConsumer(OneConsumer { consumer_id: ConsumerId(0) })));
        let call = parse("resume-consumer", json!({"consumerId": "00000000000000ff"})).unwrap();
        assert!(matches!(call, Call::ResumeConsumer(OneConsumer { consumer_id: ConsumerId(255) })));
    }

    #[test]
    fn a_long_complaint_is_cut() {
        let failure = parse("create-transport", json!({"direction": "ü".repeat(5000)})).unwrap_err();
        assert!(failure.detail.unwrap().chars().count() <= limits::ERROR_DETAIL_CHARS + 1);
    }

    fn dtls(value: Value) -> Result<Vec<Fingerprint>, Failure> {
        serde_json::from_value::<DtlsParameters>(value).unwrap().fingerprints()
    }

    #[test]
    fn fingerprints_of_known_hashes_are_taken_and_others_passed_over() {
        let sha256 = ["aB"; 32].join(":");
        let taken = dtls(json!({"role": "client", "fingerprints": [
            {"algorithm": "sha-1", "value": "AA:BB"},
            {"algorithm": "SHA-256", "value": sha256},
            {"algorithm": "sha-512", "value": (["01"; 64].join(":"))},
        ]}));
        let taken = taken.unwrap();
        assert_eq!(taken[0], Fingerprint { hash: FingerprintHash::Sha256, value: vec![0xab; 32] });
        assert_eq!(taken[1], Fingerprint { hash: FingerprintHash::Sha512, value: vec![1; 64] });
    }

    #[test]
    fn fingerprints_that_are_none_are_refused() {
        for fingerprints in [
            json!([]),
            json!([{"algorithm": "sha-1", "value": (["AA"; 20].join(":"))}]),
            json!([{"algorithm": "sha-256", "value": "AA:BB"}]),
            json!([{"algorithm": "sha-256", "value": (["+1"; 32].join(":"))}]),
            json!([{"algorithm": "sha-256", "value": "é".repeat(47)}]),
            json!(vec![json!({"algorithm": "sha-256", "value": (["AA"; 32].join(":"))}); limits::FINGERPRINTS + 1]),
        ] {
            assert_eq!(dtls(json!({"fingerprints": fingerprints})).unwrap_err().code, ErrorCode::BadRequest);
        }
    }
}
