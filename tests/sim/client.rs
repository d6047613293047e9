//! A participant made of an independent stack (str0m): one peer connection to send, one to receive, as
//! mediasoup-client has them. Nothing of Ringside's own packet code is used on this side.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringside::ids::{PeerId, TransportId};
use ringside::packet::extension::{Extension as Known, ExtensionMap};
use ringside::transport::dtls;
use str0m::config::{DtlsVersion, Fingerprint};
use str0m::format::{Codec, FormatParams};
use str0m::ice::IceCreds;
use str0m::media::{Frequency, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{Extension, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::network::Flight;
use crate::source::{Medium, Source};
use crate::viewer::Viewer;

/// Payload types and extension ids as a browser numbers them for what it sends, and the router's for what it
/// receives.
#[derive(Clone, Copy)]
pub struct Numbers {
    pub opus: u8,
    pub vp8: u8,
    pub rtx: u8,
    pub mid: u8,
    pub rid: u8,
    pub repaired_rid: u8,
    pub abs_send_time: u8,
    pub transport_cc: u8,
    pub audio_level: u8,
}

pub const BROWSER: Numbers = Numbers {
    opus: 111,
    vp8: 96,
    rtx: 97,
    mid: 4,
    rid: 10,
    repaired_rid: 11,
    abs_send_time: 2,
    transport_cc: 3,
    audio_level: 1,
};

pub const ROUTER: Numbers = Numbers {
    opus: 100,
    vp8: 101,
    rtx: 102,
    mid: 1,
    rid: 2,
    repaired_rid: 3,
    abs_send_time: 4,
    transport_cc: 5,
    audio_level: 6,
};

/// What the client library of mediasoup listens to for padding.
pub const PROBATOR_SSRC: u32 = 1234;
const PROBATOR_PAYLOAD_TYPE: u8 = 127;

impl Numbers {
    /// The ids that a producer with these numbers announces.
    pub fn map(&self) -> ExtensionMap {
        let mut map = ExtensionMap::default();
        for (id, extension) in [
            (self.mid, Known::Mid),
            (self.rid, Known::RtpStreamId),
            (self.repaired_rid, Known::RepairedRtpStreamId),
            (self.abs_send_time, Known::AbsSendTime),
            (self.transport_cc, Known::TransportCc),
            (self.audio_level, Known::AudioLevel),
        ] {
            map.insert(id, extension);
        }
        map
    }
}

/// One peer connection.
pub struct Connection {
    pub rtc: Rtc,
    pub address: SocketAddr,
    pub transport: TransportId,
    pub deadline: Instant,
    pub outgoing: VecDeque<Flight>,
    /// In one order, so that a seed gives the same call each time.
    pub sources: BTreeMap<Mid, Source>,
    pub viewers: HashMap<u32, Viewer>,
    pub is_connected: bool,
    pub key_frame_requests: Vec<(Instant, Mid)>,
    numbers: Numbers,
    mids: u32,
}

pub struct Client {
    pub peer: PeerId,
    pub send: usize,
    pub recv: usize,
}

impl Connection {
    pub fn new(now: Instant, address: SocketAddr, transport: TransportId, numbers: Numbers) -> Self {
        let mut config = Rtc::builder()
            .clear_codecs()
            .clear_extension_map()
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_rtp_mode(true)
            .set_extension(numbers.mid, Extension::RtpMid)
            .set_extension(numbers.rid, Extension::RtpStreamId)
            .set_extension(numbers.repaired_rid, Extension::RepairedRtpStreamId)
            .set_extension(numbers.abs_send_time, Extension::AbsoluteSendTime)
            .set_extension(numbers.transport_cc, Extension::TransportSequenceNumber)
            .set_extension(numbers.audio_level, Extension::AudioLevel);
        let codecs = config.codec_config();
        let opus = FormatParams { min_p_time: Some(10), use_inband_fec: Some(true), ..Default::default() };
        codecs.add_config(numbers.opus.into(), None, Codec::Opus, Frequency::FORTY_EIGHT_KHZ, Some(2), opus);
        let vp8 = FormatParams::default();
        let rtx = Some(numbers.rtx.into());
        codecs.add_config(numbers.vp8.into(), rtx, Codec::Vp8, Frequency::NINETY_KHZ, None, vp8);
        codecs.add_config(PROBATOR_PAYLOAD_TYPE.into(), None, Codec::Vp8, Frequency::NINETY_KHZ, None, vp8);
        let rtc = config.build(now);
        Connection {
            rtc,
            address,
            transport,
            deadline: now,
            outgoing: VecDeque::new(),
            sources: BTreeMap::new(),
            viewers: HashMap::new(),
            is_connected: false,
            key_frame_requests: Vec::new(),
            numbers,
            mids: 0,
        }
    }

    /// Begins ICE and DTLS with what signaling told of the server; returns this side's fingerprint.
    pub fn connect(
        &mut self,
        server: SocketAddr,
        ufrag: String,
        password: String,
        theirs: &dtls::Fingerprint,
    ) -> dtls::Fingerprint {
        self.rtc.add_local_candidate(Candidate::host(self.address, "udp").expect("a candidate"));
        self.rtc.add_remote_candidate(Candidate::host(server, "udp").expect("a candidate"));
        let fingerprint = Fingerprint { hash_func: "sha-256".into(), bytes: theirs.value.clone() };
        let mut direct = self.rtc.direct_api();
        direct.enable_twcc_feedback();
        direct.set_ice_controlling(true);
        direct.set_remote_ice_credentials(IceCreds { ufrag, pass: password });
        direct.set_remote_fingerprint(fingerprint);
        direct.start_dtls(true).expect("DTLS starts");
        let own = direct.local_dtls_fingerprint();
        dtls::Fingerprint { hash: dtls::FingerprintHash::Sha256, value: own.bytes.clone() }
    }

    /// Declares a source to the stack; returns the mid that it is sent under.
    pub fn publish(&mut self, source: Source) -> Mid {
        let mid: Mid = self.mids.to_string().as_str().into();
        self.mids += 1;
        let kind = if source.medium == Medium::Opus { MediaKind::Audio } else { MediaKind::Video };
        let mut direct = self.rtc.direct_api();
        direct.declare_media(mid, kind);
        for encoding in &source.encodings {
            let stream = direct.declare_stream_tx(encoding.ssrc, encoding.rtx, mid, encoding.rid);
            stream.set_unpaced(true);
            // By itself the stack resends no more than 15 % of what it sends; browsers have no such bound.
            stream.set_rtx_cache(1024, Duration::from_secs(3), None);
        }
        self.sources.insert(mid, source);
        mid
    }

    pub fn expect(&mut self, mid: &str, kind: MediaKind, ssrc: u32, rtx: Option<u32>) {
        let mut direct = self.rtc.direct_api();
        direct.declare_media(mid.into(), kind);
        direct.expect_stream_rx(ssrc.into(), rtx.map(Ssrc::from), mid.into(), None);
        self.viewers.insert(ssrc, Viewer::new(kind == MediaKind::Video));
    }

    /// The section that the client library adds beside the first video it receives.
    pub fn expect_probator(&mut self) {
        if !self.viewers.contains_key(&PROBATOR_SSRC) {
            self.expect("probator", MediaKind::Video, PROBATOR_SSRC, None);
        }
    }

    pub fn receive(&mut self, now: Instant, flight: &Flight) {
        let Ok(contents) = flight.bytes.as_slice().try_into() else { return };
        let receive = Receive { proto: Protocol::Udp, source: flight.from, destination: flight.to, contents };
        let _ = self.rtc.handle_input(Input::Receive(now, receive));
        self.drain(now);
    }

    /// The next frame of any source, or the stack's own timeout.
    pub fn next_deadline(&self) -> Instant {
        let sources = self.sources.values().filter(|_| self.is_connected).map(Source::next);
        sources.chain([self.deadline]).min().unwrap_or(self.deadline)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline <= now {
            let _ = self.rtc.handle_input(Input::Timeout(now));
        }
        if self.is_connected {
            let mids: Vec<_> = self.sources.iter().filter(|(_, s)| s.next() <= now).map(|(mid, _)| *mid).collect();
            for mid in mids {
                self.send_frame(now, mid);
            }
        }
        self.drain(now);
    }

    /// A decoder that cannot go on asks for a key frame.
    pub fn request_key_frame(&mut self, now: Instant, ssrc: u32) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain(now);
    }

    /// The page is closed: DTLS says so.
    pub fn close(&mut self, now: Instant) {
        self.rtc.close().expect("a connection that can be closed");
        self.drain(now);
    }

    fn send_frame(&mut self, now: Instant, mid: Mid) {
        let Some(source) = self.sources.get_mut(&mid) else { return };
        let payload_type = if source.medium == Medium::Opus { self.numbers.opus } else { self.numbers.vp8 };
        let packets = source.capture(now, payload_type);
        let ssrcs: Vec<_> = source.encodings.iter().map(|encoding| encoding.ssrc).collect();
        for (encoding, packet) in packets {
            let mut direct = self.rtc.direct_api();
            let stream = direct.stream_tx(&ssrcs[encoding]).expect("a declared stream");
            stream.write_rtp(packet);
            // One packet at a time: the stack's queue keeps its order and its send times.
            self.drain(now);
        }
    }

    fn drain(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.deadline = at.max(now + std::time::Duration::from_micros(100));
                    return;
                }
                Ok(Output::Transmit(transmit)) => self.outgoing.push_back(Flight {
                    from: self.address,
                    to: transmit.destination,
                    bytes: transmit.contents.to_vec(),
                }),
                Ok(Output::Event(event)) => self.observe(now, event),
                Err(error) => panic!("the independent stack failed: {error}"),
            }
        }
    }

    fn observe(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => self.is_connected = true,
            Event::RtpPacket(packet) => {
                let ssrc = *packet.header.ssrc;
                let viewer = self.viewers.entry(ssrc).or_default();
                let timestamp = packet.header.timestamp;
                viewer.receive(now, *packet.seq_no, timestamp, packet.header.marker, &packet.payload);
            }
            Event::KeyframeRequest(request) => {
                self.key_frame_requests.push((now, request.mid));
                if let Some(source) = self.sources.get_mut(&request.mid) {
                    source.want_key_frame(request.rid);
                }
            }
            _ => {}
        }
    }
}
