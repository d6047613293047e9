//! Our bytes against those of `webrtc-srtp`, an independent implementation, in both directions.

use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;

use super::tests::{Random, keys, rtcp_compound, rtp_packet};
use super::{Inbound, Outbound, Profile};

fn oracle(profile: Profile, exported: &[u8], of_client: bool) -> Context {
    let theirs = match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Profile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    let (keys, salts) = exported.split_at(2 * profile.key_len());
    let side = usize::from(!of_client);
    let key = &keys[side * profile.key_len()..][..profile.key_len()];
    let salt = &salts[side * profile.salt_len()..][..profile.salt_len()];
    Context::new(key, salt, theirs, None, None).unwrap()
}

/// 300 packets of one stream over a wrap of the sequence number, of all sizes up to an MTU.
fn stream(random: &mut Random) -> impl Iterator<Item = (Vec<u8>, usize, u64)> {
    (0xff80..0xff80 + 300_u64).map(move |index| {
        let payload = random.below(1200);
        let (packet, header_len) = rtp_packet(random, 0xfeed_0001, index as u16, payload);
        (packet, header_len, index)
    })
}

#[test]
fn rtp_is_sealed_to_the_same_bytes_and_opened_by_the_other_side() {
    for profile in Profile::ALL {
        let mut random = Random(profile as u64 + 1);
        let (exported, keys) = keys(profile, &mut random);
        let mut outbound = Outbound::new(&keys);
        let mut their_sealer = oracle(profile, &exported, true);
        let mut their_opener = oracle(profile, &exported, true);
        for (plain, header_len, index) in stream(&mut random.clone()) {
            let ssrc = super::ssrc_at(&plain, 8);
            let theirs = their_sealer.encrypt_rtp(&plain).unwrap();

            let mut ours = vec![0; plain.len() + profile.rtp_overhead()];
            ours[..header_len].copy_from_slice(&plain[..header_len]);
            let (payload, suffix) = plain[header_len..].split_at(random.below(plain.len() - header_len + 1));
            let len = outbound.seal_rtp(&mut ours, header_len, payload, suffix, ssrc, index);
            assert_eq!(ours[..len], theirs);

            let mut in_place = plain.clone();
            in_place.resize(plain.len() + profile.rtp_overhead(), 0);
            let len = outbound.seal_rtp_in_place(&mut in_place, header_len, plain.len(), ssrc, index);
            assert_eq!(in_place[..len], theirs);

            assert_eq!(their_opener.decrypt_rtp(&ours).unwrap(), plain);
        }
    }
}

#[test]
fn rtp_that_the_other_side_sealed_is_opened() {
    for profile in Profile::ALL {
        let mut random = Random(profile as u64 + 11);
        let (exported, keys) = keys(profile, &mut random);
        let mut inbound = Inbound::new(&keys);
        let mut theirs = oracle(profile, &exported, false);
        for (plain, header_len, _) in stream(&mut random) {
            let sealed = theirs.encrypt_rtp(&plain).unwrap();
            let mut out = vec![0; sealed.len()];
            let len = inbound.open_rtp(&sealed, header_len, &mut out).unwrap();
            assert_eq!(out[..len], plain);
        }
    }
}

#[test]
fn rtcp_is_opened_by_the_other_side_in_both_directions() {
    for profile in Profile::ALL {
        let mut random = Random(profile as u64 + 21);
        let (exported, keys) = keys(profile, &mut random);
        let (mut outbound, mut inbound) = (Outbound::new(&keys), Inbound::new(&keys));
        let mut their_opener = oracle(profile, &exported, true);
        let mut their_sealer = oracle(profile, &exported, false);
        for _ in 0..200 {
            let words = random.below(60);
            let plain = rtcp_compound(&mut random, words);
            let mut buf = plain.clone();
            buf.resize(plain.len() + profile.rtcp_overhead(), 0);
            let len = outbound.seal_rtcp(&mut buf, plain.len()).unwrap();
            assert_eq!(len, buf.len());
            assert_eq!(their_opener.decrypt_rtcp(&buf).unwrap(), plain);

            let mut sealed = their_sealer.encrypt_rtcp(&plain).unwrap().to_vec();
            let len = inbound.open_rtcp(&mut sealed).unwrap();
            assert_eq!(sealed[..len], plain);
        }
    }
}
