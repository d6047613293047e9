//! From the start to the end: TLS, workers that fail, an orderly stop.

use std::io::{Read, Write};

use serde_json::json;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_tungstenite::tungstenite;

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

/// A certificate for "localhost" that signs itself, made for these tests.
fn tls_files() -> TlsFiles {
    let fixture = |name: &str| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    TlsFiles { certificate: fixture("localhost.cert.pem"), key: fixture("localhost.key.pem") }
}

#[test]
fn everything_is_served_over_tls_where_there_is_a_certificate() {
    let running = start_with(|config| config.tls = Some(tls_files()));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls_files().certificate).unwrap()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let open = || {
        let name = "localhost".try_into().unwrap();
        StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), super::client::open(running.address))
    };
    let mut plain = open();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (mut socket, _) = tungstenite::client("wss://localhost/room/study", open()).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains("welcome"));
    // Whoever speaks no TLS is sent away and disturbs nobody.
    let mut untrusting = super::client::open(running.address);
    untrusting.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = untrusting.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    socket.send(tungstenite::Message::text(r#"{"request":true,"id":1,"method":"get-producers"}"#)).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains("producers"));
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_told() {
    let mut files = tls_files();
    files.key = files.certificate.clone();
    let config = SignalingConfig { tls: Some(files), listen: ([127, 0, 0, 1], 0).into(), ..Default::default() };
    assert!(matches!(Server::bind(config), Err(StartError::Key { .. })));
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
    let refused = Framing::Protoo.try_enter(running.address, "study", &[]).map(drop).unwrap_err();
    assert_eq!(refused, "1013 overloaded");
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
    for framing in [Framing::Protoo, Framing::SocketIo] {
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
            // Not by leaving the namespace, after which the library does not connect again.
            _ => assert_ne!(code, 41),
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
