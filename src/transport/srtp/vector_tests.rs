//! Known answers: RFC 3711 appendix B.2, RFC 7714 sections 16 and 17, and the packets with which the
//! reference library (libsrtp) validates itself.

use super::cipher::{Cipher, CmSha1};
use super::{ENCRYPTED_BIT, Inbound, Keys, Outbound, Profile, SrtpError};
use crate::ids::Ssrc;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_key_stream_is_that_of_rfc_3711_appendix_b_2() {
    let salt = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap();
    let cipher = CmSha1::new(&hex("2B7E151628AED2A6ABF7158809CF4F3C"), &[0; 20], &salt);
    let mut stream = vec![0; 0xff02 * 16];
    cipher.apply_key_stream(&mut stream, Ssrc(0), 0);
    assert_eq!(
        stream[..48],
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0")
    );
    assert_eq!(
        stream[0xfeff * 16..],
        hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44")
    );
}

const GCM_RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
    69736120 696e2070 61727465 73207472 6573";
const GCM_RTP_INDEX: u64 = 0xf17b;
const GCM_RTP_SSRC: Ssrc = Ssrc(0x5501_a0b2);

fn gcm(profile: Profile) -> Cipher {
    let key = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let salt = hex("517569642070726f2071756f 0000").try_into().unwrap();
    Cipher::new(profile, &key[..profile.key_len()], &[], &salt)
}

#[test]
fn rtp_is_sealed_and_opened_as_in_rfc_7714_section_16() {
    for (profile, sealed) in [
        (
            Profile::AeadAes128Gcm,
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
             0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
        ),
        (
            Profile::AeadAes256Gcm,
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
             9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
        ),
    ] {
        let (cipher, plain, sealed) = (gcm(profile), hex(GCM_RTP), hex(sealed));

        let mut out = vec![0; sealed.len()];
        out[..12].copy_from_slice(&plain[..12]);
        // The last five bytes as a suffix: it must make no difference how the payload is cut.
        let (payload, suffix) = plain[12..].split_at(plain.len() - 17);
        cipher.seal_rtp(&mut out, 12, payload, suffix, GCM_RTP_SSRC, GCM_RTP_INDEX);
        assert_eq!(out, sealed);

        let mut out = vec![0; sealed.len()];
        out[..plain.len()].copy_from_slice(&plain);
        cipher.seal_rtp_in_place(&mut out, 12, GCM_RTP_SSRC, GCM_RTP_INDEX);
        assert_eq!(out, sealed);

        let mut opened = vec![0; sealed.len()];
        cipher.open_rtp(&sealed, 12, &mut opened, GCM_RTP_SSRC, GCM_RTP_INDEX).unwrap();
        assert_eq!(opened[12..plain.len()], plain[12..]);
    }
}

const GCM_RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
    deadbeef deadbeef deadbeef deadbeef deadbeef";
const GCM_RTCP_SSRC: Ssrc = Ssrc(0x4d61_7273);
const GCM_RTCP_INDEX: u32 = 0x5d4;

#[test]
fn rtcp_is_sealed_and_opened_as_in_rfc_7714_sections_17_1_and_17_2() {
    for (profile, sealed) in [
        (
            Profile::AeadAes128Gcm,
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d
             c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        ),
        (
            Profile::AeadAes256Gcm,
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50
             a2eaa5c1 110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        ),
    ] {
        let (cipher, plain, sealed) = (gcm(profile), hex(GCM_RTCP), hex(sealed));
        let mut buf = plain.clone();
        buf.resize(sealed.len(), 0);
        cipher.seal_rtcp(&mut buf, plain.len(), GCM_RTCP_SSRC, GCM_RTCP_INDEX | ENCRYPTED_BIT);
        assert_eq!(buf, sealed);

        let word = cipher.rtcp_index_word(&buf);
        cipher.open_rtcp(&mut buf, GCM_RTCP_SSRC, word).unwrap();
        assert_eq!(buf[..plain.len()], plain);
    }
}

#[test]
fn rtcp_that_is_only_tagged_is_verified_as_in_rfc_7714_sections_17_3_and_17_4() {
    for (profile, tag) in [
        (Profile::AeadAes128Gcm, "841dd968 3dd78ec9 2ae58790 125f62b3"),
        (Profile::AeadAes256Gcm, "91db4afb feee5a97 8fab4393 ed2615fe"),
    ] {
        let (cipher, plain) = (gcm(profile), hex(GCM_RTCP));
        let sealed = [plain.clone(), hex(tag), GCM_RTCP_INDEX.to_be_bytes().to_vec()].concat();

        let mut packet = sealed.clone();
        cipher.open_rtcp(&mut packet, GCM_RTCP_SSRC, GCM_RTCP_INDEX).unwrap();
        assert_eq!(packet[..plain.len()], plain);

        for at in 0..sealed.len() {
            let mut packet = sealed.clone();
            packet[at] ^= 1;
            let word = cipher.rtcp_index_word(&packet);
            let ssrc = super::ssrc_at(&packet, 4);
            let outcome = cipher.open_rtcp(&mut packet, ssrc, word);
            assert_eq!(outcome, Err(SrtpError::Forged), "byte {at}");
        }
    }
}

/// libsrtp's `srtp_validate` and `srtcp` reference packets, under the master key of RFC 3711 appendix B.3.
fn reference_keys() -> Keys {
    let key = "e1f97a0d3e018be0d64fa32c06de4139";
    let salt = "0ec675ad498afeebb6960b3aabe6";
    let exported = hex(&[key, key, salt, salt].concat());
    Keys::from_exporter(Profile::Aes128CmSha1_80, &exported, true).unwrap()
}

#[test]
fn rtp_under_sha1_80_is_that_of_the_reference_library() {
    let plain = hex("800f1234 decafbad cafebabe abababab abababab abababab abababab");
    let sealed = hex("800f1234 decafbad cafebabe 4e55dc4c e79978d8 8ca4d215 949d2402 b78d6acc 99ea179b 8dbb");

    let mut out = vec![0; sealed.len()];
    out[..12].copy_from_slice(&plain[..12]);
    let mut outbound = Outbound::new(&reference_keys());
    let len = outbound.seal_rtp(&mut out, 12, &plain[12..], &[], Ssrc(0xcafe_babe), 0x1234);
    assert_eq!(out[..len], sealed);

    let mut opened = vec![0; sealed.len()];
    let len = Inbound::new(&reference_keys()).open_rtp(&sealed, 12, &mut opened).unwrap();
    assert_eq!(opened[..len], plain);
}

#[test]
fn rtcp_under_sha1_80_is_that_of_the_reference_library() {
    let plain = hex("81c8000b cafebabe abababab abababab abababab abababab");
    let sealed = hex("81c8000b cafebabe 7128035b e487b9bd bef89041 f977a5a8 80000001 993e08cd 54d6c123 0798");

    let mut outbound = Outbound::new(&reference_keys());
    outbound.rtcp_index = 1;
    let mut buf = plain.clone();
    buf.resize(sealed.len(), 0);
    assert_eq!(outbound.seal_rtcp(&mut buf, plain.len()), Some(sealed.len()));
    assert_eq!(buf, sealed);

    let len = Inbound::new(&reference_keys()).open_rtcp(&mut buf).unwrap();
    assert_eq!(buf[..len], plain);
}
