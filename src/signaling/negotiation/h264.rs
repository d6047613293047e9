//! H.264's `profile-level-id` (RFC 6184 section 8.1): three bytes in hex that name profile and level.
//!
//! Two ends understand each other when the profiles are the same; the level is a promise of what the
//! receiver can take, and is answered with the lower one unless both allow asymmetry (section 8.2.2).

use serde_json::Value;

use super::matching::number;
use super::parameters::CodecParameters;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    PredictiveHigh444,
}

/// Level in tenths; level 1b stands between 1 and 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Level {
    tenths: u8,
    b: bool,
}

/// What a missing `profile-level-id` means to browsers: constrained baseline, level 3.1. (RFC 6184
/// would say baseline level 1, which no browser implements.)
const DEFAULT: (Profile, Level) = (Profile::ConstrainedBaseline, Level { tenths: 31, b: false });

/// Profiles by `profile_idc` and the bits of `profile_iop` that matter: (idc, mask, bits), RFC 6184 table 5.
const PROFILES: &[(u8, u8, u8, Profile)] = &[
    (0x42, 0b0100_1111, 0b0100_0000, Profile::ConstrainedBaseline),
    (0x4d, 0b1000_1111, 0b1000_0000, Profile::ConstrainedBaseline),
    (0x58, 0b1100_1111, 0b1100_0000, Profile::ConstrainedBaseline),
    (0x42, 0b0100_1111, 0b0000_0000, Profile::Baseline),
    (0x58, 0b1100_1111, 0b1000_0000, Profile::Baseline),
    (0x4d, 0b1010_1111, 0b0000_0000, Profile::Main),
    (0x64, 0b1111_1111, 0b0000_0000, Profile::High),
    (0x64, 0b1111_1111, 0b0000_1100, Profile::ConstrainedHigh),
    (0xf4, 0b1111_1111, 0b0000_0000, Profile::PredictiveHigh444),
];

/// Whether both name the same profile; an unreadable `profile-level-id` matches nothing.
pub fn same_profile(a: &CodecParameters, b: &CodecParameters) -> bool {
    match (profile_level(a), profile_level(b)) {
        (Some((a, _)), Some((b, _))) => a == b,
        _ => false,
    }
}

/// The `profile-level-id` to go on with after `sender` was matched with `router`; `None` leaves it out.
pub fn answered_profile_level_id(sender: &CodecParameters, router: &CodecParameters) -> Option<Value> {
    let id = |parameters: &CodecParameters| parameters.get("profile-level-id").cloned();
    let asymmetry = |parameters| number(parameters, "level-asymmetry-allowed") == Some(1);
    let (sender_level, router_level) = (profile_level(sender)?.1, profile_level(router)?.1);
    let own = (asymmetry(sender) && asymmetry(router)) || sender_level <= router_level;
    if own { id(sender) } else { id(router) }
}

fn profile_level(parameters: &CodecParameters) -> Option<(Profile, Level)> {
    match parameters.get("profile-level-id") {
        None => Some(DEFAULT),
        Some(Value::String(text)) => parse(text),
        // A value of digits only, such as 640032 or 420010, may have become a number on its way.
        Some(Value::Number(number)) => parse(&format!("{:06}", number.as_u64()?)),
        Some(_) => None,
    }
}

fn parse(text: &str) -> Option<(Profile, Level)> {
    if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let [_, idc, iop, level] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
    let (.., profile) = PROFILES.iter().find(|(known, mask, bits, _)| *known == idc && iop & mask == *bits)?;
    // Level 1b: 11 with constraint_set3 (baseline, main, extended), or 9 (the high profiles).
    let one_b = level == 9 || (level == 11 && iop & 0x10 != 0 && idc < 0x60);
    let level = match (one_b, level) {
        (true, _) => Level { tenths: 10, b: true },
        (false, tenths @ 10..=62) => Level { tenths, b: false },
        _ => return None,
    };
    Some((*profile, level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parameters(value: Value) -> CodecParameters {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn profiles_are_read_as_browsers_write_them() {
        for (text, profile, tenths) in [
            ("42e01f", Profile::ConstrainedBaseline, 31),
            ("42001f", Profile::Baseline, 31),
            ("4D0028", Profile::Main, 40),
            ("64001f", Profile::High, 31),
            ("640c34", Profile::ConstrainedHigh, 52),
            ("f4001f", Profile::PredictiveHigh444, 31),
        ] {
            assert_eq!(parse(text), Some((profile, Level { tenths, b: false })), "{text}");
        }
    }

    #[test]
    fn level_1b_stands_between_1_and_1_1() {
        let level = |text| parse(text).unwrap().1;
        assert!(level("42e00a") < level("42f00b"));
        assert!(level("42f00b") < level("42e00b"));
    }

    #[test]
    fn an_unreadable_value_matches_nothing() {
        for text in ["", "42e0", "42e01f0", "zze01f", "+2e01f", "99e01f", "42e0ff", "ﬀﬀ"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        let odd = parameters(json!({"profile-level-id": true}));
        assert!(!same_profile(&odd, &odd));
    }

    #[test]
    fn a_missing_value_means_constrained_baseline() {
        assert!(same_profile(&parameters(json!({})), &parameters(json!({"profile-level-id": "42e034"}))));
    }

    #[test]
    fn the_lower_level_is_answered_unless_both_allow_asymmetry() {
        let (low, high) = (json!({"profile-level-id": "42e01f"}), json!({"profile-level-id": "42e034"}));
        let answer = |a: &Value, b: &Value| answered_profile_level_id(&parameters(a.clone()), &parameters(b.clone()));
        assert_eq!(answer(&high, &low), Some(json!("42e01f")));
        assert_eq!(answer(&low, &high), Some(json!("42e01f")));
        let asymmetric = |mut value: Value| {
            value["level-asymmetry-allowed"] = json!(1);
            value
        };
        assert_eq!(answer(&asymmetric(high), &asymmetric(low)), Some(json!("42e034")));
    }
}
