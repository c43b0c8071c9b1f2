//! A reverse proxy in front of an API server. It injects faults and logs every request.
//!
//! Clients connect without TLS; the proxy adds its own credentials. Responses are streamed, so watches work. It runs on
//! the test's runtime: a test that blocks its thread stops the proxy.

use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::access::{Access, Credentials};
use super::fault::Fault;
use super::forward::Upstream;
use super::request_info::RequestInfo;
use super::traffic::{InjectedFault, LoggedRequest, Traffic, lock};

/// A running proxy. It ends with all its connections when this is dropped.
pub struct Proxy {
    access: Access,
    traffic: Arc<Traffic>,
    _folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy that connects to the API server with the credentials of `upstream`.
    ///
    /// # Errors
    /// If the proxy cannot listen, or the certificates are invalid.
    pub async fn start(upstream: &Access) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let folder = tempfile::Builder::new().prefix("pulse-proxy-").tempdir()?;
        let url = format!("http://{}", listener.local_addr()?);
        let access = Access::write(folder.path().join("kubeconfig"), &url, None, Credentials::None).await?;
        let traffic = Arc::new(Traffic::default());
        let upstream = Arc::new(Upstream::new(upstream.config(), traffic.clone())?);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, upstream));
        Ok(Self { access, traffic, _folder: folder, _tasks: tasks })
    }

    /// Access to the API server through this proxy.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Injects `fault` into each request for which `applies` is true, until the returned guard is dropped. If several
    /// faults apply, the one injected last wins.
    pub fn inject(
        &self,
        applies: impl Fn(&RequestInfo) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) -> InjectedFault {
        self.inject_times(usize::MAX, applies, fault)
    }

    /// Like [`inject`](Self::inject), at most this many times.
    pub fn inject_times(
        &self,
        times: usize,
        applies: impl Fn(&RequestInfo) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) -> InjectedFault {
        InjectedFault::new(self.traffic.clone(), times, Box::new(applies), fault)
    }

    /// Breaks every connection and refuses every request, until the returned guard is dropped.
    pub fn outage(&self) -> InjectedFault {
        let outage = self.inject(|_| true, Fault::Close);
        self.cut(|_| true);
        outage
    }

    /// Breaks the connections with incomplete responses, such as watches, and returns their number.
    pub fn cut(&self, applies: impl Fn(&RequestInfo) -> bool) -> usize {
        let open = lock(&self.traffic.open);
        let cut: Vec<_> = open.iter().filter(|(call, _)| applies(call)).collect();
        cut.iter().for_each(|(_, token)| token.cancel());
        cut.len()
    }

    /// All requests so far, in the order of arrival.
    pub fn log(&self) -> Vec<LoggedRequest> {
        lock(&self.traffic.log).clone()
    }

    /// Number of requests for which `applies` is true.
    pub fn count(&self, applies: impl Fn(&LoggedRequest) -> bool) -> usize {
        lock(&self.traffic.log).iter().filter(|logged| applies(logged)).count()
    }

    /// Number of requests with this verb and resource.
    pub fn count_of(&self, verb: &str, resource: &str) -> usize {
        self.count(|logged| logged.call.verb == verb && logged.call.resource == resource)
    }

    /// Number of incomplete responses, such as watches.
    pub fn open(&self, applies: impl Fn(&RequestInfo) -> bool) -> usize {
        lock(&self.traffic.open).iter().filter(|(call, _)| applies(call)).count()
    }

    /// Removes the completed requests from the log.
    pub fn clear_log(&self) {
        // Requests in progress stay, because their end is still to be recorded.
        lock(&self.traffic.log).retain(|logged| logged.took.is_none());
    }
}

async fn serve(listener: TcpListener, upstream: Arc<Upstream>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let upstream = upstream.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let upstream = upstream.clone();
                async move { upstream.handle(request).await }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // Tests break connections on purpose.
            drop(connection.await);
        });
        while connections.try_join_next().is_some() {}
    }
}
