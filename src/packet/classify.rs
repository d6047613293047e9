//! What a datagram is, by its first bytes (RFC 7983, RFC 5761).
