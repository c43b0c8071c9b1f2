//! Requests without a pause, whose failures are kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use pulse_tests::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What the clients send as token; it may change at any time.
pub(crate) type Token = Arc<Mutex<String>>;

/// Clients that list events, one request after the other.
pub(crate) struct Load {
    clients: JoinSet<(u64, Vec<String>)>,
    end: CancellationToken,
}

impl Load {
    pub(crate) fn start(urls: &[&str], token: &Token) -> Self {
        let (mut clients, end) = (JoinSet::new(), CancellationToken::new());
        for url in urls {
            clients.spawn(send(Client::new(url, ""), token.clone(), end.clone()));
        }
        Self { clients, end }
    }

    /// Stops the clients. Returns the number of requests, and the failures.
    pub(crate) async fn stop(mut self) -> (u64, Vec<String>) {
        self.end.cancel();
        let (mut sent, mut failures) = (0, Vec::new());
        while let Some(client) = self.clients.join_next().await {
            let (requests, failed) = client.expect("no panic");
            sent += requests;
            failures.extend(failed);
        }
        (sent, failures)
    }
}

async fn send(client: Client, token: Token, end: CancellationToken) -> (u64, Vec<String>) {
    let (mut sent, mut failures) = (0, Vec::new());
    while !end.is_cancelled() {
        let bearer = format!("Bearer {}", token.lock().expect("no panic"));
        let headers = [("authorization", bearer.as_str())];
        match client.send(Method::GET, "/api/v1/events", &headers, Default::default()).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text)),
            Err(error) => failures.push(format!("{error:#}")),
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (sent, failures)
}
