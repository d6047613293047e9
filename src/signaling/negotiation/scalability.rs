//! `scalabilityMode` of WebRTC-SVC: how many layers one stream carries.
//!
//! `L3T3_KEY` is three spatial and three temporal layers, spatial prediction at key frames only;
//! `S3T1` is three independent pictures in one stream.

use crate::limits::{SPATIAL_LAYERS, TEMPORAL_LAYERS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layering {
    /// 1 to 4.
    pub spatial: u8,
    /// 1 to 4.
    pub temporal: u8,
}

/// A stream without layers; also what a mode that is none of the known forms is taken for.
pub const PLAIN: Layering = Layering { spatial: 1, temporal: 1 };

/// `Ok(None)` for a text of another form; `Err` for more layers than Ringside can tell apart.
pub fn parse(mode: &str) -> Result<Option<Layering>, TooManyLayers> {
    let Some((spatial, temporal)) = split(mode) else { return Ok(None) };
    if !(1..=SPATIAL_LAYERS).contains(&spatial) || !(1..=TEMPORAL_LAYERS).contains(&temporal) {
        return Err(TooManyLayers);
    }
    Ok(Some(Layering { spatial: spatial as u8, temporal: temporal as u8 }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyLayers;

/// The two counts of `[LS]<1-2 digits>T<1-2 digits>` with an optional suffix: `h`, `_KEY`, `_KEY_SHIFT`.
fn split(mode: &str) -> Option<(usize, usize)> {
    let rest = mode.strip_prefix(['L', 'S'])?;
    let (spatial, rest) = rest.split_once('T')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (temporal, suffix) = rest.split_at(digits);
    let count = |text: &str| -> Option<usize> {
        let plain = !text.is_empty() && text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().ok()).flatten()
    };
    matches!(suffix, "" | "h" | "_KEY" | "_KEY_SHIFT").then_some(())?;
    Some((count(spatial)?, count(temporal)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted() {
        for (mode, spatial, temporal) in [
            ("L1T1", 1, 1),
            ("L1T3", 1, 3),
            ("L3T3", 3, 3),
            ("L3T3_KEY", 3, 3),
            ("L3T2h", 3, 2),
            ("L2T2_KEY_SHIFT", 2, 2),
            ("S3T1", 3, 1),
            ("S2T3h", 2, 3),
        ] {
            assert_eq!(parse(mode), Ok(Some(Layering { spatial, temporal })), "{mode}");
        }
    }

    #[test]
    fn another_form_says_nothing() {
        for mode in ["", "L", "LT", "L1", "T3", "l1t3", "L1T", "LxT1", "L1T3_", "L1T3_FOO", "L001T1", "L+1T1", "Ⅼ1T1"]
        {
            assert_eq!(parse(mode), Ok(None), "{mode}");
        }
    }

    #[test]
    fn more_layers_than_can_be_told_apart_are_refused() {
        for mode in ["L5T1", "L1T5", "L99T99", "S0T1", "L1T0"] {
            assert_eq!(parse(mode), Err(TooManyLayers), "{mode}");
        }
    }
}
