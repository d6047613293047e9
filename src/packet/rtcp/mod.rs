//! RTCP packets (RFC 3550 section 6, RFC 4585, RFC 5104, RFC 3611): views and writers.
