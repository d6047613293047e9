//! What RFC 3550 says about a received stream: loss, jitter, reports.
