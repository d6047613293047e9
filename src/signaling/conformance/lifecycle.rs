//! From the start to the end: TLS, workers that fail, an orderly stop.

use serde_json::json;

use super::client::Framing;
use super::*;
use crate::signaling::server::StartError;
use crate::signaling::settings::TlsFiles;

#[test]
fn a_taken_port_is_told_with_its_cure() {
    let running = start();
    let config = SignalingConfig { listen: running.address, ..SignalingConfig::default() };
    let Err(error) = Server::bind(config) else { panic!("the port is taken") };
    assert!(matches!(error, StartError::PortTaken(_)));
    let port = running.address.port();
    assert_eq!(error.to_string(), format!("port {port} is taken: another server? choose another with --port"));
}

#[test]
fn a_certificate_that_is_none_is_told() {
    let missing = TlsFiles { certificate: "/nonexistent/cert.pem".into(), key: "/nonexistent/key.pem".into() };
    let config = SignalingConfig { tls: Some(missing), listen: ([127, 0, 0, 1], 0).into(), ..Default::default() };
    let Err(error) = Server::bind(config) else { panic!("there is no certificate") };
    assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
}

#[test]
fn a_full_queue_refuses_requests_and_loses_no_closing() {
    let running = start();
    let mut ada = Framing::Protoo.enter(running.address, "study", "ada");
    let transport = ada.request("create-transport", json!({"direction": "send"}))["id"].clone();
    running.worker.full.store(true, Ordering::Relaxed);
    assert_eq!(ada.refused("create-transport", json!({"direction": "recv"})), "overloaded");
    ada.request("close-transport", json!({"transportId": transport}));
    assert!(!running.commands().iter().any(|command| matches!(command, Command::CloseTransport { .. })));
    running.worker.full.store(false, Ordering::Relaxed);
    running.waits_for_command(|command| matches!(command, Command::CloseTransport { .. }));
    ada.request("create-transport", json!({"direction": "recv"}));
}

#[test]
fn a_worker_that_does_not_answer_is_an_internal_error() {
    let running = start();
    let mut ada = Framing::Protoo.enter(running.address, "study", "ada");
    running.worker.silent.store(true, Ordering::Relaxed);
    let asked = ada.send("create-transport", json!({"direction": "send"}));
    assert_eq!(running.get("/api/stats").status, 500);
    assert_eq!(ada.answer(asked).unwrap_err()["code"], "internal");
    running.worker.silent.store(false, Ordering::Relaxed);
    assert!(running.metric("ringside_signaling_reply_timeouts_total") >= 1.0);
    assert_eq!(running.metric("ringside_transports"), 0.0);
}

#[test]
fn a_worker_that_ends_ends_the_server() {
    let mut running = start();
    let _ada = Framing::Protoo.enter(running.address, "study", "ada");
    let ended = running.stop(Stop::WorkerEnded("worker 1 panicked".to_owned()));
    assert_eq!(ended.unwrap_err().to_string(), "worker 1 panicked");
}

#[test]
fn peers_are_told_of_the_end_and_closed_in_order() {
    for framing in Framing::ALL {
        let mut running = start_with(|config| config.drain = Duration::from_millis(300));
        let mut ada = framing.enter(running.address, "study", "ada");
        let address = running.address;
        let _ = running.stop.take().unwrap().send(Stop::Asked);
        assert_eq!(ada.hears("server-draining"), json!({"deadlineMs": 300}));
        assert_eq!(http(address, "GET", "/ready", &[], "").status, 503);
        assert_eq!(http(address, "GET", "/health", &[], "").status, 200);
        let refused = framing.try_enter(address, "study", &[]).map(drop).unwrap_err();
        assert!(refused.ends_with("draining"), "{framing:?}: {refused}");
        let (code, _) = ada.closed();
        match framing {
            Framing::Protoo => assert_eq!(code, 1012),
            _ => assert_ne!(code, 0),
        }
        assert!(running.thread.take().unwrap().join().unwrap().is_ok());
    }
}

#[test]
fn an_empty_server_stops_at_once() {
    let mut running = start_with(|config| config.drain = Duration::from_secs(3600));
    assert_eq!(running.get("/ready").status, 200);
    running.stop(Stop::Asked).unwrap();
}
