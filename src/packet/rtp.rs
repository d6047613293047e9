//! RTP packets (RFC 3550 section 5.1, RFC 8285): a view over received bytes, and the writing of headers.
