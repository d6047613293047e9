//! Which packets of an uplink are missing, and when to ask for them again.
