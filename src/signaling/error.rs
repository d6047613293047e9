//! The closed set of error codes that a client, over either framing or plain HTTP, can meet.
//!
//! Every refusal of the control plane is a [`Failure`]: a code, its one English sentence, and
//! sometimes a detail for the developer. Session handlers make them, framings only write them down.
//! Nothing here knows a wire format beyond the code string and the HTTP status.

use std::borrow::Cow;

use serde::Serialize;

use crate::shard::command::Refusal;
use crate::signaling::negotiation::NegotiationError;

/// What went wrong, in one word that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum ErrorCode {
    BadRequest,
    UnknownMethod,
    NotFound,
    RoomFull,
    PeerIdTaken,
    Unauthorized,
    Forbidden,
    AlreadyConnected,
    UnsupportedCodec,
    CannotConsume,
    TooMany,
    RateLimited,
    Draining,
    Overloaded,
    Internal,
}

impl ErrorCode {
    pub const ALL: [ErrorCode; 15] = [
        ErrorCode::BadRequest,
        ErrorCode::UnknownMethod,
        ErrorCode::NotFound,
        ErrorCode::RoomFull,
        ErrorCode::PeerIdTaken,
        ErrorCode::Unauthorized,
        ErrorCode::Forbidden,
        ErrorCode::AlreadyConnected,
        ErrorCode::UnsupportedCodec,
        ErrorCode::CannotConsume,
        ErrorCode::TooMany,
        ErrorCode::RateLimited,
        ErrorCode::Draining,
        ErrorCode::Overloaded,
        ErrorCode::Internal,
    ];

    /// As it stands on the wire, in logs and as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "bad-request",
            ErrorCode::UnknownMethod => "unknown-method",
            ErrorCode::NotFound => "not-found",
            ErrorCode::RoomFull => "room-full",
            ErrorCode::PeerIdTaken => "peer-id-taken",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::AlreadyConnected => "already-connected",
            ErrorCode::UnsupportedCodec => "unsupported-codec",
            ErrorCode::CannotConsume => "cannot-consume",
            ErrorCode::TooMany => "too-many",
            ErrorCode::RateLimited => "rate-limited",
            ErrorCode::Draining => "draining",
            ErrorCode::Overloaded => "overloaded",
            ErrorCode::Internal => "internal",
        }
    }

    /// The one sentence that people read.
    pub const fn sentence(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "The request is not well formed.",
            ErrorCode::UnknownMethod => "There is no such method.",
            ErrorCode::NotFound => "There is no such room, peer, transport, producer or consumer.",
            ErrorCode::RoomFull => "The room has no free place.",
            ErrorCode::PeerIdTaken => "Somebody in the room has this peer id already.",
            ErrorCode::Unauthorized => "A valid token is needed.",
            ErrorCode::Forbidden => "This is not allowed to this peer.",
            ErrorCode::AlreadyConnected => "The transport is connected already.",
            ErrorCode::UnsupportedCodec => "The room does not carry this codec.",
            ErrorCode::CannotConsume => "These capabilities cannot receive this producer.",
            ErrorCode::TooMany => "A limit on how many of these may exist is reached.",
            ErrorCode::RateLimited => "Too many requests arrived in too short a time.",
            ErrorCode::Draining => "The server is going down and takes nobody new.",
            ErrorCode::Overloaded => "The server has no capacity left at the moment.",
            ErrorCode::Internal => "The server failed to answer; this is not the client's fault.",
        }
    }

    pub const fn http_status(self) -> u16 {
        match self {
            ErrorCode::BadRequest => 400,
            ErrorCode::Unauthorized => 401,
            ErrorCode::Forbidden => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::UnknownMethod => 405,
            ErrorCode::RoomFull | ErrorCode::PeerIdTaken | ErrorCode::AlreadyConnected | ErrorCode::TooMany => 409,
            ErrorCode::UnsupportedCodec | ErrorCode::CannotConsume => 422,
            ErrorCode::RateLimited => 429,
            ErrorCode::Internal => 500,
            ErrorCode::Draining | ErrorCode::Overloaded => 503,
        }
    }
}

/// A refusal on its way to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} ({})", code.sentence(), detail.as_deref().unwrap_or(code.as_str()))]
pub struct Failure {
    pub code: ErrorCode,
    /// For the developer of the client: which field, which id. Never secrets, never states of others.
    pub detail: Option<Cow<'static, str>>,
}

impl Failure {
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Failure {
        Failure { code, detail: Some(detail.into()) }
    }

    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Failure {
        Failure::new(ErrorCode::BadRequest, detail)
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Failure {
        Failure { code, detail: None }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let code = match refusal {
            Refusal::NotFound => ErrorCode::NotFound,
            Refusal::AlreadyConnected => ErrorCode::AlreadyConnected,
            Refusal::TooMany => ErrorCode::TooMany,
            Refusal::Conflict | Refusal::NoFingerprint | Refusal::WrongDirection => ErrorCode::BadRequest,
        };
        Failure::new(code, refusal.to_string())
    }
}

impl From<NegotiationError> for Failure {
    fn from(error: NegotiationError) -> Failure {
        let code = match error {
            NegotiationError::BadRequest { .. } => ErrorCode::BadRequest,
            NegotiationError::UnsupportedCodec { .. } => ErrorCode::UnsupportedCodec,
            NegotiationError::CannotConsume { .. } => ErrorCode::CannotConsume,
        };
        Failure::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_the_same_way_everywhere() {
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(code as usize, index, "{} stands at its place in ALL", code.as_str());
        }
    }

    #[test]
    fn every_code_has_one_sentence_and_an_error_status() {
        for code in ErrorCode::ALL {
            let sentence = code.sentence();
            assert!(sentence.ends_with('.') && sentence.matches('.').count() == 1, "{sentence}");
            assert!((400..600).contains(&code.http_status()));
        }
    }

    #[test]
    fn what_a_shard_refuses_becomes_a_code_of_the_set() {
        for (refusal, code) in [
            (Refusal::NotFound, ErrorCode::NotFound),
            (Refusal::AlreadyConnected, ErrorCode::AlreadyConnected),
            (Refusal::TooMany, ErrorCode::TooMany),
            (Refusal::Conflict, ErrorCode::BadRequest),
            (Refusal::WrongDirection, ErrorCode::BadRequest),
            (Refusal::NoFingerprint, ErrorCode::BadRequest),
        ] {
            assert_eq!(Failure::from(refusal).code, code);
        }
    }
}
