//! RTP parameters: what a producer offers, what a consumer gets.
