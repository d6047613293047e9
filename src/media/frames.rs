//! Where the frames of a layer begin, for payloads that do not say so themselves.
//!
//! H.264 and AV1 tell where a NAL unit or an OBU begins, and by the marker bit where a picture ends. A picture begins
//! where the one before ended, or where the timestamp changes. Ingress asks once per packet; one record per layer.

/// The newest frame of a layer, as far as its packets have come.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameBounds {
    timestamp: u32,
    /// Extended sequence number of its first packet that came.
    first: u64,
    newest: u64,
    /// The newest packet was its last one.
    ended: bool,
    begun: bool,
}

impl FrameBounds {
    /// Takes a packet, no duplicate. Returns whether a frame begins with it, as far as is known: where the packets before it
    /// are missing, the first that came is taken for the first, and so is an earlier one that comes late.
    #[inline]
    pub fn receive(&mut self, sequence: u64, timestamp: u32, marker: bool) -> bool {
        if self.begun && sequence <= self.newest {
            let is_earlier = timestamp == self.timestamp && sequence < self.first;
            if is_earlier {
                self.first = sequence;
            }
            return is_earlier;
        }
        let begins = !self.begun || self.ended || timestamp != self.timestamp;
        if begins {
            (self.timestamp, self.first) = (timestamp, sequence);
        }
        (self.begun, self.newest, self.ended) = (true, sequence, marker);
        begins
    }

    /// The first packet that came of the frame that this one belongs to; the packet itself if that is an older frame.
    pub fn first_of(&self, sequence: u64, timestamp: u32) -> u64 {
        if timestamp == self.timestamp && sequence >= self.first { self.first } else { sequence }
    }

    /// The source began anew: numbers start elsewhere.
    pub fn restart(&mut self) {
        *self = FrameBounds::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these packets (sequence number, timestamp, marker) begin a frame.
    fn begins(packets: &[(u64, u32, bool)]) -> Vec<u64> {
        let mut bounds = FrameBounds::default();
        let begins = |packet: &&(u64, u32, bool)| bounds.receive(packet.0, packet.1, packet.2);
        packets.iter().filter(begins).map(|packet| packet.0).collect()
    }

    #[test]
    fn a_frame_begins_behind_a_marker_or_where_the_time_changes() {
        assert_eq!(begins(&[(1, 0, false), (2, 0, true), (3, 9, false), (4, 9, false), (5, 9, true)]), [1, 3]);
        assert_eq!(begins(&[(1, 0, false), (3, 9, false), (4, 9, true)]), [1, 3], "a lost marker");
        assert_eq!(begins(&[(1, 0, true), (2, 0, true)]), [1, 2], "two pictures of one instant");
    }

    #[test]
    fn of_a_frame_whose_packets_are_swapped_the_earlier_begins_it_too() {
        assert_eq!(begins(&[(1, 0, true), (3, 9, false), (2, 9, false), (4, 9, true)]), [1, 3, 2]);
    }

    #[test]
    fn a_late_packet_of_an_older_frame_begins_nothing() {
        assert_eq!(begins(&[(1, 0, false), (4, 9, false), (2, 0, false), (3, 0, true), (5, 9, true)]), [1, 4]);
    }

    #[test]
    fn the_first_packet_of_a_frame_is_known_to_its_later_ones() {
        let mut bounds = FrameBounds::default();
        bounds.receive(7, 9, false);
        bounds.receive(9, 9, false);
        assert_eq!(bounds.first_of(9, 9), 7);
        assert_eq!(bounds.first_of(3, 2), 3);
    }

    #[test]
    fn a_source_that_begins_anew_begins_a_frame() {
        let mut bounds = FrameBounds::default();
        bounds.receive(70_000, 9, false);
        bounds.restart();
        assert!(bounds.receive(5, 9, false));
    }
}
