//! What the control plane counts, for `/metrics` and `/api/stats`. Counters never go back.

use crate::signaling::error::ErrorCode;
use crate::signaling::message::METHODS;
use crate::signaling::session::CloseReason;

#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub connections_opened: u64,
    pub connections_resumed: u64,
    /// Connections that the server ended, as [`CloseReason::LABELS`].
    pub closed: [u64; CloseReason::LABELS.len()],
    /// As [`METHODS`].
    pub requests: [u64; METHODS.len()],
    pub unknown_requests: u64,
    /// As [`ErrorCode::ALL`].
    pub errors: [u64; ErrorCode::ALL.len()],
    pub notifications: u64,
    pub reply_timeouts: u64,
}

impl Counters {
    pub fn request(&mut self, method: Option<usize>) {
        match method {
            Some(index) => self.requests[index] += 1,
            None => self.unknown_requests += 1,
        }
    }

    pub fn error(&mut self, code: ErrorCode) {
        self.errors[code as usize] += 1;
    }

    pub fn close(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
    }
}
