//! The operator under test: a separate process, a namespace for each test, and a proxy between the operator and the API
//! server.
//!
//! The API server is real, but no pod runs here. A test simulates the Job and Deployment controllers and the kubelet by
//! writing statuses ([`OperatorEnv::finish_job`], [`OperatorEnv::finish_rollout`], or continuously
//! [`OperatorEnv::with_simulator`]), which keeps the operator's tests fast. `tests/tests/operator_node` runs real pods.

mod crd;
mod process;
mod simulation;
mod timeout;

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

pub use self::crd::{apply_crd, apply_crd_version, crd_with, install_crd};
pub use self::process::OperatorProcess;
pub use self::timeout::TIMEOUT;
use crate::cluster::{Access, ControlPlane, Proxy};
use crate::host::binary;
use crate::python::repository;
use crate::wait::eventually;

/// A namespace for one test, with a proxy to the API server.
pub struct OperatorEnv {
    /// The control plane that the tests of this binary share.
    pub plane: &'static ControlPlane,
    /// The test's namespace, which the operator watches.
    pub namespace: String,
    /// The proxy that the operator connects through.
    pub proxy: Proxy,
    /// A client with the administrator's permissions; it does not go through the proxy.
    pub client: Client,
    folder: tempfile::TempDir,
    controllers: bool,
}

impl OperatorEnv {
    /// Creates a namespace in the shared control plane and installs the CRD.
    ///
    /// # Errors
    /// If the control plane or the proxy does not start, or the CRD is refused.
    pub async fn start(prefix: &str) -> anyhow::Result<Self> {
        let plane = ControlPlane::shared().await?;
        install_crd(plane).await?;
        let namespace = plane.namespace(prefix).await?;
        let proxy = Proxy::start(plane.admin()).await?;
        let client = plane.admin().client()?;
        Ok(Self { plane, namespace, proxy, client, folder: tempfile::tempdir()?, controllers: false })
    }

    /// As [`start`](Self::start), with the controllers of kube-controller-manager. They serve every namespace, so all
    /// tests of the binary have to use this.
    ///
    /// The garbage collector and the Job controller are then real; [`finish_job`](Self::finish_job) only ends the pod.
    ///
    /// # Errors
    /// As for [`start`](Self::start), or if the controllers do not start.
    pub async fn with_controllers(prefix: &str) -> anyhow::Result<Self> {
        let env = Self::start(prefix).await?;
        env.plane.start_controllers().await?;
        Ok(Self { controllers: true, ..env })
    }

    /// Starts an operator for the namespace, connected through the proxy, with `extra_args`.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_operator(&self, extra_args: &[&str]) -> anyhow::Result<OperatorProcess> {
        self.start_operator_via(self.proxy.access(), extra_args).await
    }

    /// As [`start_operator`](Self::start_operator), with another kubeconfig: another user or another proxy.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_operator_via(&self, access: &Access, extra_args: &[&str]) -> anyhow::Result<OperatorProcess> {
        OperatorProcess::start(access, &self.namespace, self.folder.path(), extra_args)
    }

    /// As [`start_operator_via`](Self::start_operator_via), with the default intervals of production.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_operator_with_default_intervals(
        &self,
        access: &Access,
        extra_args: &[&str],
    ) -> anyhow::Result<OperatorProcess> {
        self.start_operator_of(&binary(), access, extra_args)
    }

    /// As [`start_operator_with_default_intervals`](Self::start_operator_with_default_intervals), of another binary.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_operator_of(
        &self,
        program: &Path,
        access: &Access,
        extra_args: &[&str],
    ) -> anyhow::Result<OperatorProcess> {
        let args = [&["--watch-namespace", self.namespace.as_str()], extra_args].concat();
        OperatorProcess::spawn(program, access, &self.namespace, self.folder.path(), &args)
    }

    /// The `PulseIngest` objects of the namespace, untyped.
    pub fn instances(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("pulseboard.dev", "v1alpha1", "PulseIngest");
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind))
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates the Secrets that [`minimal`] refers to.
    ///
    /// # Errors
    /// If the API server refuses one.
    pub async fn create_secrets(&self, redis_url: &str) -> anyhow::Result<()> {
        self.apply_secret("main-database", "uri", "postgres://pulse:canary-database@database/pulse").await?;
        self.apply_secret("main-redis", "url", redis_url).await?;
        self.apply_secret("main-auth", "secret", "canary-auth-0123456789-0123456789-0123").await
    }

    /// Creates or updates a Secret with one key.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn apply_secret(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value },
        });
        let params = PatchParams::apply("test").force();
        self.api::<Secret>().patch(name, &params, &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// Creates the object of `manifests/samples/minimal.yaml` with this name and with `changes` to its spec.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn create(&self, name: &str, changes: Value) -> anyhow::Result<DynamicObject> {
        let mut object = minimal(name)?;
        merge(&mut object["spec"], &changes);
        Ok(self.instances().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Applies a merge patch to the spec.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn patch_spec(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let patch = json!({ "spec": spec });
        self.instances().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The status of a `PulseIngest`; null if it has none.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn status(&self, name: &str) -> anyhow::Result<Value> {
        Ok(self.instances().get(name).await?.data["status"].clone())
    }

    /// The spec of a `PulseIngest`.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn spec(&self, name: &str) -> anyhow::Result<Value> {
        Ok(self.instances().get(name).await?.data["spec"].clone())
    }

    /// A condition as `status/reason`; empty if the object does not have it.
    ///
    /// # Errors
    /// If the object does not exist.
    pub async fn condition(&self, name: &str, condition: &str) -> anyhow::Result<String> {
        let status = self.status(name).await?;
        let found = status["conditions"].as_array().into_iter().flatten().find(|found| found["type"] == condition);
        Ok(found.map_or_else(String::new, |found| {
            format!("{}/{}", found["status"].as_str().unwrap_or(""), found["reason"].as_str().unwrap_or(""))
        }))
    }

    /// Waits until a condition has a value: `status/reason`, or the status alone. An empty value waits until the
    /// condition is absent.
    ///
    /// # Errors
    /// If it does not have the value within [`TIMEOUT`]; the error contains the object's status.
    pub async fn wait_for_condition(&self, name: &str, condition: &str, wanted: &str) -> anyhow::Result<()> {
        let has_value = async || {
            let now = self.condition(name, condition).await?;
            Ok(now == wanted || (!wanted.contains('/') && now.split('/').next() == Some(wanted)))
        };
        let result = eventually(&format!("{condition} is {wanted}"), TIMEOUT, has_value).await;
        match result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:#}", self.status(name).await?))),
        }
    }

    /// Waits until the newest spec is reconciled, as [`is_reconciled`] defines it.
    ///
    /// # Errors
    /// If it is not within `timeout`; the error contains the object's status.
    pub async fn wait_until_reconciled(&self, name: &str, timeout: Duration) -> anyhow::Result<()> {
        let reconciled = async || Ok(is_reconciled(&serde_json::to_value(self.instances().get(name).await?)?));
        match eventually(&format!("{name} is reconciled"), timeout, reconciled).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:#}", self.status(name).await?))),
        }
    }

    /// Creates an instance, completes its migration and its rollout, and waits for `Ready=True`.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn install(&self, name: &str, changes: Value) -> anyhow::Result<()> {
        self.create(name, changes).await?;
        self.finish_migration(name).await?;
        self.finish_rollout(name).await?;
        self.wait_for_condition(name, "Ready", "True").await
    }

    /// Creates an instance and waits until it is reconciled. The caller has to run
    /// [`with_simulator`](Self::with_simulator).
    ///
    /// # Errors
    /// If it is not reconciled in time.
    pub async fn create_and_wait(&self, name: &str) -> anyhow::Result<()> {
        self.create(name, json!({})).await?;
        self.wait_until_reconciled(name, TIMEOUT).await
    }

    /// The `spec.replicas` of a Deployment.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn replicas(&self, deployment: &str) -> anyhow::Result<i32> {
        let found = self.api::<Deployment>().get(deployment).await?;
        Ok(found.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }

    /// The reasons of the Kubernetes Events about an object, oldest first.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn event_reasons(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let mut events = self.api::<Event>().list(&ListParams::default()).await?.items;
        events.retain(|event| event.involved_object.name.as_deref() == Some(name));
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        Ok(events.into_iter().filter_map(|event| event.reason).collect())
    }

    /// Waits for Kubernetes Events with all of these reasons. The operator writes them after the status.
    ///
    /// # Errors
    /// If one is missing after [`TIMEOUT`]; the error lists those that exist.
    pub async fn wait_for_events(&self, name: &str, reasons: &[&str]) -> anyhow::Result<()> {
        let all_exist = async || {
            let events = self.event_reasons(name).await?;
            Ok(reasons.iter().all(|reason| events.iter().any(|event| event == reason)))
        };
        match eventually(&format!("there are Events {reasons:?}"), TIMEOUT, all_exist).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:?}", self.event_reasons(name).await?))),
        }
    }

    /// The image of a Deployment's container.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn image(&self, deployment: &str) -> anyhow::Result<String> {
        let found = serde_json::to_value(self.api::<Deployment>().get(deployment).await?)?;
        Ok(found["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned())
    }
}

/// The termination message of a successful `pulse migrate`.
pub const MIGRATED: &str =
    r#"{"current":0,"pending":3,"names":["a"],"newest":3,"destructive":false,"ahead":0,"hash":"x"}"#;

/// The object of `manifests/samples/minimal.yaml`, with this name.
///
/// # Errors
/// If the file cannot be read or is not valid YAML.
pub fn minimal(name: &str) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(repository().join("manifests/samples/minimal.yaml"))?;
    let mut object: Value = pulse_crd::yaml::read(&text)?;
    object["metadata"]["name"] = json!(name);
    Ok(object)
}

/// Merges `changes` into an object like a JSON merge patch, except that a null is stored instead of removing the field.
pub fn merge(into: &mut Value, changes: &Value) {
    let Value::Object(changes) = changes else { return changes.clone_into(into) };
    if !into.is_object() {
        *into = json!({});
    }
    changes.iter().for_each(|(name, value)| merge(&mut into[name], value));
}

pub(crate) fn has_ended(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"))
}

/// Returns true if the status is about the newest spec, that spec is active, and the instance is ready with no
/// reconciliation in progress.
pub fn is_reconciled(object: &Value) -> bool {
    let status = &object["status"];
    let has = |type_: &str, wanted: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == type_ && condition["status"] == wanted)
    };
    status["observedGeneration"] == object["metadata"]["generation"]
        && status["activeRevision"] == status["desiredRevision"]
        && has("Ready", "True")
        && !has("Reconciling", "True")
}
