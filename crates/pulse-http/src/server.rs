//! The accept loop and the drain.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::peers::Peers;
use crate::places::Places;
use crate::serving::Server;
use crate::tls::ServerTls;

/// Time after which a silent peer is asked whether it is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);
/// Time for which sent data may stay unacknowledged, for example because the client does not read.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Size of the kernel's buffer for a response, in bytes: without a limit, it grows to 4 MB for a client that does not read.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Pause after a failed accept, for example because of too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Limits and time-outs of a port.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The access log of the port.
    pub access_log: AccessLog,
    /// TLS of the port; `None` means none.
    pub tls: Option<ServerTls>,
    /// Time to wait for a complete request head.
    pub header_timeout: Duration,
    /// Time to wait for the next part of a body, and for a body that arrives at less than 1 KiB per second.
    pub body_idle_timeout: Duration,
    /// Time-out of a request, from its head to the response.
    pub request_timeout: Duration,
    /// Maximum number of open connections. For one more, an idle connection is closed.
    pub max_connections: usize,
    /// Maximum number of open connections of one peer address; more are closed at once. `None` means no limit.
    pub max_connections_per_peer: Option<usize>,
    /// Maximum number of requests in progress; more are answered with 503.
    pub max_in_flight: usize,
    /// Maximum size of a body, in bytes.
    pub max_body_bytes: usize,
    /// Memory for request bodies and large answers, in bytes; requests beyond it are answered with 503.
    pub memory_bytes: usize,
    /// Time for which connections are still accepted after the start of the shutdown.
    pub drain_delay: Duration,
    /// Time to wait for the requests in progress after `drain_delay`.
    pub drain_timeout: Duration,
}

/// Serves HTTP/1.1 and HTTP/2 on `listener` until `shutdown`, then drains:
///
/// 1. For `drain_delay`, connections are accepted, and each response has `Connection: close`; those of HTTP/2
///    follow GOAWAY.
/// 2. Then no connection is accepted, idle connections are closed, and requests in progress are answered, within
///    `drain_timeout`. A new connection still has `header_timeout` to send a request.
pub async fn serve(listener: TcpListener, router: Router, config: ServerConfig, shutdown: CancellationToken) {
    watch_peers(&listener);
    let connections = TaskTracker::new();
    let places = Places::new(config.max_connections);
    let peers = Peers::new(config.max_connections_per_peer);
    let closing = CancellationToken::new();
    let server = Server {
        router,
        tls: config.tls,
        header_timeout: config.header_timeout,
        draining: shutdown.clone(),
        closing: closing.clone(),
    };

    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(guard) = peers.admit(peer.ip()) else { continue };
                    let connection = server.clone().connection(stream, places.take().await);
                    connections.spawn(async move {
                        connection.await;
                        drop(guard);
                    });
                }
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

    accept_queued(&listener, &server, &connections, &places).await;
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

/// Has the kernel bound what a peer holds that is gone or does not read. Accepted sockets inherit the options.
fn watch_peers(listener: &TcpListener) {
    let socket = SockRef::from(listener);
    let set = socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))
        .and_then(|()| socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)))
        .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER_BYTES));
    if let Err(error) = set {
        tracing::warn!(%error, "cannot set time-outs for silent peers");
    }
}

/// Accepts the connections in the listen queue: closing the listener would reset them.
async fn accept_queued(listener: &TcpListener, server: &Server, connections: &TaskTracker, places: &Arc<Places>) {
    while let Some(place) = places.try_take() {
        match tokio::time::timeout(Duration::from_millis(1), listener.accept()).await {
            Ok(Ok((stream, _))) => drop(connections.spawn(server.clone().connection(stream, place))),
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
