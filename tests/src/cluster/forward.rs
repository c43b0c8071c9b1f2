//! Forwarding of one request through the proxy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::stream;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use kube::{Client, Config};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use super::fault::{Fault, status_object};
use super::request_info::RequestInfo;
use super::traffic::Traffic;

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// Client of the API server behind the proxy.
pub(super) struct Upstream {
    client: Client,
    traffic: Arc<Traffic>,
}

impl Upstream {
    pub(super) fn new(mut config: Config, traffic: Arc<Traffic>) -> anyhow::Result<Self> {
        // The proxy's client decides about retries.
        config.default_retry = false;
        Ok(Self { client: Client::try_from(config)?, traffic })
    }

    /// Applies the injected fault, if any, and forwards the request. An error closes the connection.
    pub(super) async fn handle(&self, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let call = RequestInfo::new(&parts.method, &parts.uri, &parts.headers);
        let body = body.collect().await?.to_bytes();
        let fault = self.traffic.fault(&call);
        let entry = Entry { number: self.traffic.begin(&call, body.clone(), fault), traffic: self.traffic.clone() };
        match fault {
            None | Some(Fault::LoseResponse | Fault::Stale(_) | Fault::Cut(_)) => {}
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Close) => bail!("closed, injected by the test"),
            Some(Fault::Respond(code)) => return entry.respond(code, &status_object(code)),
            Some(Fault::Expired) => {
                return entry.respond(200, &json!({ "type": "ERROR", "object": status_object(410) }));
            }
        }
        let mut request = Request::from_parts(parts, kube::client::Body::from(body));
        // Connection headers apply to one hop only, and the proxy's own credentials decide about the user.
        for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, AUTHORIZATION] {
            request.headers_mut().remove(name);
        }
        let answer = self.client.send(request).await.context("the API server did not respond")?;
        entry.status(answer.status().as_u16());
        if fault == Some(Fault::LoseResponse) {
            // Read the whole response, so that the request has taken effect.
            drop(answer.into_body().collect().await);
            bail!("response lost, injected by the test");
        }
        Ok(self.relay(&call, answer, fault, entry))
    }

    fn relay(
        &self,
        call: &RequestInfo,
        answer: Response<kube::client::Body>,
        fault: Option<Fault>,
        entry: Entry,
    ) -> Response<Body> {
        let (mut parts, body) = answer.into_parts();
        for name in [CONNECTION, TRANSFER_ENCODING] {
            parts.headers.remove(name);
        }
        let token = CancellationToken::new();
        self.traffic.opened(call, &token);
        if let Some(Fault::Cut(after)) = fault {
            let token = token.clone();
            tokio::spawn(async move {
                // A token that is already cancelled belongs to a response that has ended.
                if tokio::time::timeout(after, token.cancelled()).await.is_err() {
                    token.cancel();
                }
            });
        }
        let late = if let Some(Fault::Stale(late)) = fault { late } else { Duration::ZERO };
        let (sender, parts_of_body) = unbounded_channel();
        tokio::spawn(pump(body, sender));
        let flow = Flow { parts: parts_of_body, late, token, entry };
        let body = StreamBody::new(stream::unfold(flow, Flow::next));
        Response::from_parts(parts, body.boxed_unsync())
    }
}

type Part = (Instant, anyhow::Result<Frame<Bytes>>);

/// Reads a response body as fast as it arrives, so that the fault causes all of the delay.
async fn pump(mut body: kube::client::Body, sender: UnboundedSender<Part>) {
    loop {
        let next = tokio::select! {
            next = body.frame() => next,
            () = sender.closed() => return,
        };
        let Some(frame) = next else { return };
        if sender.send((Instant::now(), frame.map_err(anyhow::Error::from))).is_err() {
            return;
        }
    }
}

/// Response body on its way to the client.
struct Flow {
    parts: UnboundedReceiver<Part>,
    late: Duration,
    token: CancellationToken,
    entry: Entry,
}

impl Flow {
    async fn next(mut self) -> Option<(anyhow::Result<Frame<Bytes>>, Self)> {
        let token = self.token.clone();
        let late = self.late;
        let next = async {
            let (came, frame) = self.parts.recv().await?;
            tokio::time::sleep_until((came + late).into()).await;
            Some(frame)
        };
        let frame = tokio::select! {
            biased;
            () = token.cancelled() => Some(Err(anyhow::anyhow!("connection cut, injected by the test"))),
            frame = next => frame,
        };
        Some((frame?, self))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.entry.traffic.closed(&self.token);
    }
}

/// Log entry of a request that has not ended.
struct Entry {
    number: u64,
    traffic: Arc<Traffic>,
}

impl Entry {
    fn status(&self, code: u16) {
        self.traffic.answered(self.number, code);
    }

    fn respond(&self, code: u16, object: &serde_json::Value) -> anyhow::Result<Response<Body>> {
        self.status(code);
        let mut answer = Response::builder().status(StatusCode::from_u16(code)?);
        answer = answer.header(CONTENT_TYPE, "application/json");
        if matches!(code, 429 | 503) {
            answer = answer.header(RETRY_AFTER, "1");
        }
        let body = Full::new(Bytes::from(format!("{object}\n")));
        Ok(answer.body(body.map_err(anyhow::Error::from).boxed_unsync())?)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.traffic.ended(self.number);
    }
}
