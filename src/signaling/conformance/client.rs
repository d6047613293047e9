//! Clients written from the protocols' texts, not from the server's code: protoo over a foreign WebSocket library,
//! Socket.IO over the same and over plain HTTP, and HTTP itself.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::{PATIENCE, json};

/// An answer to a plain request.
#[derive(Debug)]
pub struct Http {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Http {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        json(&self.body)
    }
}

pub fn open(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn http(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Http {
    let mut stream = open(address);
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).unwrap();
    read_answer(&mut stream)
}

/// Until the server closes.
pub fn read_answer(stream: &mut TcpStream) -> Http {
    let mut bytes = Vec::new();
    // A reset after the answer is an end, too.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("an HTTP answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    let mut answer = Http { status, headers, body: body.to_owned() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = dechunked(body);
    }
    answer
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole += &rest[..size];
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// Which way a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Protoo,
    SocketIo,
    SocketIoPolling,
}

impl Framing {
    pub const ALL: [Framing; 3] = [Framing::Protoo, Framing::SocketIo, Framing::SocketIoPolling];

    /// Enters a room, or tells the code with which it was refused.
    pub fn try_enter(self, address: SocketAddr, room: &str, claims: &[(&str, &str)]) -> Result<Client, String> {
        let mut client = match self {
            Framing::Protoo => Client::protoo(address, room, claims),
            Framing::SocketIo | Framing::SocketIoPolling => Client::socket_io(self, address, room, claims)?,
        };
        client.expect_welcome()?;
        Ok(client)
    }

    #[track_caller]
    pub fn enter(self, address: SocketAddr, room: &str, peer: &str) -> Client {
        self.try_enter(address, room, &[("peerId", peer)]).unwrap()
    }
}

/// A peer on the other side of a socket.
pub struct Client {
    link: Link,
    namespace: String,
    last: u64,
    pub welcome: Value,
    heard: VecDeque<(String, Value)>,
    answers: Vec<(u64, Result<Value, Value>)>,
}

enum Link {
    Protoo(WebSocket<TcpStream>),
    EngineWebSocket(WebSocket<TcpStream>),
    EnginePolling { address: SocketAddr, path: String, received: VecDeque<String> },
}

pub fn web_socket(address: SocketAddr, path: &str, protocol: Option<&str>) -> WebSocket<TcpStream> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    if let Some(protocol) = protocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
    }
    let (socket, response) = client(request, open(address)).unwrap();
    let echoed = response.headers().get("Sec-WebSocket-Protocol").and_then(|value| value.to_str().ok());
    assert_eq!(echoed, protocol, "the subprotocol is echoed");
    socket
}

fn query(claims: &[(&str, &str)]) -> String {
    claims.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

impl Client {
    fn new(link: Link, room: &str) -> Client {
        let namespace = format!("/room/{room}");
        Client { link, namespace, last: 0, welcome: Value::Null, heard: VecDeque::new(), answers: Vec::new() }
    }

    fn protoo(address: SocketAddr, room: &str, claims: &[(&str, &str)]) -> Client {
        let socket = web_socket(address, &format!("/room/{room}?{}", query(claims)), Some("protoo"));
        Client::new(Link::Protoo(socket), room)
    }

    fn socket_io(framing: Framing, address: SocketAddr, room: &str, claims: &[(&str, &str)]) -> Result<Client, String> {
        let auth: Value = claims.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let mut client = Client::new(engine(framing, address), room);
        client.send_packet(&format!("40{},{auth}", client.namespace));
        let packet = client.packet()?;
        match packet.strip_prefix(&format!("44{},", client.namespace)) {
            Some(error) => Err(json(error)["message"].as_str().unwrap().to_owned()),
            None => {
                assert!(packet.starts_with(&format!("40{},", client.namespace)), "{packet}");
                Ok(client)
            }
        }
    }

    fn expect_welcome(&mut self) -> Result<(), String> {
        while self.heard.is_empty() {
            self.listen()?;
        }
        let (method, data) = self.heard.pop_front().unwrap();
        assert_eq!(method, "welcome");
        self.welcome = data;
        Ok(())
    }

    /// Sends a request and waits for its answer.
    pub fn try_request(&mut self, method: &str, data: Value) -> Result<Value, Value> {
        let serial = self.send(method, data);
        self.answer(serial)
    }

    /// The answer to a request that was sent.
    pub fn answer(&mut self, serial: u64) -> Result<Value, Value> {
        loop {
            if let Some(place) = self.answers.iter().position(|(answered, _)| *answered == serial) {
                return self.answers.remove(place).1;
            }
            self.listen().unwrap_or_else(|code| panic!("closed with {code} before request {serial} was answered"));
        }
    }

    #[track_caller]
    pub fn request(&mut self, method: &str, data: Value) -> Value {
        self.try_request(method, data).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The error code of a request that has to fail.
    #[track_caller]
    pub fn refused(&mut self, method: &str, data: Value) -> String {
        let error = self.try_request(method, data).unwrap_err();
        error["code"].as_str().unwrap().to_owned()
    }

    /// Sends a request without waiting; returns its serial.
    pub fn send(&mut self, method: &str, data: Value) -> u64 {
        self.last += 1;
        let serial = self.last;
        match &self.link {
            Link::Protoo(_) => {
                let frame = json!({"request": true, "id": serial, "method": method, "data": data});
                self.send_text(&frame.to_string());
            }
            _ => self.send_packet(&format!("42{},{serial}{}", self.namespace, json!([method, data]))),
        }
        serial
    }

    /// The next notification of this method; others before it are passed over.
    #[track_caller]
    pub fn hears(&mut self, method: &str) -> Value {
        loop {
            while let Some((heard, data)) = self.heard.pop_front() {
                if heard == method {
                    return data;
                }
            }
            self.listen().unwrap_or_else(|code| panic!("closed with {code} before {method} was heard"));
        }
    }

    /// Waits for the end and tells its close code and reason (WebSocket only).
    pub fn closed(&mut self) -> (u16, String) {
        loop {
            if let Err(reason) = self.listen() {
                let (code, text) = reason.split_once(' ').unwrap_or((&reason, ""));
                return (code.parse().unwrap_or(0), text.to_owned());
            }
        }
    }

    /// Sends a text as it is.
    pub fn send_text(&mut self, text: &str) {
        self.send_message(Message::text(text));
    }

    pub fn send_message(&mut self, message: Message) {
        match &mut self.link {
            Link::Protoo(socket) | Link::EngineWebSocket(socket) => {
                let _ = socket.send(message);
            }
            Link::EnginePolling { .. } => panic!("no WebSocket"),
        }
    }

    /// The TCP connection underneath.
    pub fn stream(&mut self) -> &mut TcpStream {
        match &mut self.link {
            Link::Protoo(socket) | Link::EngineWebSocket(socket) => socket.get_mut(),
            Link::EnginePolling { .. } => panic!("no connection of its own"),
        }
    }

    /// An engine.io message.
    pub fn send_packet(&mut self, packet: &str) {
        match &mut self.link {
            Link::EnginePolling { address, path, .. } => {
                let answer = http(*address, "POST", path, &[("Content-Type", "text/plain")], packet);
                assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
            }
            _ => self.send_text(packet),
        }
    }

    /// The next engine.io message that is no ping.
    fn packet(&mut self) -> Result<String, String> {
        loop {
            let packet = self.any_packet()?;
            match packet.as_str() {
                "2" => self.send_packet("3"),
                // The namespace or the connection is closed.
                "1" => return Err("1".to_owned()),
                "6" => {}
                _ => return Ok(packet),
            }
        }
    }

    fn any_packet(&mut self) -> Result<String, String> {
        match &mut self.link {
            Link::Protoo(socket) | Link::EngineWebSocket(socket) => next_text(socket),
            Link::EnginePolling { address, path, received } => {
                while received.is_empty() {
                    let answer = http(*address, "GET", path, &[], "");
                    if answer.status != 200 {
                        return Err(answer.status.to_string());
                    }
                    received.extend(answer.body.split('\u{1e}').map(str::to_owned));
                }
                Ok(received.pop_front().unwrap())
            }
        }
    }

    /// Takes in one answer or notification.
    fn listen(&mut self) -> Result<(), String> {
        match &self.link {
            Link::Protoo(_) => {
                let frame = json(&self.any_packet()?);
                if frame["notification"] == true {
                    self.heard.push_back((frame["method"].as_str().unwrap().to_owned(), frame["data"].clone()));
                } else {
                    self.answers.push((frame["id"].as_u64().unwrap_or(0), protoo_result(&frame)));
                }
            }
            _ => {
                let packet = self.packet()?;
                let left = format!("41{},", self.namespace);
                if packet == left || packet == left.trim_end_matches(',') {
                    return Err("41".to_owned());
                }
                let (kind, rest) = packet.split_at(2);
                let rest = rest.strip_prefix(&format!("{},", self.namespace)).unwrap_or_else(|| panic!("{packet}"));
                let (serial, arguments) = rest.split_at(rest.find('[').unwrap());
                let arguments = json(arguments);
                match kind {
                    "42" => self.heard.push_back((arguments[0].as_str().unwrap().to_owned(), arguments[1].clone())),
                    "43" => self.answers.push((serial.parse().unwrap(), acknowledged(&arguments[0]))),
                    _ => panic!("{packet}"),
                }
            }
        }
        Ok(())
    }
}

fn engine(framing: Framing, address: SocketAddr) -> Link {
    if framing == Framing::SocketIo {
        let mut socket = web_socket(address, "/socket.io/?EIO=4&transport=websocket", None);
        assert!(next_text(&mut socket).unwrap().starts_with('0'));
        return Link::EngineWebSocket(socket);
    }
    let open = http(address, "GET", "/socket.io/?EIO=4&transport=polling", &[], "");
    let session = json(open.body.strip_prefix('0').unwrap());
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", session["sid"].as_str().unwrap());
    Link::EnginePolling { address, path, received: VecDeque::new() }
}

/// The next text; an end is told as "code reason".
fn next_text(socket: &mut WebSocket<TcpStream>) -> Result<String, String> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Ok(text.to_string()),
            Ok(Message::Close(Some(CloseFrame { code, reason }))) => {
                let _ = socket.flush();
                return Err(format!("{} {reason}", u16::from(code)));
            }
            Ok(Message::Close(None)) => return Err("1005".to_owned()),
            Ok(_) => {
                let _ = socket.flush();
            }
            Err(error) => return Err(format!("0 {error}")),
        }
    }
}

/// Both framings' errors in one shape.
fn protoo_result(frame: &Value) -> Result<Value, Value> {
    assert_eq!(frame["response"], true);
    if frame["ok"] == true {
        return Ok(frame["data"].clone());
    }
    let mut error = json!({"code": frame["errorCode"], "message": frame["errorReason"]});
    if let Some(detail) = frame.get("errorDetail") {
        error["detail"] = detail.clone();
    }
    Err(error)
}

fn acknowledged(data: &Value) -> Result<Value, Value> {
    match data.get("error") {
        Some(error) => Err(error.clone()),
        None => Ok(data.clone()),
    }
}
