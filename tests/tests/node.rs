//! Tests of the harness for pods: a whole node, and images of the binary under test.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use pulse_tests::cluster::{DatastorePorts, Node, image};
use pulse_tests::{Client, SECRET, TestEnv, binary, eventually, run};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;

/// Serialises the tests: what a node leaves behind is visible only while no other node runs.
static SERIAL: Mutex<()> = Mutex::const_new(());
const TIMEOUT: Duration = Duration::from_secs(60);

async fn create<K>(node: &Node, object: Value) -> anyhow::Result<Api<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let api = Api::default_namespaced(node.admin().client()?);
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(api)
}

/// Like `eventually`; the error includes the description and the logs of the pods.
async fn wait_for(node: &Node, what: &str, condition: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let Err(error) = eventually(what, TIMEOUT, condition).await else { return Ok(()) };
    let pods = node.admin().kubectl(&["describe", "pods"]).await?;
    let logs = node.admin().kubectl(&["logs", "--prefix", "--all-containers", "-l", "of=pulse"]).await;
    Err(error.context(format!("{pods}\n{}", logs.unwrap_or_else(|error| error.to_string()))))
}

/// Pod with the restricted security settings that the operator uses.
fn pod(args: &[&str], ports: &DatastorePorts) -> Value {
    // A host name instead of the address, so that the node's DNS server is used.
    let by_name = |url: &str| url.replace(Node::HOST, "data.default.svc.cluster.local");
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let spec = json!({
        "automountServiceAccountToken": false,
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "pulse", "image": "localhost/pulse:under-test", "imagePullPolicy": "Never", "args": args,
            "env": [
                variable("PULSE_DATABASE_URL", &by_name(&ports.database_url)),
                variable("PULSE_REDIS_URL", &by_name(&ports.redis_url)),
                variable("PULSE_JWT_SECRET", SECRET),
            ],
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
            },
        }],
    });
    json!({ "metadata": { "labels": { "of": "pulse", "role": args[0] } }, "spec": spec })
}

#[tokio::test(flavor = "multi_thread")]
async fn image_runs_as_job_and_as_scaled_deployment() -> anyhow::Result<()> {
    let _serial = SERIAL.lock().await;
    let archive = image(&binary(), "pulse", "under-test").await?;
    let node = Node::start().await?;
    node.load_image(&archive).await?;
    let env = TestEnv::start().await?;
    let ports = DatastorePorts::open(&env).await?;
    let service = json!({ "metadata": { "name": "data" }, "spec": { "clusterIP": "None" } });
    create::<Service>(&node, service).await?;
    let slice = json!({
        "addressType": "IPv4", "endpoints": [{ "addresses": [Node::HOST] }],
        "metadata": { "name": "data", "labels": { "kubernetes.io/service-name": "data" } },
    });
    create::<EndpointSlice>(&node, slice).await?;

    let mut template = pod(&["migrate"], &ports);
    template["spec"]["restartPolicy"] = "Never".into();
    let job = json!({ "metadata": { "name": "migrate" }, "spec": { "backoffLimit": 0, "template": template } });
    let jobs: Api<Job> = create(&node, job).await?;
    let succeeded = async || Ok(jobs.get("migrate").await?.status.and_then(|status| status.succeeded) == Some(1));
    wait_for(&node, "the job succeeded", succeeded).await?;

    let mut template = pod(&["api"], &ports);
    let probe = json!({ "httpGet": { "path": "/readyz", "port": 9090 }, "periodSeconds": 1 });
    template["spec"]["containers"][0]["readinessProbe"] = probe;
    let selector = json!({ "matchLabels": { "role": "api" } });
    let spec = json!({ "replicas": 3, "selector": selector, "template": template });
    let deployments: Api<Deployment> = create(&node, json!({ "metadata": { "name": "api" }, "spec": spec })).await?;
    let ready = async || Ok(deployments.get("api").await?.status.and_then(|status| status.ready_replicas) == Some(3));
    wait_for(&node, "three pods are ready", ready).await?;

    let pods: Api<Pod> = Api::default_namespaced(node.admin().client()?);
    let api_pods = ListParams::default().labels("role=api");
    for pod in pods.list(&api_pods).await? {
        let address = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
        let answer = Client::new(&format!("http://{address}:8000"), "").get("/api/v1/events").await?;
        assert_eq!(answer.status, 401, "pods are reachable by their addresses");
    }

    let scale = json!({ "spec": { "replicas": 1 } });
    deployments.patch_scale("api", &PatchParams::default(), &Patch::Merge(&scale)).await?;
    let one = async || Ok(pods.list(&api_pods).await?.items.len() == 1);
    wait_for(&node, "one pod is left", one).await?;
    let left = pods.list(&api_pods).await?.items.remove(0).name_any();
    assert!(!pods.logs(&left, &LogParams::default()).await?.is_empty(), "the pod's log is empty");
    node.stop().await
}

#[tokio::test]
async fn stopped_node_leaves_nothing_behind() -> anyhow::Result<()> {
    let _serial = SERIAL.lock().await;
    let node = Node::start().await?;
    let api_server = format!("https://{}:6443", Node::ADDRESS);
    assert_eq!(node.admin().config().cluster_url.to_string().trim_end_matches('/'), api_server);
    // Each image has its program as /pulse, so CoreDNS is known by its arguments.
    let inside = node.enter(&["ps", "-e", "-o", "args="]).await?;
    for program in ["etcd", "kubelet", "containerd", "kube-proxy", "-conf /etc/coredns/Corefile"] {
        assert!(inside.contains(program), "{program} is not among {inside}");
    }
    let pid = node.pid();
    node.stop().await?;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!Path::new("/sys/class/net/pulse-node0").exists());
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    assert!(!mounts.contains("containerd"), "{mounts}");
    let routes = std::fs::read_to_string("/proc/net/route")?;
    assert!(!routes.contains("pulse-node0"), "{routes}");
    let groups = run(Command::new("find").args(["/sys/fs/cgroup", "-name", "pulse-node"])).await?;
    assert_eq!(groups, "");
    Ok(())
}
