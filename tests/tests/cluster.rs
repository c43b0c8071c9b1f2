//! The harness of the operator's tests: a real API server, and a proxy that harms the way to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use pulse_tests::cluster::{Access, Call, ControlPlane, Fault, Proxy};
use pulse_tests::eventually;
use serde_json::{Value, json};

/// A test's own namespace, and a proxy to it.
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
        let maps = Api::namespaced(impatient(proxy.access())?, &namespace);
        Ok(Self { plane, namespace, proxy, maps })
    }

    async fn create(&self, name: &str) -> kube::Result<ConfigMap> {
        self.maps.create(&PostParams::default(), &config_map(name)).await
    }
}

/// A client that does not try again by itself.
fn impatient(access: &Access) -> anyhow::Result<Client> {
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

/// Ours: where controllers run, each namespace gets a map of theirs.
fn listed() -> ListParams {
    ListParams::default().labels("made-by=test")
}

fn watched() -> WatchParams {
    WatchParams::default().labels("made-by=test")
}

fn of_maps(call: &Call) -> bool {
    call.resource == "configmaps"
}

fn code<T>(result: kube::Result<T>) -> Option<u16> {
    match result {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[tokio::test]
async fn objects_are_created_read_and_watched_through_the_proxy() -> anyhow::Result<()> {
    let place = ProxyEnv::new("through").await?;
    let version = place.maps.list(&listed()).await?.metadata.resource_version.unwrap_or_default();
    let mut events = place.maps.watch(&watched(), &version).await?.boxed();

    let created = place.create("one").await?;

    let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await?;
    assert!(matches!(event, Some(Ok(WatchEvent::Added(map))) if map.name_any() == "one"));
    assert_eq!(place.maps.get("one").await?.uid(), created.uid());

    let logged = place.proxy.log();
    let seen: Vec<_> = logged.iter().map(|logged| (logged.call.verb.as_str(), logged.status)).collect();
    assert_eq!(seen, [("list", Some(200)), ("watch", Some(200)), ("create", Some(201)), ("get", Some(200))]);
    assert!(logged[1].took.is_none(), "the watch goes on");
    let sent: Value = serde_json::from_slice(&logged[2].body)?;
    assert_eq!(sent["metadata"]["name"], "one");
    assert_eq!(logged[2].call.path, format!("/api/v1/namespaces/{}/configmaps", place.namespace));
    assert_eq!(place.proxy.count_of("get", "configmaps"), 1);

    assert_eq!(place.proxy.open(of_maps), 1);
    drop(events);
    eventually("the watch has ended", Duration::from_secs(5), async || Ok(place.proxy.open(of_maps) == 0)).await
}

#[tokio::test]
async fn each_test_sees_its_own_namespace() -> anyhow::Result<()> {
    let (one, other) = (ProxyEnv::new("own").await?, ProxyEnv::new("own").await?);
    one.create("mine").await?;
    assert_ne!(one.namespace, other.namespace);
    assert_eq!(other.maps.list(&listed()).await?.items.len(), 0);
    Ok(())
}

#[tokio::test]
async fn answers_are_made_up_and_late_as_told() -> anyhow::Result<()> {
    let place = ProxyEnv::new("answers").await?;
    for status in [403, 409, 429, 500, 503] {
        let fault = place.proxy.inject(of_maps, Fault::Answer(status));
        assert_eq!(code(place.create("no").await), Some(status));
        assert_eq!(fault.hits(), 1);
    }
    assert_eq!(code(place.maps.get("no").await), Some(404), "nothing of it reached the API server");

    let once = place.proxy.inject_times(1, of_maps, Fault::Answer(500));
    assert_eq!(code(place.create("second").await), Some(500));
    place.create("second").await?;
    assert_eq!(once.hits(), 1);

    let _slow = place.proxy.inject(of_maps, Fault::Delay(Duration::from_millis(300)));
    let before = Instant::now();
    place.maps.get("second").await?;
    assert!(before.elapsed() >= Duration::from_millis(300));
    let last = place.proxy.log().pop().context("a request")?;
    assert!(last.took.is_some_and(|took| took >= Duration::from_millis(300)));
    assert_eq!(last.fault, Some(Fault::Delay(Duration::from_millis(300))));
    Ok(())
}

#[tokio::test]
async fn a_request_hangs_or_its_connection_closes() -> anyhow::Result<()> {
    let place = ProxyEnv::new("hangs").await?;
    {
        let hang = place.proxy.inject(of_maps, Fault::Hang);
        let answer = tokio::time::timeout(Duration::from_millis(300), place.maps.get("any")).await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(hang.hits(), 1);
    }
    {
        let _close = place.proxy.inject(of_maps, Fault::Close);
        let error = place.create("no").await.expect_err("the connection closes");
        assert!(!matches!(error, kube::Error::Api(_)), "{error:?}");
    }
    {
        let _lost = place.proxy.inject(|call| call.verb == "create", Fault::LoseAnswer);
        let error = place.create("yes").await.expect_err("the answer is lost");
        assert!(!matches!(error, kube::Error::Api(_)), "{error:?}");
    }
    let names: Vec<_> = place.maps.list(&listed()).await?.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["yes"], "what was lost has happened, what was closed has not");
    Ok(())
}

#[tokio::test]
async fn watches_come_late_break_and_expire() -> anyhow::Result<()> {
    let place = ProxyEnv::new("watches").await?;
    let version = place.maps.list(&listed()).await?.metadata.resource_version.unwrap_or_default();
    let watches = |call: &Call| call.verb == "watch";

    let stale = place.proxy.inject(watches, Fault::Stale(Duration::from_millis(400)));
    let mut events = place.maps.watch(&watched(), &version).await?.boxed();
    let before = Instant::now();
    place.create("one").await?;
    assert_eq!(place.maps.get("one").await?.name_any(), "one", "what is read is up to date");
    let event = events.next().await;
    assert!(matches!(event, Some(Ok(WatchEvent::Added(_)))), "{event:?}");
    assert!(before.elapsed() >= Duration::from_millis(400), "what is watched is not");
    drop((stale, events));

    let cut = place.proxy.inject(watches, Fault::Cut(Duration::from_millis(200)));
    let mut events = place.maps.watch(&watched(), &version).await?.boxed();
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
    assert!(matches!(events.next().await, Some(Err(_)) | None));
    drop((cut, events));

    let expired = place.proxy.inject(watches, Fault::Expired);
    let mut events = place.maps.watch(&watched(), &version).await?.boxed();
    let event = events.next().await;
    assert!(matches!(&event, Some(Ok(WatchEvent::Error(status))) if status.code == 410), "{event:?}");
    drop((expired, events));

    // The same, from a watch that goes on without a fault.
    let mut events = place.maps.watch(&watched(), &version).await?.boxed();
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
    assert_eq!(place.proxy.cut(watches), 1);
    assert!(matches!(events.next().await, Some(Err(_)) | None));
    Ok(())
}

#[tokio::test]
async fn an_outage_breaks_everything_and_ends() -> anyhow::Result<()> {
    let place = ProxyEnv::new("outage").await?;
    let mut events = place.maps.watch(&watched(), "0").await?.boxed();
    {
        let _outage = place.proxy.outage();
        let rest: Vec<_> = events.by_ref().collect().await;
        assert!(rest.last().is_none_or(Result::is_err), "{rest:?}");
        assert!(place.maps.list(&listed()).await.is_err());
        assert!(place.proxy.access().kubectl(&["get", "--raw", "/readyz"]).await.is_err());
    }
    place.maps.list(&listed()).await?;
    assert_eq!(place.proxy.access().kubectl(&["get", "--raw", "/readyz"]).await?, "ok");
    Ok(())
}

#[tokio::test]
async fn users_and_service_accounts_may_do_what_they_were_granted() -> anyhow::Result<()> {
    let place = ProxyEnv::new("grants").await?;
    let ProxyEnv { plane, namespace, .. } = &place;
    let (user, account) = (plane.user("ada", None).await?, plane.service_account(namespace, "robot").await?);
    let admin = plane.admin();
    admin.kubectl(&["-n", namespace, "create", "role", "reader", "--verb=get,list", "--resource=configmaps"]).await?;
    let robot = format!("--serviceaccount={namespace}:robot");
    admin.kubectl(&["-n", namespace, "create", "rolebinding", "r", "--role=reader", "--user=ada", &robot]).await?;
    let through = Proxy::start(&account).await?;
    for access in [&user, &account, through.access()] {
        let maps: Api<ConfigMap> = Api::namespaced(impatient(access)?, namespace);
        eventually("the grant works", Duration::from_secs(10), async || Ok(maps.list(&listed()).await.is_ok())).await?;
        assert_eq!(code(maps.create(&PostParams::default(), &config_map("no")).await), Some(403));
    }
    for name in ["ada".to_owned(), format!("system:serviceaccount:{namespace}:robot")] {
        let refused = |event: &Value| event["verb"] == "create" && event["responseStatus"]["code"] == 403;
        eventually("the audit log has it", Duration::from_secs(5), async || {
            Ok(plane.audit(&name)?.iter().any(refused))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn controllers_roll_out_collect_garbage_and_end_namespaces() -> anyhow::Result<()> {
    let place = ProxyEnv::new("controllers").await?;
    place.plane.start_controllers().await?;
    let client = place.plane.admin().client()?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &place.namespace);
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &place.namespace);
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
    let patience = Duration::from_secs(20);
    eventually("there are two pods", patience, async || {
        let items = sets.list(&ListParams::default()).await?.items;
        Ok(items.iter().any(|set| set.status.as_ref().is_some_and(|status| status.replicas == 2)))
    })
    .await?;

    deployments.delete("it", &DeleteParams::default()).await?;
    let gone = async || Ok(sets.list(&ListParams::default()).await?.items.is_empty());
    eventually("what it owned is gone", patience, gone).await?;

    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(&place.namespace, &DeleteParams::default()).await?;
    let gone = async || Ok(namespaces.get_opt(&place.namespace).await?.is_none());
    eventually("the namespace is gone", patience, gone).await
}

#[tokio::test]
async fn an_api_server_of_ones_own_stops_and_starts_again() -> anyhow::Result<()> {
    let plane = ControlPlane::start().await?;
    let namespace = plane.namespace("own").await?;
    plane.stop_api_server().await?;
    let namespaces: Api<Namespace> = Api::all(impatient(plane.admin())?);
    assert!(namespaces.get(&namespace).await.is_err());
    plane.start_api_server().await?;
    namespaces.get(&namespace).await?;

    let pids: Vec<_> = plane.processes().await.into_iter().map(|(_, pid)| pid).collect();
    assert_eq!(pids.len(), 2);
    drop(plane);
    let ended = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists();
    eventually("its processes are gone", Duration::from_secs(10), async || Ok(pids.iter().all(ended))).await
}
