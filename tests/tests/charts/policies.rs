//! Who may reach whom under the NetworkPolicies of both charts.
//!
//! The node of the tests enforces no NetworkPolicy, so the rules are evaluated here.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::helm::{Helm, OPERATOR};
use crate::network::{ADMIN, API, FULL, Release, pod_facts, policies};
use crate::objects::{objects, of_kind};
use crate::reachability::{Endpoint, PodFacts, Policies, Port};

const CONSOLE: u16 = 5555;
const DATASTORES: [&str; 2] = ["--values", "charts/pulse-ingest/ci/datastores-values.yaml"];

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
    let (provider, partner) = (outside("198.51.100.7")?, outside("203.0.113.7")?);
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
        (&api, &provider, Port::Tcp(443), true),
        (&console, &provider, Port::Tcp(443), true),
        (&api, &provider, Port::Tcp(80), false),
        (&worker, &provider, Port::Tcp(443), false),
        (&scheduler, &provider, Port::Tcp(443), false),
        (&migration, &provider, Port::Tcp(443), false),
        (&worker, &partner, Port::Tcp(8443), true),
        (&api, &partner, Port::Tcp(8443), false),
        (&console, &partner, Port::Tcp(8443), false),
        (&scheduler, &partner, Port::Tcp(8443), false),
    ];
    for (from, to, port, expected) in table {
        assert_eq!(policies.allow(from, to, port)?, expected, "{from:?} to {to:?}, {port:?}");
    }
    Ok(())
}

#[tokio::test]
async fn evaluation_datastores_admit_only_the_instance_and_operators() -> anyhow::Result<()> {
    let release = Release::render(&DATASTORES).await?;
    let policies = release.policies()?;
    let (postgres, redis) = (release.datastore("main-postgres")?, release.datastore("main-redis")?);
    let operator = [("app.kubernetes.io/part-of", "pulse"), ("app.kubernetes.io/component", "operator")];
    let neighbour = [("app.kubernetes.io/name", "pulse"), ("app.kubernetes.io/instance", "other")];
    let operator = other("pulse-system", &operator)?;
    for (store, port) in [(&postgres, 5432), (&redis, 6379)] {
        for component in ["api", "worker", "scheduler", "migration"] {
            assert!(policies.allow(&release.pod(component)?, store, Port::Tcp(port))?, "{component} to {port}");
        }
        assert_eq!(policies.allow(&operator, store, Port::Tcp(port))?, port == 6379, "operator to {port}");
        for from in [other("shop", &[])?, other("shop", &neighbour)?, other("elsewhere", &[])?, outside("10.1.2.3")?] {
            assert!(!policies.allow(&from, store, Port::Tcp(port))?, "{from:?} to {port}");
        }
        assert!(!policies.allow(store, &outside("203.0.113.9")?, Port::Tcp(443))?, "egress of {store:?}");
    }
    assert!(!policies.allow(&release.pod("api")?, &postgres, Port::Tcp(22))?, "another port");
    Ok(())
}

/// The namespace of a rendered operator, with its pods.
async fn operator(args: &[&str]) -> anyhow::Result<(Policies, Endpoint)> {
    let objects = objects(&Helm::Four.template(OPERATOR, args).await?)?;
    let deployment = of_kind(&objects, "Deployment").next().context("there is no Deployment")?;
    let pod = pod_facts("pulse-system", deployment)?;
    Ok((policies("pulse-system", &objects)?, Endpoint { address: "10.9.0.4".parse()?, pod: Some(pod) }))
}

#[tokio::test]
async fn operator_policy_admits_only_readers_of_metrics() -> anyhow::Result<()> {
    let (closed, pod) = operator(&["--set", "networkPolicy.enabled=true"]).await?;
    let monitor = other("monitoring", &[])?;
    assert!(!closed.allow(&monitor, &pod, Port::Tcp(ADMIN))?, "no peer is named");
    assert!(closed.allow(&pod, &outside("192.0.2.7")?, Port::Tcp(6379))?, "egress is not restricted without rules");

    let (full, pod) = operator(&["--values", "charts/pulse-operator/ci/full-values.yaml"]).await?;
    assert!(full.allow(&monitor, &pod, Port::Tcp(ADMIN))?);
    assert!(!full.allow(&monitor, &pod, Port::Tcp(API))?, "another port");
    assert!(!full.allow(&other("shop", &[])?, &pod, Port::Tcp(ADMIN))?, "another namespace");
    assert!(!full.allow(&outside("10.1.2.3")?, &pod, Port::Tcp(ADMIN))?, "outside");
    assert!(full.allow(&pod, &outside("192.0.2.1")?, Port::Tcp(443))?, "the API server");
    assert!(!full.allow(&pod, &outside("192.0.2.1")?, Port::Tcp(80))?, "no rule names this port");
    Ok(())
}
