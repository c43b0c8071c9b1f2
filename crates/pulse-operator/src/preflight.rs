//! Checks a cluster before an installation or an upgrade. Each problem comes with its fix. Reads only.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::PolicyRule;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, CustomResourceExt, ResourceExt};
use pulse_crd::{PulseIngest, breaking_changes_of_crd, crd};
use pulse_reconcile::secrets::SecretRead;
use pulse_reconcile::served::{Served, UPDATE_CRD};

use crate::client::api_message;
use crate::openapi::{self, ReadError};
use crate::operator::{Kubernetes, OperatorError};
use crate::rbac;
use crate::secrets;

/// The oldest supported minor version of Kubernetes 1.
const OLDEST_MINOR: u32 = 33;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Subject of the check, such as `Namespace shop`.
    pub name: String,
    /// Observed state.
    pub value: String,
    /// What to do about a problem; `None` if the check passed.
    pub fix: Option<String>,
}

impl Finding {
    fn good(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), fix: None }
    }

    fn bad(name: impl Into<String>, value: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), fix: Some(fix.into()) }
    }
}

/// Runs all checks with the permissions of the caller. Run as the operator's service account, it checks the operator's
/// permissions.
///
/// # Errors
/// [`OperatorError::Client`] if no client can be created. An unreachable API server is a finding.
pub async fn preflight(kubernetes: &Kubernetes, namespace: &str) -> Result<Vec<Finding>, OperatorError> {
    let client = kubernetes.client().map_err(OperatorError::Client)?;
    let version = version(&client).await;
    let reached = version.value != "unreachable";
    let mut findings = vec![version];
    if reached {
        findings.push(crd_version(&client).await);
        findings.push(pod_security(&client, namespace).await);
        findings.extend(permissions(&client, namespace).await);
        findings.extend(references(&client, namespace).await);
    }
    Ok(findings)
}

async fn version(client: &Client) -> Finding {
    let name = "Kubernetes";
    match client.apiserver_version().await {
        Ok(version) => {
            let minor: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
            if version.major == "1" && minor.parse().is_ok_and(|minor: u32| minor >= OLDEST_MINOR) {
                Finding::good(name, version.git_version)
            } else {
                Finding::bad(name, version.git_version, format!("upgrade the cluster to 1.{OLDEST_MINOR} or newer"))
            }
        }
        Err(error) => {
            Finding::bad(name, "unreachable", format!("check KUBECONFIG and the network: {}", api_message(&error)))
        }
    }
}

async fn crd_version(client: &Client) -> Finding {
    let name = "CustomResourceDefinition";
    let wanted = crd();
    let installed = Api::<CustomResourceDefinition>::all(client.clone()).get_opt(PulseIngest::crd_name()).await;
    match installed {
        Ok(Some(found)) => {
            let [wanted, found] =
                [&wanted, &found].map(|definition| serde_json::to_value(definition).unwrap_or_default());
            match breaking_changes_of_crd(&wanted, &found).first() {
                None => Finding::good(name, "installed"),
                Some(lacking) => Finding::bad(name, format!("of an older version: {lacking}"), UPDATE_CRD),
            }
        }
        Ok(None) => Finding::bad(name, "not installed", UPDATE_CRD),
        // Only this check needs the permission, so its absence is not a problem.
        Err(kube::Error::Api(status)) if status.is_forbidden() => served_version(client, name).await,
        Err(error) => Finding::bad(name, "unknown", api_message(&error)),
    }
}

/// The same from the OpenAPI document, for an account that may not read CustomResourceDefinitions.
async fn served_version(client: &Client, name: &str) -> Finding {
    match openapi::read(client, &Served::default()).await {
        Ok(served) => match served.and_then(|served| served.outdated()) {
            None => Finding::good(name, "installed"),
            Some(message) => Finding::bad(name, message, UPDATE_CRD),
        },
        Err(ReadError::NotServed) => Finding::bad(name, "not installed", UPDATE_CRD),
        Err(_) => Finding::good(name, "not readable with these permissions"),
    }
}

/// The created pods meet the level `restricted`, so every level admits them. The level is shown for information.
async fn pod_security(client: &Client, namespace: &str) -> Finding {
    let name = format!("Namespace {namespace}");
    match Api::<Namespace>::all(client.clone()).get_opt(namespace).await {
        Ok(Some(found)) => {
            let level = found.labels().get("pod-security.kubernetes.io/enforce").cloned();
            Finding::good(name, format!("Pod Security: {}", level.as_deref().unwrap_or("not enforced")))
        }
        Ok(None) => Finding::bad(name, "does not exist", format!("kubectl create namespace {namespace}")),
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            Finding::good(name, "not readable with these permissions")
        }
        Err(error) => Finding::bad(name, "unknown", api_message(&error)),
    }
}

async fn permissions(client: &Client, namespace: &str) -> Vec<Finding> {
    let mut missing = Vec::new();
    let mut checked = 0;
    for rule in rbac::watched().iter().chain(&rbac::own()) {
        for attributes in attributes_of(rule, namespace) {
            checked += 1;
            let what = format!(
                "{} {}.{}",
                attributes.verb.as_deref().unwrap_or_default(),
                attributes.resource.as_deref().unwrap_or_default(),
                attributes.group.as_deref().unwrap_or_default(),
            );
            match is_allowed(client, attributes).await {
                Ok(true) => {}
                Ok(false) => missing.push(what.trim_end_matches('.').to_owned()),
                Err(error) => return vec![Finding::bad("permissions", "unknown", api_message(&error))],
            }
        }
    }
    if missing.is_empty() {
        return vec![Finding::good("permissions", format!("all {checked} granted in namespace {namespace}"))];
    }
    let fix = "apply the roles and bindings of charts/pulse-operator or of manifests/install.yaml";
    missing
        .into_iter()
        .map(|what| Finding::bad("permissions", format!("cannot {what} in namespace {namespace}"), fix))
        .collect()
}

fn attributes_of(rule: &PolicyRule, namespace: &str) -> Vec<ResourceAttributes> {
    let mut all = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            let (resource, subresource) = match resource.split_once('/') {
                Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
                None => (resource.as_str(), None),
            };
            for verb in &rule.verbs {
                all.push(ResourceAttributes {
                    group: Some(group.clone()),
                    resource: Some(resource.to_owned()),
                    subresource: subresource.clone(),
                    verb: Some(verb.clone()),
                    namespace: Some(namespace.to_owned()),
                    ..ResourceAttributes::default()
                });
            }
        }
    }
    all
}

async fn is_allowed(client: &Client, attributes: ResourceAttributes) -> Result<bool, kube::Error> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn references(client: &Client, namespace: &str) -> Vec<Finding> {
    let objects: Api<PulseIngest> = Api::namespaced(client.clone(), namespace);
    let Ok(list) = objects.list(&ListParams::default()).await else {
        // Without the CRD there are no objects; a missing permission is reported by the check of permissions.
        return Vec::new();
    };
    let mut findings = Vec::new();
    for owner in list {
        let name = format!("PulseIngest {}", owner.name_any());
        let mut bad = Vec::new();
        for (key, reading) in secrets::read(client, &owner).await {
            let create =
                format!("kubectl -n {namespace} create secret generic {} --from-literal={}=…", key.name, key.key);
            match reading {
                SecretRead::Found(_) => {}
                SecretRead::Missing(why) => bad.push(Finding::bad(&name, why, create)),
                SecretRead::Unreadable(why) => bad.push(Finding::bad(&name, why, "grant the operator get on secrets")),
            }
        }
        if bad.is_empty() {
            bad.push(Finding::good(&name, "all referenced Secrets and keys exist"));
        }
        findings.append(&mut bad);
    }
    findings
}
