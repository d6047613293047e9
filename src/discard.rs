//! Why a packet goes no further. Every refusal of the data path has a name here and is counted; what came
//! in, times its consumers, is what went out plus these.

macro_rules! discards {
    ($($(#[$doc:meta])* $name:ident => $label:literal),+ $(,)?) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Discard {
            $($(#[$doc])* $name),+
        }

        impl Discard {
            pub const ALL: &[Discard] = &[$(Discard::$name),+];

            /// The name in statistics and metrics.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Discard::$name => $label),+
                }
            }
        }
    };
}

discards! {
    // A datagram that never became a packet.
    /// Larger than a datagram may be.
    Oversized => "oversized",
    /// Neither STUN, DTLS, RTP nor RTCP (RFC 7983).
    Unclassified => "unclassified",
    /// From an address that no authenticated check came from.
    UnknownSource => "unknown-source",
    /// A STUN message that is not well formed, or no binding request.
    MalformedStun => "malformed-stun",
    /// A check for no transport of this worker.
    UnknownUfrag => "unknown-ufrag",
    /// A check that failed its message integrity or fingerprint, or broke the role rules.
    RefusedStun => "refused-stun",
    /// DTLS for a transport whose handshake is over or failed.
    RefusedDtls => "refused-dtls",
    /// Media before the handshake gave keys.
    NoKeys => "no-keys",
    MalformedRtp => "malformed-rtp",
    MalformedRtcp => "malformed-rtcp",
    /// The authentication tag is wrong.
    Unauthenticated => "unauthenticated",
    /// Seen before, or older than the replay window (RFC 3711 section 3.3.2).
    Replayed => "replayed",
    /// One SSRC more than a transport may have.
    TooManyStreams => "too-many-streams",
    /// Neither SSRC nor MID and RID name a producer of the transport.
    UnknownStream => "unknown-stream",
    /// Authentic, but of a payload type that was not negotiated.
    UnknownPayloadType => "unknown-payload-type",
    /// A retransmission that carries no packet: a probe.
    Probe => "probe",
    /// A packet that was received before under another wrapping (RTX and original).
    Duplicate => "duplicate",
    /// Too far from its stream to be believed (RFC 3550 appendix A.1).
    Stray => "stray",
    /// A payload that contradicts its own codec's format.
    MalformedPayload => "malformed-payload",
    ProducerPaused => "producer-paused",
    /// More STUN, DTLS and RTCP in one tick than may wait, or than there are send slots for.
    StagedFull => "staged-full",
    /// A packet or a key frame of the probator was asked for: there is neither again.
    ProbatorAsked => "probator-asked",

    // A packet that one consumer does not get; counted once for each.
    ConsumerPaused => "consumer-paused",
    /// Sound of somebody who is not among the loudest speakers of the room.
    NotLoudest => "not-loudest",
    /// The receiver's transport has no address or no keys yet.
    NotConnected => "not-connected",
    /// Of a layer that this consumer does not receive.
    OtherLayer => "other-layer",
    /// Of a temporal layer above the consumer's.
    TemporalLayer => "temporal-layer",
    /// Waiting for the key frame that a decoder can start from.
    AwaitingKeyFrame => "awaiting-key-frame",
    /// Its layer cannot be read: the key frame that explains it was lost, or another came meanwhile (AV1).
    Unreadable => "unreadable",
    /// Older than the layer switch, or than what is remembered.
    BeforeSwitch => "before-switch",
    /// Every send slot was in flight.
    NoSlot => "no-slot",
    /// Overwritten in the history before it was sent.
    Overwritten => "overwritten",
    /// A resend that was asked for and cannot or need not be made.
    ResendRefused => "resend-refused",
}

/// A counter for each [`Discard`].
pub struct Discards {
    counts: [u64; Discard::ALL.len()],
}

impl Discards {
    #[inline]
    pub fn count(&mut self, discard: Discard) {
        self.counts[discard as usize] += 1;
    }

    #[inline]
    pub fn add(&mut self, discard: Discard, packets: u64) {
        self.counts[discard as usize] += packets;
    }

    pub fn of(&self, discard: Discard) -> u64 {
        self.counts[discard as usize]
    }

    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        Discard::ALL.iter().map(|discard| (discard.label(), self.of(*discard))).collect()
    }
}

impl Default for Discards {
    fn default() -> Self {
        Discards { counts: [0; Discard::ALL.len()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_name_of_its_own_and_a_row() {
        let mut discards = Discards::default();
        discards.add(Discard::ResendRefused, 3);
        let rows = discards.rows();
        let names: std::collections::HashSet<_> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), rows.len());
        assert_eq!(rows.last(), Some(&("resend-refused", 3)));
    }
}
