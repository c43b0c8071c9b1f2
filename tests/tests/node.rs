//! The harness of the tests that need pods: a whole node, and images of our binary.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams, Patch, PatchParams, PostParams};
use pulse_tests::cluster::{Node, Reach, image};
use pulse_tests::{Client, SECRET, World, binary, eventually, run};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;

/// Nodes wait for each other, but what is left of one can only be seen while there is no other.
static ALONE: Mutex<()> = Mutex::const_new(());
const SOON: Duration = Duration::from_secs(60);

/// A pod as an operator would make it: nothing more than it needs.
fn pod(args: &[&str], reach: &Reach) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{
            "name": "pulse", "image": "localhost/pulse:under-test", "imagePullPolicy": "Never", "args": args,
            "env": [
                { "name": "PULSE_DATABASE_URL", "value": reach.database_url },
                { "name": "PULSE_REDIS_URL", "value": reach.redis_url },
                { "name": "PULSE_JWT_SECRET", "value": SECRET },
            ],
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] },
            },
        }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn our_image_runs_as_a_job_and_as_a_deployment_that_scales() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    let archive = image(&binary(), "pulse", "under-test").await?;
    let node = Node::start().await?;
    node.load_image(&archive).await?;
    let (world, client) = (World::start().await?, node.admin().client()?);
    let reach = Reach::open(&world).await?;

    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    let mut template = pod(&["migrate"], &reach);
    template["restartPolicy"] = "Never".into();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "migrate" },
        "spec": { "backoffLimit": 0, "template": { "spec": template } },
    });
    jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
    let succeeded = async || Ok(jobs.get("migrate").await?.status.and_then(|status| status.succeeded) == Some(1));
    let done = eventually("the job succeeded", SOON, succeeded).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    if let Err(error) = done {
        let pods = node.admin().kubectl(&["describe", "pods"]).await?;
        let logs = node.admin().kubectl(&["logs", "job/migrate"]).await?;
        return Err(error.context(format!("{pods}\n{logs}")));
    }

    let deployments: Api<Deployment> = Api::default_namespaced(client);
    let mut template = pod(&["api"], &reach);
    template["containers"][0]["readinessProbe"] =
        json!({ "httpGet": { "path": "/readyz", "port": 9090 }, "periodSeconds": 1 });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "api" },
        "spec": {
            "replicas": 3, "selector": { "matchLabels": { "app": "api" } },
            "template": { "metadata": { "labels": { "app": "api" } }, "spec": template },
        },
    });
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    let ready = async || Ok(deployments.get("api").await?.status.and_then(|status| status.ready_replicas) == Some(3));
    if let Err(error) = eventually("three are ready", SOON, ready).await {
        let described = node.admin().kubectl(&["describe", "pods", "-l", "app=api"]).await?;
        return Err(error.context(described));
    }

    // Pods are reachable from here, by their own addresses.
    let of_api = ListParams::default().labels("app=api");
    for pod in pods.list(&of_api).await? {
        let address = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
        let answer = Client::new(&format!("http://{address}:8000"), "").get("/api/v1/events").await?;
        assert_eq!(answer.status, 401);
    }

    let scale = json!({ "spec": { "replicas": 1 } });
    deployments.patch_scale("api", &PatchParams::default(), &Patch::Merge(&scale)).await?;
    let one = async || Ok(pods.list(&of_api).await?.items.len() == 1);
    eventually("one is left", SOON, one).await?;
    let left = pods.list(&of_api).await?.items.remove(0).metadata.name.unwrap_or_default();
    assert!(!pods.logs(&left, &LogParams::default()).await?.is_empty(), "its log can be read");
    node.stop().await
}

#[tokio::test]
async fn names_are_resolved_and_nothing_is_left_behind() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    let node = Node::start().await?;
    let api_server = format!("https://{}:6443", Node::ADDRESS);
    assert_eq!(node.admin().config().cluster_url.to_string().trim_end_matches('/'), api_server);
    let inside = node.enter(&["ps", "-e", "-o", "comm="]).await?;
    for program in ["etcd", "kubelet", "containerd", "kube-proxy", "coredns"] {
        assert!(inside.lines().any(|line| line == program), "{program} is not among {inside}");
    }
    let pid = node.pid();
    node.stop().await?;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(!Path::new("/sys/class/net/pulse-node0").exists());
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    assert!(!mounts.contains("pulse-tools"), "{mounts}");
    let routes = std::fs::read_to_string("/proc/net/route")?;
    assert!(!routes.contains("pulse-node0"), "{routes}");
    let groups = run(Command::new("find").args(["/sys/fs/cgroup", "-name", "pulse-node"])).await?;
    assert_eq!(groups, "");
    Ok(())
}
