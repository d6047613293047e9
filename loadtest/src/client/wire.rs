//! One WebSocket without blocking: text frames in and out, for whichever protocol runs over it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tungstenite::client::ClientRequestBuilder;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::{Message, WebSocket};

/// Texts that one call to [`Wire::receive`] returns, so that signaling never holds up media.
const TEXTS_AT_ONCE: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

pub struct Wire {
    state: State,
    /// The owner knows that it is open.
    announced: bool,
}

enum State {
    Opening(MidHandshake<ClientHandshake<TcpStream>>),
    Open(Box<WebSocket<TcpStream>>),
    Closed,
}

#[derive(Debug, Default)]
pub struct Heard {
    /// The connection is open, said once.
    pub opened: bool,
    pub texts: Vec<String>,
    /// More may be waiting.
    pub more: bool,
    /// Why the connection ended.
    pub closed: Option<String>,
}

impl Wire {
    /// Begins a connection; `path` has the query too.
    pub fn connect(server: SocketAddr, path: &str, protocol: &str) -> anyhow::Result<Wire> {
        let stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)
            .with_context(|| format!("nothing answers on {server}: is the server running?"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let request = ClientRequestBuilder::new(format!("ws://{server}{path}").parse()?).with_sub_protocol(protocol);
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Wire { state: State::Open(Box::new(socket)), announced: false }),
            Err(HandshakeError::Interrupted(middle)) => Ok(Wire { state: State::Opening(middle), announced: false }),
            Err(HandshakeError::Failure(error)) => Err(anyhow!("WebSocket refused: {error}")),
        }
    }

    /// The socket to watch.
    pub fn stream(&self) -> Option<&TcpStream> {
        match &self.state {
            State::Opening(middle) => Some(middle.get_ref().get_ref()),
            State::Open(socket) => Some(socket.get_ref()),
            State::Closed => None,
        }
    }

    /// Goes on with whatever the socket is ready for.
    pub fn receive(&mut self) -> Heard {
        let mut heard = Heard::default();
        if let State::Opening(_) = self.state {
            let State::Opening(middle) = std::mem::replace(&mut self.state, State::Closed) else { unreachable!() };
            match middle.handshake() {
                Ok((socket, _)) => {
                    self.state = State::Open(Box::new(socket));
                }
                Err(HandshakeError::Interrupted(middle)) => {
                    self.state = State::Opening(middle);
                    return heard;
                }
                Err(HandshakeError::Failure(error)) => {
                    heard.closed = Some(format!("WebSocket refused: {error}"));
                    return heard;
                }
            }
        }
        let State::Open(socket) = &mut self.state else { return heard };
        // A quick server may have answered within `connect` already.
        heard.opened = !std::mem::replace(&mut self.announced, true);
        while heard.texts.len() < TEXTS_AT_ONCE {
            match socket.read() {
                Ok(Message::Text(text)) => heard.texts.push(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => {
                    heard.closed = Some(frame.map_or_else(|| "closed".into(), |frame| frame.to_string()));
                    self.state = State::Closed;
                    return heard;
                }
                Ok(_) => {}
                Err(error) if would_block(&error) => {
                    flush(socket);
                    return heard;
                }
                Err(error) => {
                    heard.closed = Some(error.to_string());
                    self.state = State::Closed;
                    return heard;
                }
            }
        }
        heard.more = true;
        heard
    }

    /// Sends a text, or keeps it until the socket takes it.
    pub fn send(&mut self, text: String) {
        if let State::Open(socket) = &mut self.state {
            // An error shows up at the next read.
            let _ = socket.write(Message::text(text));
            flush(socket);
        }
    }

    pub fn close(&mut self) {
        if let State::Open(socket) = &mut self.state {
            let _ = socket.close(None);
            flush(socket);
        }
        self.state = State::Closed;
    }
}

/// What the socket does not take stays in its buffer for the next readiness.
fn flush(socket: &mut WebSocket<TcpStream>) {
    let _ = socket.flush();
}

fn would_block(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}
