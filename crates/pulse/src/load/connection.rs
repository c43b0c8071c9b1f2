//! One HTTP/1.1 keep-alive connection with at most one request in flight.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub(super) struct Connection {
    authority: String,
    path: &'static str,
    authorization: HeaderValue,
    body: Bytes,
    stream: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Prepares a connection. The first request connects.
    pub(super) fn new(uri: &Uri, path: &'static str, token: &str, body: Bytes) -> anyhow::Result<Self> {
        let host = uri.host().context("the URL has no host")?;
        let authority = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        let authorization = HeaderValue::from_str(&format!("Bearer {token}"))
            .context("the token contains characters that a header cannot carry")?;
        Ok(Self { authority, path, authorization, body, stream: None })
    }

    /// Posts once; returns the status and the body of the response. After an error the next request connects again.
    pub(super) async fn post(&mut self) -> anyhow::Result<(u16, Bytes)> {
        let sent = self.try_post().await;
        if sent.is_err() {
            self.drop_stream();
        }
        sent
    }

    /// Drops the TCP connection after a time-out, because the late response may still arrive on it. The next request
    /// connects again.
    pub(super) fn drop_stream(&mut self) {
        self.stream = None;
    }

    async fn try_post(&mut self) -> anyhow::Result<(u16, Bytes)> {
        // A draining server closes the connection between two requests. Nothing was sent yet, so connecting again is
        // safe.
        let mut stream = match self.stream.take() {
            Some(mut stream) => match stream.ready().await {
                Ok(()) => stream,
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        let request = Request::post(self.path)
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.body.clone()))?;
        let response = stream.send_request(request).await?;
        let is_closing = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        self.stream = (!is_closing).then_some(stream);
        Ok((status, body))
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        if sender.ready().await.is_err() {
            bail!("the server closed the connection");
        }
        Ok(sender)
    }
}
