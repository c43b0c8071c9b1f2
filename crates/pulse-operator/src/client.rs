//! The client of the API server: every call has a deadline and is counted, and writes are allowed only while this
//! process leads.
//!
//! kube's retries are off, because a call with retries may take minutes, longer than a Lease. A failed call fails the
//! reconcile, which is retried with a back-off.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

use crate::metrics::OperatorMetrics;
use crate::progress::WatchProgress;

const READ_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of a write that does not depend on the Lease.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// Returns the deadline of a write that starts now; `None` if it is not allowed.
pub(crate) type WriteGuard = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// Allows every write, also without leadership.
pub(crate) fn always() -> WriteGuard {
    Arc::new(|| Some(WRITE_DEADLINE))
}

/// Creates a client whose writes pass `write_guard`.
///
/// # Errors
/// `config` has certificates or keys that cannot be used.
pub(crate) fn client(
    mut config: Config,
    write_guard: WriteGuard,
    progress: WatchProgress,
    metrics: OperatorMetrics,
) -> Result<Client, kube::Error> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    let layer = GuardLayer { write_guard, progress, metrics };
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// Returns the message and the code of an API error, without the whole response.
pub(crate) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

#[derive(Clone)]
struct GuardLayer {
    write_guard: WriteGuard,
    progress: WatchProgress,
    metrics: OperatorMetrics,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, layer: self.clone() }
    }
}

struct Guard<S> {
    inner: S,
    layer: GuardLayer,
}

impl<S, B> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let writes = !matches!(*request.method(), Method::GET | Method::HEAD);
        let call = Call::of(&request);
        let GuardLayer { write_guard, progress, metrics } = self.layer.clone();
        let Some(deadline) = (if writes { write_guard() } else { Some(READ_DEADLINE) }) else {
            return Box::pin(async { Err("not the leader any more: the write was not sent".into()) });
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            // For a watch, this is the deadline of the response head.
            let answer = tokio::time::timeout(deadline, answer).await.unwrap_or_else(|_| {
                Err(format!("the API server did not answer within {:.1} s", deadline.as_secs_f64()).into())
            });
            let code = answer.as_ref().map_or(0, |response| response.status().as_u16());
            if call.verb == "watch" && (200..300).contains(&code) {
                progress.record(&call.resource, call.namespace.as_deref());
            }
            metrics.request(call.verb, &call.resource, code);
            answer
        })
    }
}

/// A call in the terms of RBAC: verb, resource and namespace.
struct Call {
    verb: &'static str,
    resource: String,
    namespace: Option<String>,
}

impl Call {
    /// `/api/v1/…` or `/apis/<group>/<version>/…`, then `namespaces/<namespace>/` or not, then the resource.
    fn of(request: &Request<Body>) -> Self {
        let path = request.uri().path().trim_start_matches('/');
        if path.starts_with("openapi/") {
            return Self { verb: "get", resource: "openapi".into(), namespace: None };
        }
        let mut parts: Vec<&str> = path.split('/').collect();
        parts.drain(..parts.len().min(if parts.first() == Some(&"api") { 2 } else { 3 }));
        let mut namespace = None;
        if parts.first() == Some(&"namespaces") && parts.len() > 2 {
            namespace = parts.drain(..2).next_back().map(str::to_owned);
        }
        let watches =
            request.uri().query().is_some_and(|query| query.contains("watch=true") || query.contains("watch=1"));
        let named = parts.len() > 1;
        let verb = match *request.method() {
            Method::GET if watches => "watch",
            Method::GET if named => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PATCH => "patch",
            Method::PUT => "update",
            Method::DELETE => "delete",
            _ => "other",
        };
        let resource = match parts.as_slice() {
            [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
            [resource, ..] => (*resource).to_owned(),
            [] => String::new(),
        };
        Self { verb, resource, namespace }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_like_rbac_rules() {
        let named = |method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).expect("valid");
            let Call { verb, resource, namespace: _ } = Call::of(&request);
            format!("{verb} {resource}")
        };
        assert_eq!(named(Method::GET, "/api/v1/namespaces/a/secrets/b"), "get secrets");
        assert_eq!(named(Method::GET, "/apis/apps/v1/deployments?watch=true"), "watch deployments");
        assert_eq!(
            named(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/b/scale?x=1"),
            "patch deployments/scale"
        );
        assert_eq!(named(Method::POST, "/apis/batch/v1/namespaces/a/jobs"), "create jobs");
        assert_eq!(named(Method::GET, "/openapi/v3/apis/pulseboard.dev/v1alpha1?hash=1"), "get openapi");
        assert_eq!(named(Method::GET, "/apis/batch/v1/namespaces/a/jobs?limit=5"), "list jobs");
    }
}
