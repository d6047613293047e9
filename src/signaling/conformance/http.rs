//! Every route, and every way to ask it wrongly.

use serde_json::json;

use super::client::Framing;
use super::*;

#[test]
fn the_page_and_its_parts_are_served() {
    let running = start();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/app.css", "text/css; charset=utf-8"),
    ] {
        let answer = running.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        assert!(!answer.body.is_empty());
        let head = http(running.address, "HEAD", path, &[], "");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(head.header("content-length"), Some(answer.body.len().to_string().as_str()));
    }
}

#[test]
fn rooms_are_opened_listed_looked_at_and_closed() {
    let running = start();
    let post = |body: &str| http(running.address, "POST", "/api/rooms", &[("Content-Type", "application/json")], body);
    let made = post(r#"{"id":"seminar","maxPeers":1,"uplinkLimitBps":800000,"audioTopN":2}"#);
    assert_eq!((made.status, &made.json()["id"]), (201, &json!("seminar")));
    running.waits_for_command(|command| match command {
        Command::OpenRoom { settings, .. } => (settings.uplink_bitrate_bps, settings.audio_top_n) == (Some(800_000), 2),
        _ => false,
    });
    assert_eq!(post("").status, 201, "a room without a name is given one");
    assert_eq!(running.get("/api/rooms").json()["rooms"].as_array().unwrap().len(), 2);

    let mut ada = Framing::Protoo.enter(running.address, "seminar", "ada");
    let refused = Framing::Protoo.try_enter(running.address, "seminar", &[]).map(drop).unwrap_err();
    assert_eq!(refused, "4000 room-full");
    let room = running.get("/api/rooms/seminar").json();
    assert_eq!((&room["peers"], &room["peerList"][0]["peerId"]), (&json!(1), &json!("ada")));
    let limits = (&room["maxPeers"], &room["uplinkLimitBps"], &room["audioTopN"]);
    assert_eq!(limits, (&json!(1), &json!(800_000), &json!(2)));
    assert_eq!(running.get("/api/rooms/seminar/stats").json(), json!({"stats": []}));

    assert_eq!(http(running.address, "DELETE", "/api/rooms/seminar", &[], "").status, 204);
    assert_eq!(ada.closed(), (4000, "room-closed".to_owned()));
    assert_eq!(running.get("/api/rooms/seminar").status, 404);
}

#[test]
fn what_goes_wrong_is_told_in_a_problem_body() {
    let running = start();
    let body = |size: usize| format!(r#"{{"id":"{}"}}"#, "x".repeat(size));
    let huge = body(limits::MESSAGE_BYTES);
    for (method, path, sent, status, code) in [
        ("GET", "/nowhere", "", 404, "not-found"),
        ("GET", "/api/rooms/none", "", 404, "not-found"),
        ("GET", "/api/rooms/none/stats", "", 404, "not-found"),
        ("DELETE", "/api/rooms/none", "", 404, "not-found"),
        ("GET", "/api/rooms/%ff", "", 400, "bad-request"),
        ("POST", "/", "", 405, "unknown-method"),
        ("DELETE", "/api/rooms", "", 405, "unknown-method"),
        ("PUT", "/health", "", 405, "unknown-method"),
        ("POST", "/api/rooms", "{", 400, "bad-request"),
        ("POST", "/api/rooms", r#"{"maxPeers":"many"}"#, 400, "bad-request"),
        ("POST", "/api/rooms", r#"{"maxPeers":0}"#, 400, "bad-request"),
        ("POST", "/api/rooms", r#"{"uplinkLimitBps":29999}"#, 400, "bad-request"),
        ("POST", "/api/rooms", r#"{"uplinkLimitBps":-1}"#, 400, "bad-request"),
        ("POST", "/api/rooms", r#"{"audioTopN":256}"#, 400, "bad-request"),
        ("POST", "/api/rooms", &body(limits::NAME_BYTES + 1), 400, "bad-request"),
        ("POST", "/api/rooms", &huge, 413, "bad-request"),
        ("GET", "/room/study", "", 426, "bad-request"),
    ] {
        let answer = http(running.address, method, path, &[], sent);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method} {path}");
        let problem = answer.json();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{method} {path}");
        assert!(problem["title"].as_str().unwrap().ends_with('.'));
    }
    let refused = http(running.address, "PATCH", "/api/rooms", &[], "");
    assert_eq!(refused.header("allow"), Some("GET, HEAD, POST"));
}

#[test]
fn an_upgrade_that_is_none_is_refused() {
    let running = start();
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(http(running.address, "GET", "/room/study", &upgrade, "").status, 400, "no key");
    let old = [upgrade[0], upgrade[1], ("Sec-WebSocket-Key", "eA=="), ("Sec-WebSocket-Version", "8")];
    assert_eq!(http(running.address, "GET", "/room/study", &old, "").status, 400, "an old version");
    assert_eq!(running.metric("ringside_peers"), 0.0);
}

#[test]
fn statistics_and_metrics_tell_of_workers_and_signaling() {
    let running = start();
    let mut ada = Framing::Protoo.enter(running.address, "study", "ada");
    ada.refused("dance", json!({}));
    let stats = running.get("/api/stats").json();
    assert_eq!(stats["workers"][0]["packetsReceived"], 42);
    // Counted from 1 wherever people see it, as in the log.
    assert_eq!(stats["workers"][0]["worker"], 1);
    assert_eq!(running.get("/api/rooms/study").json()["worker"], 1);
    assert_eq!(stats["totals"]["peers"], 1);
    assert_eq!(stats["errors"]["unknown-method"], 1);
    let metrics = running.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert_eq!(running.metric("ringside_worker_packets_received_total{worker=\"1\"}"), 42.0);
    assert_eq!(running.metric("ringside_worker_discards_total{worker=\"1\",reason=\"oversized\"}"), 3.0);
}

#[test]
fn the_api_asks_for_its_token_where_there_is_one() {
    let running = start_with(|config| config.api_token = Some("operator".to_owned()));
    let ask = |headers: &[(&str, &str)]| http(running.address, "GET", "/api/rooms", headers, "");
    let refused = ask(&[]);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(ask(&[("Authorization", "Bearer guess")]).status, 401);
    assert_eq!(ask(&[("Authorization", "Bearer operator")]).status, 200);
    assert_eq!(running.get("/health").status, 200);
}

#[test]
fn pages_of_other_origins_may_poll_where_the_operator_lets_them() {
    let running = start_with(|config| config.cors_origins = vec!["https://app.example".to_owned()]);
    let polling = "/socket.io/?EIO=4&transport=polling";
    for path in [polling, "/api/rooms"] {
        let ask = |method, origin| http(running.address, method, path, &[("Origin", origin)], "");
        let allowed = |answer: &Http| answer.header("access-control-allow-origin").map(str::to_owned);
        assert_eq!(allowed(&ask("GET", "https://app.example")).as_deref(), Some("https://app.example"), "{path}");
        assert_eq!(allowed(&ask("GET", "https://evil.example")), None, "{path}");
        let before = ask("OPTIONS", "https://app.example");
        assert_eq!((before.status, allowed(&before).as_deref()), (204, Some("https://app.example")), "{path}");
        assert!(before.header("access-control-allow-methods").unwrap().contains("POST"));
    }
    let anybody = start();
    let answer = http(anybody.address, "GET", polling, &[("Origin", "https://any.example")], "");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://any.example"));
}

#[test]
fn a_connection_may_be_used_again() {
    use std::io::{Read, Write};
    let running = start();
    let mut stream = super::client::open(running.address);
    for _ in 0..3 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        assert!(String::from_utf8(seen).unwrap().contains("alive"));
    }
}
