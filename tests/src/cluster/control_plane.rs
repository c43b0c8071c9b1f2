//! A private API server: etcd and kube-apiserver on loopback, with certificates, RBAC and an audit log.
//!
//! Without a scheduler and a kubelet, pods stay `Pending`. After [`ControlPlane::start_controllers`], Deployments get
//! ReplicaSets and pods, dependents are garbage-collected with their owners, and deleted namespaces are removed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use http::Request;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OnceCell, oneshot};

use super::access::{Access, Credentials};
use super::args;
use super::server::{ClusterProcess, Folder};
use super::tools::program;
use crate::host::free_port;
use crate::pki::Authority;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts to start: another process may take a free port before the server does.
const MAX_ATTEMPTS: usize = 3;

/// A running API server with its etcd.
pub struct ControlPlane {
    // Fields are dropped in this order: the servers end before the folder that they write to.
    controllers: Mutex<Option<ClusterProcess>>,
    api_server: Mutex<Option<ClusterProcess>>,
    etcd: ClusterProcess,
    authority: Authority,
    admin: Access,
    api_args: Vec<String>,
    /// Runtime that starts the servers. They end with its thread.
    runtime: Handle,
    numbers: AtomicU32,
    folder: Folder,
}

impl ControlPlane {
    /// Control plane of this test binary, started at the first call and ended with the process.
    ///
    /// Give each test a separate [`namespace`](Self::namespace). Cluster-scoped objects, such as CRDs, are shared.
    ///
    /// # Errors
    /// If the control plane does not start.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        let start = || async {
            let (sender, receiver) = oneshot::channel();
            // A test's thread and runtime end with the test; this thread stays.
            std::thread::Builder::new().name("control-plane".into()).spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => runtime.block_on(async {
                        drop(sender.send(Self::start().await));
                        std::future::pending::<()>().await;
                    }),
                    Err(error) => drop(sender.send(Err(error.into()))),
                }
            })?;
            receiver.await.context("the control plane's thread ended")?
        };
        SHARED.get_or_try_init(start).await
    }

    /// Starts a private control plane, for tests that stop and start it. It ends when it is dropped.
    ///
    /// # Errors
    /// If the control plane does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let mut attempts = 1;
        loop {
            match Self::try_start().await {
                Err(error) if attempts < MAX_ATTEMPTS && format!("{error:#}").contains("address already in use") => {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_start() -> anyhow::Result<Self> {
        let folder = Folder::create()?;
        let authority = Authority::new()?;
        let (client_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
        let etcd_args = args::etcd(&folder, client_port, peer_port);
        let etcd = ClusterProcess::start("etcd", &program("etcd").await?, &etcd_args, folder.path())?;
        let api_args = args::api_server(&folder, &authority, client_port, port)?;
        let url = format!("https://127.0.0.1:{port}");
        let admin = authority.client("admin", Some("system:masters"))?;
        let kubeconfig = folder.path().join("admin.kubeconfig");
        let admin = Access::write(kubeconfig, &url, Some(&authority.pem()), Credentials::Certificate(&admin)).await?;
        let plane = Self {
            controllers: Mutex::new(None),
            api_server: Mutex::new(None),
            etcd,
            authority,
            admin,
            api_args,
            runtime: Handle::current(),
            numbers: AtomicU32::new(0),
            folder,
        };
        plane.start_api_server().await?;
        Ok(plane)
    }

    /// Starts kube-controller-manager, unless it runs: Deployments, Jobs, disruption budgets, garbage collection.
    ///
    /// Create CRDs before: garbage collection discovers later ones after up to 30 s.
    ///
    /// # Errors
    /// If kube-controller-manager does not start.
    pub async fn start_controllers(&self) -> anyhow::Result<()> {
        let mut running = self.controllers.lock().await;
        if running.is_some() {
            return Ok(());
        }
        let port = free_port()?;
        let args = args::controller_manager(&self.folder, self.admin.kubeconfig(), port)?;
        let mut server = self.spawn("kube-controller-manager", args).await?;
        // Its health port has a self-signed certificate; a new namespace's service account shows that it works.
        let name = self.new_namespace("controllers").await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.client()?, &name);
        let works = async || matches!(accounts.get_opt("default").await, Ok(Some(_)));
        server.wait_until(START_TIMEOUT, works).await?;
        *running = Some(server);
        Ok(())
    }

    /// Kills the API server: connections break, and new ones are refused.
    ///
    /// # Errors
    /// If the API server does not run.
    pub async fn stop_api_server(&self) -> anyhow::Result<()> {
        self.api_server.lock().await.take().context("the API server runs")?.kill().await
    }

    /// Starts the API server again, at the same address.
    ///
    /// # Errors
    /// If the API server does not start.
    pub async fn start_api_server(&self) -> anyhow::Result<()> {
        let mut server = self.spawn("kube-apiserver", self.api_args.clone()).await?;
        let client = self.admin.client()?;
        let ready = async || {
            let request = Request::get("/readyz").body(Vec::new());
            let Ok(request) = request else { return false };
            client.request_text(request).await.is_ok_and(|text| text == "ok")
        };
        server.wait_until(START_TIMEOUT, ready).await?;
        *self.api_server.lock().await = Some(server);
        Ok(())
    }

    async fn spawn(&self, name: &'static str, args: Vec<String>) -> anyhow::Result<ClusterProcess> {
        let program = program(name).await?;
        let folder = self.folder.path().to_owned();
        self.runtime.spawn(async move { ClusterProcess::start(name, &program, &args, &folder) }).await?
    }

    /// Access as cluster administrator.
    pub fn admin(&self) -> &Access {
        &self.admin
    }

    /// Access as a user with this name, by a client certificate. The test has to grant the permissions.
    ///
    /// # Errors
    /// If the kubeconfig cannot be written.
    pub async fn user(&self, name: &str, group: Option<&str>) -> anyhow::Result<Access> {
        let pair = self.authority.client(name, group)?;
        self.write_access(Credentials::Certificate(&pair)).await
    }

    /// Access as a service account, which is created if it does not exist. The test has to grant the permissions.
    ///
    /// # Errors
    /// If the service account or its token cannot be created.
    pub async fn service_account(&self, namespace: &str, name: &str) -> anyhow::Result<Access> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.client()?, namespace);
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        created_or_exists(accounts.create(&PostParams::default(), &account).await)?;
        let spec = TokenRequestSpec { expiration_seconds: Some(7200), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await?;
        let token = answer.status.context("a token")?.token;
        self.write_access(Credentials::Token(&token)).await
    }

    async fn write_access(&self, credentials: Credentials<'_>) -> anyhow::Result<Access> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("{number}.kubeconfig"));
        let server = self.admin.config().cluster_url.to_string();
        Access::write(path, server.trim_end_matches('/'), Some(&self.authority.pem()), credentials).await
    }

    /// Creates a namespace whose name begins with `prefix`, with the service account that pods need.
    ///
    /// # Errors
    /// If the namespace cannot be created.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<String> {
        let name = self.new_namespace(prefix).await?;
        // With controllers, the account is created soon anyway.
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.client()?, &name);
        let metadata = ObjectMeta { name: Some("default".into()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        created_or_exists(accounts.create(&PostParams::default(), &account).await)?;
        Ok(name)
    }

    async fn new_namespace(&self, prefix: &str) -> anyhow::Result<String> {
        let namespaces: Api<Namespace> = Api::all(self.admin.client()?);
        let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        let created = namespaces.create(&PostParams::default(), &namespace).await?;
        created.metadata.name.context("a namespace has a name")
    }

    /// Audit events of this user's requests (`verb`, `objectRef`, `responseStatus.code`), in order.
    ///
    /// The user name of a service account is `system:serviceaccount:NAMESPACE:NAME`.
    ///
    /// # Errors
    /// If the audit log cannot be read.
    pub fn audit(&self, user: &str) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.path().join("audit.log"))?;
        // The last line may be incomplete while it is written.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.filter(|event| event["user"]["username"] == user).collect())
    }

    /// Name and process ID of each server.
    pub async fn processes(&self) -> Vec<(&'static str, u32)> {
        let (api_server, controllers) = (self.api_server.lock().await, self.controllers.lock().await);
        let servers = [Some(&self.etcd), api_server.as_ref(), controllers.as_ref()];
        servers.into_iter().flatten().filter_map(|server| Some((server.name(), server.pid()?))).collect()
    }
}

/// Accepts 409: the object exists already.
fn created_or_exists<T>(created: kube::Result<T>) -> anyhow::Result<()> {
    match created {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
