//! Clients that break the rules, on purpose or not: each is told, counted, and disturbs nobody.

use std::io::Write;

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::client::{Client, Framing, open, read_answer, web_socket};
use super::*;

/// Somebody else in the room who must not notice anything.
fn with_bystander(running: &Running, framing: Framing) -> (Client, Client) {
    let bystander = Framing::Protoo.enter(running.address, "study", "bystander");
    let mut client = framing.enter(running.address, "study", "abuser");
    client.request("get-producers", json!({}));
    (client, bystander)
}

fn undisturbed(bystander: &mut Client) {
    bystander.request("get-rtp-capabilities", json!({}));
}

#[test]
fn a_malformed_frame_is_refused_and_the_connection_stays() {
    let running = start();
    let (mut client, mut bystander) = with_bystander(&running, Framing::Protoo);
    for text in ["", "not json", "{\"request\":true}", "[1,2]", "{\"id\":99}", "\u{0}", &"[".repeat(20_000)] {
        client.send_text(text);
    }
    client.send_message(Message::binary(vec![1, 2, 3]));
    client.send_text(r#"{"notification":true,"method":"hello","data":{}}"#);
    client.send_text(r#"{"response":true,"id":1,"ok":true}"#);
    client.request("get-producers", json!({}));
    assert_eq!(running.metric("ringside_signaling_errors_total{code=\"bad-request\"}"), 8.0);
    undisturbed(&mut bystander);
}

#[test]
fn an_answer_without_an_id_goes_to_a_frame_that_had_none() {
    let running = start();
    let mut socket = web_socket(running.address, "/room/study", Some("protoo"));
    assert!(socket.read().unwrap().to_text().unwrap().contains("welcome"));
    for (text, id) in [("nonsense", None), (r#"{"id":12,"method":"leave"}"#, Some(12))] {
        socket.send(Message::text(text)).unwrap();
        let answer = json(socket.read().unwrap().to_text().unwrap());
        assert_eq!(answer["errorCode"], "bad-request");
        assert_eq!(answer.get("id").and_then(Value::as_u64), id);
    }
}

#[test]
fn a_frame_over_the_limit_is_closed_with_1009() {
    let running = start();
    let (mut client, mut bystander) = with_bystander(&running, Framing::Protoo);
    // As large as allowed, if not sensible.
    client.send_text(&" ".repeat(limits::MESSAGE_BYTES));
    client.request("get-producers", json!({}));
    client.send_text(&"x".repeat(limits::MESSAGE_BYTES + 1));
    assert_eq!(client.closed(), (1009, "too-large".to_owned()));
    assert_eq!(bystander.hears("peer-left")["peerId"], "abuser");
    undisturbed(&mut bystander);

    let mut huge = Framing::Protoo.enter(running.address, "study", "huge");
    huge.send_text(&"x".repeat(3_000_000));
    assert_eq!(huge.closed().0, 1009);
    running.metric_becomes("ringside_signaling_connections_closed_total{reason=\"too-large\"}", 2.0);
}

fn fragment(text: &str, opcode: Data, is_final: bool) -> Message {
    let header = FrameHeader { is_final, opcode: OpCode::Data(opcode), ..FrameHeader::default() };
    Message::Frame(Frame::from_payload(header, Bytes::copy_from_slice(text.as_bytes())))
}

#[test]
fn fragments_are_one_message_and_their_sum_is_bounded() {
    let running = start();
    let (mut client, mut bystander) = with_bystander(&running, Framing::Protoo);
    client.send_message(fragment(r#"{"request":true,"id":77,"#, Data::Text, false));
    client.send_message(fragment(r#""method":"dance"#, Data::Continue, false));
    client.send_message(fragment(r#""}"#, Data::Continue, true));
    client.request("get-producers", json!({}));
    assert_eq!(running.metric("ringside_signaling_errors_total{code=\"unknown-method\"}"), 1.0);

    client.send_message(fragment("x", Data::Text, false));
    for _ in 0..5 {
        client.send_message(fragment(&"x".repeat(limits::MESSAGE_BYTES / 4), Data::Continue, false));
    }
    assert_eq!(client.closed().0, 1009);
    undisturbed(&mut bystander);
}

#[test]
fn fragments_out_of_order_end_the_connection() {
    let running = start();
    for frames in [
        vec![fragment("x", Data::Continue, true)],
        vec![fragment("x", Data::Text, false), fragment("{}", Data::Text, true)],
        vec![fragment("x", Data::Binary, false)],
    ] {
        let mut client = Framing::Protoo.enter(running.address, "study", "abuser");
        frames.into_iter().for_each(|frame| client.send_message(frame));
        assert_eq!(client.closed(), (1002, "protocol-violation".to_owned()));
        running.metric_becomes("ringside_peers", 0.0);
    }
}

#[test]
fn text_that_is_no_utf8_ends_the_connection() {
    let running = start();
    let mut client = Framing::Protoo.enter(running.address, "study", "abuser");
    let header = FrameHeader { is_final: true, opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    client.send_message(Message::Frame(Frame::from_payload(header, Bytes::from_static(b"\xff\xfe"))));
    assert_eq!(client.closed().0, 1002);
}

#[test]
fn a_flood_is_refused_and_then_closed() {
    for framing in [Framing::Protoo, Framing::SocketIo] {
        let running = start_with(|config| (config.message_burst, config.messages_per_s) = (20, 10));
        let (mut client, mut bystander) = with_bystander(&running, framing);
        for _ in 0..limits::FLOOD_BURST + 100 {
            client.send("get-producers", json!({}));
        }
        let (code, reason) = client.closed();
        match framing {
            Framing::Protoo => assert_eq!((code, reason.as_str()), (1008, "rate-limited")),
            _ => assert_eq!(code, 41),
        }
        assert_eq!(bystander.hears("peer-left")["peerId"], "abuser");
        assert!(running.metric("ringside_signaling_errors_total{code=\"rate-limited\"}") > 900.0);
        running.metric_becomes("ringside_signaling_connections_closed_total{reason=\"rate-limited\"}", 1.0);
        undisturbed(&mut bystander);
    }
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    for framing in [Framing::Protoo, Framing::SocketIo] {
        let running = start_with(|config| config.message_burst = 1_000_000);
        let (mut client, mut bystander) = with_bystander(&running, framing);
        client.stream().set_nonblocking(true).unwrap();
        // Answers of some kilobytes, each to a request of some bytes, until its system takes no more.
        while running.metric("ringside_signaling_connections_closed_total{reason=\"slow-client\"}") == 0.0 {
            for _ in 0..200 {
                client.send("get-rtp-capabilities", json!({}));
            }
        }
        assert_eq!(bystander.hears("peer-left")["peerId"], "abuser");
        undisturbed(&mut bystander);
    }
}

#[test]
fn a_connection_without_a_sign_of_life_is_given_up() {
    for framing in Framing::ALL {
        let running = start_with(|config| config.keep_alive = Duration::from_millis(400));
        let (client, mut bystander) = with_bystander(&running, framing);
        // It neither reads nor answers pings; the bystander does both while it waits.
        assert_eq!(bystander.hears("peer-left")["peerId"], "abuser", "{framing:?}");
        if framing == Framing::Protoo {
            running.metric_becomes("ringside_signaling_connections_closed_total{reason=\"silent\"}", 1.0);
        }
        undisturbed(&mut bystander);
        drop(client);
    }
}

#[test]
fn a_ping_is_answered_and_a_close_is_returned() {
    let running = start();
    let mut socket = web_socket(running.address, "/room/study", None);
    assert!(socket.read().unwrap().is_text());
    socket.send(Message::Ping(Bytes::from_static(b"are you there"))).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(Bytes::from_static(b"are you there")));
    socket.close(None).unwrap();
    assert!(socket.read().unwrap().is_close());
    running.metric_becomes("ringside_peers", 0.0);
}

#[test]
fn socket_io_events_that_are_no_requests_are_refused_or_passed_over() {
    for framing in [Framing::SocketIo, Framing::SocketIoPolling] {
        let running = start();
        let (mut client, mut bystander) = with_bystander(&running, framing);
        // Without data, without acknowledgement, with more arguments than one.
        client.send_packet(r#"42/room/study,901["get-producers"]"#);
        client.send_packet(r#"42/room/study,["get-producers",{}]"#);
        client.send_packet(r#"42/room/study,902["get-producers",{},[],7]"#);
        client.send_packet(r#"42/room/study,903["produce","text"]"#);
        client.send_packet(r#"42/room/other,904["get-producers",{}]"#);
        client.request("get-producers", json!({}));
        assert_eq!(running.metric("ringside_signaling_requests_total{method=\"get-producers\"}"), 5.0);
        assert_eq!(running.metric("ringside_signaling_errors_total{code=\"bad-request\"}"), 1.0);
        undisturbed(&mut bystander);
    }
}

#[test]
fn socket_io_packets_that_are_broken_end_the_connection() {
    let running = start();
    for packet in ["9", "42/room/study,{", "451-/room/study,[\"produce\",{\"_placeholder\":true,\"num\":0}]", "hello"] {
        let (mut client, mut bystander) = with_bystander(&running, Framing::SocketIo);
        client.send_packet(packet);
        client.closed();
        assert_eq!(bystander.hears("peer-left")["peerId"], "abuser", "{packet}");
        drop(bystander);
        running.metric_becomes("ringside_peers", 0.0);
    }
}

#[test]
fn a_socket_io_message_over_the_limit_ends_the_connection() {
    let running = start();
    let (mut client, mut bystander) = with_bystander(&running, Framing::SocketIo);
    client.send_packet(&format!("42/room/study,1[\"{}\"]", "x".repeat(limits::MESSAGE_BYTES)));
    client.closed();
    assert_eq!(bystander.hears("peer-left")["peerId"], "abuser");

    let open = running.get("/socket.io/?EIO=4&transport=polling");
    let session = json(open.body.strip_prefix('0').unwrap());
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", session["sid"].as_str().unwrap());
    let huge = "x".repeat(limits::MESSAGE_BYTES + 1);
    assert_eq!(http(running.address, "POST", &path, &[], &huge).status, 413);
    undisturbed(&mut bystander);
}

#[test]
fn one_socket_io_connection_is_in_a_few_rooms_at_most() {
    let running = start();
    let mut socket = web_socket(running.address, "/socket.io/?EIO=4&transport=websocket", None);
    assert!(socket.read().unwrap().is_text());
    for room in 0..limits::ROOMS_PER_CONNECTION + 2 {
        socket.send(Message::text(format!("40/room/r{room},{{}}"))).unwrap();
    }
    let mut refused = 0;
    while refused < 2 {
        let packet = socket.read().unwrap().to_text().unwrap().to_owned();
        if packet.starts_with("44/") {
            assert!(packet.contains("too-many"), "{packet}");
            refused += 1;
        }
    }
    assert_eq!(running.metric("ringside_peers"), limits::ROOMS_PER_CONNECTION as f64);
    drop(socket);
    running.metric_becomes("ringside_rooms", 0.0);
}

#[test]
fn half_an_http_request_holds_nobody_up() {
    let running = start();
    let mut half = open(running.address);
    half.write_all(b"GET /hea").unwrap();
    assert_eq!(running.get("/health").status, 200);
    half.write_all(b"lth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut half).status, 200);
    let mut nonsense = open(running.address);
    nonsense.write_all(b"\x16\x03\x01\x02\x00 this is TLS or worse\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut nonsense).status, 400);
    assert_eq!(running.get("/health").status, 200);
}
