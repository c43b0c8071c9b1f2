//! Reads a document from an HTTP server, within limits.

use std::error::Error;
use std::time::Duration;

use axum::http::{Request, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use pulse_tls::CaBundle;

/// Time limit for all of it: look-up of the name, connection, handshake, answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum size of the document, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// A client of one document.
pub(crate) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: Uri,
}

impl Fetcher {
    /// Verifies the server with the CAs of `ca`, or else with those of the system.
    pub(crate) fn new(url: Uri, ca: Option<&CaBundle>) -> Self {
        let tls = pulse_tls::client_config(ca, None);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        // Reads are minutes apart, and a server may close the connection in between.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { client, url }
    }

    /// Reads the document. Redirects are not followed.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) async fn fetch(&self) -> Result<Bytes, String> {
        let timed_out = |_| format!("it did not answer within {} s", TIMEOUT.as_secs());
        tokio::time::timeout(TIMEOUT, self.exchange()).await.map_err(timed_out)?
    }

    async fn exchange(&self) -> Result<Bytes, String> {
        let request = Request::get(&self.url)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::USER_AGENT, concat!("pulse/", env!("CARGO_PKG_VERSION")));
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| {
            pulse_tls::explain(&error).unwrap_or_else(|| format!("it cannot be reached: {}", innermost(&error)))
        })?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                return Err(format!("it answered {status}: give the URL that it redirects to"));
            }
            status => return Err(format!("it answered {status}")),
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
        Ok(body.map_err(|error| format!("its answer is cut off, or larger than 256 KiB: {error}"))?.to_bytes())
    }
}

/// The last of the causes: the others only say which step failed.
fn innermost(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
