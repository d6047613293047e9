//! An operator at the command line: the real binary, its one line on stderr and its exit code.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Runs `ringside` with nothing in the environment but these variables.
fn ringside(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    command.env_clear().envs(variables.iter().copied()).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A start that fails: one line on stderr, this exit code, and these parts in the line.
fn refused(output: &Output, code: i32, parts: &[&str]) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    assert!(line.starts_with("ringside: "), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is missing: {line}");
    }
    assert!(output.stdout.is_empty());
}

/// A file in cargo's directory for tests' output.
fn file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn mistakes_in_the_settings_end_with_code_2() {
    let misspelt = file("misspelt.toml", "wokers = 2");
    for (arguments, variables, parts) in [
        (&["--port", "99999"][..], &[][..], &["--port \"99999\" (flag)", "0 to 65535"][..]),
        (&[], &[("PORT", "http")], &["--port \"http\" (environment PORT)"]),
        (&["--rtc-min-port", "20000"], &[], &["20000 is above --rtc-max-port 10100", "swap them"]),
        (&["--rtc-max-port", "10000", "--workers", "3"], &[], &["3 worker(s) need 3", "--rtc-max-port"]),
        (&[], &[("MEDIASOUP_RTC_MAX_PORT", "9")], &["10000 is above --rtc-max-port 9"]),
        (&["--announced-ip", "300.1.2.3"], &[], &["300.1.2.3", "under which browsers reach"]),
        (&["--announced-ip", "no-such-host.invalid"], &[], &["no-such-host.invalid", "host name"]),
        (&["--announced-ip", "0.0.0.0"], &[], &["0.0.0.0", "no browser can send to it"]),
        (&["--tls-cert", &misspelt], &[], &["--tls-cert without --tls-key"]),
        (&["--tls-cert", &misspelt, "--tls-key", "/nowhere/key.pem"], &[], &["certificate", "misspelt.toml"]),
        (&["--config", "/nowhere/ringside.toml"], &[], &["/nowhere/ringside.toml", "check --config"]),
        (&["--config", &misspelt], &[], &["\"wokers\"", "did you mean \"workers\""]),
        (&["--colour", "red"], &[], &["--colour"]),
        (&["serve"], &[], &["serve"]),
    ] {
        refused(&ringside(arguments, variables), 2, parts);
    }
}

#[test]
fn printed_settings_may_be_given_back() {
    let variables = [("MEDIASOUP_ANNOUNCED_IP", "192.0.2.1"), ("RINGSIDE_WORKERS", "1")];
    let first = stdout(&ringside(&["--print-config", "--port", "9100"], &variables));
    assert!(first.contains("port = 9100  # flag"), "{first}");
    assert!(first.contains("announced-ip = [\"192.0.2.1\"]  # environment MEDIASOUP_ANNOUNCED_IP"), "{first}");
    let path = file("printed.toml", &first);
    let second = stdout(&ringside(&["--print-config", "--config", &path], &[]));
    let values = |page: &str| -> Vec<String> {
        page.lines().filter(|line| !line.starts_with('#')).map(|l| l.split("  #").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&first), values(&second));
    assert!(second.contains(&format!("workers = 1  # file {path}")), "{second}");
}

#[test]
fn the_help_names_every_setting() {
    let output = ringside(&["--help"], &[]);
    assert!(output.status.success());
    for setting in ringside::config::SETTINGS {
        assert!(stdout(&output).contains(&format!("--{}", setting.name)), "{}", setting.name);
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(stdout(&ringside(&["--version"], &[])).trim(), format!("ringside {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_host_check_names_what_it_looked_at() {
    let output = ringside(&["--check-host"], &[]);
    let page = stdout(&output);
    assert_eq!(output.status.success(), !page.contains("FAIL"), "{page}");
    for name in ["io_uring", "locked memory", "net.core.rmem_max", "cores"] {
        assert!(page.contains(name), "{page}");
    }
}

/// A server that runs, and what it wrote.
struct Running {
    child: Child,
    /// Lines of its standard output.
    output: Receiver<String>,
    /// Lines of its standard error.
    log: Receiver<String>,
}

/// Longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

impl Running {
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
        command.env_clear().envs(variables.iter().copied()).args(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (output, log) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Running { child, output, log }
    }

    /// The address of HTTP, from the line that tells what to open.
    fn address(&self) -> String {
        let line = self.output.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{}", self.rest_of_log()));
        let url = line.strip_prefix("Ringside is up: open http://").unwrap().to_owned();
        url.trim_end_matches('/').replace("localhost", "127.0.0.1")
    }

    fn rest_of_log(&self) -> String {
        self.log.iter().collect::<Vec<_>>().join("\n")
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status.code(),
                None if Instant::now() > deadline => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    receiver
}

/// What the server answers to `GET <path>`.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The first of eight UDP ports in a row that are free, no test's but the caller's, and below those that the
/// kernel gives out by itself.
fn free_udp_ports() -> u16 {
    const BLOCK: u16 = 8;
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap();
    // Several runs of the tests may share a machine.
    let begin = 11_000 + (std::process::id() % 1_250) as u16 * 16;
    loop {
        let first = begin + *next;
        *next += BLOCK;
        if (first..first + BLOCK).all(|port| UdpSocket::bind(("0.0.0.0", port)).is_ok()) {
            return first;
        }
    }
}

/// The arguments of a server on ports of its own.
fn own_ports(workers: u16) -> Vec<String> {
    let first = free_udp_ports();
    let arguments = format!(
        "--port 0 --listen 127.0.0.1 --rtc-listen-ip 127.0.0.1 --rtc-min-port {first} --rtc-max-port {} --workers {workers}",
        first + workers - 1
    );
    arguments.split(' ').map(str::to_owned).collect()
}

fn start(arguments: &[String]) -> Running {
    Running::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

#[test]
fn a_start_names_workers_cores_ports_and_the_page_to_open() {
    let arguments = own_ports(2);
    let mut server = start(&arguments);
    let address = server.address();
    assert!(get(&address, "/health").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/").contains("<html"));
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
    let log = server.rest_of_log();
    let first: u16 = arguments[7].parse().unwrap();
    for worker in 1..=2 {
        let line = log.lines().find(|line| line.contains(&format!("worker {worker}/2 on core "))).unwrap();
        assert!(line.ends_with(&format!(", udp {}", first + worker - 1)), "{line}");
    }
}

#[test]
fn the_variables_of_the_replaced_system_start_it() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let first = free_udp_ports();
    let variables = [
        ("PORT", port.as_str()),
        ("MEDIASOUP_ANNOUNCED_IP", "127.0.0.1"),
        ("MEDIASOUP_RTC_MIN_PORT", &first.to_string()),
        ("MEDIASOUP_RTC_MAX_PORT", &(first + 7).to_string()),
    ];
    let mut server = Running::start(&["--workers", "1"], &variables);
    let address = server.address();
    assert_eq!(address, format!("127.0.0.1:{port}"));
    assert!(get(&address, "/health").starts_with("HTTP/1.1 200"));
    server.signal("INT");
    assert_eq!(server.code(), Some(0));
}

#[test]
fn a_taken_port_ends_with_code_2() {
    let arguments = own_ports(1);
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = http.local_addr().unwrap().port().to_string();
    let with_port: Vec<&str> = arguments.iter().map(String::as_str).chain(["--port", &port]).collect();
    refused(&ringside(&with_port, &[]), 2, &[&port, "taken", "choose another with --port"]);

    let udp = UdpSocket::bind(("127.0.0.1", arguments[7].parse().unwrap())).unwrap();
    let output = ringside(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    refused(&output, 2, &[&arguments[7], "another server?", "--rtc-min-port"]);
    drop(udp);
}

#[test]
fn a_foreign_address_ends_with_code_2() {
    refused(&ringside(&["--listen", "192.0.2.1", "--port", "0"], &[]), 2, &["192.0.2.1", "--listen"]);
    let output = ringside(&["--port", "0", "--rtc-listen-ip", "192.0.2.1"], &[]);
    refused(&output, 2, &["192.0.2.1", "--rtc-listen-ip"]);
}

#[test]
fn too_little_lockable_memory_ends_with_code_3() {
    let binary = env!("CARGO_BIN_EXE_ringside");
    let script = format!("ulimit -l 64 && exec {binary} --port 0");
    refused(
        &Command::new("sh").args(["-c", &script]).output().unwrap(),
        3,
        &["locked memory", "64 KiB", "ulimit -l 512"],
    );
}

#[test]
fn distributions_are_written_on_request() {
    let directory = format!("{}/hlog", env!("CARGO_TARGET_TMPDIR"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let mut arguments = own_ports(1);
    arguments.extend(["--hlog-dir".to_owned(), directory.clone()]);
    let mut server = start(&arguments);
    server.address();
    server.signal("USR1");
    let line = server.log.iter().find(|line| line.contains("distributions written to ")).unwrap();
    let path = line.split("written to ").last().unwrap();
    assert!(std::fs::read_to_string(path).unwrap().contains("Tag=worker-1."));
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
}

/// A peer in a room, over a WebSocket; what the server writes is readable as it comes (servers do not mask).
fn peer(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /room/lobby?peerId=alice HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: protoo\r\n\r\n"
    )
    .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    stream
}

#[test]
fn peers_are_told_before_the_server_stops() {
    let mut arguments = own_ports(1);
    arguments.extend(["--drain-deadline".to_owned(), "0".to_owned()]);
    let mut server = start(&arguments);
    let mut peer = peer(&server.address());
    server.signal("TERM");
    let mut heard = Vec::new();
    let _ = peer.read_to_end(&mut heard);
    assert!(String::from_utf8_lossy(&heard).contains("server-draining"));
    assert_eq!(server.code(), Some(0));
}

#[test]
fn a_second_request_to_stop_does_not_wait_for_peers() {
    let mut arguments = own_ports(1);
    arguments.extend(["--drain-deadline".to_owned(), "3600".to_owned()]);
    let mut server = start(&arguments);
    let _peer = peer(&server.address());
    server.signal("TERM");
    server.log.iter().find(|line| line.contains("asked to stop")).unwrap();
    server.signal("TERM");
    assert_eq!(server.code(), Some(1));
    assert!(server.rest_of_log().contains("ringside: asked twice to stop"));
}
