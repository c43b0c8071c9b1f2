//! The Services, routes and monitors of the chart pulse-ingest against the objects that the operator creates.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

use crate::helm::{Helm, INGEST};
use crate::objects::{objects, of_kind, operator_objects, operator_workloads};
use crate::reachability::{Endpoint, PodFacts, Policies};

pub(crate) const API: u16 = 8000;
pub(crate) const ADMIN: u16 = 9090;
pub(crate) const FULL: [&str; 2] = ["--values", "charts/pulse-ingest/ci/full-values.yaml"];

/// A rendered release, with the pods of its instance by component.
pub(crate) struct Release {
    objects: Vec<Value>,
    pods: BTreeMap<String, PodFacts>,
}

impl Release {
    pub(crate) async fn render(args: &[&str]) -> anyhow::Result<Self> {
        let objects = objects(&Helm::Four.template(INGEST, args).await?)?;
        let instance = of_kind(&objects, "PulseIngest").next().context("there is no PulseIngest")?;
        let mut pods = BTreeMap::new();
        for workload in operator_workloads(instance)? {
            let pod = pod_facts("shop", &workload)?;
            pods.insert(pod.labels["app.kubernetes.io/component"].clone(), pod);
        }
        let console = instance["spec"]["console"]["enabled"].as_bool().unwrap_or_default().then_some("console");
        let expected = ["api"].into_iter().chain(console).chain(["migration", "scheduler", "worker"]);
        assert!(pods.keys().map(String::as_str).eq(expected), "{:?}", pods.keys());
        Ok(Self { objects, pods })
    }

    fn one(&self, kind: &str) -> anyhow::Result<&Value> {
        self.objects.iter().find(|object| object["kind"] == kind).with_context(|| format!("there is no {kind}"))
    }

    pub(crate) fn policies(&self) -> anyhow::Result<Policies> {
        policies("shop", &self.objects)
    }

    pub(crate) fn pod(&self, component: &str) -> anyhow::Result<Endpoint> {
        Ok(Endpoint { address: "10.9.0.1".parse()?, pod: Some(self.pods[component].clone()) })
    }

    /// A pod of `devDatastores`.
    pub(crate) fn datastore(&self, name: &str) -> anyhow::Result<Endpoint> {
        let mut sets = of_kind(&self.objects, "StatefulSet");
        let set = sets.find(|set| set["metadata"]["name"] == name).with_context(|| format!("there is no {name}"))?;
        Ok(Endpoint { address: "10.9.0.3".parse()?, pod: Some(pod_facts("shop", set)?) })
    }

    /// Components whose pods have the labels of a selector.
    fn selected(&self, selector: &Value) -> anyhow::Result<Vec<&str>> {
        let wanted: BTreeMap<String, String> = serde_json::from_value(selector.clone())?;
        let has_all = |pod: &PodFacts| wanted.iter().all(|(name, value)| pod.labels.get(name) == Some(value));
        Ok(self.pods.iter().filter(|(_, pod)| has_all(pod)).map(|(name, _)| name.as_str()).collect())
    }
}

/// The pods of a workload.
pub(crate) fn pod_facts(namespace: &str, workload: &Value) -> anyhow::Result<PodFacts> {
    let template = &workload["spec"]["template"];
    let labels = serde_json::from_value(template["metadata"]["labels"].clone())?;
    let ports = template["spec"]["containers"][0]["ports"].as_array().into_iter().flatten();
    let ports = ports.map(|port| Ok((text(&port["name"]), serde_json::from_value(port["containerPort"].clone())?)));
    Ok(PodFacts { namespace: namespace.into(), labels, ports: ports.collect::<anyhow::Result<_>>()? })
}

/// The NetworkPolicies among objects.
pub(crate) fn policies(namespace: &str, objects: &[Value]) -> anyhow::Result<Policies> {
    let policies = of_kind(objects, "NetworkPolicy").map(|policy| Ok(serde_json::from_value(policy.clone())?));
    Ok(Policies { namespace: namespace.into(), policies: policies.collect::<anyhow::Result<_>>()? })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
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
