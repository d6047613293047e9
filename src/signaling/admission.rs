//! Who a connection says it is: from the address that it asked for, and from what Socket.IO calls `auth`.
//!
//! Both framings end in the same [`Hello`], checked against the operator's join tokens where there are any.

use std::borrow::Cow;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::session::Hello;
use crate::signaling::settings::SignalingConfig;

/// What a client may say of itself: in the query of the address, or in Socket.IO's `auth`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    pub peer_id: Option<String>,
    pub display_name: Option<String>,
    /// A join token; where none are asked for, the resume token is taken here too.
    pub token: Option<String>,
    pub resume_token: Option<String>,
}

impl Claims {
    /// `?peerId=&token=&resumeToken=&displayName=`; what is not known is ignored, and of two the first counts.
    pub fn from_query(query: &str) -> Claims {
        let mut claims = Claims::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match name {
                "peerId" => &mut claims.peer_id,
                "displayName" => &mut claims.display_name,
                "token" => &mut claims.token,
                "resumeToken" => &mut claims.resume_token,
                _ => continue,
            };
            let decoded = decoded(&value.replace('+', " ")).filter(|value| !value.is_empty());
            *field = field.take().or(decoded);
        }
        claims
    }

    /// These, and where they say nothing, the others.
    pub fn or(self, other: Claims) -> Claims {
        Claims {
            peer_id: self.peer_id.or(other.peer_id),
            display_name: self.display_name.or(other.display_name),
            token: self.token.or(other.token),
            resume_token: self.resume_token.or(other.resume_token),
        }
    }

    /// `room` is the last segment of the path, as it stands there.
    pub fn hello(self, room: &str, config: &SignalingConfig) -> Result<Hello, Failure> {
        let room = decoded(room).ok_or(Failure::bad_request("the room's name is not UTF-8 in percent encoding"))?;
        let mut hello = Hello { room, peer: self.peer_id, resume: self.resume_token, display_name: self.display_name };
        match &config.token_secret {
            Some(secret) => check_token(secret, self.token.as_deref(), &mut hello)?,
            None => hello.resume = hello.resume.or(self.token),
        }
        Ok(hello)
    }
}

/// What a join token allows: a JWT (RFC 7519) signed with HS256. `exp` and `nbf` are looked at where they are.
#[derive(Deserialize)]
struct Permit {
    room: String,
    #[serde(default)]
    peer: Option<String>,
}

fn check_token(secret: &str, token: Option<&str>, hello: &mut Hello) -> Result<(), Failure> {
    let token = token.ok_or(Failure::new(ErrorCode::Unauthorized, "there is no token"))?;
    let mut rules = Validation::new(Algorithm::HS256);
    rules.required_spec_claims.clear();
    rules.validate_nbf = true;
    rules.validate_aud = false;
    let key = DecodingKey::from_secret(secret.as_bytes());
    let permit = jsonwebtoken::decode::<Permit>(token, &key, &rules)
        .map_err(|error| Failure::new(ErrorCode::Unauthorized, error.to_string()))?
        .claims;
    if permit.room != hello.room {
        return Err(Failure::new(ErrorCode::Forbidden, "the token is for another room"));
    }
    match (permit.peer, &hello.peer) {
        (Some(allowed), Some(wanted)) if allowed != *wanted => {
            return Err(Failure::new(ErrorCode::Forbidden, "the token is for another peer"));
        }
        (Some(allowed), _) => hello.peer = Some(allowed),
        (None, _) => {}
    }
    Ok(())
}

/// Percent decoding (RFC 3986 section 2.1); `None` for what is no UTF-8 or no hex.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (hex, after) = rest.split_at_checked(2)?;
        let plain: Cow<'_, str> = String::from_utf8_lossy(hex);
        if !plain.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(&plain, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    fn said(query: &str) -> Hello {
        Claims::from_query(query).hello("study", &SignalingConfig::default()).unwrap()
    }

    #[test]
    fn the_query_says_who_comes() {
        let hello = said("peerId=ada&displayName=Ada+L%C3%B6velace&resumeToken=abc&unknown=1&flag");
        assert_eq!(hello.peer.as_deref(), Some("ada"));
        assert_eq!(hello.display_name.as_deref(), Some("Ada Lövelace"));
        assert_eq!(hello.resume.as_deref(), Some("abc"));
        assert_eq!(said("").peer, None);
        assert_eq!(said("peerId=&peerId=bob&peerId=eve").peer.as_deref(), Some("bob"));
    }

    #[test]
    fn without_join_tokens_the_token_is_the_one_to_resume_with() {
        assert_eq!(said("token=abc").resume.as_deref(), Some("abc"));
        assert_eq!(said("token=abc&resumeToken=def").resume.as_deref(), Some("def"));
    }

    #[test]
    fn what_socket_io_calls_auth_goes_before_the_query() {
        let auth: Claims = serde_json::from_value(json!({"peerId": "ada", "x": 1})).unwrap();
        let both = auth.or(Claims::from_query("peerId=bob&token=t"));
        assert_eq!((both.peer_id.as_deref(), both.token.as_deref()), (Some("ada"), Some("t")));
    }

    #[test]
    fn room_names_are_decoded_and_nonsense_is_refused() {
        let room = |text| Claims::default().hello(text, &SignalingConfig::default()).map(|hello| hello.room);
        assert_eq!(room("Lesezimmer%20f%C3%BCr%2Falle").unwrap(), "Lesezimmer für/alle");
        assert_eq!(room("a+b").unwrap(), "a+b");
        for nonsense in ["%", "%4", "%zz", "%+1", "%ff", "50%"] {
            assert_eq!(room(nonsense).unwrap_err().code, ErrorCode::BadRequest, "{nonsense}");
        }
    }

    fn token(secret: &str, claims: Value) -> String {
        encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn a_join_token_opens_its_room_to_its_peer_only() {
        let config = SignalingConfig { token_secret: Some("secret".to_owned()), ..SignalingConfig::default() };
        let enter = |token: Option<String>, peer: Option<&str>| {
            let claims = Claims { token, peer_id: peer.map(str::to_owned), ..Claims::default() };
            claims.hello("study", &config).map(|hello| hello.peer)
        };
        let good = token("secret", json!({"room": "study", "peer": "ada"}));
        assert_eq!(enter(Some(good.clone()), None).unwrap().as_deref(), Some("ada"));
        assert_eq!(enter(Some(good.clone()), Some("ada")).unwrap().as_deref(), Some("ada"));
        assert_eq!(enter(Some(good), Some("bob")).unwrap_err().code, ErrorCode::Forbidden);
        let anybody = token("secret", json!({"room": "study", "exp": 4_000_000_000u64}));
        assert_eq!(enter(Some(anybody), Some("bob")).unwrap().as_deref(), Some("bob"));
        let elsewhere = token("secret", json!({"room": "other"}));
        assert_eq!(enter(Some(elsewhere), None).unwrap_err().code, ErrorCode::Forbidden);
        for bad in [
            None,
            Some(String::new()),
            Some("a.b.c".to_owned()),
            Some(token("guess", json!({"room": "study"}))),
            Some(token("secret", json!({"room": "study", "exp": 1_000_000_000}))),
            Some(token("secret", json!({"room": "study", "nbf": 4_000_000_000u64}))),
            Some(token("secret", json!({"peer": "ada"}))),
        ] {
            assert_eq!(enter(bad.clone(), None).unwrap_err().code, ErrorCode::Unauthorized, "{bad:?}");
        }
    }
}
