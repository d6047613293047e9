//! DTLS 1.2 over dimpl: handshake, fingerprint check, SRTP keys.
