//! Every bound of Ringside, with what "full" means. Nothing in the product grows past a line of this file.

/// Largest UDP payload that Ringside accepts or sends; a larger one is discarded. An Ethernet MTU of
/// 1500 less IPv6 and UDP headers is 1452; browsers stay at or below 1200 + header extensions.
pub const DATAGRAM_BYTES: usize = 1500;

/// Longest mid or rid that is read from a packet; a longer one counts as absent.
pub const STREAM_ID_BYTES: usize = 32;

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

/// Bytes of a `mid`. It is written into every packet of a consumer; browsers use one to three. A longer one is refused.
pub const MID_BYTES: usize = 8;

/// Bytes of a `rid`: what the one-byte form of a header extension holds. A longer one is refused.
pub const RID_BYTES: usize = 16;

/// Encodings of one producer: simulcast has up to three qualities. More are refused.
pub const ENCODINGS: usize = 3;

/// Spatial layers of one encoding; more are refused.
pub const SPATIAL_LAYERS: usize = 4;

/// Temporal layers of one encoding; more are refused.
pub const TEMPORAL_LAYERS: usize = 4;

/// Codecs in the capabilities of a client, or in a request to produce. Chromium's own full list has about 50. More are refused.
pub const CODECS: usize = 128;

/// Header extensions in the capabilities of a client, or in a request to produce; Chromium's own list has about 30. More are refused.
pub const HEADER_EXTENSIONS: usize = 128;

/// Parameters of one codec or header extension; more are refused.
pub const CODEC_PARAMETERS: usize = 32;

/// RTCP feedback kinds of one codec; more are refused.
pub const RTCP_FEEDBACKS: usize = 32;

/// Bytes of a text in RTP parameters (a MIME type, a URI, a parameter, an msid); a longer one is refused.
pub const PARAMETER_TEXT_BYTES: usize = 256;

/// Bytes of a CNAME: what an SDES item holds (RFC 3550 section 6.5). A longer one is refused.
pub const CNAME_BYTES: usize = 255;
