//! HTTP/1.1: the demo page, the operator's API, health, metrics, and the door to both framings.
//!
//! Each route has its own function; a refusal is a problem body (RFC 9457) with a code of the closed set. Called by
//! the server once per request; waits for nothing without a bound.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use fastwebsockets::upgrade;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::limits;
use crate::signaling::admission::{Claims, decoded};
use crate::signaling::error::{ErrorCode, Failure};
use crate::signaling::hub::Hub;
use crate::signaling::metrics::{self, Snapshot};
use crate::signaling::page::{ASSETS, Asset};
use crate::signaling::protoo;
use crate::signaling::session::NewRoom;

pub type Answer = Response<Full<Bytes>>;

/// Everything on the port but Socket.IO.
#[derive(Clone)]
pub struct Site {
    hub: Hub,
    started_at: Instant,
}

/// What a path names.
#[derive(Clone, Copy)]
enum Route<'a> {
    Asset(&'static Asset),
    /// The signaling of a room, over WebSocket.
    Signaling(&'a str),
    Rooms,
    Room(&'a str),
    RoomStats(&'a str),
    Stats,
    Health,
    Ready,
    Metrics,
}

impl<'a> Route<'a> {
    fn find(path: &'a str) -> Option<Route<'a>> {
        if let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) {
            return Some(Route::Asset(asset));
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match *segments {
            ["index.html"] => Some(Route::Asset(&ASSETS[0])),
            ["room", name] if !name.is_empty() => Some(Route::Signaling(name)),
            ["api", "rooms"] => Some(Route::Rooms),
            ["api", "rooms", name] if !name.is_empty() => Some(Route::Room(name)),
            ["api", "rooms", name, "stats"] if !name.is_empty() => Some(Route::RoomStats(name)),
            ["api", "stats"] => Some(Route::Stats),
            ["health"] => Some(Route::Health),
            ["ready"] => Some(Route::Ready),
            ["metrics"] => Some(Route::Metrics),
            _ => None,
        }
    }

    fn methods(self) -> &'static [Method] {
        const READ: &[Method] = &[Method::GET, Method::HEAD];
        match self {
            Route::Signaling(_) => &[Method::GET],
            Route::Rooms => &[Method::GET, Method::HEAD, Method::POST],
            Route::Room(_) => &[Method::GET, Method::HEAD, Method::DELETE],
            _ => READ,
        }
    }

    fn is_api(self) -> bool {
        matches!(self, Route::Rooms | Route::Room(_) | Route::RoomStats(_) | Route::Stats)
    }
}

/// A refusal with the status and headers that go with it.
struct Problem {
    status: StatusCode,
    failure: Failure,
    header: Option<(header::HeaderName, String)>,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem { status, failure, header: None }
    }
}

impl From<ErrorCode> for Problem {
    fn from(code: ErrorCode) -> Problem {
        Failure::from(code).into()
    }
}

impl Site {
    pub fn new(hub: Hub) -> Site {
        Site { hub, started_at: Instant::now() }
    }

    async fn serve(self, request: Request<Incoming>) -> Answer {
        let origin = request.headers().get(header::ORIGIN).cloned();
        let is_api = request.uri().path().starts_with("/api/");
        let answer = tokio::time::timeout(limits::HTTP_TIMEOUT, self.answer(request)).await;
        let mut answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => problem_body(problem),
            Err(_) => problem_body(Problem {
                status: StatusCode::REQUEST_TIMEOUT,
                failure: Failure::bad_request("the request did not arrive in time"),
                header: None,
            }),
        };
        if is_api {
            allow_origin(&self.hub, origin.as_ref(), answer.headers_mut());
        }
        answer
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        let path = request.uri().path().to_owned();
        let route = Route::find(&path).ok_or(ErrorCode::NotFound)?;
        let methods = route.methods();
        if request.method() == Method::OPTIONS && route.is_api() {
            return Ok(preflight(methods));
        }
        if !methods.contains(request.method()) {
            let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
            let header = Some((header::ALLOW, allowed.join(", ")));
            return Err(Problem { header, ..ErrorCode::UnknownMethod.into() });
        }
        if route.is_api() {
            self.check_api_token(request.headers())?;
        }
        match (route, request.method()) {
            (Route::Asset(asset), _) => Ok(asset_body(asset)),
            (Route::Signaling(name), _) => self.open_signaling(name, request),
            (Route::Rooms, &Method::POST) => self.create_room(request).await,
            (Route::Rooms, _) => Ok(ok(&json!({ "rooms": self.hub.with(|control, now| control.rooms(now)) }))),
            (Route::Room(name), &Method::DELETE) => self.delete_room(name),
            (Route::Room(name), _) => {
                let name = room_name(name)?;
                Ok(ok(&self.hub.with(|control, now| control.room(now, &name))?))
            }
            (Route::RoomStats(name), _) => Ok(ok(&json!({ "stats": self.hub.room_stats(&room_name(name)?).await? }))),
            (Route::Stats, _) => self.stats().await,
            (Route::Health, _) => Ok(ok(&json!({ "status": "alive" }))),
            (Route::Ready, _) => self.ready(),
            (Route::Metrics, _) => self.metrics().await,
        }
    }

    fn check_api_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.hub.config().api_token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let same = |given| aws_lc_rs::constant_time::verify_slices_are_equal(given, token.as_bytes()).is_ok();
        if given.is_some_and(same) {
            return Ok(());
        }
        Err(Problem { header: Some((header::WWW_AUTHENTICATE, "Bearer".to_owned())), ..ErrorCode::Unauthorized.into() })
    }

    /// From here on the connection speaks WebSocket; whether it may enter, it is told there.
    fn open_signaling(&self, name: &str, mut request: Request<Incoming>) -> Result<Answer, Problem> {
        if !upgrade::is_upgrade_request(&request) {
            let failure = Failure::bad_request("this address speaks WebSocket");
            let header = Some((header::UPGRADE, "websocket".to_owned()));
            return Err(Problem { status: StatusCode::UPGRADE_REQUIRED, failure, header });
        }
        let claims = request.uri().query().map(Claims::from_query).unwrap_or_default();
        let hello = claims.hello(name, self.hub.config());
        let speaks_protoo = offers_protoo(request.headers());
        let (response, upgraded) =
            upgrade::upgrade(&mut request).map_err(|error| Failure::bad_request(error.to_string()))?;
        let hub = self.hub.clone();
        tokio::spawn(async move {
            match upgraded.await {
                Ok(socket) => protoo::serve(hub, socket.into_inner(), hello).await,
                Err(error) => tracing::debug!("a WebSocket did not open: {error}"),
            }
        });
        let (mut parts, Empty { .. }) = response.into_parts();
        if speaks_protoo {
            parts.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("protoo"));
        }
        Ok(Response::from_parts(parts, Full::default()))
    }

    async fn create_room(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        let wanted: NewRoom = json_body(request).await?;
        let room = self.hub.with(|control, now| control.create_room(now, &wanted))?;
        Ok(answer(StatusCode::CREATED, "application/json", room.to_string()))
    }

    fn delete_room(&self, name: &str) -> Result<Answer, Problem> {
        let name = room_name(name)?;
        self.hub.with(|control, _| control.delete_room(&name))?;
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    async fn stats(&self) -> Result<Answer, Problem> {
        let snapshot = self.snapshot().await?;
        let totals: serde_json::Map<String, Value> =
            snapshot.totals.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        Ok(ok(&json!({
            "uptimeSeconds": self.started_at.elapsed().as_secs(),
            "connections": snapshot.connections,
            "draining": snapshot.draining,
            "totals": totals,
            "errors": named(ErrorCode::ALL.map(ErrorCode::as_str), &snapshot.counters.errors),
            "workers": snapshot.workers,
        })))
    }

    fn ready(&self) -> Result<Answer, Problem> {
        let refusal = self.hub.with(|control, _| match () {
            () if control.is_draining() => Some(ErrorCode::Draining),
            () if control.is_overloaded() => Some(ErrorCode::Overloaded),
            () => None,
        });
        match refusal {
            Some(code) => Err(code.into()),
            None => Ok(ok(&json!({ "status": "ready" }))),
        }
    }

    async fn metrics(&self) -> Result<Answer, Problem> {
        let text = metrics::text(self.snapshot().await?).map_err(|_| ErrorCode::Internal)?;
        Ok(answer(StatusCode::OK, metrics::CONTENT_TYPE, text))
    }

    async fn snapshot(&self) -> Result<Snapshot, Failure> {
        let workers = self.hub.worker_stats().await?;
        let (counters, totals, draining) =
            self.hub.with(|control, _| (control.counters.clone(), control.totals().to_vec(), control.is_draining()));
        Ok(Snapshot { workers, counters, totals, connections: self.hub.connections(), draining })
    }
}

impl hyper::service::Service<Request<Incoming>> for Site {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let site = self.clone();
        Box::pin(async move { Ok(site.serve(request).await) })
    }
}

async fn json_body<T: for<'de> Deserialize<'de>>(request: Request<Incoming>) -> Result<T, Problem> {
    let body = Limited::new(request.into_body(), limits::MESSAGE_BYTES).collect().await;
    let bytes = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let failure = Failure::bad_request(format!("at most {} bytes", limits::MESSAGE_BYTES));
            return Err(Problem { status: StatusCode::PAYLOAD_TOO_LARGE, failure, header: None });
        }
        Err(_) => return Err(Failure::bad_request("the body did not arrive whole").into()),
    };
    let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
    serde_json::from_slice(&bytes).map_err(|error| Failure::bad_request(error.to_string()).into())
}

fn room_name(segment: &str) -> Result<String, Failure> {
    decoded(segment).ok_or(Failure::bad_request("the room's name is not UTF-8 in percent encoding"))
}

fn named<const N: usize>(names: [&'static str; N], counts: &[u64; N]) -> Value {
    names.into_iter().zip(counts).map(|(name, count)| (name.to_owned(), json!(count))).collect()
}

/// Whether `protoo` is among the subprotocols that the client would speak (RFC 6455 section 4.1).
fn offers_protoo(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names = offers.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    names.any(|name| name.trim() == "protoo")
}

/// Lets a page of another origin read the answer, if the operator lets it.
pub fn allow_origin(hub: &Hub, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let Some(origin) = origin else { return };
    let allowed = |known: &String| known == "*" || known.as_bytes() == origin.as_bytes();
    if hub.config().cors_origins.iter().any(allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// The answer to a browser that asks before it asks.
pub fn preflight(methods: &[Method]) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let methods = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let headers = answer.headers_mut();
    if let Ok(methods) = HeaderValue::from_str(&methods) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type, authorization"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer
}

fn asset_body(asset: &Asset) -> Answer {
    let mut answer = answer(StatusCode::OK, asset.content_type, Bytes::from_static(asset.bytes));
    // The bundle changes with the server only, and is asked for again after a restart.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

fn problem_body(problem: Problem) -> Answer {
    let Problem { status, failure, header } = problem;
    let mut body = json!({
        "type": "about:blank",
        "title": failure.code.sentence(),
        "status": status.as_u16(),
        "code": failure.code,
    });
    if let Some(detail) = failure.detail {
        body["detail"] = json!(detail);
    }
    let mut answer = answer(status, "application/problem+json", body.to_string());
    if let Some((name, value)) = header
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn ok(value: &Value) -> Answer {
    answer(StatusCode::OK, "application/json", value.to_string())
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
