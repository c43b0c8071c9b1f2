//! Limits of HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http2::{Builder, Connection as Http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::serving_limits::{KEEP_ALIVE_TIMEOUT, MAX_HEAD_BYTES};
use crate::state::ConnectionState;
use crate::unsent::Unsent;

/// Requests of one connection at a time. Further ones wait at the client.
const MAX_STREAMS: u32 = 128;
/// Bytes of a body that are received and not read. Bodies of requests with a place in flight are read, and the others are
/// answered at once, so `--max-in-flight` bounds their sum.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all bodies of a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that are taken from its body and not sent.
const SEND_BUFFER: usize = 64 * 1024;
/// Time after which a client is asked whether it is there, and time for its answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Time between two looks at what is idle or overdue.
const TICK: Duration = Duration::from_secs(2);

pub(crate) fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::from(MAX_HEAD_BYTES))
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    builder
}

/// Serves until the client closes the connection, does not take an answer in time, or until the connection is idle and
/// either no longer wanted or older than the keep-alive time. When the process `drains`, the client is asked to send
/// further requests elsewhere, and those that it has sent are answered.
pub(crate) async fn drive<S>(
    connection: Http2<TokioIo<Connection>, S, TokioExecutor>,
    state: &Arc<ConnectionState>,
    unsent: &Unsent,
    draining: &CancellationToken,
) where
    S: HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
{
    tokio::pin!(connection);
    let mut tick = tokio::time::interval(TICK);
    let mut is_ending = false;
    loop {
        tokio::select! {
            // Requests that have arrived are read before the connection is closed.
            biased;
            _ = connection.as_mut() => return,
            () = draining.cancelled(), if !is_ending => {}
            () = state.unwanted.cancelled(), if !is_ending => {}
            _ = tick.tick() => {
                if unsent.is_overdue(Instant::now()) {
                    return;
                }
                if is_ending || !state.is_idle_for(KEEP_ALIVE_TIMEOUT) {
                    continue;
                }
            }
        }
        is_ending = true;
        connection.as_mut().graceful_shutdown();
    }
}
