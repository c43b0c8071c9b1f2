//! A reverse proxy in front of an API server. It injects faults and logs every request.
//!
//! Clients connect without TLS; the proxy adds its own credentials. Responses are streamed, so watches work. It runs on
//! the test's runtime: a test that blocks its thread stops the proxy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Credentials};
use super::fault::Fault;
use super::forward::Upstream;
use super::request_info::RequestInfo;

type Condition = Box<dyn Fn(&RequestInfo) -> bool + Send + Sync>;

/// A request that the proxy received.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    number: u64,
    /// Verb, resource and object of the request.
    pub call: RequestInfo,
    /// Request body.
    pub body: Bytes,
    /// Time of arrival.
    pub at: Instant,
    /// Status code of the response; `None` without a response.
    pub status: Option<u16>,
    /// Time from the arrival to the end of the response; `None` while the request is in progress.
    pub took: Option<Duration>,
    /// Fault that was injected.
    pub fault: Option<Fault>,
}

/// A running proxy. It ends with all its connections when this is dropped.
pub struct Proxy {
    access: Access,
    shared: Arc<Shared>,
    _folder: TempDir,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
pub(super) struct Shared {
    rules: Mutex<Vec<Arc<Rule>>>,
    log: Mutex<Vec<LoggedRequest>>,
    open: Mutex<Vec<(RequestInfo, CancellationToken)>>,
    numbers: AtomicU64,
}

struct Rule {
    applies: Condition,
    fault: Fault,
    /// Number of requests that the fault may still affect.
    left: Mutex<usize>,
    hits: Mutex<usize>,
}

/// An injected fault. It ends when this is dropped.
#[must_use = "the fault ends when this is dropped"]
pub struct InjectedFault {
    rule: Arc<Rule>,
    shared: Arc<Shared>,
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
        let shared = Arc::new(Shared::default());
        let upstream = Arc::new(Upstream::new(upstream.config(), shared.clone())?);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, upstream));
        Ok(Self { access, shared, _folder: folder, _tasks: tasks })
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
        let rule = Rule { applies: Box::new(applies), fault, left: Mutex::new(times), hits: Mutex::new(0) };
        let rule = Arc::new(rule);
        lock(&self.shared.rules).push(rule.clone());
        InjectedFault { rule, shared: self.shared.clone() }
    }

    /// Breaks every connection and refuses every request, until the returned guard is dropped.
    pub fn outage(&self) -> InjectedFault {
        let outage = self.inject(|_| true, Fault::Close);
        self.cut(|_| true);
        outage
    }

    /// Breaks the connections with incomplete responses, such as watches, and returns their number.
    pub fn cut(&self, applies: impl Fn(&RequestInfo) -> bool) -> usize {
        let open = lock(&self.shared.open);
        let cut: Vec<_> = open.iter().filter(|(call, _)| applies(call)).collect();
        cut.iter().for_each(|(_, token)| token.cancel());
        cut.len()
    }

    /// All requests so far, in the order of arrival.
    pub fn log(&self) -> Vec<LoggedRequest> {
        lock(&self.shared.log).clone()
    }

    /// Number of requests for which `applies` is true.
    pub fn count(&self, applies: impl Fn(&LoggedRequest) -> bool) -> usize {
        lock(&self.shared.log).iter().filter(|logged| applies(logged)).count()
    }

    /// Number of requests with this verb and resource.
    pub fn count_of(&self, verb: &str, resource: &str) -> usize {
        self.count(|logged| logged.call.verb == verb && logged.call.resource == resource)
    }

    /// Number of incomplete responses, such as watches.
    pub fn open(&self, applies: impl Fn(&RequestInfo) -> bool) -> usize {
        lock(&self.shared.open).iter().filter(|(call, _)| applies(call)).count()
    }

    /// Removes the completed requests from the log.
    pub fn clear_log(&self) {
        // Requests in progress stay, because their end is still to be recorded.
        lock(&self.shared.log).retain(|logged| logged.took.is_none());
    }
}

impl InjectedFault {
    /// Number of requests that the fault has affected.
    pub fn hits(&self) -> usize {
        *lock(&self.rule.hits)
    }
}

impl Drop for InjectedFault {
    fn drop(&mut self) {
        lock(&self.shared.rules).retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

impl Shared {
    /// Fault to inject into this request.
    pub(super) fn fault(&self, call: &RequestInfo) -> Option<Fault> {
        let rules = lock(&self.rules).clone();
        rules.iter().rev().find(|rule| (rule.applies)(call) && rule.take()).map(|rule| rule.fault)
    }

    /// Adds a request to the log and returns its number.
    pub(super) fn begin(&self, call: &RequestInfo, body: Bytes, fault: Option<Fault>) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let at = Instant::now();
        lock(&self.log).push(LoggedRequest { number, call: call.clone(), body, at, status: None, took: None, fault });
        number
    }

    pub(super) fn answered(&self, number: u64, status: u16) {
        lock(&self.log).iter_mut().filter(|logged| logged.number == number).for_each(|logged| {
            logged.status = Some(status);
        });
    }

    pub(super) fn ended(&self, number: u64) {
        lock(&self.log).iter_mut().filter(|logged| logged.number == number).for_each(|logged| {
            logged.took = Some(logged.at.elapsed());
        });
    }

    pub(super) fn opened(&self, call: &RequestInfo, token: &CancellationToken) {
        lock(&self.open).push((call.clone(), token.clone()));
    }

    pub(super) fn closed(&self, token: &CancellationToken) {
        token.cancel();
        lock(&self.open).retain(|(_, token)| !token.is_cancelled());
    }
}

impl Rule {
    fn take(&self) -> bool {
        let mut left = lock(&self.left);
        if *left == 0 {
            return false;
        }
        *left -= 1;
        *lock(&self.hits) += 1;
        true
    }
}

/// Ignores poisoning: a test that panicked while it held the lock has already reported its failure.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, upstream: Arc<Upstream>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
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
