//! Tests of the harness: a real control plane, and a proxy that injects faults between a client and the API server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use pulse_tests::cluster::{Access, ControlPlane, Fault, Proxy, RequestInfo};
use pulse_tests::eventually;
use serde_json::{Value, json};

/// A namespace for one test, and a proxy to the API server.
struct ProxyEnv {
    plane: &'static ControlPlane,
    namespace: String,
    proxy: Proxy,
    maps: Api<ConfigMap>,
}

impl ProxyEnv {
    async fn new(prefix: &str) -> anyhow::Result<Self> {
        let plane = ControlPlane::shared().await?;
        let namespace = plane.namespace(prefix).await?;
        let proxy = Proxy::start(plane.admin()).await?;
        let maps = Api::namespaced(client_without_retries(proxy.access())?, &namespace);
        Ok(Self { plane, namespace, proxy, maps })
    }

    async fn create(&self, name: &str) -> kube::Result<ConfigMap> {
        self.maps.create(&PostParams::default(), &config_map(name)).await
    }
}

/// A client that does not retry failed requests.
fn client_without_retries(access: &Access) -> anyhow::Result<Client> {
    let mut config = access.config();
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn config_map(name: &str) -> ConfigMap {
    let mut map = ConfigMap { data: Some(BTreeMap::from([("a".into(), "b".into())])), ..ConfigMap::default() };
    map.metadata.name = Some(name.into());
    map.metadata.labels = Some(BTreeMap::from([("made-by".into(), "test".into())]));
    map
}

/// The test's ConfigMaps: controllers create one more in each namespace.
fn list_params() -> ListParams {
    ListParams::default().labels("made-by=test")
}

fn watch_params() -> WatchParams {
    WatchParams::default().labels("made-by=test")
}

fn is_config_map_call(call: &RequestInfo) -> bool {
    call.resource == "configmaps"
}

fn status_code<T>(result: kube::Result<T>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[tokio::test]
async fn proxy_passes_creates_reads_and_watches() -> anyhow::Result<()> {
    let env = ProxyEnv::new("through").await?;
    let version = env.maps.list(&list_params()).await?.metadata.resource_version.unwrap_or_default();
    let mut events = env.maps.watch(&watch_params(), &version).await?.boxed();

    let created = env.create("one").await?;

    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await?;
    assert!(matches!(event, Some(Ok(WatchEvent::Added(map))) if map.name_any() == "one"));
    assert_eq!(env.maps.get("one").await?.uid(), created.uid());

    let logged = env.proxy.log();
    let seen: Vec<_> = logged.iter().map(|logged| (logged.call.verb.as_str(), logged.status)).collect();
    assert_eq!(seen, [("list", Some(200)), ("watch", Some(200)), ("create", Some(201)), ("get", Some(200))]);
    assert!(logged[1].took.is_none(), "the watch is still open");
    let sent: Value = serde_json::from_slice(&logged[2].body)?;
    assert_eq!(sent["metadata"]["name"], "one");
    assert_eq!(logged[2].call.path, format!("/api/v1/namespaces/{}/configmaps", env.namespace));
    assert_eq!(env.proxy.count_of("get", "configmaps"), 1);

    assert_eq!(env.proxy.open(is_config_map_call), 1);
    drop(events);
    eventually("the watch has ended", Duration::from_secs(5), async || Ok(env.proxy.open(is_config_map_call) == 0))
        .await
}

#[tokio::test]
async fn namespaces_isolate_tests() -> anyhow::Result<()> {
    let (one, other) = (ProxyEnv::new("own").await?, ProxyEnv::new("own").await?);
    one.create("mine").await?;
    assert_ne!(one.namespace, other.namespace);
    assert_eq!(other.maps.list(&list_params()).await?.items.len(), 0);
    Ok(())
}

#[tokio::test]
async fn proxy_injects_statuses_and_delays() -> anyhow::Result<()> {
    let env = ProxyEnv::new("answers").await?;
    for status in [403, 409, 429, 500, 503] {
        let fault = env.proxy.inject(is_config_map_call, Fault::Respond(status));
        assert_eq!(status_code(env.create("no").await), Some(status));
        assert_eq!(fault.hits(), 1);
    }
    assert_eq!(status_code(env.maps.get("no").await), Some(404), "no faulted request reached the API server");

    let once = env.proxy.inject_times(1, is_config_map_call, Fault::Respond(500));
    assert_eq!(status_code(env.create("second").await), Some(500));
    env.create("second").await?;
    assert_eq!(once.hits(), 1);

    let _slow = env.proxy.inject(is_config_map_call, Fault::Delay(Duration::from_millis(300)));
    let before = Instant::now();
    env.maps.get("second").await?;
    assert!(before.elapsed() >= Duration::from_millis(300));
    let last = env.proxy.log().pop().context("no request is logged")?;
    assert!(last.took.is_some_and(|took| took >= Duration::from_millis(300)));
    assert_eq!(last.fault, Some(Fault::Delay(Duration::from_millis(300))));
    Ok(())
}

#[tokio::test]
async fn proxy_hangs_requests_and_closes_connections() -> anyhow::Result<()> {
    let env = ProxyEnv::new("hangs").await?;
    {
        let hang = env.proxy.inject(is_config_map_call, Fault::Hang);
        let answer = tokio::time::timeout(Duration::from_millis(300), env.maps.get("any")).await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(hang.hits(), 1);
    }
    {
        let _close = env.proxy.inject(is_config_map_call, Fault::Close);
        let error = env.create("no").await.expect_err("the connection closes");
        assert!(!matches!(error, kube::Error::Api(_)), "{error:?}");
    }
    {
        let _lost = env.proxy.inject(|call| call.verb == "create", Fault::LoseResponse);
        let error = env.create("yes").await.expect_err("the answer is lost");
        assert!(!matches!(error, kube::Error::Api(_)), "{error:?}");
    }
    let names: Vec<_> = env.maps.list(&list_params()).await?.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["yes"], "a request with a lost answer was carried out, one with a closed connection was not");
    Ok(())
}

#[tokio::test]
async fn proxy_delays_breaks_and_expires_watches() -> anyhow::Result<()> {
    let env = ProxyEnv::new("watches").await?;
    let version = env.maps.list(&list_params()).await?.metadata.resource_version.unwrap_or_default();
    let watches = |call: &RequestInfo| call.verb == "watch";

    let stale = env.proxy.inject(watches, Fault::Stale(Duration::from_millis(400)));
    let mut events = env.maps.watch(&watch_params(), &version).await?.boxed();
    let before = Instant::now();
    env.create("one").await?;
    assert_eq!(env.maps.get("one").await?.name_any(), "one", "a read is up to date");
    let event = events.next().await;
    assert!(matches!(event, Some(Ok(WatchEvent::Added(_)))), "{event:?}");
    assert!(before.elapsed() >= Duration::from_millis(400), "a stale watch is late");
    drop((stale, events));

    let cut = env.proxy.inject(watches, Fault::Cut(Duration::from_millis(200)));
    let mut events = env.maps.watch(&watch_params(), &version).await?.boxed();
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
    assert!(matches!(events.next().await, Some(Err(_)) | None));
    drop((cut, events));

    let expired = env.proxy.inject(watches, Fault::Expired);
    let mut events = env.maps.watch(&watch_params(), &version).await?.boxed();
    let event = events.next().await;
    assert!(matches!(&event, Some(Ok(WatchEvent::Error(status))) if status.code == 410), "{event:?}");
    drop((expired, events));

    // `cut` breaks a watch that has no fault.
    let mut events = env.maps.watch(&watch_params(), &version).await?.boxed();
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
    assert_eq!(env.proxy.cut(watches), 1);
    assert!(matches!(events.next().await, Some(Err(_)) | None));
    Ok(())
}

#[tokio::test]
async fn proxy_outage_fails_all_calls_until_it_ends() -> anyhow::Result<()> {
    let env = ProxyEnv::new("outage").await?;
    let mut events = env.maps.watch(&watch_params(), "0").await?.boxed();
    {
        let _outage = env.proxy.outage();
        let rest: Vec<_> = events.by_ref().collect().await;
        assert!(rest.last().is_none_or(Result::is_err), "{rest:?}");
        assert!(env.maps.list(&list_params()).await.is_err());
        assert!(env.proxy.access().kubectl(&["get", "--raw", "/readyz"]).await.is_err());
    }
    env.maps.list(&list_params()).await?;
    assert_eq!(env.proxy.access().kubectl(&["get", "--raw", "/readyz"]).await?, "ok");
    Ok(())
}

#[tokio::test]
async fn users_and_service_accounts_have_only_granted_permissions() -> anyhow::Result<()> {
    let env = ProxyEnv::new("grants").await?;
    let ProxyEnv { plane, namespace, .. } = &env;
    let (user, account) = (plane.user("ada", None).await?, plane.service_account(namespace, "robot").await?);
    let admin = plane.admin();
    admin.kubectl(&["-n", namespace, "create", "role", "reader", "--verb=get,list", "--resource=configmaps"]).await?;
    let service_account = format!("--serviceaccount={namespace}:robot");
    admin
        .kubectl(&["-n", namespace, "create", "rolebinding", "r", "--role=reader", "--user=ada", &service_account])
        .await?;
    let proxy = Proxy::start(&account).await?;
    for access in [&user, &account, proxy.access()] {
        let maps: Api<ConfigMap> = Api::namespaced(client_without_retries(access)?, namespace);
        eventually("the permission is granted", Duration::from_secs(10), async || {
            Ok(maps.list(&list_params()).await.is_ok())
        })
        .await?;
        assert_eq!(status_code(maps.create(&PostParams::default(), &config_map("no")).await), Some(403));
    }
    for name in ["ada".to_owned(), format!("system:serviceaccount:{namespace}:robot")] {
        let refused = |event: &Value| event["verb"] == "create" && event["responseStatus"]["code"] == 403;
        eventually("the audit log has the refused request", Duration::from_secs(5), async || {
            Ok(plane.audit(&name)?.iter().any(refused))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn controllers_roll_out_collect_garbage_and_delete_namespaces() -> anyhow::Result<()> {
    let env = ProxyEnv::new("controllers").await?;
    env.plane.start_controllers().await?;
    let client = env.plane.admin().client()?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &env.namespace);
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &env.namespace);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "it" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "it" } },
            "template": {
                "metadata": { "labels": { "app": "it" } },
                "spec": { "containers": [{ "name": "it", "image": "localhost/none:1" }] },
            },
        },
    });
    deployments.patch("it", &PatchParams::apply("tests"), &Patch::Apply(&deployment)).await?;
    let timeout = Duration::from_secs(20);
    eventually("there are two pods", timeout, async || {
        let items = sets.list(&ListParams::default()).await?.items;
        Ok(items.iter().any(|set| set.status.as_ref().is_some_and(|status| status.replicas == 2)))
    })
    .await?;

    deployments.delete("it", &DeleteParams::default()).await?;
    let deleted = async || Ok(sets.list(&ListParams::default()).await?.items.is_empty());
    eventually("the ReplicaSets are deleted", timeout, deleted).await?;

    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(&env.namespace, &DeleteParams::default()).await?;
    let deleted = async || Ok(namespaces.get_opt(&env.namespace).await?.is_none());
    eventually("the namespace is deleted", timeout, deleted).await
}

#[tokio::test]
async fn private_api_server_stops_and_restarts() -> anyhow::Result<()> {
    let plane = ControlPlane::start().await?;
    let namespace = plane.namespace("own").await?;
    plane.stop_api_server().await?;
    let namespaces: Api<Namespace> = Api::all(client_without_retries(plane.admin())?);
    assert!(namespaces.get(&namespace).await.is_err());
    plane.start_api_server().await?;
    namespaces.get(&namespace).await?;

    let pids: Vec<_> = plane.processes().await.into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(pids.len(), 2);
    drop(plane);
    let ended = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists();
    eventually("its processes have exited", Duration::from_secs(10), async || Ok(pids.iter().all(ended))).await
}
