//! The accept loop and the drain.

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

/// Maximum idle time of a connection between two requests: longer than that of load balancers (60 s), so that the load
/// balancer closes the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept, for example because of too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Limits and time-outs of a port.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Time to wait for a complete request head.
    pub header_timeout: Duration,
    /// Time to wait for the next part of a body.
    pub body_idle_timeout: Duration,
    /// Time-out of a request, from its head to the response.
    pub request_timeout: Duration,
    /// Maximum number of open connections; more wait in the listen queue of the kernel.
    pub max_connections: usize,
    /// Maximum number of requests in progress; more are answered with 503.
    pub max_in_flight: usize,
    /// Maximum size of a body, in bytes.
    pub max_body_bytes: usize,
    /// Time for which connections are still accepted after the start of the shutdown.
    pub drain_delay: Duration,
    /// Time to wait for the requests in progress after `drain_delay`.
    pub drain_timeout: Duration,
}

/// Serves HTTP/1.1 on `listener` until `shutdown`, then drains:
///
/// 1. For `drain_delay`, connections are accepted, and each response has `Connection: close`.
/// 2. Then no connection is accepted, idle connections are closed, and requests in progress are answered, within
///    `drain_timeout`. A new connection still has `header_timeout` to send a request.
pub async fn serve(listener: TcpListener, router: Router, config: ServerConfig, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let closing = CancellationToken::new();
    let server =
        Server { router, header_timeout: config.header_timeout, draining: shutdown.clone(), closing: closing.clone() };

    let accepting = async {
        loop {
            // First a permit: without one, the connection stays in the listen queue of the kernel.
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, _)) => drop(connections.spawn(server.clone().connection(stream, permit))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
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

    accept_queued(&listener, &server, &connections, &permits).await;
    drop(listener);
    closing.cancel();
    connections.close();
    let deadline = Instant::now() + config.drain_timeout;
    if tokio::time::timeout_at(deadline, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "drain timed out: connections were closed before their requests were answered"
        );
    }
}

/// Accepts the connections in the listen queue: closing the listener would reset them.
async fn accept_queued(listener: &TcpListener, server: &Server, connections: &TaskTracker, permits: &Arc<Semaphore>) {
    while let Ok(permit) = permits.clone().try_acquire_owned() {
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
    /// Responses have `Connection: close`.
    draining: CancellationToken,
    /// Connections are closed as soon as they are idle.
    closing: CancellationToken,
}

impl Server {
    async fn connection(self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let Self { router, header_timeout, draining, closing } = self;
        // A response is written at once: never delay it to fill a packet.
        let _ = stream.set_nodelay(true);
        let phase = Phase::default();
        let io = TokioIo::new(Connection::new(stream, phase.clone(), header_timeout));
        let service_phase = phase.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (router, draining, phase) = (router.clone(), draining.clone(), service_phase.clone());
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
            .header_read_timeout(KEEP_ALIVE_TIMEOUT)
            .max_buf_size(64 * 1024)
            .serve_connection(io, service);
        tokio::pin!(connection);
        // An error here means that the client disconnected or did not send HTTP: not worth a log line.
        let _ = tokio::select! {
            // Requests that have arrived are read before the connection is closed.
            biased;
            result = connection.as_mut() => result,
            () = closing.cancelled() => {
                // hyper would close a connection whose first request is arriving; its response closes it anyway.
                if !phase.is_reading_head() {
                    connection.as_mut().graceful_shutdown();
                }
                connection.await
            }
        };
        drop(permit);
    }
}
