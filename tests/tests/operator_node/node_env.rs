//! The environment of a test on the node: a namespace, an operator, and a PostgreSQL and Redis that pods can reach.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pulse_tests::cluster::{DatastorePorts, Node, image};
use pulse_tests::operator::{OperatorProcess, apply_crd, merge, minimal};
use pulse_tests::{Client, SECRET, TestEnv, binary, eventually, pulse_output, token};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// The tests measure times and need the whole machine, so they run one at a time.
static EXCLUSIVE: Mutex<()> = Mutex::const_new(());
/// Time to wait for one step on a busy machine, including one or two drains of pods.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);
/// The same image under several tags, which the operator treats as versions.
const TAGS: [&str; 3] = ["one", "two", "three"];

/// The node of this test binary. It stops with the process.
async fn node() -> anyhow::Result<&'static Node> {
    static NODE: OnceCell<Node> = OnceCell::const_new();
    let start = async || {
        let archive = image(&binary(), "pulse", TAGS[0]).await?;
        let node = Node::start().await?;
        node.load_image(&archive).await?;
        let name = |tag: &str| format!("localhost/pulse:{tag}");
        for tag in &TAGS[1..] {
            node.enter(&["ctr", "-n", "k8s.io", "images", "tag", &name(TAGS[0]), &name(tag)]).await?;
        }
        apply_crd(node.admin()).await?;
        anyhow::Ok(node)
    };
    NODE.get_or_try_init(start).await
}

/// Deletes the instances of earlier tests, whose pods would leave no CPU for others, and waits until their pods are gone.
async fn make_room(node: &Node) -> anyhow::Result<()> {
    node.admin().kubectl(&["delete", "pulseingests", "--all", "--all-namespaces"]).await?;
    let pods = Api::<Pod>::all(node.admin().client()?);
    let of_instances = ListParams::default().labels("app.kubernetes.io/name=pulse");
    let gone = async || Ok(pods.list(&of_instances).await?.items.is_empty());
    eventually("the pods of earlier tests are gone", TIMEOUT, gone).await
}

/// A namespace of the node with a separate operator, PostgreSQL and Redis.
pub(crate) struct NodeEnv {
    /// PostgreSQL and Redis, on the host.
    pub(crate) servers: TestEnv,
    /// The test's namespace.
    pub(crate) namespace: String,
    node: &'static Node,
    client: kube::Client,
    reach: DatastorePorts,
    _guard: MutexGuard<'static, ()>,
}

impl NodeEnv {
    /// Creates a namespace with the Secrets that `manifests/samples/minimal.yaml` refers to. The database is not
    /// migrated.
    pub(crate) async fn start(namespace: &str) -> anyhow::Result<Self> {
        let guard = EXCLUSIVE.lock().await;
        let node = node().await?;
        make_room(node).await?;
        let servers = TestEnv::unmigrated().await?;
        let reach = DatastorePorts::open(&servers).await?;
        let client = node.admin().client()?;
        let restricted: Namespace = serde_json::from_value(json!({ "metadata": {
            "name": namespace, "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
        } }))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &restricted).await?;
        let env = Self { servers, namespace: namespace.to_owned(), node, client, reach, _guard: guard };
        env.apply_secret("main-database", "uri", &env.reach.database_url).await?;
        env.apply_secret("main-redis", "url", &env.reach.redis_url).await?;
        env.apply_secret("main-auth", "secret", SECRET).await?;
        Ok(env)
    }

    /// Starts an operator on the host that watches the namespace.
    pub(crate) fn start_operator(&self) -> anyhow::Result<OperatorProcess> {
        OperatorProcess::start(self.node.admin(), &self.namespace, self.servers.data.path(), &[])
    }

    /// The URL of PostgreSQL for pods, with the role that owns the database.
    pub(crate) fn database_url(&self) -> &str {
        &self.reach.database_url
    }

    /// A client with the administrator's permissions.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The objects of a kind in the namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Runs `kubectl` in the namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.node.admin().kubectl(&[&["--namespace", &self.namespace], args].concat()).await
    }

    /// Creates or updates a Secret with one key.
    pub(crate) async fn apply_secret(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value },
        });
        let params = PatchParams::apply("test").force();
        self.api::<Secret>().patch(name, &params, &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// Runs `kubectl apply` with `manifests/samples/minimal.yaml`, the tested image and these changes to the spec.
    pub(crate) async fn apply(&self, changes: Value) -> anyhow::Result<()> {
        let mut object = minimal("main")?;
        object["spec"]["image"] = json!({ "repository": "localhost/pulse", "tag": TAGS[0], "pullPolicy": "Never" });
        merge(&mut object["spec"], &changes);
        let file = self.servers.file("main.yaml");
        std::fs::write(&file, pulse_crd::yaml::print(&object)?)?;
        let file = file.to_str().context("the path is not UTF-8")?;
        self.kubectl(&["apply", "-f", file]).await.map(drop)
    }

    /// Runs `kubectl patch` with a merge patch of the spec.
    pub(crate) async fn patch_spec(&self, spec: Value) -> anyhow::Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch", "pi/main", "--type=merge", "-p", &patch]).await.map(drop)
    }

    /// Runs `kubectl wait` for a condition to be true. The error describes the pods, the status and the Events.
    pub(crate) async fn wait_for_condition(&self, condition: &str) -> anyhow::Result<()> {
        let condition = format!("--for=condition={condition}");
        let timeout = format!("--timeout={}s", TIMEOUT.as_secs());
        match self.kubectl(&["wait", &condition, &timeout, "pi/main"]).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.describe().await)),
        }
    }

    /// Waits until a condition holds. The error describes the pods, the status and the Events.
    pub(crate) async fn eventually(
        &self,
        what: &str,
        condition: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        match eventually(what, TIMEOUT, condition).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.describe().await)),
        }
    }

    async fn describe(&self) -> String {
        let pods = self.kubectl(&["get", "pods", "-o", "wide"]).await.unwrap_or_default();
        let object = self.kubectl(&["get", "pi/main", "-o", "jsonpath={.status}"]).await.unwrap_or_default();
        let events = self.kubectl(&["get", "events", "--sort-by=.metadata.creationTimestamp"]).await;
        format!("{object}\n{pods}\n{}", events.unwrap_or_default())
    }

    /// The reason of a condition if it has this status; otherwise empty.
    pub(crate) async fn reason(&self, condition: &str, status: &str) -> anyhow::Result<String> {
        let path = format!("jsonpath={{.status.conditions[?(@.type=='{condition}')]}}");
        let text = self.kubectl(&["get", "pi/main", "-o", &path]).await?;
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        let matches = found["status"] == status;
        Ok(if matches { found["reason"].as_str().unwrap_or_default().to_owned() } else { String::new() })
    }

    /// The pods of a role, including terminating pods.
    pub(crate) async fn all_pods(&self, role: &str) -> anyhow::Result<Vec<Pod>> {
        let of_role = format!("app.kubernetes.io/instance=main,app.kubernetes.io/component={role}");
        Ok(self.api::<Pod>().list(&ListParams::default().labels(&of_role)).await?.items)
    }

    /// The pods of a role that are not terminating.
    pub(crate) async fn pods(&self, role: &str) -> anyhow::Result<Vec<Pod>> {
        let mut pods = self.all_pods(role).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// The UIDs of each role's pods, sorted.
    pub(crate) async fn pod_uids(&self) -> anyhow::Result<BTreeMap<&'static str, Vec<String>>> {
        let mut uids = BTreeMap::new();
        for role in ["api", "worker", "scheduler"] {
            let mut of_role: Vec<String> = self.pods(role).await?.iter().filter_map(ResourceExt::uid).collect();
            of_role.sort();
            uids.insert(role, of_role);
        }
        Ok(uids)
    }

    /// The wanted replicas, the ready replicas and the image of a role's Deployment.
    pub(crate) async fn deployment(&self, role: &str) -> anyhow::Result<(i32, i32, String)> {
        let found = self.api::<Deployment>().get(&format!("main-{role}")).await?;
        let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        let pod = found.spec.and_then(|spec| spec.template.spec).context("the Deployment has no template")?;
        Ok((wanted, ready, pod.containers.first().and_then(|it| it.image.clone()).unwrap_or_default()))
    }

    /// The URL of the API's Service.
    pub(crate) async fn api_url(&self) -> anyhow::Result<String> {
        let service = self.api::<Service>().get("main-api").await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        Ok(format!("http://{address}:8000"))
    }

    /// Posts one event to an API pod, records the accepted event in the ledger, and returns the task's ID.
    pub(crate) async fn post_event(&self, event_name: &str) -> anyhow::Result<String> {
        let pod = self.pods("api").await?.pop().context("there is no API pod")?;
        let address = pod.status.and_then(|status| status.pod_ip).context("the API pod has no address")?;
        let client = Client::new(&format!("http://{address}:8000"), &token("tester", None));
        let event = json!({ "event_name": event_name, "event_type": "test", "payload": {} });
        let answer = client.post("/api/v1/events", &event).await?;
        anyhow::ensure!(answer.status == 202, "{}", answer.text);
        let mut ledger = std::fs::OpenOptions::new().create(true).append(true).open(self.servers.file("ledger"))?;
        std::io::Write::write_all(&mut ledger, format!("{}\n", answer.json).as_bytes())?;
        Ok(answer.json["task_id"].as_str().context("the answer has no task ID")?.to_owned())
    }

    /// Runs `pulse load` and returns its report.
    pub(crate) async fn run_load(&self, args: &[&str]) -> anyhow::Result<Value> {
        let (url, token, ledger) = (self.api_url().await?, token("tester", None), self.servers.file("ledger"));
        let ledger = ledger.to_str().context("the path is not UTF-8")?;
        let common = ["load", "--json", "--url", &url, "--token", &token, "--ledger", ledger];
        let (code, output) = pulse_output(&self.servers, &[&common, args].concat()).await?;
        anyhow::ensure!(code == 0, "{output}");
        let line = output.lines().find(|line| line.starts_with('{')).context("the output has no report")?;
        Ok(serde_json::from_str(line)?)
    }

    /// Waits until a task is completed.
    pub(crate) async fn wait_until_completed(&self, task: &str) -> anyhow::Result<()> {
        let sql = format!("SELECT count(*) FROM task_history WHERE id = '{task}' AND outcome = 'completed'");
        self.eventually("the task is completed", async || Ok(self.servers.number(&sql).await? == 1)).await
    }
}
