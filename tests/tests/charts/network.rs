//! The network objects of the chart pulse-ingest against the objects that the operator creates.
//!
//! The node of the tests enforces no NetworkPolicy, so its rules are evaluated here.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

use crate::helm::{Helm, INGEST};
use crate::objects::{objects, of_kind, operator_objects, operator_workloads};
use crate::reachability::{Endpoint, PodFacts, Policies, Port};

const API: u16 = 8000;
const CONSOLE: u16 = 5555;
const ADMIN: u16 = 9090;
const FULL: [&str; 2] = ["--values", "charts/pulse-ingest/ci/full-values.yaml"];

/// A rendered release, with the pods of its instance by component.
struct Release {
    objects: Vec<Value>,
    pods: BTreeMap<String, PodFacts>,
}

impl Release {
    async fn render(args: &[&str]) -> anyhow::Result<Self> {
        let objects = objects(&Helm::Four.template(INGEST, args).await?)?;
        let instance = of_kind(&objects, "PulseIngest").next().context("there is no PulseIngest")?;
        let mut pods = BTreeMap::new();
        for workload in operator_workloads(instance)? {
            let template = &workload["spec"]["template"];
            let labels: BTreeMap<String, String> = serde_json::from_value(template["metadata"]["labels"].clone())?;
            let ports = template["spec"]["containers"][0]["ports"].as_array().into_iter().flatten();
            let ports =
                ports.map(|port| Ok((text(&port["name"]), serde_json::from_value(port["containerPort"].clone())?)));
            let ports = ports.collect::<anyhow::Result<_>>()?;
            let component = labels["app.kubernetes.io/component"].clone();
            pods.insert(component, PodFacts { namespace: "shop".into(), labels, ports });
        }
        let console = instance["spec"]["console"]["enabled"].as_bool().unwrap_or_default().then_some("console");
        let expected = ["api"].into_iter().chain(console).chain(["migration", "scheduler", "worker"]);
        assert!(pods.keys().map(String::as_str).eq(expected), "{:?}", pods.keys());
        Ok(Self { objects, pods })
    }

    fn one(&self, kind: &str) -> anyhow::Result<&Value> {
        self.objects.iter().find(|object| object["kind"] == kind).with_context(|| format!("there is no {kind}"))
    }

    fn policies(&self) -> anyhow::Result<Policies> {
        let policies =
            of_kind(&self.objects, "NetworkPolicy").map(|policy| Ok(serde_json::from_value(policy.clone())?));
        Ok(Policies { namespace: "shop".into(), policies: policies.collect::<anyhow::Result<_>>()? })
    }

    fn pod(&self, component: &str) -> anyhow::Result<Endpoint> {
        Ok(Endpoint { address: "10.9.0.1".parse()?, pod: Some(self.pods[component].clone()) })
    }

    /// Components whose pods have the labels of a selector.
    fn selected(&self, selector: &Value) -> anyhow::Result<Vec<&str>> {
        let wanted: BTreeMap<String, String> = serde_json::from_value(selector.clone())?;
        let has_all = |pod: &PodFacts| wanted.iter().all(|(name, value)| pod.labels.get(name) == Some(value));
        Ok(self.pods.iter().filter(|(_, pod)| has_all(pod)).map(|(name, _)| name.as_str()).collect())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Any other pod.
fn other(namespace: &str, labels: &[(&str, &str)]) -> anyhow::Result<Endpoint> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let pod = PodFacts { namespace: namespace.into(), labels, ports: BTreeMap::from([("admin".to_owned(), ADMIN)]) };
    Ok(Endpoint { address: "10.9.0.2".parse()?, pod: Some(pod) })
}

fn outside(address: &str) -> anyhow::Result<Endpoint> {
    Ok(Endpoint { address: address.parse()?, pod: None })
}

#[tokio::test]
async fn policies_without_peers_open_only_the_api() -> anyhow::Result<()> {
    let release = Release::render(&["--set", "networkPolicy.enabled=true,console.enabled=true"]).await?;
    let policies = release.policies()?;
    let anyone = [other("shop", &[])?, other("elsewhere", &[])?, outside("203.0.113.9")?, outside("2001:db8::9")?];
    for from in &anyone {
        for component in ["api", "worker", "scheduler", "console", "migration"] {
            let to = release.pod(component)?;
            assert_eq!(policies.allow(from, &to, Port::Tcp(API))?, component == "api", "{component} from {from:?}");
            assert!(!policies.allow(from, &to, Port::Tcp(CONSOLE))?, "console port of {component} from {from:?}");
            assert!(!policies.allow(from, &to, Port::Tcp(ADMIN))?, "metrics of {component} from {from:?}");
            assert!(policies.allow(&to, from, Port::Tcp(443))?, "egress of {component} to {from:?}");
        }
    }
    let neighbour = [("app.kubernetes.io/name", "pulse"), ("app.kubernetes.io/instance", "other")];
    assert!(
        policies.allow(&anyone[0], &other("shop", &neighbour)?, Port::Tcp(ADMIN))?,
        "another instance is left alone"
    );
    Ok(())
}

#[tokio::test]
async fn policies_with_peers_admit_only_those() -> anyhow::Result<()> {
    let release = Release::render(&FULL).await?;
    let policies = release.policies()?;
    let (api, worker, migration) = (release.pod("api")?, release.pod("worker")?, release.pod("migration")?);
    let (scheduler, console) = (release.pod("scheduler")?, release.pod("console")?);
    let proxy = other("gateways", &[("app.kubernetes.io/name", "oauth2-proxy")])?;
    let prometheus = [("app.kubernetes.io/name", "prometheus")];
    let (monitor, gateway) = (other("monitoring", &prometheus)?, other("gateways", &[])?);
    let dns = other("kube-system", &[("k8s-app", "kube-dns")])?;
    let datastore = outside("192.0.2.7")?;
    let table = [
        (&gateway, &api, Port::Tcp(API), true),
        (&gateway, &api, Port::Tcp(ADMIN), false),
        (&gateway, &worker, Port::Tcp(API), false),
        (&other("shop", &[])?, &api, Port::Tcp(API), false),
        (&outside("10.1.2.3")?, &api, Port::Tcp(API), true),
        (&outside("10.9.2.3")?, &api, Port::Tcp(API), false),
        (&outside("2001:db8::9")?, &api, Port::Tcp(API), false),
        (&proxy, &console, Port::Tcp(CONSOLE), true),
        (&proxy, &console, Port::Tcp(ADMIN), false),
        (&gateway, &console, Port::Tcp(CONSOLE), false),
        (&api, &console, Port::Tcp(CONSOLE), false),
        (&monitor, &console, Port::Tcp(ADMIN), true),
        (&console, &datastore, Port::Tcp(5432), true),
        (&monitor, &api, Port::Tcp(ADMIN), true),
        (&monitor, &worker, Port::Tcp(ADMIN), true),
        (&monitor, &scheduler, Port::Tcp(ADMIN), true),
        (&monitor, &migration, Port::Tcp(ADMIN), false),
        (&monitor, &api, Port::Tcp(API), false),
        (&other("monitoring", &[])?, &worker, Port::Tcp(ADMIN), false),
        (&other("shop", &prometheus)?, &worker, Port::Tcp(ADMIN), false),
        (&worker, &api, Port::Tcp(API), false),
        (&worker, &dns, Port::Udp(53), true),
        (&worker, &dns, Port::Tcp(53), true),
        (&worker, &dns, Port::Udp(54), false),
        (&worker, &other("kube-system", &[])?, Port::Udp(53), false),
        (&worker, &datastore, Port::Tcp(5432), true),
        (&worker, &datastore, Port::Udp(5432), false),
        (&scheduler, &datastore, Port::Tcp(6380), true),
        (&scheduler, &datastore, Port::Tcp(6381), false),
        (&migration, &datastore, Port::Tcp(5432), true),
        (&api, &outside("192.0.3.7")?, Port::Tcp(5432), false),
    ];
    for (from, to, port, expected) in table {
        assert_eq!(policies.allow(from, to, port)?, expected, "{from:?} to {to:?}, {port:?}");
    }
    Ok(())
}

#[tokio::test]
async fn routes_and_service_lead_to_the_api() -> anyhow::Result<()> {
    let release = Release::render(&FULL).await?;
    let of_operator = serde_json::to_value(operator_objects(release.one("PulseIngest")?)?.services)?;
    let (name, port) = (&of_operator[0]["metadata"]["name"], &of_operator[0]["spec"]["ports"][0]);
    let route = release.one("HTTPRoute")?;
    assert_eq!(route["spec"]["rules"][0]["backendRefs"], json!([{ "name": name, "port": port["port"] }]));
    let ingress = release.one("Ingress")?;
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
    assert_eq!(backend, &json!({ "name": name, "port": { "name": port["name"] } }));

    let service = release.one("Service")?;
    assert_ne!(&service["metadata"]["name"], name, "the operator owns that Service");
    assert_eq!(release.selected(&service["spec"]["selector"])?, ["api"]);
    assert_eq!(release.pods["api"].ports[&text(&service["spec"]["ports"][0]["targetPort"])], API);
    let default = Release::render(&["--set", "service.enabled=true"]).await?;
    let ports = json!([{ "name": "http", "port": port["port"], "targetPort": "http", "protocol": "TCP" }]);
    assert_eq!(default.one("Service")?["spec"]["ports"], ports, "the same port as that of the operator's Service");

    let families = "service.enabled=true,service.ipFamilyPolicy=RequireDualStack,service.ipFamilies={IPv6,IPv4}";
    let dual = Release::render(&["--set", families]).await?;
    let spec = &dual.one("Service")?["spec"];
    assert_eq!((&spec["ipFamilyPolicy"], &spec["ipFamilies"]), (&json!("RequireDualStack"), &json!(["IPv6", "IPv4"])));
    Ok(())
}

#[tokio::test]
async fn pod_monitor_scrapes_every_role() -> anyhow::Result<()> {
    let release = Release::render(&FULL).await?;
    let spec = &release.one("PodMonitor")?["spec"];
    let port = text(&spec["podMetricsEndpoints"][0]["port"]);
    let selected = release.selected(&spec["selector"]["matchLabels"])?;
    // Prometheus keeps the pods that have the port.
    let scraped: Vec<_> =
        selected.into_iter().filter(|pod| release.pods[*pod].ports.get(&port) == Some(&ADMIN)).collect();
    assert_eq!(scraped, ["api", "console", "scheduler", "worker"]);
    Ok(())
}
