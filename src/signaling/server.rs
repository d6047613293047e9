//! From a listening port to an orderly end: accepts connections, hands each to HTTP, and stops when asked.
//!
//! One thread, one tokio runtime. The port is bound before any worker starts, so that a taken port is told at
//! once; `main` then calls [`Server::run`] with the workers' ends.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socketioxide::service::SocketIoService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits;
use crate::shard::command::Event;
use crate::signaling::http::{Site, allow_origin, preflight};
use crate::signaling::hub::{Hub, WorkerLink};
use crate::signaling::settings::{SignalingConfig, TlsFiles};
use crate::signaling::socketio;

/// The control plane, listening but not yet answering.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    config: Arc<SignalingConfig>,
}

/// Why the control plane could not start; each line names cause and cure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("port {} is taken: another server? choose another with --port", .0.port())]
    PortTaken(SocketAddr),
    #[error("port {} needs privileges: choose one from 1024 up with --port, or grant CAP_NET_BIND_SERVICE", .0.port())]
    PortForbidden(SocketAddr),
    #[error("{} is no address of this machine: choose another with --listen", .0.ip())]
    NotOurAddress(SocketAddr),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    #[error("cannot read the certificate {}: {reason} (a PEM file, the server's own certificate first)", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("cannot read the private key {}: {reason} (a PEM file)", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("certificate and key do not go together: {0}")]
    Tls(String),
}

/// Why the control plane stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Worker(String),
    #[error("a worker takes no commands any more: the process cannot go on")]
    WorkerStuck,
    #[error("the control plane's runtime does not start: {0}")]
    Runtime(#[from] io::Error),
}

/// What makes a server stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it: peers are told, and given time to leave.
    Asked,
    /// A worker ended; this is what it said. There is nothing to wait for.
    WorkerEnded(String),
}

/// How long no connection is accepted after the system had no descriptor for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    pub fn bind(config: SignalingConfig) -> Result<Server, StartError> {
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let listener = TcpListener::bind(config.listen).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => StartError::PortTaken(config.listen),
            io::ErrorKind::PermissionDenied => StartError::PortForbidden(config.listen),
            io::ErrorKind::AddrNotAvailable => StartError::NotOurAddress(config.listen),
            _ => StartError::Listen(config.listen, error),
        })?;
        Ok(Server { listener, tls, config: Arc::new(config) })
    }

    /// Where it listens; the port that the system chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap_or(self.config.listen)
    }

    /// For people: what to open in a browser on this machine.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let address = self.address();
        match address.ip() {
            ip if ip.is_unspecified() || ip.is_loopback() => format!("{scheme}://localhost:{}/", address.port()),
            _ => format!("{scheme}://{address}/"),
        }
    }

    /// Serves on this thread until `stop` is ready and everybody is gone, or a worker fails.
    pub fn run(
        self,
        workers: Vec<WorkerLink>,
        events: mpsc::Receiver<Event>,
        stop: impl Future<Output = Stop>,
    ) -> Result<(), RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve(workers, events, stop))
    }

    /// As [`run`](Self::run), on a runtime that is there.
    pub async fn serve(
        self,
        workers: Vec<WorkerLink>,
        events: mpsc::Receiver<Event>,
        stop: impl Future<Output = Stop>,
    ) -> Result<(), RunError> {
        self.listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let hub = Hub::new(self.config.clone(), workers);
        hub.start(events);
        let front = Front { hub: hub.clone(), service: socketio::service(hub.clone(), Site::new(hub.clone())) };
        let accepting = tokio::spawn(accept(listener, self.tls, front));
        let stopped = tokio::select! {
            stopped = stop => stopped,
            () = hub.stuck() => return Err(RunError::WorkerStuck),
        };
        if let Stop::WorkerEnded(message) = stopped {
            return Err(RunError::Worker(message));
        }
        drain(&hub).await;
        accepting.abort();
        Ok(())
    }
}

/// Tells everybody, waits until the last has left or the time is over, and closes what is left.
async fn drain(hub: &Hub) {
    const LOOK_AGAIN: Duration = Duration::from_millis(20);
    hub.drain();
    let all_gone = async {
        while hub.connections() > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let _ = tokio::time::timeout(hub.config().drain, all_gone).await;
    if hub.connections() > 0 {
        hub.close_all();
        // For the close frames to leave.
        tokio::time::sleep(limits::CLOSE_TIMEOUT.min(Duration::from_millis(200))).await;
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>, front: Front) {
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error} (raise the limit of open files?)");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small messages, each of which somebody waits for.
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve_stream(Placed { stream, _place: place }, tls.clone(), front.clone()));
    }
}

async fn serve_stream(stream: Placed, tls: Option<TlsAcceptor>, front: Front) {
    let Some(tls) = tls else { return serve_http(stream, front).await };
    match tokio::time::timeout(limits::TLS_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => serve_http(stream, front).await,
        Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, front: Front) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_TIMEOUT)
        .max_buf_size(limits::MESSAGE_BYTES)
        .serve_connection(TokioIo::new(stream), front)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Socket.IO under its path, the site everywhere else.
#[derive(Clone)]
struct Front {
    hub: Hub,
    service: SocketIoService<Site>,
}

type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

impl Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let is_socket_io = request.uri().path().starts_with(socketio::PATH);
        let origin = request.headers().get(header::ORIGIN).filter(|_| is_socket_io).cloned();
        if is_socket_io && request.method() == Method::OPTIONS {
            let mut answer = preflight(&[Method::GET, Method::POST]);
            allow_origin(&self.hub, origin.as_ref(), answer.headers_mut());
            return Box::pin(async move { Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync())) });
        }
        // A poll waits for what is to be said; whatever a client sends has to arrive in time.
        let patience = if request.method() == Method::POST { limits::HTTP_TIMEOUT } else { Duration::MAX };
        let answering = Service::call(&self.service, request);
        let hub = self.hub.clone();
        Box::pin(async move {
            let Ok(answer) = tokio::time::timeout(patience, answering).await else {
                let mut late = Response::new(Full::default().map_err(Into::into).boxed_unsync());
                *late.status_mut() = StatusCode::REQUEST_TIMEOUT;
                return Ok(late);
            };
            let mut answer = answer?;
            allow_origin(&hub, origin.as_ref(), answer.headers_mut());
            Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

/// A connection that gives its place back when it is dropped, however far it was upgraded by then.
struct Placed {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Placed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, StartError> {
    let certificate = |reason: String| StartError::Certificate { path: files.certificate.clone(), reason };
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .map_err(|error| certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(certificate("it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| StartError::Key { path: files.key.clone(), reason: error.to_string() })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| StartError::Tls(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
