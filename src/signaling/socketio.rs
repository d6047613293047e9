//! Socket.IO v4: a namespace per room, events as requests, acknowledgements as answers.
//!
//! The library does engine.io, both transports and the packets; here its events become requests to the [`Hub`]
//! and what the hub says becomes acknowledgements and events. A namespace that the library makes for a room stays for
//! ever unless it is deleted, so that this module counts who is in each and deletes it with the last.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, Event, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;
use socketioxide::service::SocketIoService;
use socketioxide::socket::Sid;
use socketioxide::{ParserConfig, SendError, SocketError, SocketIo};

use crate::limits;
use crate::signaling::admission::Claims;
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::hub::Hub;
use crate::signaling::message::Request;
use crate::signaling::outgoing::{Connection, Outgoing};
use crate::signaling::session::{CloseReason, ConnectionId};

/// Where engine.io is served.
pub const PATH: &str = "/socket.io";

const NAMESPACE: &str = "/room/";

/// A service that answers Socket.IO itself and leaves everything else to `inner`.
pub fn service<S: Clone>(hub: Hub, inner: S) -> SocketIoService<S> {
    let keep_alive = hub.config().keep_alive;
    let (service, io) = SocketIo::builder()
        .req_path(PATH)
        .max_payload(limits::MESSAGE_BYTES as u64)
        .ws_max_message_size(limits::MESSAGE_BYTES)
        .ws_max_frame_size(limits::MESSAGE_BYTES)
        .max_buffer_size(limits::OUTGOING_MESSAGES)
        .ping_interval(keep_alive)
        .ping_timeout(keep_alive)
        .connect_timeout(limits::HTTP_TIMEOUT)
        // The protocol has no binary data.
        .with_parser(ParserConfig::common().max_incoming_binaries(0).max_incoming_binary_buf_size(0))
        .build_with_inner_svc(inner);
    let framing = Framing { hub, io: io.clone(), lobby: Arc::default() };
    let admitting = framing.clone();
    let entered = move |socket: SocketRef| async move { framing.entered(socket) };
    let admit = move |socket: SocketRef, TryData(auth): TryData<Claims>| async move {
        admitting.admit(&socket, auth.map_err(|_| Failure::bad_request("auth is not an object of texts")))
    };
    let namespace = format!("{NAMESPACE}{{room}}");
    io.dyn_ns(namespace, entered.with(admit)).expect("the path of the namespace is well formed");
    service
}

#[derive(Clone)]
struct Framing {
    hub: Hub,
    io: SocketIo,
    lobby: Arc<Mutex<Lobby>>,
}

/// Who is on the way in or inside.
#[derive(Default)]
struct Lobby {
    /// Let in by the hub, not yet told so by the library.
    admitted: HashMap<(Sid, String), Connection>,
    namespaces: HashMap<String, usize>,
    /// Rooms that one engine.io connection is in.
    rooms: HashMap<Sid, usize>,
}

/// What a client reads as the message of its `connect_error`: the code.
struct Refused(Failure);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code.as_str())
    }
}

impl Framing {
    fn lobby(&self) -> MutexGuard<'_, Lobby> {
        self.lobby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the library says that the namespace is connected.
    fn admit(&self, socket: &SocketRef, auth: Result<Claims, Failure>) -> Result<(), Refused> {
        let (sid, namespace) = (socket.id, socket.ns().to_owned());
        self.arrive(sid, &namespace);
        let connection = self.connection(socket, auth, &namespace).inspect_err(|failure| {
            self.hub.count_close(CloseReason::Refused(failure.code));
            self.depart(sid, &namespace);
        });
        let id = connection.map_err(Refused).map(|connection| {
            let id = connection.id;
            self.lobby().admitted.insert((sid, namespace.clone()), connection);
            id
        })?;
        self.forget_if_it_never_enters(sid, namespace, id);
        Ok(())
    }

    fn connection(
        &self,
        socket: &SocketRef,
        auth: Result<Claims, Failure>,
        namespace: &str,
    ) -> Result<Connection, Failure> {
        if self.lobby().rooms.get(&socket.id).is_some_and(|rooms| *rooms > limits::ROOMS_PER_CONNECTION) {
            return Err(Failure::new(ErrorCode::TooMany, "rooms of one connection"));
        }
        let query = socket.req_parts().uri.query().map(Claims::from_query).unwrap_or_default();
        let room = namespace.strip_prefix(NAMESPACE).unwrap_or_default();
        self.hub.connect(auth?.or(query).hello(room, self.hub.config())?)
    }

    /// A transport that breaks between the two steps is reported to nobody.
    fn forget_if_it_never_enters(&self, sid: Sid, namespace: String, id: ConnectionId) {
        let framing = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(limits::CLOSE_TIMEOUT).await;
            let abandoned = framing.lobby().admitted.remove(&(sid, namespace.clone())).is_some();
            if abandoned {
                framing.hub.disconnect(id);
                framing.depart(sid, &namespace);
            }
        });
    }

    /// The client knows that it is connected: from here on it hears what the hub says, and is listened to.
    fn entered(&self, socket: SocketRef) {
        let (sid, namespace) = (socket.id, socket.ns().to_owned());
        let Some(connection) = self.lobby().admitted.remove(&(sid, namespace.clone())) else { return };
        let id = connection.id;
        let framing = self.clone();
        let left = namespace.clone();
        socket.on_disconnect(move || async move {
            framing.hub.disconnect(id);
            framing.depart(sid, &left);
        });
        let acks = Arc::new(Mutex::new(Acks::default()));
        let (hub, waiting) = (self.hub.clone(), acks.clone());
        socket.on_fallback(move |event: Event, arguments: TryData<Arguments>, ack: AckSender| async move {
            receive(&hub, id, &waiting, event, arguments, ack);
        });
        // The library may have lost it before there was a handler to tell, or deleted its namespace meanwhile.
        let known = self.io.of(&namespace).is_some_and(|room| room.sockets().iter().any(|other| other.id == sid));
        if !socket.connected() || !known {
            self.hub.disconnect(id);
            let _ = socket.disconnect();
            return self.depart(sid, &namespace);
        }
        tokio::spawn(send(self.hub.clone(), socket, connection, acks));
    }

    fn arrive(&self, sid: Sid, namespace: &str) {
        let mut lobby = self.lobby();
        *lobby.namespaces.entry(namespace.to_owned()).or_default() += 1;
        *lobby.rooms.entry(sid).or_default() += 1;
    }

    fn depart(&self, sid: Sid, namespace: &str) {
        let mut lobby = self.lobby();
        let empty = one_less(&mut lobby.namespaces, namespace);
        one_less(&mut lobby.rooms, &sid);
        drop(lobby);
        if empty {
            self.io.delete_ns(namespace);
        }
    }
}

/// `true` for the last one, which goes.
fn one_less<K, Q>(counts: &mut HashMap<K, usize>, key: &Q) -> bool
where
    K: std::borrow::Borrow<Q> + Eq + std::hash::Hash,
    Q: Eq + std::hash::Hash + ?Sized,
{
    let Some(count) = counts.get_mut(key) else { return false };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
        return true;
    }
    false
}

/// Acknowledgements that wait for their answer, by the serial under which the hub knows the request. Each keeps
/// the socket alive, whose handlers keep them alive: whoever ends the connection ends them.
#[derive(Default)]
struct Acks {
    last: u64,
    waiting: HashMap<u64, AckSender>,
    over: bool,
}

fn receive(
    hub: &Hub,
    id: ConnectionId,
    acks: &Mutex<Acks>,
    Event(method): Event,
    TryData(arguments): TryData<Arguments>,
    ack: AckSender,
) {
    let mut guard = acks.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.over {
        return;
    }
    guard.last += 1;
    let serial = guard.last;
    guard.waiting.insert(serial, ack);
    drop(guard);
    match arguments {
        Ok(Arguments(data)) => hub.request(id, serial, Request { method, data }),
        Err(_) => hub.malformed(id, Some(serial), "the event's first argument is not JSON"),
    }
}

/// Tells the client what the hub says, until one of them has enough.
async fn send(hub: Hub, socket: SocketRef, mut connection: Connection, acks: Arc<Mutex<Acks>>) {
    let cut = connection.cut.clone();
    let mut goes_down = false;
    loop {
        let message = tokio::select! {
            biased;
            () = cut.notified() => break,
            message = connection.next() => message,
        };
        let sent = match message {
            Some(Outgoing::Notification(notification)) => socket.emit(notification.method, &*notification.data),
            Some(Outgoing::Response { serial, result }) => {
                let ack =
                    acks.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&serial.unwrap_or_default());
                ack.map_or(Ok(()), |ack| ack.send(&acknowledgement(result)))
            }
            Some(Outgoing::Close(reason)) => {
                goes_down = reason == CloseReason::GoingDown;
                break;
            }
            None => break,
        };
        if let Err(error) = sent {
            if let SendError::Socket(SocketError::InternalChannelFull) = error {
                hub.count_close(CloseReason::Slow);
            }
            break;
        }
    }
    hub.disconnect(connection.id);
    *acks.lock().unwrap_or_else(PoisonError::into_inner) = Acks { over: true, ..Acks::default() };
    // A client that is disconnected by the server stays away; one whose transport breaks, as it does when the process
    // ends, tries again, which is what it is to do when the server comes back.
    if !goes_down {
        let _ = socket.disconnect();
    }
}

fn acknowledgement(result: Result<Value, Failure>) -> Value {
    match result {
        Ok(data) => data,
        Err(failure) => {
            let mut error = json!({ "code": failure.code, "message": failure.code.sentence() });
            if let Some(detail) = failure.detail {
                error["detail"] = json!(detail);
            }
            json!({ "error": error })
        }
    }
}

/// The first argument of an event, or nothing; further ones are ignored.
#[derive(Debug)]
struct Arguments(Value);

impl<'de> Deserialize<'de> for Arguments {
    /// As a tuple, which the library takes for the whole list of arguments.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(1, FirstOrNothing)
    }
}

struct FirstOrNothing;

impl<'de> Visitor<'de> for FirstOrNothing {
    type Value = Arguments;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of arguments")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut arguments: A) -> Result<Arguments, A::Error> {
        let first = arguments.next_element::<Value>()?.unwrap_or_default();
        while arguments.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Arguments(first))
    }
}
