//! Every bound of Ringside, with what "full" means. Nothing in the product grows past a line of this file.

/// Largest UDP payload that Ringside accepts or sends; a larger one is discarded. An Ethernet MTU of
/// 1500 less IPv6 and UDP headers is 1452; browsers stay at or below 1200 + header extensions.
pub const DATAGRAM_BYTES: usize = 1500;

/// Bytes of one run: all datagrams that leave in one GSO message. The kernel's own limit is 65,507.
pub const RUN_BYTES: usize = 16 * 1024;

/// Datagrams in one GSO message; the kernel's limit is 64 before Linux 6.9 and 128 since.
pub const RUN_SEGMENTS: usize = 16;

/// SSRCs whose RTP one transport may receive in its life; packets of a further one are refused. A browser
/// takes new SSRCs whenever a camera is opened again (three layers and their RTX: six), so this is 170 times.
/// 32 bytes each, taken as they appear.
pub const RTP_SSRCS_PER_TRANSPORT: usize = 1024;

/// SSRCs whose RTCP one transport may receive; packets of a further one are refused. Firefox reports with an
/// SSRC of its own for each stream that it receives.
pub const RTCP_SSRCS_PER_TRANSPORT: usize = 1024;
