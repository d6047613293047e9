//! ICE-lite (RFC 8445 section 2.5): answers checks, remembers tuples, tells which one is selected.
