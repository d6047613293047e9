//! Big-endian fields at an offset, never beyond the end.

use crate::ids::Ssrc;

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

#[inline]
pub(crate) fn u24_at(bytes: &[u8], at: usize) -> Option<u32> {
    let [a, b, c] = array_at(bytes, at)?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_be_bytes)
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_be_bytes)
}

#[inline]
pub(crate) fn ssrc_at(bytes: &[u8], at: usize) -> Option<Ssrc> {
    u32_at(bytes, at).map(Ssrc)
}

/// Every whole SSRC.
#[inline]
pub(crate) fn ssrcs(bytes: &[u8]) -> impl Iterator<Item = Ssrc> + use<'_> {
    bytes.chunks_exact(4).map_while(|ssrc| ssrc_at(ssrc, 0))
}

#[inline]
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
