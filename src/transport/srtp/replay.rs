//! Which packets of which SSRC were received: rollover counters (RFC 3711 section 3.3.1, appendix A) and
//! replay windows (section 3.3.2). An entry exists only for an SSRC that sent an authentic packet.

use super::SrtpError;
use crate::ids::Ssrc;

/// Packets behind the newest one that are still told apart from replays. RTX has SSRCs of its own, so this
/// need only bridge reordering by the network: half a second of a 2.4 Mbit/s layer.
const WINDOW_PACKETS: u64 = 128;
const SEQUENCE_HALF: u16 = 0x8000;
/// ROC || SEQ has 48 bits; beyond that the key is used up (RFC 3711 section 9.2).
const INDEX_MAX: u64 = (1 << 48) - 1;

/// The streams of one peer in one direction, sorted by SSRC.
pub(super) struct Streams {
    streams: Vec<Stream>,
    /// Where the last packet's stream stands: packets of a video frame arrive back to back.
    last: usize,
    limit: usize,
}

/// Where a stream's entry is, or would have to be put. Valid until the next [`Streams::accept`].
#[derive(Clone, Copy)]
pub(super) enum Place {
    Known(usize),
    Unknown(usize),
}

impl Place {
    /// Where a stream's first packet may stand instead: a sender that began just before a wrap, whose packets
    /// until then were lost or overtaken. Without this second guess such a stream would stay mute for ever.
    /// Browsers begin in the lower half to avoid it; other senders begin anywhere.
    pub(super) fn index_after_early_wrap(self, sequence: u16) -> Option<u64> {
        match self {
            Place::Unknown(_) if sequence < SEQUENCE_HALF => Some(1 << 16 | u64::from(sequence)),
            _ => None,
        }
    }
}

impl Streams {
    pub(super) fn with_capacity_limit(limit: usize) -> Self {
        Streams { streams: Vec::new(), last: 0, limit }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Tells the 48-bit index that a packet with this sequence number must have, unless it is a replay.
    pub(super) fn expect_sequence(&mut self, ssrc: Ssrc, sequence: u16) -> Result<(Place, u64), SrtpError> {
        let place = self.find(ssrc);
        let Place::Known(at) = place else {
            self.check_room()?;
            return Ok((place, u64::from(sequence)));
        };
        let stream = &self.streams[at];
        let index = estimate_index(stream.highest, sequence);
        stream.check(index)?;
        Ok((place, index))
    }

    /// Says whether a packet with this explicit index (SRTCP) may be opened.
    pub(super) fn expect_index(&mut self, ssrc: Ssrc, index: u64) -> Result<Place, SrtpError> {
        let place = self.find(ssrc);
        match place {
            Place::Known(at) => self.streams[at].check(index)?,
            Place::Unknown(_) => self.check_room()?,
        }
        Ok(place)
    }

    /// Remembers an authentic packet; makes the stream's entry if it is the first one.
    pub(super) fn accept(&mut self, place: Place, ssrc: Ssrc, index: u64) {
        match place {
            Place::Known(at) => self.streams[at].accept(index),
            Place::Unknown(at) => {
                self.streams.insert(at, Stream { window: 1, highest: index, ssrc });
                self.last = at;
            }
        }
    }

    fn find(&mut self, ssrc: Ssrc) -> Place {
        if self.streams.get(self.last).is_some_and(|stream| stream.ssrc == ssrc) {
            return Place::Known(self.last);
        }
        match self.streams.binary_search_by_key(&ssrc, |stream| stream.ssrc) {
            Ok(at) => {
                self.last = at;
                Place::Known(at)
            }
            Err(at) => Place::Unknown(at),
        }
    }

    fn check_room(&self) -> Result<(), SrtpError> {
        if self.streams.len() < self.limit { Ok(()) } else { Err(SrtpError::TooManySsrcs) }
    }
}

struct Stream {
    /// Bit n is set when `highest - n` was received.
    window: u128,
    highest: u64,
    ssrc: Ssrc,
}

impl Stream {
    fn check(&self, index: u64) -> Result<(), SrtpError> {
        if index > self.highest {
            return if index <= INDEX_MAX { Ok(()) } else { Err(SrtpError::Replayed) };
        }
        let age = self.highest - index;
        if age >= WINDOW_PACKETS || self.window >> age & 1 == 1 { Err(SrtpError::Replayed) } else { Ok(()) }
    }

    fn accept(&mut self, index: u64) {
        if index <= self.highest {
            self.window |= 1 << (self.highest - index);
            return;
        }
        let step = index - self.highest;
        self.window = if step < WINDOW_PACKETS { self.window << step | 1 } else { 1 };
        self.highest = index;
    }
}

/// The index closest to the highest one received that ends in `sequence`. Before the first rollover an index
/// cannot lie in an earlier cycle, so the sequence number is taken as it is.
fn estimate_index(highest: u64, sequence: u16) -> u64 {
    let rollovers = highest >> 16;
    let newest = highest as u16;
    let cycle = if newest < SEQUENCE_HALF {
        if sequence > newest && sequence - newest > SEQUENCE_HALF { rollovers.saturating_sub(1) } else { rollovers }
    } else if newest - SEQUENCE_HALF > sequence {
        rollovers + 1
    } else {
        rollovers
    };
    cycle << 16 | u64::from(sequence)
}
