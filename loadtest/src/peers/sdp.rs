//! As much SDP as Janus needs (RFC 8866, RFC 8829): offers for what a client sends, answers to what it is to receive,
//! and reading the lines of Janus' own that matter. Ringside itself never sees SDP.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context;

use crate::client::ice::Credentials;
use crate::client::signaling::{OPUS, Offer, VP8, VP8_RTX};
use crate::media::rtp::extension_id;
use crate::media::source::Class;
use crate::scenario::Feedback;

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

/// What a server's description says of its transport and its streams.
#[derive(Debug)]
pub struct Description {
    pub credentials: Credentials,
    pub fingerprint: String,
    pub address: SocketAddr,
    pub sections: Vec<Section>,
}

#[derive(Clone, Debug, Default)]
pub struct Section {
    pub mid: String,
    pub audio: bool,
    pub inactive: bool,
    /// Payload types in order of preference; the first is the codec's.
    pub payload_types: Vec<u8>,
    pub rtx_type: Option<u8>,
    pub ssrc: Option<u32>,
    pub rtx_ssrc: Option<u32>,
    pub transport_cc: Option<u8>,
    lines: Vec<String>,
}

/// An offer to send everything of `offer`, as the DTLS client.
pub fn offer(offer: &Offer) -> String {
    let mids: Vec<&str> = offer.sources.iter().map(|source| source.mid.as_str()).collect();
    let mut sdp = session(&mids);
    for source in &offer.sources {
        let audio = source.class == Class::Microphone;
        let with_rtx = !source.rtx_ssrcs.is_empty();
        let types = match (audio, with_rtx) {
            (true, _) => OPUS.to_string(),
            (false, false) => VP8.to_string(),
            (false, true) => format!("{VP8} {VP8_RTX}"),
        };
        let _ = write!(sdp, "m={} 9 UDP/TLS/RTP/SAVPF {types}\r\n", if audio { "audio" } else { "video" });
        transport(&mut sdp, &offer.credentials[0], &offer.fingerprint);
        let _ = write!(sdp, "a=mid:{}\r\na=sendonly\r\na=msid:load {}\r\n", source.mid, source.mid);
        let mut extensions = vec![
            (extension_id::MID, "urn:ietf:params:rtp-hdrext:sdes:mid"),
            (extension_id::ABS_SEND_TIME, ABS_SEND_TIME),
        ];
        if offer.feedback == Feedback::TransportCc {
            extensions.push((extension_id::TRANSPORT_CC, TRANSPORT_CC));
        }
        if audio {
            extensions.push((extension_id::AUDIO_LEVEL, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"));
        }
        if !source.rids.is_empty() {
            extensions.push((extension_id::RTP_STREAM_ID, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"));
            extensions
                .push((extension_id::REPAIRED_RTP_STREAM_ID, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"));
        }
        for (id, uri) in extensions {
            let _ = write!(sdp, "a=extmap:{id} {uri}\r\n");
        }
        if audio {
            let _ = write!(sdp, "a=rtpmap:{OPUS} opus/48000/2\r\n");
        } else {
            video_lines(&mut sdp, VP8, with_rtx.then_some(VP8_RTX), offer);
        }
        if source.rids.is_empty() {
            if let Some(rtx) = source.rtx_ssrcs.first() {
                let _ = write!(sdp, "a=ssrc-group:FID {} {rtx}\r\n", source.ssrcs[0]);
            }
            for ssrc in source.ssrcs.iter().chain(&source.rtx_ssrcs) {
                let _ = write!(sdp, "a=ssrc:{ssrc} cname:{}\r\n", offer.cname);
            }
        } else {
            for rid in &source.rids {
                let _ = write!(sdp, "a=rid:{rid} send\r\n");
            }
            let _ = write!(sdp, "a=simulcast:send {}\r\n", source.rids.join(";"));
        }
    }
    sdp
}

/// An answer that takes everything that is offered, as the DTLS client.
pub fn answer(offered: &Description, offer: &Offer) -> String {
    let mids: Vec<&str> = offered.sections.iter().map(|section| section.mid.as_str()).collect();
    let mut sdp = session(&mids);
    for section in &offered.sections {
        let codec = section.payload_types.first().copied().unwrap_or(VP8);
        let rtx = section.rtx_type.filter(|_| offer.nack);
        let types = rtx.map_or(codec.to_string(), |rtx| format!("{codec} {rtx}"));
        let _ = write!(sdp, "m={} 9 UDP/TLS/RTP/SAVPF {types}\r\n", if section.audio { "audio" } else { "video" });
        transport(&mut sdp, &offer.credentials[1], &offer.fingerprint);
        let direction = if section.inactive { "inactive" } else { "recvonly" };
        let _ = write!(sdp, "a=mid:{}\r\na={direction}\r\n", section.mid);
        let wanted = |line: &&String| {
            let uri = line.split_whitespace().nth(1).unwrap_or_default();
            uri != TRANSPORT_CC || offer.feedback == Feedback::TransportCc
        };
        for line in section.lines.iter().filter(|line| line.starts_with("extmap:")).filter(wanted) {
            let _ = write!(sdp, "a={line}\r\n");
        }
        if section.audio {
            let _ = write!(sdp, "a=rtpmap:{codec} opus/48000/2\r\n");
        } else {
            video_lines(&mut sdp, codec, rtx, offer);
        }
    }
    sdp
}

fn session(mids: &[&str]) -> String {
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=msid-semantic: WMS *\r\n",
        mids.join(" ")
    )
}

fn transport(sdp: &mut String, credentials: &Credentials, fingerprint: &str) {
    let _ = write!(
        sdp,
        "c=IN IP4 0.0.0.0\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\na=setup:active\r\n",
        credentials.ufrag, credentials.password
    );
}

fn video_lines(sdp: &mut String, codec: u8, rtx: Option<u8>, offer: &Offer) {
    let _ = write!(sdp, "a=rtpmap:{codec} VP8/90000\r\na=rtcp-fb:{codec} ccm fir\r\na=rtcp-fb:{codec} nack pli\r\n");
    if offer.nack {
        let _ = write!(sdp, "a=rtcp-fb:{codec} nack\r\n");
    }
    if offer.feedback == Feedback::TransportCc {
        let _ = write!(sdp, "a=rtcp-fb:{codec} transport-cc\r\n");
    }
    if let Some(rtx) = rtx {
        let _ = write!(sdp, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={codec}\r\n");
    }
}

/// Reads a server's offer or answer.
pub fn read(sdp: &str) -> anyhow::Result<Description> {
    let mut sections: Vec<Section> = Vec::new();
    let mut session_lines = Vec::new();
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let mut fields = media.split_whitespace();
            let audio = fields.next() == Some("audio");
            let payload_types = fields.skip(2).filter_map(|one| one.parse().ok()).collect();
            sections.push(Section { audio, payload_types, ..Section::default() });
        } else if let Some(attribute) = line.strip_prefix("a=") {
            match sections.last_mut() {
                Some(section) => section.lines.push(attribute.trim().to_owned()),
                None => session_lines.push(attribute.trim().to_owned()),
            }
        }
    }
    for section in &mut sections {
        section.complete();
    }
    let all = || session_lines.iter().chain(sections.iter().flat_map(|section| &section.lines));
    let value = |name: &str| all().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
    let candidate = all().filter_map(|line| candidate_address(line.strip_prefix("candidate:")?)).next();
    Ok(Description {
        credentials: Credentials {
            ufrag: value("ice-ufrag:").context("the description has no ice-ufrag")?,
            password: value("ice-pwd:").context("the description has no ice-pwd")?,
        },
        fingerprint: value("fingerprint:sha-256").context("the description has no sha-256 fingerprint")?,
        address: candidate.context("the description has no UDP candidate")?,
        sections,
    })
}

impl Section {
    fn complete(&mut self) {
        for line in &self.lines {
            if let Some(mid) = line.strip_prefix("mid:") {
                self.mid = mid.to_owned();
            } else if line == "inactive" {
                self.inactive = true;
            } else if let Some(group) = line.strip_prefix("ssrc-group:FID ") {
                let mut pair = group.split_whitespace().map_while(|one| one.parse().ok());
                (self.ssrc, self.rtx_ssrc) = (pair.next(), pair.next());
            } else if let Some(ssrc) = line.strip_prefix("ssrc:") {
                self.ssrc = self.ssrc.or(ssrc.split_whitespace().next().and_then(|one| one.parse().ok()));
            } else if let Some(format) = line.strip_prefix("fmtp:").filter(|format| format.contains("apt=")) {
                self.rtx_type = format.split_whitespace().next().and_then(|one| one.parse().ok());
            } else if let Some(extension) = line.strip_prefix("extmap:").filter(|one| one.ends_with(TRANSPORT_CC)) {
                self.transport_cc = extension.split([' ', '/']).next().and_then(|one| one.parse().ok());
            }
        }
    }
}

/// `1 1 udp 2015363327 192.0.2.1 20001 typ host`
fn candidate_address(candidate: &str) -> Option<SocketAddr> {
    let fields: Vec<&str> = candidate.split_whitespace().collect();
    let is_udp = fields.get(1) == Some(&"1") && fields.get(2)?.eq_ignore_ascii_case("udp");
    let ip: IpAddr = fields.get(4)?.parse().ok()?;
    (is_udp && ip.is_ipv4()).then_some(())?;
    Some(SocketAddr::new(ip, fields.get(5)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 127.0.0.1\r\na=sendonly\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:secret\r\n\
        a=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\na=rtpmap:111 opus/48000/2\r\na=ssrc:1234 cname:janus\r\n\
        a=candidate:1 1 udp 2015363327 127.0.0.1 20001 typ host\r\na=end-of-candidates\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=sendonly\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\na=fmtp:97 apt=96\r\n\
        a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
        a=ssrc-group:FID 55 66\r\na=ssrc:55 cname:janus\r\na=ssrc:66 cname:janus\r\n";

    #[test]
    fn a_servers_offer_is_read_with_its_streams() {
        let read = read(OFFER).unwrap();
        assert_eq!(read.address, "127.0.0.1:20001".parse().unwrap());
        assert_eq!((read.credentials.ufrag.as_str(), read.fingerprint.as_str()), ("abcd", "AA:BB"));
        let [audio, video] = &read.sections[..] else { panic!("two sections") };
        assert_eq!((audio.ssrc, audio.rtx_ssrc, audio.audio), (Some(1234), None, true));
        assert_eq!((video.ssrc, video.rtx_ssrc, video.rtx_type), (Some(55), Some(66), Some(97)));
        assert_eq!(video.transport_cc, Some(3));
    }

    #[test]
    fn a_description_without_a_candidate_is_refused() {
        let without: String =
            OFFER.lines().filter(|line| !line.contains("candidate:")).map(|l| format!("{l}\r\n")).collect();
        assert!(read(&without).unwrap_err().to_string().contains("candidate"));
    }
}
