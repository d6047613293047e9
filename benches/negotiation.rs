//! What the control plane computes for `produce` and `consume`: one request of a real browser each.
//!
//! A full room of 50 with camera and microphone asks for 50 x 98 consumers as it fills; this says what
//! share of a core that takes. `cargo bench --bench negotiation [-- --quick]`

use std::hint::black_box;
use std::time::Instant;

use ringside::ids::{ConsumerId, ProducerId, Ssrc};
use ringside::shard::command::{Kind, SourceClass};
use ringside::signaling::negotiation::{
    ConsumerContext, NegotiatedProducer, ProducerContext, RtpCapabilities, RtpParameters, negotiate_consumer,
    negotiate_producer,
};

const CAPS: &str = include_str!("../tests/fixtures/chromium156-msc3.24.1.device.recvRtpCapabilities.json");
const REQUESTS: [(&str, Kind, &str); 3] = [
    ("microphone", Kind::Audio, include_str!("../tests/fixtures/chromium156-msc3.24.1.produce.mic.json")),
    ("camera", Kind::Video, include_str!("../tests/fixtures/chromium156-msc3.24.1.produce.webcam-vp8-single.json")),
    (
        "simulcast",
        Kind::Video,
        include_str!("../tests/fixtures/chromium156-msc3.24.1.produce.webcam-vp8-simulcast3.json"),
    ),
];

fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--quick") { 200 } else { 50_000 };
    let caps: RtpCapabilities = serde_json::from_str(CAPS).unwrap();
    let parse = time(rounds, || black_box(serde_json::from_str::<RtpCapabilities>(CAPS).unwrap()));
    println!("{:<12} {:>10} {:>10} {:>10}", "", "produce", "consume", "to JSON");
    let mut room = 0.0;
    for (name, kind, request) in REQUESTS {
        let request: serde_json::Value = serde_json::from_str(request).unwrap();
        let parameters: RtpParameters = serde_json::from_value(request["rtpParameters"].clone()).unwrap();
        let producer = produce(kind, &parameters);
        let producing = time(rounds, || black_box(produce(kind, &parameters)));
        let consuming = time(rounds, || black_box(consume(&producer, &caps)));
        let answer = consume(&producer, &caps);
        let writing = time(rounds, || black_box(serde_json::to_string(&answer).unwrap()));
        println!("{name:<12} {producing:>7.2} us {consuming:>7.2} us {writing:>7.2} us");
        if name != "camera" {
            room += 50.0 * 49.0 * (consuming + writing);
        }
    }
    println!("parsing a client's capabilities: {parse:.2} us");
    println!(
        "room of 50 (4900 consumers): {:.0} ms; with the capabilities parsed each time: {:.0} ms",
        room / 1e3,
        (room + 4900.0 * parse) / 1e3
    );
}

fn produce(kind: Kind, parameters: &RtpParameters) -> NegotiatedProducer {
    let context =
        ProducerContext { cname: Some("cname"), class: SourceClass::Camera, paused: false, random: &mut || 7 };
    negotiate_producer(ProducerId(1), kind, parameters.clone(), context).unwrap()
}

fn consume(producer: &NegotiatedProducer, caps: &RtpCapabilities) -> RtpParameters {
    let context = ConsumerContext {
        mid: "0".to_owned(),
        ssrc: Ssrc(1),
        rtx_ssrc: Ssrc(2),
        paused: true,
        priority: 1,
        preferred: None,
    };
    negotiate_consumer(ConsumerId(1), producer, caps, context).unwrap().rtp_parameters
}

/// Microseconds of one call.
fn time<T>(rounds: u32, mut step: impl FnMut() -> T) -> f64 {
    for _ in 0..rounds / 10 {
        step();
    }
    let start = Instant::now();
    for _ in 0..rounds {
        step();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
}
