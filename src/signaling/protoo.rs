//! protoo over WebSocket (RFC 6455): one reader and one writer per connection, JSON frames in between.
//!
//! `{request,id,method,data}` is answered by `{response,id,ok,data}` or `{response,id,ok:false,errorCode,
//! errorReason}`; `{notification,method,data}` goes the other way. The HTTP side calls [`serve`] with an upgraded
//! connection; everything that the frames mean happens behind the [`Hub`]. A frame is read by a task of its own,
//! because the library's `read_frame` must not be cancelled halfway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastwebsockets::{
    Frame, OpCode, Payload, Role, WebSocketError, WebSocketRead, WebSocketWrite, after_handshake_split,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::limits;
use crate::signaling::error::Failure;
use crate::signaling::hub::Hub;
use crate::signaling::message::Request;
use crate::signaling::notification::Notification;
use crate::signaling::outgoing::{Connection, Outgoing};
use crate::signaling::queue::{Receiver, Sender, queue};
use crate::signaling::session::{CloseReason, ConnectionId, Hello};

/// Pongs and a close frame that wait for the writer. Full: a flood of pings, which needs no answer.
const CONTROL_FRAMES: usize = 8;

/// Serves a connection from its handshake to its end. A client that is not let in is told why by the close frame:
/// a browser does not show a script the status of a refused handshake.
pub async fn serve<S>(hub: Hub, stream: S, admitted: Result<Hello, Failure>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut read, write) = tokio::io::split(stream);
    let connection = match admitted.and_then(|hello| hub.connect(hello)) {
        Ok(connection) => connection,
        Err(failure) => {
            let reason = CloseReason::Refused(failure.code);
            hub.count_close(reason);
            let (_, mut writer) = after_handshake_split(tokio::io::empty(), write, Role::Server);
            let _ = timeout(limits::CLOSE_TIMEOUT, writer.write_frame(close_frame(reason))).await;
            return until_closed(&mut read).await;
        }
    };
    let id = connection.id;
    let heard = Arc::new(AtomicBool::new(true));
    let (control, control_frames) = queue(CONTROL_FRAMES);
    let reader = Reader { hub: hub.clone(), id, heard: heard.clone(), control, message: Vec::new(), fragmented: false };
    let mut reading = tokio::spawn(async move {
        let (frames, _) = after_handshake_split(&mut read, tokio::io::sink(), Role::Server);
        reader.read(frames).await;
        // What is still in the pipe has to be read, or the client's system throws our close frame away.
        until_closed(&mut read).await;
    });
    let (_, mut frames) = after_handshake_split(tokio::io::empty(), write, Role::Server);
    // The library would keep a buffer of the largest text up to 1 kB, to join it to its header.
    frames.set_writev_threshold(0);
    let writer = Writer { hub: hub.clone(), frames, connection, control_frames, heard };
    let end = writer.write().await;
    hub.disconnect(id);
    if end == End::Told {
        let _ = timeout(limits::CLOSE_TIMEOUT, &mut reading).await;
    }
    reading.abort();
}

/// Reads and forgets until the other end closes, for a bounded time.
async fn until_closed(read: &mut (impl AsyncRead + Unpin)) {
    let mut scrap = vec![0; 16 * 1024];
    let drained = async { while read.read(&mut scrap).await.is_ok_and(|count| count > 0) {} };
    let _ = timeout(limits::CLOSE_TIMEOUT, drained).await;
}

// ---- reading

struct Reader {
    hub: Hub,
    id: ConnectionId,
    /// Set by every frame, cleared by the writer's clock.
    heard: Arc<AtomicBool>,
    control: Sender<Frame<'static>>,
    /// The text so far of a message in fragments.
    message: Vec<u8>,
    fragmented: bool,
}

/// What a frame makes the reader do.
enum Next {
    Go,
    Stop,
}

impl Reader {
    /// Until the connection is over or has to be closed.
    async fn read<R: AsyncRead + Unpin>(mut self, mut frames: WebSocketRead<R>) {
        frames.set_auto_close(false);
        frames.set_auto_pong(false);
        // The library takes only less than this.
        frames.set_max_message_size(limits::MESSAGE_BYTES + 1);
        loop {
            let nothing_to_send = &mut |_| async { Ok::<(), std::io::Error>(()) };
            let next = match frames.read_frame(nothing_to_send).await {
                Ok(frame) => {
                    self.heard.store(true, Ordering::Relaxed);
                    self.frame(frame)
                }
                Err(WebSocketError::FrameTooLarge) => self.close(CloseReason::TooLarge),
                Err(WebSocketError::UnexpectedEOF | WebSocketError::IoError(_) | WebSocketError::ConnectionClosed) => {
                    self.hub.disconnect(self.id);
                    Next::Stop
                }
                Err(_) => self.close(CloseReason::Violation),
            };
            if let Next::Stop = next {
                return;
            }
        }
    }

    fn close(&self, reason: CloseReason) -> Next {
        self.hub.close(self.id, reason);
        Next::Stop
    }

    fn frame(&mut self, frame: Frame<'_>) -> Next {
        match frame.opcode {
            OpCode::Text if self.fragmented => self.close(CloseReason::Violation),
            OpCode::Text if frame.fin => self.text(&frame.payload),
            OpCode::Text => {
                self.fragmented = true;
                self.fragment(&frame)
            }
            OpCode::Continuation if !self.fragmented => self.close(CloseReason::Violation),
            OpCode::Continuation => self.fragment(&frame),
            OpCode::Binary => {
                self.hub.malformed(self.id, None, "a frame has to be text");
                // The fragments of a binary message would follow.
                if frame.fin { Next::Go } else { self.close(CloseReason::Violation) }
            }
            OpCode::Ping => {
                self.hub.idle_frame(self.id);
                let _ = self.control.send(Frame::pong(Payload::Owned(frame.payload.to_vec())));
                Next::Go
            }
            OpCode::Pong => {
                self.hub.idle_frame(self.id);
                Next::Go
            }
            OpCode::Close => {
                let _ = self.control.send(Frame::close_raw(Payload::Owned(echoed_code(&frame.payload))));
                Next::Stop
            }
        }
    }

    /// The library bounds a frame; the sum of a message's frames is bounded here.
    fn fragment(&mut self, frame: &Frame<'_>) -> Next {
        if self.message.len() + frame.payload.len() > limits::MESSAGE_BYTES {
            return self.close(CloseReason::TooLarge);
        }
        self.message.extend_from_slice(&frame.payload);
        if !frame.fin {
            self.hub.idle_frame(self.id);
            return Next::Go;
        }
        self.fragmented = false;
        let message = std::mem::take(&mut self.message);
        self.text(&message)
    }

    fn text(&mut self, bytes: &[u8]) -> Next {
        let Ok(text) = std::str::from_utf8(bytes) else { return self.close(CloseReason::Violation) };
        match parse(text) {
            Incoming::Request(serial, request) => self.hub.request(self.id, serial, request),
            Incoming::Idle => self.hub.idle_frame(self.id),
            Incoming::Malformed(serial, detail) => self.hub.malformed(self.id, serial, detail),
        }
        Next::Go
    }
}

/// The code alone; a payload of one byte is none (RFC 6455 section 5.5.1).
fn echoed_code(payload: &[u8]) -> Vec<u8> {
    payload.get(..2).unwrap_or_default().to_vec()
}

/// What a text frame turns out to be.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Request(u64, Request),
    /// A notification or a response: the protocol has none from clients.
    Idle,
    Malformed(Option<u64>, &'static str),
}

pub(super) fn parse(text: &str) -> Incoming {
    let Ok(mut frame) = serde_json::from_str::<Value>(text) else {
        return Incoming::Malformed(None, "the frame is not JSON");
    };
    let is = |name: &str| frame.get(name) == Some(&Value::Bool(true));
    let serial = frame.get("id").and_then(Value::as_u64);
    if is("notification") || is("response") {
        return Incoming::Idle;
    }
    if !is("request") {
        return Incoming::Malformed(serial, "the frame is neither request, response nor notification");
    }
    let Some(serial) = serial else {
        return Incoming::Malformed(None, "id has to be a whole number");
    };
    let Some(method) = frame.get("method").and_then(Value::as_str).map(str::to_owned) else {
        return Incoming::Malformed(Some(serial), "method has to be text");
    };
    let data = frame.get_mut("data").map(Value::take).unwrap_or_default();
    Incoming::Request(serial, Request { method, data })
}

// ---- writing

struct Writer<W> {
    hub: Hub,
    frames: WebSocketWrite<W>,
    connection: Connection,
    control_frames: Receiver<Frame<'static>>,
    heard: Arc<AtomicBool>,
}

/// How writing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client was told and may answer.
    Told,
    /// It cannot be told anything any more.
    Abrupt,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    async fn write(mut self) -> End {
        let period = self.hub.config().keep_alive;
        let mut clock = interval_at(Instant::now() + period, period);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cut = self.connection.cut.clone();
        let mut silent_periods = 0;
        loop {
            let frame = tokio::select! {
                biased;
                () = cut.notified() => return End::Abrupt,
                message = self.connection.next() => match message {
                    Some(Outgoing::Close(reason)) => {
                        let told = self.send(close_frame(reason), limits::CLOSE_TIMEOUT).await;
                        return if told { End::Told } else { End::Abrupt };
                    }
                    Some(message) => text_frame(&message),
                    None => return End::Abrupt,
                },
                Some(frame) = self.control_frames.next() => frame,
                _ = clock.tick() => match self.heard.swap(false, Ordering::Relaxed) {
                    true => { silent_periods = 0; continue }
                    false if silent_periods == 0 => { silent_periods = 1; Frame::new(true, OpCode::Ping, None, Payload::Borrowed(b"")) }
                    false => {
                        self.hub.count_close(CloseReason::Silent);
                        return End::Abrupt;
                    }
                },
            };
            let is_close = frame.opcode == OpCode::Close;
            let sent = tokio::select! {
                sent = self.send(frame, 2 * period) => sent,
                () = cut.notified() => return End::Abrupt,
            };
            if is_close {
                return End::Told;
            }
            if !sent {
                self.hub.count_close(CloseReason::Slow);
                return End::Abrupt;
            }
        }
    }

    async fn send(&mut self, frame: Frame<'_>, patience: Duration) -> bool {
        let sent = async {
            self.frames.write_frame(frame).await?;
            self.frames.flush().await
        };
        timeout(patience, sent).await.is_ok_and(|sent| sent.is_ok())
    }
}

fn text_frame(message: &Outgoing) -> Frame<'static> {
    let frame = match message {
        Outgoing::Notification(Notification { method, data }) => {
            json!({ "notification": true, "method": method, "data": data })
        }
        Outgoing::Response { serial, result } => response(*serial, result),
        Outgoing::Close(_) => Value::Null,
    };
    Frame::text(Payload::Owned(frame.to_string().into_bytes()))
}

fn response(serial: Option<u64>, result: &Result<Value, Failure>) -> Value {
    let mut frame = json!({ "response": true });
    if let Some(serial) = serial {
        frame["id"] = json!(serial);
    }
    frame["ok"] = json!(result.is_ok());
    match result {
        Ok(data) => frame["data"] = data.clone(),
        Err(failure) => {
            frame["errorCode"] = json!(failure.code);
            frame["errorReason"] = json!(failure.code.sentence());
            if let Some(detail) = &failure.detail {
                frame["errorDetail"] = json!(detail);
            }
        }
    }
    frame
}

fn close_frame(reason: CloseReason) -> Frame<'static> {
    Frame::close(reason.code(), reason.text().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_and_without_data() {
        let request = |data| Incoming::Request(7, Request { method: "leave".to_owned(), data });
        assert_eq!(parse(r#"{"request":true,"id":7,"method":"leave","data":{"a":1}}"#), request(json!({"a": 1})));
        assert_eq!(parse(r#"{"request":true,"id":7,"method":"leave"}"#), request(Value::Null));
    }

    #[test]
    fn a_frame_that_is_no_request_is_told_with_the_id_that_it_carried() {
        for (text, serial) in [
            ("", None),
            ("{", None),
            ("[]", None),
            ("7", None),
            ("null", None),
            (r#"{"id":3}"#, Some(3)),
            (r#"{"request":"yes","id":3}"#, Some(3)),
            (r#"{"request":true}"#, None),
            (r#"{"request":true,"id":"3","method":"leave"}"#, None),
            (r#"{"request":true,"id":-3,"method":"leave"}"#, None),
            (r#"{"request":true,"id":3.5,"method":"leave"}"#, None),
            (r#"{"request":true,"id":3}"#, Some(3)),
            (r#"{"request":true,"id":3,"method":9}"#, Some(3)),
        ] {
            assert!(matches!(parse(text), Incoming::Malformed(told, _) if told == serial), "{text}");
        }
        assert_eq!(parse(r#"{"notification":true,"method":"x","data":{}}"#), Incoming::Idle);
        assert_eq!(parse(r#"{"response":true,"id":1,"ok":true}"#), Incoming::Idle);
    }

    #[test]
    fn json_that_is_nested_too_deeply_is_refused() {
        let deep = format!(r#"{{"request":true,"id":1,"method":"x","data":{}{}}}"#, "[".repeat(9000), "]".repeat(9000));
        assert_eq!(parse(&deep), Incoming::Malformed(None, "the frame is not JSON"));
    }

    #[test]
    fn answers_are_written_as_protoo_has_them() {
        let good = response(Some(4), &Ok(json!({"id": "x"})));
        assert_eq!(good, json!({"response": true, "id": 4, "ok": true, "data": {"id": "x"}}));
        let bad = response(Some(4), &Err(Failure::bad_request("kind")));
        let expected = json!({"response": true, "id": 4, "ok": false, "errorCode": "bad-request",
            "errorReason": "The request is not well formed.", "errorDetail": "kind"});
        assert_eq!(bad, expected);
        assert!(response(None, &Ok(json!({}))).get("id").is_none());
    }
}
