//! The arrival record of an uplink, told to its sender (transport-wide congestion control feedback).
