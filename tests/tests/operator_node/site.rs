//! What a test of a whole node stands on: a namespace, an operator, and servers that pods reach.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pulse_tests::cluster::{Node, Reach, image};
use pulse_tests::operator::{OperatorProcess, define, merge, minimal};
use pulse_tests::{Client, SECRET, TestEnv, binary, eventually, pulse_output, token};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// The tests need the whole machine, and look at times.
static ALONE: Mutex<()> = Mutex::const_new(());
/// How long a step may take on a busy machine, with a drain or two.
pub(crate) const SOON: Duration = Duration::from_secs(90);
/// The same image under several tags: what a version is to the operator.
const TAGS: [&str; 3] = ["one", "two", "three"];

/// The node of this test binary. It ends with the process.
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
        define(node.admin()).await?;
        anyhow::Ok(node)
    };
    NODE.get_or_try_init(start).await
}

/// A namespace of the node with an operator of its own.
pub(crate) struct NodeEnv {
    /// The servers.
    pub(crate) world: TestEnv,
    /// The namespace.
    pub(crate) namespace: String,
    node: &'static Node,
    client: kube::Client,
    reach: Reach,
    _alone: MutexGuard<'static, ()>,
}

impl NodeEnv {
    /// Makes a namespace with the Secrets that `manifests/samples/minimal.yaml` names. Nobody migrates the database.
    pub(crate) async fn start(namespace: &str) -> anyhow::Result<Self> {
        let alone = ALONE.lock().await;
        let node = node().await?;
        let world = TestEnv::unmigrated().await?;
        let reach = Reach::open(&world).await?;
        let client = node.admin().client()?;
        let restricted: Namespace = serde_json::from_value(json!({ "metadata": {
            "name": namespace, "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
        } }))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &restricted).await?;
        let site = Self { world, namespace: namespace.to_owned(), node, client, reach, _alone: alone };
        site.secret("main-database", "uri", &site.reach.database_url).await?;
        site.secret("main-redis", "url", &site.reach.redis_url).await?;
        site.secret("main-auth", "secret", SECRET).await?;
        Ok(site)
    }

    /// Starts an operator on the host.
    pub(crate) fn operator(&self) -> anyhow::Result<OperatorProcess> {
        OperatorProcess::start(self.node.admin(), &self.namespace, self.world.data.path(), &[])
    }

    /// Objects of a kind.
    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Runs `kubectl` in the namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.node.admin().kubectl(&[&["--namespace", &self.namespace], args].concat()).await
    }

    /// Creates or changes a Secret of one key.
    pub(crate) async fn secret(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value },
        });
        let params = PatchParams::apply("test").force();
        self.all::<Secret>().patch(name, &params, &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// `kubectl apply` of `manifests/samples/minimal.yaml` with our image and these changes.
    pub(crate) async fn apply(&self, changes: Value) -> anyhow::Result<()> {
        let mut object = minimal("main")?;
        object["spec"]["image"] = json!({ "repository": "localhost/pulse", "tag": TAGS[0], "pullPolicy": "Never" });
        merge(&mut object["spec"], &changes);
        let file = self.world.file("main.yaml");
        std::fs::write(&file, pulse_operator::yaml::print(&object)?)?;
        let file = file.to_str().context("a path in UTF-8")?;
        self.kubectl(&["apply", "-f", file]).await.map(drop)
    }

    /// `kubectl patch` of the spec.
    pub(crate) async fn change(&self, spec: Value) -> anyhow::Result<()> {
        let patch = json!({ "spec": spec }).to_string();
        self.kubectl(&["patch", "pi/main", "--type=merge", "-p", &patch]).await.map(drop)
    }

    /// `kubectl wait` for a condition; if it does not come, says what there is.
    pub(crate) async fn wait_for(&self, condition: &str) -> anyhow::Result<()> {
        let condition = format!("--for=condition={condition}");
        let patience = format!("--timeout={}s", SOON.as_secs());
        match self.kubectl(&["wait", &condition, &patience, "pi/main"]).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.context(self.describe().await)),
        }
    }

    /// Waits; if it is in vain, says what there is.
    pub(crate) async fn soon(
        &self,
        what: &str,
        condition: impl AsyncFn() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        match eventually(what, SOON, condition).await {
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

    /// `reason` of a condition that is `status`; empty if it is not.
    pub(crate) async fn reason(&self, condition: &str, status: &str) -> anyhow::Result<String> {
        let path = format!("jsonpath={{.status.conditions[?(@.type=='{condition}')]}}");
        let text = self.kubectl(&["get", "pi/main", "-o", &path]).await?;
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        let is_so = found["status"] == status;
        Ok(if is_so { found["reason"].as_str().unwrap_or_default().to_owned() } else { String::new() })
    }

    /// The pods of a role, also those that are going.
    pub(crate) async fn all_pods(&self, role: &str) -> anyhow::Result<Vec<Pod>> {
        let of_role = format!("app.kubernetes.io/instance=main,app.kubernetes.io/component={role}");
        Ok(self.all::<Pod>().list(&ListParams::default().labels(&of_role)).await?.items)
    }

    /// The pods of a role that were not told to go.
    pub(crate) async fn pods(&self, role: &str) -> anyhow::Result<Vec<Pod>> {
        let mut pods = self.all_pods(role).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// The UIDs of each role's pods, sorted.
    pub(crate) async fn uids(&self) -> anyhow::Result<BTreeMap<&'static str, Vec<String>>> {
        let mut uids = BTreeMap::new();
        for role in ["api", "worker", "scheduler"] {
            let mut of_role: Vec<String> = self.pods(role).await?.iter().filter_map(ResourceExt::uid).collect();
            of_role.sort();
            uids.insert(role, of_role);
        }
        Ok(uids)
    }

    /// Wanted and ready pods of a Deployment, and its image.
    pub(crate) async fn deployment(&self, role: &str) -> anyhow::Result<(i32, i32, String)> {
        let found = self.all::<Deployment>().get(&format!("main-{role}")).await?;
        let wanted = found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let ready = found.status.and_then(|status| status.ready_replicas).unwrap_or(0);
        let pod = found.spec.and_then(|spec| spec.template.spec).context("a template")?;
        Ok((wanted, ready, pod.containers.first().and_then(|it| it.image.clone()).unwrap_or_default()))
    }

    /// Where the API is, by its Service.
    pub(crate) async fn api_url(&self) -> anyhow::Result<String> {
        let service = self.all::<Service>().get("main-api").await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has an address")?;
        Ok(format!("http://{address}:8000"))
    }

    /// Posts one event at the address of an API pod, keeps the promise in the ledger, and returns the task's id.
    pub(crate) async fn post(&self, event_name: &str) -> anyhow::Result<String> {
        let pod = self.pods("api").await?.pop().context("an API pod")?;
        let address = pod.status.and_then(|status| status.pod_ip).context("it has an address")?;
        let client = Client::new(&format!("http://{address}:8000"), &token("tester", None));
        let event = json!({ "event_name": event_name, "event_type": "test", "payload": {} });
        let answer = client.post("/api/v1/events", &event).await?;
        anyhow::ensure!(answer.status == 202, "{}", answer.text);
        let mut ledger = std::fs::OpenOptions::new().create(true).append(true).open(self.world.file("ledger"))?;
        std::io::Write::write_all(&mut ledger, format!("{}\n", answer.json).as_bytes())?;
        Ok(answer.json["task_id"].as_str().context("a task id")?.to_owned())
    }

    /// Runs `pulse load` to its end; returns its report.
    pub(crate) async fn load(&self, args: &[&str]) -> anyhow::Result<Value> {
        let (url, token, ledger) = (self.api_url().await?, token("tester", None), self.world.file("ledger"));
        let ledger = ledger.to_str().context("a path in UTF-8")?;
        let common = ["load", "--json", "--url", &url, "--token", &token, "--ledger", ledger];
        let (code, output) = pulse_output(&self.world, &[&common, args].concat()).await?;
        anyhow::ensure!(code == 0, "{output}");
        let line = output.lines().find(|line| line.starts_with('{')).context("a report")?;
        Ok(serde_json::from_str(line)?)
    }

    /// Waits until a task is processed.
    pub(crate) async fn processed(&self, task: &str) -> anyhow::Result<()> {
        let sql = format!("SELECT count(*) FROM task_history WHERE id = '{task}' AND outcome = 'completed'");
        self.soon("the task is processed", async || Ok(self.world.number(&sql).await? == 1)).await
    }
}
