//! What a connection is still to be told: a queue between the hub and a framing's writer, bounded in messages
//! and in bytes.
//!
//! The hub never waits for a client. A full queue means one that does not read; it is given up, because after a
//! missed message it could no longer be trusted to know the room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::sync::Notify;

use crate::limits;
use crate::signaling::error::Failure;
use crate::signaling::notification::Notification;
use crate::signaling::queue::{Receiver, Refused, Sender, queue};
use crate::signaling::session::{CloseReason, ConnectionId};

/// One message, in the order in which it is to be told.
#[derive(Debug)]
pub enum Outgoing {
    Response {
        serial: Option<u64>,
        result: Result<Value, Failure>,
    },
    Notification(Notification),
    /// The last thing.
    Close(CloseReason),
}

/// The hub's end.
pub struct Sink {
    queue: Sender<(usize, Outgoing)>,
    waiting_bytes: Arc<AtomicUsize>,
    cut: Arc<Notify>,
}

/// The framing's end of a connection.
pub struct Connection {
    pub id: ConnectionId,
    queue: Receiver<(usize, Outgoing)>,
    waiting_bytes: Arc<AtomicUsize>,
    /// Fires when the client is given up.
    pub cut: Arc<Notify>,
}

/// The client does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

pub fn connection(id: ConnectionId) -> (Sink, Connection) {
    let (sender, receiver) = queue(limits::OUTGOING_MESSAGES);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let cut = Arc::new(Notify::new());
    let sink = Sink { queue: sender, waiting_bytes: waiting_bytes.clone(), cut: cut.clone() };
    (sink, Connection { id, queue: receiver, waiting_bytes, cut })
}

impl Sink {
    /// A framing that has stopped listening is about to say so itself; what it is told is lost.
    pub fn push(&self, message: Outgoing) -> Result<(), Full> {
        let bytes = message.bytes();
        if self.waiting_bytes.load(Ordering::Relaxed) + bytes > limits::OUTGOING_BYTES {
            return Err(Full);
        }
        match self.queue.send((bytes, message)) {
            Ok(()) => {
                self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(Refused::Closed) => Ok(()),
            Err(Refused::Full) => Err(Full),
        }
    }

    /// Ends the connection without another word.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

impl Connection {
    /// `None` when the hub has let go of the connection.
    pub async fn next(&mut self) -> Option<Outgoing> {
        let (bytes, message) = self.queue.next().await?;
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(message)
    }
}

impl Outgoing {
    /// About what it occupies while it waits.
    fn bytes(&self) -> usize {
        match self {
            Outgoing::Response { result: Ok(value), .. } => size_of::<Outgoing>() + heap_bytes(value),
            // Shared with everybody else who hears it.
            Outgoing::Response { result: Err(_), .. } | Outgoing::Notification(_) | Outgoing::Close(_) => {
                size_of::<Outgoing>()
            }
        }
    }
}

fn heap_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(|item| size_of::<Value>() + heap_bytes(item)).sum(),
        Value::Object(fields) => {
            // A field has its name, its value and its place in the index.
            const FIELD: usize = size_of::<String>() + size_of::<Value>() + 2 * size_of::<usize>();
            fields.iter().map(|(name, value)| FIELD + name.len() + heap_bytes(value)).sum()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(bytes: usize) -> Outgoing {
        Outgoing::Response { serial: None, result: Ok(json!("x".repeat(bytes))) }
    }

    #[test]
    fn a_queue_is_full_at_its_bound_of_messages() {
        let (sink, _connection) = connection(ConnectionId(1));
        let pushed = (0..).take_while(|_| sink.push(Outgoing::Close(CloseReason::Left)).is_ok()).count();
        assert_eq!(pushed, limits::OUTGOING_MESSAGES);
    }

    #[test]
    fn a_queue_is_full_at_its_bound_of_bytes_until_something_is_read() {
        let (sink, mut connection) = connection(ConnectionId(1));
        let size = limits::OUTGOING_BYTES / 4;
        let pushed = (0..100).take_while(|_| sink.push(answer(size)).is_ok()).count();
        assert_eq!(pushed, 3);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(connection.next()).is_some());
        assert_eq!(sink.push(answer(size)), Ok(()));
        assert_eq!(sink.push(answer(size)), Err(Full));
    }

    #[test]
    fn what_an_answer_occupies_grows_with_all_of_its_parts() {
        let small = heap_bytes(&json!({"a": [1, 2, 3]}));
        assert!(heap_bytes(&json!({"a": [1, 2, 3, "four"]})) > small + 4);
        assert!(heap_bytes(&json!({"a": [1, 2, 3], "bcd": null})) > small + 3);
    }
}
