//! `create-transport`, `connect-transport`, `restart-ice`, `close-transport`.

use std::net::IpAddr;
use std::time::Instant;

use serde_json::{Value, json};

use super::waiting::{Asker, Then};
use super::{Control, WorkerFacts};
use crate::ids::{PeerId, TransportId};
use crate::shard::command::{Command, Direction, Fingerprint, FingerprintHash, Reply};
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::message::{ConnectTransport, CreateTransport};
use crate::signaling::registry::Transport;

impl Control {
    pub(super) fn create_transport(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        body: CreateTransport,
    ) -> Result<Option<Value>, Failure> {
        let owned = self.registry.peers.get(&peer).ok_or(ErrorCode::NotFound)?.transports.len();
        if owned >= self.config.transports_per_peer {
            return Err(Failure::new(ErrorCode::TooMany, "transports of this peer"));
        }
        let transport = self.registry.add_transport(peer, body.direction);
        let then = Then::TransportCreated(transport);
        let asked = self.ask_for_transport(now, peer, asker, transport, body.direction, then);
        if asked.is_err() {
            self.registry.remove_transport(transport);
        }
        asked
    }

    pub(super) fn ask_for_transport(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        transport: TransportId,
        direction: Direction,
        then: Then,
    ) -> Result<Option<Value>, Failure> {
        let room = self.registry.peers.get(&peer).ok_or(ErrorCode::NotFound)?.room;
        let worker = self.worker_of(peer)?;
        self.ask(now, asker, worker, then, |token| Command::CreateTransport { token, room, peer, transport, direction })
    }

    /// What the client needs to build its end.
    pub(super) fn transport_created(
        &mut self,
        id: TransportId,
        result: Result<Reply, Failure>,
    ) -> Result<Value, Failure> {
        let made = match result {
            Ok(Reply::TransportCreated { ufrag, password, local }) => (ufrag, password, local),
            Ok(_) => return Err(ErrorCode::Internal.into()),
            Err(failure) => {
                self.give_up_transport(id, &failure);
                return Err(failure);
            }
        };
        let transport = self.registry.transports.get_mut(&id).ok_or(ErrorCode::NotFound)?;
        transport.ready = true;
        let peer = transport.peer;
        let facts = &self.workers[self.worker_of(peer)?];
        let mut options = transport_options(id, &made.0, &made.1, facts, made.2, &self.config.announced);
        if let Some(ice_servers) = &self.config.ice_servers {
            options["iceServers"] = ice_servers.clone();
        }
        Ok(options)
    }

    /// A worker that was asked and did not answer in time may have the transport all the same.
    fn give_up_transport(&mut self, id: TransportId, failure: &Failure) {
        let worker = self.registry.transports.get(&id).and_then(|entry| self.registry.worker_of(entry.peer));
        self.registry.remove_transport(id);
        if let Some(worker) = worker.filter(|_| failure.code == ErrorCode::Internal) {
            self.command(worker, Command::CloseTransport { transport: id });
        }
    }

    pub(super) fn connect_transport(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        body: ConnectTransport,
    ) -> Result<Option<Value>, Failure> {
        let transport = body.transport_id;
        self.own_transport(peer, transport)?;
        let fingerprints = body.dtls_parameters.fingerprints()?;
        let role = body.dtls_parameters.role();
        let worker = self.worker_of(peer)?;
        self.ask(now, asker, worker, Then::Answered, |token| Command::ConnectTransport {
            token,
            transport,
            role,
            fingerprints,
        })
    }

    pub(super) fn restart_ice(
        &mut self,
        now: Instant,
        peer: PeerId,
        asker: Asker,
        transport: TransportId,
    ) -> Result<Option<Value>, Failure> {
        self.own_transport(peer, transport)?;
        let worker = self.worker_of(peer)?;
        self.ask(now, asker, worker, Then::IceRestarted, |token| Command::RestartIce { token, transport })
    }

    pub(super) fn close_transport(&mut self, peer: PeerId, id: TransportId) -> Result<Option<Value>, Failure> {
        self.own_transport(peer, id)?;
        let worker = self.worker_of(peer)?;
        self.command(worker, Command::CloseTransport { transport: id });
        self.drop_transport(peer, id, Some(peer));
        Ok(Some(json!({})))
    }

    /// Takes it out of the registry and tells everybody but `by`.
    pub(super) fn drop_transport(&mut self, owner: PeerId, id: TransportId, by: Option<PeerId>) {
        let closed = self.registry.remove_transport(id);
        if let Some(peer) = self.registry.peers.get(&owner) {
            let (room, name) = (peer.room, peer.name.clone());
            self.tell_closed(room, by, &name, &closed);
        }
    }

    /// `not-found` for an id that nobody has, `forbidden` for one that another peer has.
    pub(super) fn own_transport(&self, peer: PeerId, id: TransportId) -> Result<&Transport, Failure> {
        let transport = self.registry.transports.get(&id).ok_or(Failure::new(ErrorCode::NotFound, "transportId"))?;
        if transport.peer != peer {
            return Err(Failure::new(ErrorCode::Forbidden, "this transport is another peer's"));
        }
        Ok(transport)
    }

    /// As [`own_transport`](Self::own_transport), and of this direction.
    pub(super) fn own_transport_for(&self, peer: PeerId, id: TransportId, direction: Direction) -> Result<(), Failure> {
        if self.own_transport(peer, id)?.direction != direction {
            let detail = match direction {
                Direction::Send => "transportId: a producer needs a transport of direction send",
                Direction::Recv => "transportId: a consumer needs a transport of direction recv",
            };
            return Err(Failure::bad_request(detail));
        }
        Ok(())
    }

    pub(super) fn worker_of(&self, peer: PeerId) -> Result<usize, Failure> {
        self.registry.worker_of(peer).ok_or(ErrorCode::NotFound.into())
    }
}

pub(super) fn ice_restarted(result: Result<Reply, Failure>) -> Result<Value, Failure> {
    match result? {
        Reply::IceRestarted { ufrag, password } => Ok(json!({ "iceParameters": ice_parameters(&ufrag, &password) })),
        _ => Err(ErrorCode::Internal.into()),
    }
}

/// The transport options of mediasoup-client, without data channels.
fn transport_options(
    id: TransportId,
    ufrag: &str,
    password: &str,
    worker: &WorkerFacts,
    local: u8,
    announced: &[IpAddr],
) -> Value {
    let port = worker.ports.get(usize::from(local)).copied().unwrap_or_default();
    let candidates: Vec<Value> =
        announced.iter().enumerate().map(|(index, address)| candidate(index, *address, port)).collect();
    let fingerprints: Vec<Value> = worker.fingerprints.iter().map(fingerprint).collect();
    json!({
        "id": id,
        "iceParameters": ice_parameters(ufrag, password),
        "iceCandidates": candidates,
        "dtlsParameters": { "role": "auto", "fingerprints": fingerprints },
    })
}

fn ice_parameters(ufrag: &str, password: &str) -> Value {
    json!({ "usernameFragment": ufrag, "password": password, "iceLite": true })
}

/// `address` for current clients, `ip` for older ones. The priority is that of a host candidate (RFC 8445
/// section 5.1.2.1) with mediasoup's local preference, less for each further address.
fn candidate(index: usize, address: IpAddr, port: u16) -> Value {
    const HOST_PREFERENCE: u32 = 64;
    const LOCAL_PREFERENCE: u32 = 10_000;
    let local = LOCAL_PREFERENCE.saturating_sub(index as u32);
    let foundation = if index == 0 { "udpcandidate".to_owned() } else { format!("udpcandidate{index}") };
    json!({
        "foundation": foundation,
        "priority": (HOST_PREFERENCE << 24) + (local << 8) + 255,
        "address": address,
        "ip": address,
        "protocol": "udp",
        "port": port,
        "type": "host",
    })
}

fn fingerprint(fingerprint: &Fingerprint) -> Value {
    let algorithm = match fingerprint.hash {
        FingerprintHash::Sha256 => "sha-256",
        FingerprintHash::Sha384 => "sha-384",
        FingerprintHash::Sha512 => "sha-512",
    };
    let bytes: Vec<String> = fingerprint.value.iter().map(|byte| format!("{byte:02X}")).collect();
    json!({ "algorithm": algorithm, "value": bytes.join(":") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_candidate_is_as_mediasoup_writes_it() {
        let written = candidate(0, IpAddr::V4(Ipv4Addr::LOCALHOST), 10_000);
        let expected = json!({"foundation": "udpcandidate", "priority": 1076302079, "address": "127.0.0.1",
            "ip": "127.0.0.1", "protocol": "udp", "port": 10000, "type": "host"});
        assert_eq!(written, expected);
    }

    #[test]
    fn the_first_announced_address_is_preferred() {
        let priority = |index| candidate(index, IpAddr::V4(Ipv4Addr::LOCALHOST), 1)["priority"].as_u64().unwrap();
        assert!(priority(0) > priority(1) && priority(1) > priority(2));
    }
}
