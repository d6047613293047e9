//! Handshakes with OpenSSL's command line over loopback UDP: another implementation at the other end, both
//! roles, all three SRTP profiles, and the same keys on both sides. Needs the `openssl` command.

use std::io::Read;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use ringside::ids::Ssrc;
use ringside::limits;
use ringside::transport::dtls::{DtlsRole, DtlsState, Endpoint, Fingerprint, FingerprintHash, Identity, Output};
use ringside::transport::srtp::{Inbound, Keys, Outbound, Profile};

const PATIENCE: Duration = Duration::from_secs(20);
const NEEDED: &str = "the `openssl` command runs (Debian: apt-get install openssl)";

/// An ECDSA P-256 certificate of OpenSSL's own making, in a directory that goes with it.
struct Certificate {
    directory: PathBuf,
    fingerprint: Fingerprint,
}

impl Certificate {
    fn generate(name: &str) -> Self {
        Certificate::with_alternative_names(name, 1)
    }

    /// Some 30 bytes larger for each alternative name.
    fn with_alternative_names(name: &str, count: usize) -> Self {
        let directory = std::env::temp_dir().join(format!("ringside-openssl-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let names: Vec<String> = (0..count).map(|at| format!("DNS:a-rather-long-name-{at:03}.test")).collect();
        let request = format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 \
             -subj /CN=test -addext subjectAltName={}",
            names.join(",")
        );
        openssl(&directory, &request);
        openssl(&directory, "x509 -in cert.pem -outform der -out cert.der");
        let der = std::fs::read(directory.join("cert.der")).unwrap();
        assert!(der.len() > 25 * count);
        let value = digest(&SHA256, &der).as_ref().to_vec();
        Certificate { directory, fingerprint: Fingerprint { hash: FingerprintHash::Sha256, value } }
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().expect(NEEDED);
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A running `s_client` or `s_server`, killed when dropped.
struct Running {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    seen: String,
}

impl Running {
    fn start(directory: &Path, arguments: &str) -> Self {
        let mut child = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(directory)
            // Open and silent: at its end OpenSSL would leave.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect(NEEDED);
        let mut pipe = child.stdout.take().unwrap();
        let (sender, stdout) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = pipe.read(&mut chunk) {
                if sender.send(chunk[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Running { child, stdout, seen: String::new() }
    }

    /// The exported keying material, once OpenSSL printed it.
    fn exported(&mut self) -> Option<Vec<u8>> {
        while let Ok(chunk) = self.stdout.try_recv() {
            self.seen.push_str(&String::from_utf8_lossy(&chunk));
        }
        let line = self.seen.split("Keying material: ").nth(1)?;
        let (hex, _) = line.split_once('\n')?;
        Some((0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An endpoint on a loopback socket.
struct Side {
    endpoint: Endpoint,
    socket: UdpSocket,
    keys: Option<Keys>,
    closed: bool,
}

impl Side {
    fn new(identity: &Identity) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        Side { endpoint: Endpoint::new(identity), socket, keys: None, closed: false }
    }

    /// One datagram in (or a moment's wait), everything due out.
    fn turn(&mut self) {
        let mut buf = [0; 2048];
        // A port that is not open yet shows as an error on a connected socket: the hello is repeated.
        let arrived = self.socket.recv_from(&mut buf);
        let now = Instant::now();
        match arrived {
            Ok((len, from)) => {
                self.socket.connect(from).unwrap();
                self.endpoint.handle_datagram(now, &buf[..len]);
            }
            Err(_) if self.endpoint.next_deadline().is_some_and(|deadline| deadline <= now) => {
                self.endpoint.handle_timeout(now);
            }
            Err(_) => {}
        }
        self.poll();
    }

    fn poll(&mut self) {
        let mut buf = [0; limits::DATAGRAM_BYTES];
        while let Some(output) = self.endpoint.poll(&mut buf) {
            match output {
                Output::Datagram(datagram) => drop(self.socket.send(datagram)),
                Output::Connected(keys) => self.keys = Some(keys),
                Output::Failed(reason) => panic!("{reason}"),
                Output::Closed => self.closed = true,
            }
        }
    }

    fn run_until_connected(&mut self, openssl: &mut Running) -> (Keys, Vec<u8>) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            self.turn();
            if let (Some(keys), Some(exported)) = (&self.keys, openssl.exported()) {
                assert_eq!(self.endpoint.state(), DtlsState::Connected);
                return (keys.clone(), exported);
            }
        }
        panic!("no handshake within {PATIENCE:?}; OpenSSL said: {}", openssl.seen);
    }
}

/// What one side seals the other opens, both ways.
fn assert_same_keys(ours: &Keys, theirs: &Keys) {
    for (sealer, opener) in [(ours, theirs), (theirs, ours)] {
        let mut packet = [0; 64];
        packet[..12].copy_from_slice(&[0x80, 96, 0, 7, 0, 0, 0, 1, 0, 0, 0, 9]);
        let len = Outbound::new(sealer).seal_rtp(&mut packet, 12, b"payload", &[], Ssrc(9), 7);
        let mut opened = [0; 64];
        let len = Inbound::new(opener).open_rtp(&packet[..len], 12, &mut opened).unwrap();
        assert_eq!(opened[12..len], *b"payload");
    }
}

const PROFILES: [(Profile, &str); 3] = [
    (Profile::AeadAes256Gcm, "SRTP_AEAD_AES_256_GCM"),
    (Profile::AeadAes128Gcm, "SRTP_AEAD_AES_128_GCM"),
    (Profile::Aes128CmSha1_80, "SRTP_AES128_CM_SHA1_80"),
];

fn srtp_arguments(profile: Profile, name: &str) -> String {
    format!("-use_srtp {name} -keymatexport EXTRACTOR-dtls_srtp -keymatexportlen {}", profile.exported_len())
}

#[test]
fn openssl_as_client_gets_the_same_keys_under_each_profile() {
    let identity = Identity::generate();
    let certificate = Certificate::generate("client");
    for (profile, name) in PROFILES {
        let mut side = Side::new(&identity);
        side.endpoint.start(Instant::now(), DtlsRole::Client, vec![certificate.fingerprint.clone()]).unwrap();
        let port = side.socket.local_addr().unwrap().port();
        let srtp = srtp_arguments(profile, name);
        let arguments = format!(
            "s_client -dtls1_2 -connect 127.0.0.1:{port} -mtu 1200 -timeout -cert cert.pem -key key.pem {srtp}"
        );
        let mut openssl = Running::start(&certificate.directory, &arguments);
        let (keys, exported) = side.run_until_connected(&mut openssl);
        assert_eq!(keys.profile(), profile);
        assert_same_keys(&keys, &Keys::from_exporter(profile, &exported, true).unwrap());
    }
}

#[test]
fn openssl_as_server_gets_the_same_keys_under_each_profile() {
    let identity = Identity::generate();
    let certificate = Certificate::generate("server");
    for (profile, name) in PROFILES {
        let mut side = Side::new(&identity);
        // A port that was free a moment ago; the system hands out another one next time.
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let srtp = srtp_arguments(profile, name);
        let arguments = format!(
            "s_server -dtls1_2 -accept 127.0.0.1:{port} -mtu 1200 -timeout -Verify 1 -cert cert.pem -key key.pem {srtp}"
        );
        let mut openssl = Running::start(&certificate.directory, &arguments);
        side.socket.connect(("127.0.0.1", port)).unwrap();
        side.endpoint.start(Instant::now(), DtlsRole::Server, vec![certificate.fingerprint.clone()]).unwrap();
        side.poll();
        let (keys, exported) = side.run_until_connected(&mut openssl);
        assert_eq!(keys.profile(), profile);
        assert_same_keys(&keys, &Keys::from_exporter(profile, &exported, false).unwrap());
    }
}

#[test]
fn a_certificate_larger_than_a_datagram_is_checked_like_any_other() {
    let identity = Identity::generate();
    let certificate = Certificate::with_alternative_names("large", 150);
    let mut side = Side::new(&identity);
    side.endpoint.start(Instant::now(), DtlsRole::Client, vec![certificate.fingerprint.clone()]).unwrap();
    let port = side.socket.local_addr().unwrap().port();
    let (profile, name) = PROFILES[0];
    let srtp = srtp_arguments(profile, name);
    let arguments = format!("s_client -dtls1_2 -connect 127.0.0.1:{port} -mtu 1200 -cert cert.pem -key key.pem {srtp}");
    let mut openssl = Running::start(&certificate.directory, &arguments);
    let (keys, exported) = side.run_until_connected(&mut openssl);
    assert_same_keys(&keys, &Keys::from_exporter(profile, &exported, true).unwrap());
}

/// DTLS 1.2's cipher suites under an ECDSA certificate.
const CIPHERS: [&str; 3] =
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];

/// Connected to a client of this cipher; settled or not.
fn connected(identity: &Identity, certificate: &Certificate, cipher: &str, is_settled: bool) -> (Side, Running) {
    let mut side = Side::new(identity);
    side.endpoint.start(Instant::now(), DtlsRole::Client, vec![certificate.fingerprint.clone()]).unwrap();
    let port = side.socket.local_addr().unwrap().port();
    let srtp = srtp_arguments(Profile::AeadAes128Gcm, "SRTP_AEAD_AES_128_GCM");
    let arguments =
        format!("s_client -dtls1_2 -connect 127.0.0.1:{port} -cert cert.pem -key key.pem -cipher {cipher} {srtp}");
    let mut openssl = Running::start(&certificate.directory, &arguments);
    side.run_until_connected(&mut openssl);
    if is_settled {
        side.endpoint.settle();
    }
    (side, openssl)
}

#[test]
fn openssls_goodbye_is_noticed() {
    let identity = Identity::generate();
    let certificate = Certificate::generate("goodbye");
    for (cipher, is_settled) in CIPHERS.into_iter().flat_map(|cipher| [(cipher, false), (cipher, true)]) {
        let (mut side, mut openssl) = connected(&identity, &certificate, cipher, is_settled);
        // The end of its input makes s_client say close_notify and leave.
        drop(openssl.child.stdin.take());
        let end = Instant::now() + PATIENCE;
        while !side.closed && Instant::now() < end {
            side.turn();
        }
        assert!(side.closed, "{cipher}, {is_settled}");
        assert_eq!(side.endpoint.state(), DtlsState::Closed);
    }
}

#[test]
fn openssl_leaves_when_it_is_told_goodbye() {
    let identity = Identity::generate();
    let certificate = Certificate::generate("farewell");
    for (cipher, is_settled) in CIPHERS.into_iter().flat_map(|cipher| [(cipher, false), (cipher, true)]) {
        let (mut side, mut openssl) = connected(&identity, &certificate, cipher, is_settled);
        side.endpoint.close();
        side.poll();
        let end = Instant::now() + PATIENCE;
        let has_left = |openssl: &mut Running| openssl.child.try_wait().unwrap().is_some();
        while !has_left(&mut openssl) && Instant::now() < end {
            side.turn();
        }
        assert!(has_left(&mut openssl), "{cipher}, {is_settled}");
    }
}
