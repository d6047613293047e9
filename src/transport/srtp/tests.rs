//! What a receiver accepts and refuses: rollover, replays, tampering, bounds.

use super::cipher::Cipher;
use super::{Inbound, Keys, Outbound, Profile, SrtpError, ssrc_at};
use crate::ids::Ssrc;
use crate::limits;

/// SplitMix64: tests are the same in each run.
#[derive(Clone)]
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Exported bytes, and the client's keys from them.
pub(super) fn keys(profile: Profile, random: &mut Random) -> (Vec<u8>, Keys) {
    let exported = random.bytes(profile.exported_len());
    let keys = Keys::from_exporter(profile, &exported, true).unwrap();
    (exported, keys)
}

/// A plain RTP packet with up to three CSRCs and mostly an extension block, and the length of its header.
pub(super) fn rtp_packet(random: &mut Random, ssrc: u32, sequence: u16, payload: usize) -> (Vec<u8>, usize) {
    let csrcs = random.below(4);
    let extension = random.below(4) != 0;
    let mut packet = vec![0x80 | u8::from(extension) << 4 | csrcs as u8, random.next() as u8];
    packet.extend(sequence.to_be_bytes());
    packet.extend(random.bytes(4));
    packet.extend(ssrc.to_be_bytes());
    packet.extend(random.bytes(4 * csrcs));
    if extension {
        packet.extend([0xbe, 0xde, 0, 2, 0x12, 1, 2, 3, 0x22, 4, 5, 6]);
    }
    let header_len = packet.len();
    packet.extend(random.bytes(payload));
    (packet, header_len)
}

/// A receiver report with some words behind it.
pub(super) fn rtcp_compound(random: &mut Random, words: usize) -> Vec<u8> {
    let mut packet = vec![0x80, 201];
    packet.extend((1 + words as u16).to_be_bytes());
    packet.extend(random.bytes(4 + 4 * words));
    packet
}

/// Both ends of one direction.
struct Link {
    outbound: Outbound,
    inbound: Inbound,
}

const HEADER: usize = 12;

impl Link {
    fn new(profile: Profile) -> Self {
        let (_, keys) = keys(profile, &mut Random(7));
        Link { outbound: Outbound::new(&keys), inbound: Inbound::new(&keys.swapped()) }
    }

    /// A packet whose sender counted this far.
    fn sealed(&mut self, ssrc: u32, index: u64) -> Vec<u8> {
        let mut packet = vec![0; 100];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let len = self.outbound.seal_rtp(&mut packet, HEADER, &index.to_be_bytes(), &[], Ssrc(ssrc), index);
        packet.truncate(len);
        packet
    }

    fn open(&mut self, packet: &[u8]) -> Result<u64, SrtpError> {
        let mut out = [0; 200];
        let len = self.inbound.open_rtp(packet, HEADER, &mut out)?;
        Ok(u64::from_be_bytes(out[HEADER..len].try_into().unwrap()))
    }

    fn receive(&mut self, ssrc: u32, index: u64) -> Result<u64, SrtpError> {
        let packet = self.sealed(ssrc, index);
        self.open(&packet)
    }

    fn sealed_rtcp(&mut self, ssrc: u32) -> Vec<u8> {
        let mut packet = [vec![0x80, 201, 0, 3], ssrc.to_be_bytes().to_vec(), vec![5; 8], vec![0; 40]].concat();
        let len = self.outbound.seal_rtcp(&mut packet, 16).unwrap();
        packet.truncate(len);
        packet
    }
}

#[test]
fn a_sequence_number_that_wraps_is_followed_for_several_rounds() {
    for profile in Profile::ALL {
        let mut link = Link::new(profile);
        for index in (0x7000..0x5_0000).step_by(0x6fff) {
            assert_eq!(link.receive(1, index), Ok(index));
        }
    }
}

#[test]
fn a_first_packet_just_before_the_wrap_is_followed() {
    let mut link = Link::new(Profile::AeadAes128Gcm);
    for index in [0xffff, 0x1_0000, 0xfffe, 0x1_0001] {
        assert_eq!(link.receive(1, index), Ok(index), "also when packets overtake each other at the wrap");
    }
}

#[test]
fn a_stream_whose_packets_before_its_first_wrap_were_lost_is_followed() {
    for profile in Profile::ALL {
        let mut link = Link::new(profile);
        for index in [0x1_0003, 0x1_0004, 0xfffe, 0x1_7fff, 0x1_ffff, 0x2_0000] {
            let outcome = link.receive(1, index);
            assert_eq!(outcome, Ok(index));
        }
    }
}

#[test]
fn a_sequence_number_before_the_start_is_not_taken_for_an_earlier_round() {
    let mut link = Link::new(Profile::AeadAes128Gcm);
    assert_eq!(link.receive(1, 2), Ok(2));
    assert_eq!(link.receive(1, 0xfff0), Ok(0xfff0), "a jump within the first round");
}

#[test]
fn packets_in_any_order_within_the_window_are_opened_once_each() {
    for profile in Profile::ALL {
        let mut link = Link::new(profile);
        let mut random = Random(3);
        let mut order: Vec<u64> = (0xfff0_u64..0xfff0 + 2000).collect();
        for block in order.chunks_mut(100) {
            for at in 1..block.len() {
                block.swap(at, random.below(at + 1));
            }
        }
        for index in &order {
            assert_eq!(link.receive(1, *index), Ok(*index));
            if random.below(3) == 0 {
                assert_eq!(link.receive(1, *index), Err(SrtpError::Replayed));
            }
        }
    }
}

#[test]
fn a_packet_older_than_the_window_is_refused_although_it_is_authentic() {
    let mut link = Link::new(Profile::AeadAes128Gcm);
    link.receive(1, 1000).unwrap();
    assert_eq!(link.receive(1, 1000 - 128), Err(SrtpError::Replayed));
    assert_eq!(link.receive(1, 1000 - 127), Ok(1000 - 127));
    link.receive(1, 1000 + 5000).unwrap();
    assert_eq!(link.receive(1, 1000), Err(SrtpError::Replayed));
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_disturbs_nothing() {
    for profile in Profile::ALL {
        let mut link = Link::new(profile);
        link.receive(1, 500).unwrap();
        let packet = link.sealed(1, 501);
        for at in 0..packet.len() {
            for bit in [1, 0x80] {
                let mut forged = packet.clone();
                forged[at] ^= bit;
                assert!(matches!(link.open(&forged), Err(SrtpError::Forged | SrtpError::Replayed)), "byte {at}");
            }
        }
        for len in 0..packet.len() {
            assert!(matches!(link.open(&packet[..len]), Err(SrtpError::Forged | SrtpError::Malformed)));
        }
        assert_eq!(link.open(&packet), Ok(501));
    }
}

#[test]
fn a_flipped_bit_of_rtcp_is_refused_and_disturbs_nothing() {
    for profile in Profile::ALL {
        let mut link = Link::new(profile);
        let packet = link.sealed_rtcp(1);
        for at in 0..packet.len() {
            for bit in [1, 0x80] {
                let mut forged = packet.clone();
                forged[at] ^= bit;
                assert_eq!(link.inbound.open_rtcp(&mut forged), Err(SrtpError::Forged), "byte {at}");
            }
        }
        for len in 0..packet.len() {
            assert!(link.inbound.open_rtcp(&mut packet[..len].to_vec()).is_err());
        }
        assert_eq!(link.inbound.open_rtcp(&mut packet.clone()), Ok(16));
        assert_eq!(link.inbound.open_rtcp(&mut packet.clone()), Err(SrtpError::Replayed));
    }
}

#[test]
fn unencrypted_rtcp_needs_a_right_tag() {
    let mut link = Link::new(Profile::Aes128CmSha1_80);
    let plain = [vec![0x80, 201, 0, 3], 1_u32.to_be_bytes().to_vec(), vec![5; 8]].concat();
    let forged = [plain.clone(), 9_u32.to_be_bytes().to_vec(), vec![0; 10]].concat();
    assert_eq!(link.inbound.open_rtcp(&mut forged.clone()), Err(SrtpError::Forged), "a zero tag");

    let mut tagged = forged;
    let Cipher::CmSha1(cipher) = &link.outbound.rtcp else { panic!("the profile's cipher") };
    let end = tagged.len() - 10;
    let tag = cipher.tag(&tagged[..end], &[]);
    tagged[end..].copy_from_slice(&tag.as_ref()[..10]);
    assert_eq!(link.inbound.open_rtcp(&mut tagged), Ok(plain.len()));
    assert_eq!(tagged[..plain.len()], plain);
}

#[test]
fn rtcp_arrives_out_of_order_but_never_twice() {
    for profile in Profile::ALL {
        let mut link = Link::new(profile);
        let packets: Vec<_> = (0..10).map(|_| link.sealed_rtcp(1)).collect();
        for at in [9, 0, 5, 3, 8, 1] {
            assert_eq!(link.inbound.open_rtcp(&mut packets[at].clone()), Ok(16));
        }
        for at in [9, 0, 5] {
            assert_eq!(link.inbound.open_rtcp(&mut packets[at].clone()), Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn forged_packets_take_no_room_and_a_full_table_refuses_only_further_ssrcs() {
    let mut link = Link::new(Profile::AeadAes128Gcm);
    let mut forged = link.sealed(0, 1);
    for ssrc in 0..5000_u32 {
        forged[8..12].copy_from_slice(&(ssrc + 7).to_be_bytes());
        assert_eq!(link.open(&forged), Err(SrtpError::Forged));
    }
    let limit = limits::RTP_SSRCS_PER_TRANSPORT as u32;
    for ssrc in 0..limit {
        assert_eq!(link.receive(ssrc.reverse_bits(), 1), Ok(1));
    }
    assert_eq!(link.receive(limit.reverse_bits(), 1), Err(SrtpError::TooManySsrcs));
    for ssrc in 0..limit {
        assert_eq!(link.receive(ssrc.reverse_bits(), 1), Err(SrtpError::Replayed));
        assert_eq!(link.receive(ssrc.reverse_bits(), 2), Ok(2));
    }
}

#[test]
fn streams_have_rollover_counters_of_their_own() {
    let mut link = Link::new(Profile::AeadAes256Gcm);
    for index in 0xfff0..0x1_0010 {
        assert_eq!(link.receive(5, index), Ok(index));
        assert_eq!(link.receive(4, index - 0xfff0), Ok(index - 0xfff0));
    }
}

#[test]
fn rtcp_is_not_sealed_without_room_nor_beyond_the_life_of_the_key() {
    let mut link = Link::new(Profile::AeadAes128Gcm);
    let mut buf = [0; 8 + 20];
    assert_eq!(link.outbound.seal_rtcp(&mut buf, 9), None);
    assert_eq!(link.outbound.seal_rtcp(&mut buf, 7), None);
    link.outbound.rtcp_index = super::RTCP_INDEX_MAX;
    assert_eq!(link.outbound.seal_rtcp(&mut buf, 8), Some(28));
    assert_eq!(link.outbound.seal_rtcp(&mut buf, 8), None);
}

#[test]
fn what_one_side_seals_it_cannot_open_itself() {
    for profile in Profile::ALL {
        let (_, keys) = keys(profile, &mut Random(9));
        let mut link = Link { outbound: Outbound::new(&keys), inbound: Inbound::new(&keys) };
        assert_eq!(link.receive(1, 1), Err(SrtpError::Forged), "a reflected packet");
        let mut packet = link.sealed_rtcp(1);
        assert_eq!(ssrc_at(&packet, 4), Ssrc(1));
        assert_eq!(link.inbound.open_rtcp(&mut packet), Err(SrtpError::Forged));
    }
}
