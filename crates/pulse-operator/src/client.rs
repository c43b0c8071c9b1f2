//! The way to the API server: every call has a deadline, is counted, and writes only while we lead.
//!
//! The library's own retries are off: one of its calls may take minutes, longer than a lease. A call that fails fails the
//! reconcile, which comes again with its own back-off.

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
/// Of a write that no lease limits.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// For how long a write that begins now may take; none if it may not begin.
pub(crate) type MayWrite = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// Of a client that does not have to lead.
pub(crate) fn always() -> MayWrite {
    Arc::new(|| Some(WRITE_DEADLINE))
}

/// Makes a client.
///
/// # Errors
/// If `config` names keys that cannot be used.
pub(crate) fn client(
    mut config: Config,
    may_write: MayWrite,
    progress: WatchProgress,
    metrics: OperatorMetrics,
) -> Result<Client, kube::Error> {
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(5));
    let layer = GuardLayer { may_write, progress, metrics };
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

#[derive(Clone)]
struct GuardLayer {
    may_write: MayWrite,
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
        let GuardLayer { may_write, progress, metrics } = self.layer.clone();
        let Some(deadline) = (if writes { may_write() } else { Some(READ_DEADLINE) }) else {
            return Box::pin(async { Err("not the leader any more: nothing is written".into()) });
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            // For a watch, this is the time to its first byte.
            let answer = tokio::time::timeout(deadline, answer).await.unwrap_or_else(|_| {
                Err(format!("the API server did not answer within {:.1} s", deadline.as_secs_f64()).into())
            });
            let code = answer.as_ref().map_or(0, |response| response.status().as_u16());
            if call.verb == "watch" && (200..300).contains(&code) {
                progress.turned(&call.resource);
            }
            metrics.request(call.verb, &call.resource, code);
            answer
        })
    }
}

/// A call, as RBAC names it.
struct Call {
    verb: &'static str,
    resource: String,
}

impl Call {
    /// `/api/v1/…` or `/apis/<group>/<version>/…`, then `namespaces/<namespace>/` or not, then the resource.
    fn of(request: &Request<Body>) -> Self {
        let path = request.uri().path().trim_start_matches('/');
        let mut parts: Vec<&str> = path.split('/').collect();
        parts.drain(..parts.len().min(if parts.first() == Some(&"api") { 2 } else { 3 }));
        if parts.first() == Some(&"namespaces") && parts.len() > 2 {
            parts.drain(..2);
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
        Self { verb, resource }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_as_rbac_names_them() {
        let named = |method: Method, uri: &str| {
            let request = Request::builder().method(method).uri(uri).body(Body::empty()).expect("valid");
            let Call { verb, resource } = Call::of(&request);
            format!("{verb} {resource}")
        };
        assert_eq!(named(Method::GET, "/api/v1/namespaces/a/secrets/b"), "get secrets");
        assert_eq!(named(Method::GET, "/apis/apps/v1/deployments?watch=true"), "watch deployments");
        assert_eq!(
            named(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/b/scale?x=1"),
            "patch deployments/scale"
        );
        assert_eq!(named(Method::POST, "/apis/batch/v1/namespaces/a/jobs"), "create jobs");
        assert_eq!(named(Method::GET, "/apis/batch/v1/namespaces/a/jobs?limit=5"), "list jobs");
    }
}
