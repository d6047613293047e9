//! The bodies of the fuzz targets of the control plane over damaged real requests, the same ones in every run.

mod support;

use ringside::signaling::fuzz;
use support::{Random, seed};

/// What each method is sent, and what a browser's own library asks for when it produces.
const REQUESTS: [(&str, &str); 20] = [
    ("get-rtp-capabilities", "null"),
    ("create-transport", r#"{"direction":"send"}"#),
    (
        "connect-transport",
        r#"{"transportId":"00ff","dtlsParameters":{"role":"client","fingerprints":[{"algorithm":"sha-256","value":"AB:CD"}]}}"#,
    ),
    ("produce", include_str!("fixtures/chromium156-msc3.24.1.produce.webcam-vp8-simulcast3.json")),
    ("consume", r#"{"producerId":"1","rtpCapabilities":{"codecs":[],"headerExtensions":[]},"paused":true}"#),
    ("resume-consumer", r#"{"consumerId":"1"}"#),
    ("join", r#"{"displayName":"Ada","produce":true,"consume":false}"#),
    ("get-producers", "{}"),
    ("pause-consumer", r#"{"consumerId":"1"}"#),
    ("close-consumer", r#"{"consumerId":"1"}"#),
    ("set-preferred-layers", r#"{"consumerId":"1","spatialLayer":2,"temporalLayer":null}"#),
    ("set-consumer-priority", r#"{"consumerId":"1","priority":255}"#),
    ("request-key-frame", r#"{"consumerId":"1"}"#),
    ("pause-producer", r#"{"producerId":"1"}"#),
    ("resume-producer", r#"{"producerId":"1"}"#),
    ("close-producer", r#"{"producerId":"1"}"#),
    ("restart-ice", r#"{"transportId":"00ff"}"#),
    ("get-stats", r#"{"producerId":"1"}"#),
    ("close-transport", r#"{"transportId":"00ff"}"#),
    ("leave", "{}"),
];

const PRODUCED: [&str; 6] = [
    include_str!("fixtures/chromium156-msc3.24.1.produce.mic.json"),
    include_str!("fixtures/chromium156-msc3.24.1.produce.mic-dtx-stereo.json"),
    include_str!("fixtures/chromium156-msc3.24.1.produce.screen-vp8.json"),
    include_str!("fixtures/chromium156-msc3.24.1.produce.webcam-vp8-simulcast2-rids.json"),
    include_str!("fixtures/chromium156-msc3.24.1.produce.webcam-vp8-simulcast3.json"),
    include_str!("fixtures/chromium156-msc3.24.1.produce.webcam-vp8-single.json"),
];
const CAPABILITIES: &str = include_str!("fixtures/chromium156-msc3.24.1.device.recvRtpCapabilities.json");

/// Where no byte is left undamaged, whatever a parser looks at is damaged too.
fn damage_everywhere(body: fn(&[u8]), whole: &str) {
    for place in 0..whole.len().min(200) {
        for damage in *b"09-\"x[]{},:e\\\x00\xff" {
            let mut damaged = whole.as_bytes().to_vec();
            damaged[place] = damage;
            body(&damaged);
        }
        body(&whole.as_bytes()[..place]);
    }
}

#[test]
fn damaged_messages_never_panic() {
    for (method, data) in REQUESTS {
        let framed = format!(r#"{{"request":true,"id":1,"method":"{method}","data":{data}}}"#);
        let request = format!("{method}\n{data}");
        seed("signaling_frame", framed.as_bytes());
        seed("signaling_request", request.as_bytes());
        damage_everywhere(fuzz::frame, &framed);
        damage_everywhere(fuzz::request, &request);
    }
}

#[test]
fn damaged_requests_to_produce_never_panic() {
    let mut random = Random(0x9e60);
    for produced in PRODUCED {
        let asked = format!(r#"{{"rtpCapabilities":{CAPABILITIES},{}"#, &produced.trim_start()[1..]);
        let seeds = [produced, &asked].map(|text| text.split_ascii_whitespace().collect::<String>());
        for text in seeds {
            seed("negotiation", text.as_bytes());
            (0..500).for_each(|_| fuzz::negotiation(&random.damage(text.as_bytes())));
        }
    }
}
