//! The DTLS handshake of one transport, over dimpl: datagrams and `now` in, datagrams and SRTP contexts out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{Config, Dtls, DtlsCertificate, Output};

use super::srtp;

/// The certificate of all clients of one load test, and the settings of their handshakes.
#[derive(Clone)]
pub struct Identity {
    certificate: DtlsCertificate,
    config: Arc<Config>,
    /// SHA-256 as hexadecimal pairs with colons.
    pub fingerprint: String,
}

impl Identity {
    pub fn generate() -> anyhow::Result<Identity> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()?;
        let config = Config::builder().mtu(1200).flight_start_rto(Duration::from_millis(200)).build()?;
        let digest = digest::digest(&digest::SHA256, &certificate.certificate);
        let fingerprint = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
        Ok(Identity { certificate, config: Arc::new(config), fingerprint })
    }
}

pub struct Handshake {
    dtls: Dtls,
    client: bool,
    /// Accepted SHA-256 fingerprints of the peer, in the form of [`Identity::fingerprint`].
    fingerprints: Vec<String>,
    peer_is_known: bool,
    buffer: Vec<u8>,
    pub next_at: Option<Instant>,
}

/// What a handshake wants done; datagrams are handed to `send` at once.
pub enum Progress {
    Going,
    Keys { profile: &'static str, send: Box<srtp::Context>, receive: Box<srtp::Context> },
    Closed,
    Failed(String),
}

impl Handshake {
    pub fn new(identity: &Identity, fingerprints: Vec<String>, client: bool, now: Instant) -> Handshake {
        let mut dtls = Dtls::new_12(identity.config.clone(), identity.certificate.clone(), now);
        dtls.set_active(client);
        Handshake { dtls, client, fingerprints, peer_is_known: false, buffer: vec![0; 2048], next_at: None }
    }

    /// Sends the first flight of a client, or repeats one whose time has come. The first call comes before any datagram.
    pub fn handle_timeout(&mut self, now: Instant, send: impl FnMut(&[u8])) -> Progress {
        if let Err(error) = self.dtls.handle_timeout(now) {
            return Progress::Failed(error.to_string());
        }
        self.drain(send)
    }

    pub fn receive(&mut self, datagram: &[u8], send: impl FnMut(&[u8])) -> Progress {
        if let Err(error) = self.dtls.handle_packet(datagram) {
            return Progress::Failed(error.to_string());
        }
        self.drain(send)
    }

    /// Says good-bye, as a browser does when its page goes.
    pub fn close(&mut self, send: impl FnMut(&[u8])) {
        if self.dtls.close().is_ok() {
            self.drain(send);
        }
    }

    fn drain(&mut self, mut send: impl FnMut(&[u8])) -> Progress {
        let mut progress = Progress::Going;
        loop {
            match self.dtls.poll_output(&mut self.buffer) {
                Output::Packet(datagram) => send(datagram),
                Output::BufferTooSmall { needed } => self.buffer.resize(needed, 0),
                Output::Timeout(at) => {
                    self.next_at = Some(at);
                    return progress;
                }
                Output::PeerCert(certificate) => {
                    let digest = digest::digest(&digest::SHA256, certificate);
                    let hex: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
                    let hex = hex.join(":");
                    self.peer_is_known = self.fingerprints.iter().any(|known| known.eq_ignore_ascii_case(&hex));
                }
                Output::KeyingMaterial(exported, profile) => {
                    if !self.peer_is_known {
                        progress = Progress::Failed("the server's certificate has another fingerprint".into());
                        continue;
                    }
                    progress = match srtp::contexts(profile, &exported, self.client) {
                        Some((send, receive)) => Progress::Keys {
                            profile: srtp::profile_name(profile),
                            send: Box::new(send),
                            receive: Box::new(receive),
                        },
                        None => Progress::Failed(format!("the server chose {profile}, which has no AEAD")),
                    };
                }
                Output::CloseNotify => progress = Progress::Closed,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_and_a_server_agree_on_keys_and_refuse_a_stranger() {
        for (fingerprint_is_right, expected) in [(true, true), (false, false)] {
            let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
            let now = Instant::now();
            let known = if fingerprint_is_right { two.fingerprint.clone() } else { one.fingerprint.clone() };
            let mut client = Handshake::new(&one, vec![known], true, now);
            let mut server = Handshake::new(&two, vec![one.fingerprint.clone()], false, now);
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            server.handle_timeout(now, |d| to_client.push(d.to_vec()));
            client.handle_timeout(now, |d| to_server.push(d.to_vec()));
            let mut has_keys = false;
            for _ in 0..20 {
                for datagram in std::mem::take(&mut to_server) {
                    server.receive(&datagram, |d| to_client.push(d.to_vec()));
                }
                for datagram in std::mem::take(&mut to_client) {
                    let progress = client.receive(&datagram, |d| to_server.push(d.to_vec()));
                    has_keys |= matches!(progress, Progress::Keys { .. });
                }
            }
            assert_eq!(has_keys, expected);
        }
    }
}
