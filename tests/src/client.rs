//! A small HTTP client that shows everything of an answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::SECRET;

/// A token of `user` with these scopes, good for an hour.
pub fn token(user: &str, scope: Option<&str>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    pulse_http::issue(SECRET.as_bytes(), user, scope, now, now + 3600, None, None).unwrap_or_default()
}

/// Calls one server with one token.
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    url: String,
    token: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
    /// The body, if it is JSON.
    pub json: Value,
}

impl Client {
    /// For the server at `url`.
    pub fn new(url: &str, token: &str) -> Self {
        Self { http: Http::builder(TokioExecutor::new()).build_http(), url: url.to_owned(), token: token.to_owned() }
    }

    /// Gets.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, &[], Bytes::from(body.to_string())).await
    }

    /// Sends anything; `headers` come on top of Authorization and Content-Type.
    ///
    /// # Errors
    /// If there is no answer within 40 s.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
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
        let answer = self.http.request(request.body(Full::new(body))?);
        let response =
            tokio::time::timeout(Duration::from_secs(40), answer).await.context("no answer within 40 s")??;
        let (parts, body) = response.into_parts();
        let text = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, text, json })
    }
}
