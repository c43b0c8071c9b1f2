//! A reverse proxy before an API server: it harms what it is told to, and remembers every request.
//!
//! Clients speak plain HTTP to it; it speaks for them as whomever it was given. Answers are passed on as they come, so a
//! watch works through it. It runs on the test's runtime: a test that blocks its thread stops it.

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
use super::call::Call;
use super::fault::Fault;
use super::forward::Upstream;

type Condition = Box<dyn Fn(&Call) -> bool + Send + Sync>;

/// A request that the proxy saw.
#[derive(Clone, Debug)]
pub struct Logged {
    number: u64,
    /// What it was about.
    pub call: Call,
    /// What a writing request sent.
    pub body: Bytes,
    /// When it came.
    pub at: Instant,
    /// The answer's status, unless there was none.
    pub status: Option<u16>,
    /// From when it came until its answer ended; none while it goes on.
    pub took: Option<Duration>,
    /// What was done to it.
    pub fault: Option<Fault>,
}

/// A running proxy. It ends, with all its connections, when it is dropped.
pub struct Proxy {
    access: Access,
    shared: Arc<Shared>,
    _folder: TempDir,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
pub(super) struct Shared {
    rules: Mutex<Vec<Arc<Rule>>>,
    log: Mutex<Vec<Logged>>,
    open: Mutex<Vec<(Call, CancellationToken)>>,
    numbers: AtomicU64,
}

struct Rule {
    applies: Condition,
    fault: Fault,
    /// How often it may still happen.
    left: Mutex<usize>,
    hits: Mutex<usize>,
}

/// A fault that happens for as long as this is kept.
#[must_use = "the fault ends when this is dropped"]
pub struct Injected {
    rule: Arc<Rule>,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts a proxy that speaks to the API server as `upstream`.
    ///
    /// # Errors
    /// If it cannot listen, or the certificates make no sense.
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

    /// The way through this proxy.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Lets `fault` happen to each request that `applies`, until what this returns is dropped. Of several the youngest
    /// wins.
    pub fn inject(&self, applies: impl Fn(&Call) -> bool + Send + Sync + 'static, fault: Fault) -> Injected {
        self.inject_times(usize::MAX, applies, fault)
    }

    /// The same, at most this many times.
    pub fn inject_times(
        &self,
        times: usize,
        applies: impl Fn(&Call) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) -> Injected {
        let rule = Rule { applies: Box::new(applies), fault, left: Mutex::new(times), hits: Mutex::new(0) };
        let rule = Arc::new(rule);
        lock(&self.shared.rules).push(rule.clone());
        Injected { rule, shared: self.shared.clone() }
    }

    /// Breaks every connection and refuses everything, until what this returns is dropped.
    pub fn outage(&self) -> Injected {
        let outage = self.inject(|_| true, Fault::Close);
        self.cut(|_| true);
        outage
    }

    /// Breaks the connections whose answers are not complete, such as watches; returns how many there were.
    pub fn cut(&self, applies: impl Fn(&Call) -> bool) -> usize {
        let open = lock(&self.shared.open);
        let cut: Vec<_> = open.iter().filter(|(call, _)| applies(call)).collect();
        cut.iter().for_each(|(_, token)| token.cancel());
        cut.len()
    }

    /// Every request until now, in the order of coming.
    pub fn log(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }

    /// How many requests came that `applies`.
    pub fn count(&self, applies: impl Fn(&Logged) -> bool) -> usize {
        lock(&self.shared.log).iter().filter(|logged| applies(logged)).count()
    }

    /// How many requests of this verb came for this resource.
    pub fn count_of(&self, verb: &str, resource: &str) -> usize {
        self.count(|logged| logged.call.verb == verb && logged.call.resource == resource)
    }

    /// How many answers are not complete, such as watches.
    pub fn open(&self, applies: impl Fn(&Call) -> bool) -> usize {
        lock(&self.shared.open).iter().filter(|(call, _)| applies(call)).count()
    }

    /// Forgets the requests until now.
    pub fn clear_log(&self) {
        // Those that go on keep their place, because their end is still to be noted.
        lock(&self.shared.log).retain(|logged| logged.took.is_none());
    }
}

impl Injected {
    /// How often it has happened.
    pub fn hits(&self) -> usize {
        *lock(&self.rule.hits)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        lock(&self.shared.rules).retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

impl Shared {
    /// The fault that is to happen to this request.
    pub(super) fn fault(&self, call: &Call) -> Option<Fault> {
        let rules = lock(&self.rules).clone();
        rules.iter().rev().find(|rule| (rule.applies)(call) && rule.take()).map(|rule| rule.fault)
    }

    /// Notes a request; returns its number.
    pub(super) fn begin(&self, call: &Call, body: Bytes, fault: Option<Fault>) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let at = Instant::now();
        lock(&self.log).push(Logged { number, call: call.clone(), body, at, status: None, took: None, fault });
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

    pub(super) fn opened(&self, call: &Call, token: &CancellationToken) {
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

/// A test that failed while it held the lock has already said why.
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
                async move { upstream.answer(request).await }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // A broken connection is what tests ask for.
            drop(connection.await);
        });
        while connections.try_join_next().is_some() {}
    }
}
