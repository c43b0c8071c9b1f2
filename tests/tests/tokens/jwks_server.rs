//! An HTTP server of a JSON Web Key Set that misbehaves on request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// This document.
    Document(Value),
    /// This status, with an empty body.
    Status(u16),
    /// Nothing, for longer than any limit.
    Silence,
    /// A byte of a head each 100 ms.
    Drip,
    /// A body without end.
    Endless,
    /// A redirect to this URL.
    Redirect(String),
}

pub(crate) struct JwksServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: Option<JoinHandle<()>>,
}

struct State {
    answer: Answer,
    requests: u64,
}

/// The public keys of P-256 with these names.
pub(crate) fn key_set(keys: &[(&str, &KeyPair)]) -> Value {
    let jwk = |(kid, key): &(&str, &KeyPair)| {
        let point = key.der_bytes();
        let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
            "x": coordinate(&point[1..33]), "y": coordinate(&point[33..65]),
        })
    };
    json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() })
}

impl JwksServer {
    pub(crate) async fn start(answer: Answer) -> anyhow::Result<Self> {
        let state = Arc::new(Mutex::new(State { answer, requests: 0 }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut server = Self { address: listener.local_addr()?, state, task: None };
        server.serve(listener);
        Ok(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    pub(crate) fn set(&self, answer: Answer) {
        self.state.lock().expect("no panic").answer = answer;
    }

    /// Number of requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.state.lock().expect("no panic").requests
    }

    /// Stops to listen: connections are refused.
    pub(crate) async fn go_away(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again at the same address.
    pub(crate) async fn come_back(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serve(listener);
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        let state = self.state.clone();
        self.task = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(respond(stream, state.clone()));
            }
        }));
    }
}

impl Drop for JwksServer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn respond(mut stream: TcpStream, state: Arc<Mutex<State>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let answer = {
        let mut state = state.lock().expect("no panic");
        state.requests += 1;
        state.answer.clone()
    };
    let (status, more, body) = match answer {
        Answer::Document(document) => (200, String::new(), document.to_string()),
        Answer::Status(status) => (status, String::new(), String::new()),
        Answer::Redirect(url) => (302, format!("location: {url}\r\n"), String::new()),
        Answer::Silence => {
            tokio::time::sleep(Duration::from_hours(1)).await;
            return Ok(());
        }
        Answer::Drip => loop {
            stream.write_all(b"H").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        },
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
    };
    let head = format!("HTTP/1.1 {status} X\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}
