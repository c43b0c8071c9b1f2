//! One connection: the handshake of TLS, the version of HTTP, and the requests.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::connection::Connection;
use crate::http2;
use crate::places::Place;
use crate::preface;
use crate::request_body::RequestBody;
use crate::serving_limits::{KEEP_ALIVE_TIMEOUT, MAX_HEAD_BYTES};
use crate::state::ConnectionState;
use crate::tls::ServerTls;
use crate::transport::{Protocol, Transport};
use crate::unsent::{Unsent, UnsentBody};

/// Maximum size of a connection's read and write buffers, in bytes.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// The address of the peer, in the extensions of each request. Behind a proxy, it is that of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// In the extensions of requests over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encrypted;

/// What the connections of a listener share.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) header_timeout: Duration,
    /// Responses end their connection.
    pub(crate) draining: CancellationToken,
    /// Connections are closed as soon as they are idle.
    pub(crate) closing: CancellationToken,
}

impl Server {
    pub(crate) async fn connection(self, stream: TcpStream, place: Place) {
        // A response is written at once: never delay it to fill a packet.
        let _ = stream.set_nodelay(true);
        let client = Client {
            peer: stream.peer_addr().ok().map(|address| Peer(address.ip().to_canonical())),
            is_encrypted: self.tls.is_some(),
            state: place.state.clone(),
        };
        let opened = tokio::select! {
            opened = tokio::time::timeout(self.header_timeout, self.open(stream, &client.state)) => opened,
            () = client.state.unwanted.cancelled() => return,
        };
        // An error here means that the client disconnected, or does not speak TLS or HTTP: not worth a log line.
        let Ok(Ok((protocol, connection))) = opened else { return };
        match protocol {
            Protocol::Http1 => self.serve_http1(connection, client).await,
            Protocol::Http2 => {
                let unsent = Unsent::default();
                let service = service_fn(|request| {
                    // Boxed, because hyper moves it several times.
                    Box::pin(self.clone().respond_http2(request, client.clone(), unsent.clone()))
                });
                let connection = http2::builder().serve_connection(TokioIo::new(connection), service);
                http2::drive(connection, &client.state, &unsent, &self.draining).await;
            }
        }
        drop(place);
    }

    /// Does the handshake, and learns the version of HTTP.
    async fn open(&self, stream: TcpStream, state: &Arc<ConnectionState>) -> io::Result<(Protocol, Connection)> {
        let mut transport = match &self.tls {
            None => Transport::Plain(stream),
            Some(tls) => Transport::Tls(Box::new(tls.accept(stream).await?)),
        };
        let (protocol, read) = match transport.negotiated() {
            Some(protocol) => (protocol, Vec::new()),
            None => preface::read(&mut transport).await?,
        };
        Ok((protocol, Connection::new(transport, protocol, read, state.clone(), self.header_timeout)))
    }

    async fn serve_http1(&self, connection: Connection, client: Client) {
        let state = client.state.clone();
        let service = service_fn(|request| self.respond(request, client.clone()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(KEEP_ALIVE_TIMEOUT)
            .max_header_size(usize::from(MAX_HEAD_BYTES))
            .max_buf_size(MAX_BUFFER_BYTES)
            // Some clients end their side after the request; those that are gone reset the connection.
            .half_close(true)
            .serve_connection(TokioIo::new(connection), service);
        tokio::pin!(connection);
        let _ = tokio::select! {
            // Requests that have arrived are read before the connection is closed.
            biased;
            result = connection.as_mut() => result,
            () = self.closing.cancelled() => {
                // hyper would close a connection whose first request is arriving; its response closes it anyway.
                if !state.is_reading_head() {
                    connection.as_mut().graceful_shutdown();
                }
                connection.await
            }
            () = state.unwanted.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
    }

    async fn respond(&self, request: hyper::Request<Incoming>, client: Client) -> Result<Response, Infallible> {
        let state = client.state.clone();
        state.request_began(!request.body().is_end_stream());
        let request = request.map(|body| Body::new(RequestBody::new(body, state.clone())));
        let mut response = self.answer(request, &client).await;
        let has_unread = state.request_ended(response.status().is_client_error());
        if has_unread || self.draining.is_cancelled() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    async fn respond_http2(
        self,
        request: hyper::Request<Incoming>,
        client: Client,
        unsent: Unsent,
    ) -> Result<Response, Infallible> {
        let active = client.state.stream_began();
        let mut request = request.map(Body::new);
        // Clients may send the host as `:authority` only. Handlers read one place.
        if let Some(authority) = request.uri().authority().and_then(|authority| authority.as_str().parse().ok()) {
            request.headers_mut().entry(header::HOST).or_insert(authority);
        }
        let response = self.answer(request, &client).await;
        client.state.answered(response.status().is_client_error());
        Ok(response.map(|body| Body::new(UnsentBody::new(body, unsent, active))))
    }

    async fn answer(&self, mut request: Request, client: &Client) -> Response {
        let extensions = request.extensions_mut();
        if let Some(peer) = client.peer {
            extensions.insert(peer);
        }
        if client.is_encrypted {
            extensions.insert(Encrypted);
        }
        self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

/// The other side of a connection.
#[derive(Clone)]
struct Client {
    peer: Option<Peer>,
    is_encrypted: bool,
    state: Arc<ConnectionState>,
}
