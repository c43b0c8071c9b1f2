//! The accept loop, and the drain.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::connection::{Connection, Phase};

/// How long a connection may pause between two requests: longer than load balancers do (60 s), so that they end it.
const PAUSE: Duration = Duration::from_secs(75);
/// After an error of accept, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How a port is served. All fields are for the caller to decide.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The longest wait for a whole request head.
    pub header_timeout: Duration,
    /// The longest wait for the next piece of a body.
    pub body_idle_timeout: Duration,
    /// The longest time for a request.
    pub request_timeout: Duration,
    /// Open connections; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Requests at once; more are answered 503.
    pub max_in_flight: usize,
    /// The largest body, in bytes.
    pub max_body_bytes: usize,
    /// How long connections are still accepted after the shutdown began.
    pub drain_delay: Duration,
    /// How long the requests then under way may take.
    pub drain_timeout: Duration,
}

/// Serves HTTP/1.1 on `listener` until `shutdown`, then drains:
///
/// 1. for `drain_delay`, connections are accepted, and each answer says `Connection: close`;
/// 2. nothing more is accepted; idle connections close, requests under way are answered, within `drain_timeout`. Who has
///    just connected has `header_timeout` for a request, as ever.
pub async fn serve(listener: TcpListener, router: Router, config: ServerConfig, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(config.max_connections));
    let closing = CancellationToken::new();
    let server =
        Server { router, header_timeout: config.header_timeout, draining: shutdown.clone(), closing: closing.clone() };

    let accepting = async {
        loop {
            // Capacity first: what we have no room for stays in the kernel's queue.
            let permit = room.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, _)) => drop(connections.spawn(server.clone().connection(stream, permit))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    };
    let until_drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(config.drain_delay).await;
    };
    tokio::select! {
        () = accepting => {}
        () = until_drained => {}
    }

    take_last(&listener, &server, &connections, &room).await;
    drop(listener);
    closing.cancel();
    connections.close();
    let deadline = Instant::now() + config.drain_timeout;
    if tokio::time::timeout_at(deadline, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections closed before their requests were answered");
    }
}

/// Takes what the kernel had accepted already: closing the listener would reset those clients.
async fn take_last(listener: &TcpListener, server: &Server, connections: &TaskTracker, room: &Arc<Semaphore>) {
    while let Ok(permit) = room.clone().try_acquire_owned() {
        match tokio::time::timeout(Duration::from_millis(1), listener.accept()).await {
            Ok(Ok((stream, _))) => drop(connections.spawn(server.clone().connection(stream, permit))),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[derive(Clone)]
struct Server {
    router: Router,
    header_timeout: Duration,
    /// Answers say `Connection: close`.
    draining: CancellationToken,
    /// Connections close as soon as they are idle.
    closing: CancellationToken,
}

impl Server {
    async fn connection(self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let Self { router, header_timeout, draining, closing } = self;
        // Answers are small and whole: never wait for more to send.
        let _ = stream.set_nodelay(true);
        let phase = Phase::default();
        let io = TokioIo::new(Connection::new(stream, phase.clone(), header_timeout));
        let of_requests = phase.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (router, draining, phase) = (router.clone(), draining.clone(), of_requests.clone());
            async move {
                phase.request_began();
                let request: Request = request.map(axum::body::Body::new);
                let mut response: Response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
                if response.headers().get(header::CONNECTION).is_some_and(|value| value == "close") {
                    phase.linger();
                }
                if draining.is_cancelled() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                phase.request_ended();
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PAUSE)
            .max_buf_size(64 * 1024)
            .serve_connection(io, service);
        tokio::pin!(connection);
        // An error here is a client that went away or sent no HTTP: nothing to tell anybody.
        let _ = tokio::select! {
            // First, so that what has come is seen.
            biased;
            result = connection.as_mut() => result,
            () = closing.cancelled() => {
                // hyper would close a connection whose first request is on its way; its answer closes it anyway.
                if !phase.is_reading_head() {
                    connection.as_mut().graceful_shutdown();
                }
                connection.await
            }
        };
        drop(permit);
    }
}
