//! A small HTTP client that returns the whole response.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use pulse_http::NewClaims;
use serde_json::{Value, json};

/// HMAC secret that signs the tokens of all tests.
pub const SECRET: &str = "a-secret-for-tests-of-32-bytes-or-more";

/// Issues a token for `user` with these scopes, valid for one hour.
pub fn token(user: &str, scope: Option<&str>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = NewClaims { sub: user, scope, ..NewClaims::default() };
    pulse_http::issue(SECRET.as_bytes(), &claims, now, now + 3600).unwrap_or_default()
}

/// Client of one server, with one token.
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    url: String,
    token: String,
}

/// A complete response.
#[derive(Debug)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub text: String,
    /// Body as JSON; `Null` if it is not JSON.
    pub json: Value,
}

impl Client {
    /// Creates a client of the server at `url`. An empty token sends no `Authorization` header.
    pub fn new(url: &str, token: &str) -> Self {
        Self { http: Http::builder(TokioExecutor::new()).build_http(), url: url.to_owned(), token: token.to_owned() }
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// If no complete response arrives within 40 s.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Sends a POST request with a JSON body.
    ///
    /// # Errors
    /// If no complete response arrives within 40 s.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Response> {
        self.send(Method::POST, path, &[], Bytes::from(body.to_string())).await
    }

    /// Posts an event with this name and returns the id of its task.
    ///
    /// # Errors
    /// If the event is not accepted.
    pub async fn post_event(&self, event_name: &str) -> anyhow::Result<String> {
        let answer =
            self.post("/api/v1/events", &json!({ "event_name": event_name, "event_type": "t", "payload": {} })).await?;
        anyhow::ensure!(answer.status == 202, "{event_name} is not accepted: {}", answer.text);
        Ok(answer.json["task_id"].as_str().context("the answer has no task id")?.to_owned())
    }

    /// Sends a request. `headers` are added to `Authorization` and the default `Content-Type: application/json`.
    ///
    /// # Errors
    /// If no complete response arrives within 40 s.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Response> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        if headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let (parts, body) = self.http.request(request).await?.into_parts();
            anyhow::Ok((parts, body.collect().await?.to_bytes()))
        };
        let (parts, body) =
            tokio::time::timeout(Duration::from_secs(40), exchange).await.context("no response within 40 s")??;
        let text = String::from_utf8_lossy(&body).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Response { status: parts.status.as_u16(), headers: parts.headers, text, json })
    }
}
