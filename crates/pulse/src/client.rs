//! A small JSON client of the API, for `pulse demo` and the tests.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Sends requests to one API with one token.
pub struct Client {
    http: Http<HttpConnector, Full<Bytes>>,
    base: String,
    authorization: String,
}

impl Client {
    /// Creates a client. `url` is the address of the API, such as `http://localhost:8000`.
    ///
    /// # Errors
    /// If the URL is not an `http` URL. TLS is not supported.
    pub fn new(url: &str, token: &str) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let parsed: Uri = base.parse().with_context(|| format!("`{url}` is not a URL"))?;
        anyhow::ensure!(parsed.scheme_str() == Some("http"), "`{url}` is not supported: expected http://HOST:PORT");
        let http = Http::builder(TokioExecutor::new()).build_http();
        Ok(Self { http, base, authorization: format!("Bearer {token}") })
    }

    /// Posts JSON; returns the status and the JSON of the response.
    ///
    /// # Errors
    /// If no response arrives, or its body is not JSON. A status of 400 or more is not an error.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.send(Method::POST, path, None, serde_json::to_vec(body)?).await
    }

    /// Like [`post`](Self::post), with the id of the request, by which its task can be found.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn post_as(&self, request_id: &str, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        self.send(Method::POST, path, Some(request_id), serde_json::to_vec(body)?).await
    }

    /// Gets a path; returns the status and the JSON of the response.
    ///
    /// # Errors
    /// If no response arrives, or its body is not JSON. A status of 400 or more is not an error.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, Value)> {
        self.send(Method::GET, path, None, Vec::new()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        request_id: Option<&str>,
        body: Vec<u8>,
    ) -> anyhow::Result<(u16, Value)> {
        let url = format!("{}{path}", self.base);
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(id) = request_id {
            request = request.header("x-request-id", id);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let response = self
            .http
            .request(request)
            .await
            .with_context(|| format!("no response from {url}: check the address and that the API runs"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.context("the response ended early")?.to_bytes();
        let value = serde_json::from_slice(&body).with_context(|| format!("the response from {url} is not JSON"))?;
        Ok((status, value))
    }
}
