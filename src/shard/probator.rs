//! The stream that carries padding where no retransmission stream can: the client library adds a media section for it
//! beside the first video that it receives, and looks at nothing that arrives there.

use crate::limits::PROBATOR_PACKETS;
use crate::media::header::{Departure, HeaderLayout};
use crate::media::history::Packet;
use crate::media::rewriter::Rewrite;
use crate::media::spec::{PROBATOR_PAYLOAD_TYPE, PROBATOR_SSRC};
use crate::packet::extension::{Extension, ExtensionSet};
use crate::shard::transport::Keys;

/// As the client library of mediasoup expects it.
const MID: &str = "probator";

/// Of each packet: the size of media, for that is what the path is asked about.
const PAYLOAD: [u8; 1_100] = [0; 1_100];

pub struct Probator {
    header: HeaderLayout,
    /// Packets sent so far, and the number of the last one.
    sequence: u64,
}

impl Probator {
    /// `extensions` are those of the consumer beside which the client makes it.
    pub fn new(extensions: ExtensionSet) -> Probator {
        let wanted = [Extension::Mid, Extension::AbsSendTime, Extension::TransportCc];
        let set = wanted.into_iter().filter(|extension| extensions.contains(*extension)).collect();
        Probator { header: HeaderLayout::new(PROBATOR_PAYLOAD_TYPE, PROBATOR_SSRC, MID, set), sequence: 0 }
    }

    pub fn has_transport_cc(&self) -> bool {
        self.header.has_transport_cc()
    }

    /// Whether it has numbers left.
    pub fn can_send(&self, packets: usize) -> bool {
        self.sequence + (packets as u64) < PROBATOR_PACKETS
    }

    pub fn size(&self, overhead: usize) -> usize {
        self.header.len(&Packet::new(0, 0, 0)) + PAYLOAD.len() + overhead
    }

    /// Writes and seals one packet; returns its length.
    pub fn write(&mut self, departure: Departure, timestamp: u32, out: &mut [u8], keys: &mut Keys) -> usize {
        self.sequence += 1;
        let rewrite = Rewrite { sequence: self.sequence, timestamp, picture: 0, tl0: 0, end: false };
        let at = self.header.write(out, &Packet::new(0, 0, 0), &[], &rewrite, departure, false);
        keys.outbound.seal_rtp(out, at, &PAYLOAD, &[], PROBATOR_SSRC, self.sequence)
    }
}
