//! The operator under test: a process of its own, a namespace of its own, and a proxy on its way to the API server.
//!
//! No pod runs here: [`OperatorEnv::rollout`] and [`OperatorEnv::finish_job`] write what a kubelet and the controllers would, where a
//! test needs it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::cluster::{Access, ControlPlane, Proxy};
use crate::process::{binary, free_port, send_signal};
use crate::{eventually, repository};

/// How long a step of the operator may take, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Intervals a twentieth as long as in production, and a Lease of 3 s.
const FAST: [&str; 10] = [
    "--lease-duration",
    "3s",
    "--poll-interval",
    "500ms",
    "--resync-interval",
    "3s",
    "--missing-interval",
    "250ms",
    "--watch-timeout",
    "10",
];

/// A namespace with a proxy before it, and what a test wants to look at.
pub struct OperatorEnv {
    /// The API server.
    pub plane: &'static ControlPlane,
    /// The namespace.
    pub namespace: String,
    /// What the operator goes through.
    pub proxy: Proxy,
    /// The administrator's client, past the proxy.
    pub client: Client,
    folder: tempfile::TempDir,
    controllers: bool,
}

impl OperatorEnv {
    /// A new namespace of the shared control plane, with the definition of `PulseIngest` installed.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(prefix: &str) -> anyhow::Result<Self> {
        let plane = ControlPlane::shared().await?;
        install_crd(plane).await?;
        let namespace = plane.namespace(prefix).await?;
        let proxy = Proxy::start(plane.admin()).await?;
        let client = plane.admin().client()?;
        Ok(Self { plane, namespace, proxy, client, folder: tempfile::tempdir()?, controllers: false })
    }

    /// The same, with Kubernetes' own controllers: for a whole test binary, because they are for all namespaces.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn with_controllers(prefix: &str) -> anyhow::Result<Self> {
        let bench = Self::start(prefix).await?;
        bench.plane.start_controllers().await?;
        Ok(Self { controllers: true, ..bench })
    }

    /// Starts an operator for the namespace, through the proxy.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn operator(&self, more: &[&str]) -> anyhow::Result<OperatorProcess> {
        self.operator_as(self.proxy.access(), more).await
    }

    /// The same, by another way.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn operator_as(&self, access: &Access, more: &[&str]) -> anyhow::Result<OperatorProcess> {
        OperatorProcess::start(access, &self.namespace, self.folder.path(), more)
    }

    /// The same, at the pace of production unless `more` says otherwise.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn operator_with(&self, access: &Access, more: &[&str]) -> anyhow::Result<OperatorProcess> {
        let of_namespace = ["--watch-namespace", self.namespace.as_str()];
        OperatorProcess::spawn(access, &self.namespace, self.folder.path(), &[&of_namespace, more].concat())
    }

    /// Objects of ours, as JSON.
    pub fn instances(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("pulseboard.dev", "v1alpha1", "PulseIngest");
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::from_gvk(&kind))
    }

    /// Objects of another kind.
    pub fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates the Secrets that `minimal` names.
    ///
    /// # Errors
    /// If they cannot be created.
    pub async fn secrets(&self, redis_url: &str) -> anyhow::Result<()> {
        self.secret("main-database", "uri", "postgres://pulse:canary-database@database/pulse").await?;
        self.secret("main-redis", "url", redis_url).await?;
        self.secret("main-auth", "secret", "canary-auth-0123456789-0123456789-0123").await
    }

    /// Creates or changes a Secret of one key.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn secret(&self, name: &str, key: &str, value: &str) -> anyhow::Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value },
        });
        let params = PatchParams::apply("test").force();
        self.all::<Secret>().patch(name, &params, &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// Creates `manifests/samples/minimal.yaml` under a name, with fields of the spec changed.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn create(&self, name: &str, changes: Value) -> anyhow::Result<DynamicObject> {
        let mut object = minimal(name)?;
        merge(&mut object["spec"], &changes);
        Ok(self.instances().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Changes the spec by a merge patch.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn change(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let patch = json!({ "spec": spec });
        self.instances().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The status of an object; null if it has none.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn status(&self, name: &str) -> anyhow::Result<Value> {
        Ok(self.instances().get(name).await?.data["status"].clone())
    }

    /// The spec of an object.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn spec(&self, name: &str) -> anyhow::Result<Value> {
        Ok(self.instances().get(name).await?.data["spec"].clone())
    }

    /// `status/reason` of a condition; empty if there is none.
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

    /// Waits for `status/reason` of a condition, or for the status alone; an empty text waits for its absence.
    ///
    /// # Errors
    /// If it does not come: with the whole status.
    pub async fn reaches(&self, name: &str, condition: &str, wanted: &str) -> anyhow::Result<()> {
        let reached = async || {
            let now = self.condition(name, condition).await?;
            Ok(now == wanted || (!wanted.contains('/') && now.split('/').next() == Some(wanted)))
        };
        let result = eventually(&format!("{condition} is {wanted}"), SOON, reached).await;
        match result {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:#}", self.status(name).await?))),
        }
    }

    /// Waits until the newest spec is `Ready=True` and nothing goes on.
    ///
    /// # Errors
    /// If that does not come: with the whole status.
    pub async fn settles(&self, name: &str, patience: Duration) -> anyhow::Result<()> {
        let settled = async || Ok(is_settled(&serde_json::to_value(self.instances().get(name).await?)?));
        match eventually(&format!("{name} settles"), patience, settled).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:#}", self.status(name).await?))),
        }
    }

    /// The Job whose name begins so, once there is one.
    ///
    /// # Errors
    /// If none comes.
    pub async fn job(&self, prefix: &str) -> anyhow::Result<Job> {
        let jobs = self.all::<Job>();
        let found = async || -> anyhow::Result<Option<Job>> {
            let list = jobs.list(&ListParams::default()).await?;
            Ok(list.items.into_iter().find(|job| job.name_any().starts_with(prefix) && !has_ended(job)))
        };
        eventually(&format!("a Job {prefix}… exists"), SOON, async || Ok(found().await?.is_some())).await?;
        found().await?.context("it was there")
    }

    /// Ends a Job as its controller and a kubelet would: with a pod that ended with `exit_code` and `message`.
    ///
    /// # Errors
    /// If something cannot be written.
    pub async fn finish_job(&self, job: &Job, exit_code: i32, message: &str) -> anyhow::Result<()> {
        let name = job.name_any();
        let pods = self.all::<Pod>();
        let pod = if self.controllers { self.pod_of(&name).await? } else { self.make_pod(job).await? };
        let terminated = json!({ "exitCode": exit_code, "message": message });
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        let status = json!({ "status": { "phase": phase, "containerStatuses": [{
            "name": "pulse", "image": "pulse", "imageID": "pulse", "ready": false, "restartCount": 0,
            "state": { "terminated": terminated },
        }] } });
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&status)).await?;
        if self.controllers {
            return Ok(());
        }
        let now = pod.metadata.creation_timestamp.clone();
        let condition =
            |type_: &str| json!({ "type": type_, "status": "True", "reason": "Test", "lastTransitionTime": now });
        let status = if exit_code == 0 {
            json!({ "status": { "startTime": now, "completionTime": now, "succeeded": 1,
                "conditions": [condition("SuccessCriteriaMet"), condition("Complete")] } })
        } else {
            json!({ "status": { "startTime": now, "failed": 1,
                "conditions": [condition("FailureTarget"), condition("Failed")] } })
        };
        self.all::<Job>().patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    async fn pod_of(&self, job: &str) -> anyhow::Result<Pod> {
        let (pods, of_job) =
            (self.all::<Pod>(), ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}")));
        let found = async || -> anyhow::Result<Option<Pod>> { Ok(pods.list(&of_job).await?.items.pop()) };
        eventually("the Job has a pod", SOON, async || Ok(found().await?.is_some())).await?;
        found().await?.context("it was there")
    }

    /// Creates a pod of a Job, as its controller would.
    ///
    /// # Errors
    /// If it cannot be created.
    pub async fn make_pod(&self, job: &Job) -> anyhow::Result<Pod> {
        let name = job.name_any();
        let template = serde_json::to_value(job.spec.as_ref().map(|spec| &spec.template))?;
        let mut pod = json!({ "metadata": template["metadata"], "spec": template["spec"] });
        pod["metadata"]["generateName"] = json!(format!("{name}-"));
        pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = json!(name);
        Ok(self.all::<Pod>().create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
    }

    /// The next Job ends well.
    ///
    /// # Errors
    /// If none comes.
    pub async fn migrate(&self, name: &str) -> anyhow::Result<()> {
        let job = self.job(&format!("{name}-migrate-")).await?;
        self.finish_job(&job, 0, MIGRATED).await
    }

    /// Waits for the three Deployments, and has all of their pods ready.
    ///
    /// # Errors
    /// If they do not come.
    pub async fn rollout(&self, name: &str) -> anyhow::Result<()> {
        for role in ["api", "worker", "scheduler"] {
            let child = format!("{name}-{role}");
            let applied = async || {
                let spec = self.all::<Deployment>().get(&child).await?.spec;
                Ok(spec.is_some_and(|spec| spec.paused != Some(true)))
            };
            eventually(&format!("{child} is applied"), SOON, applied).await?;
            self.ready(&child).await?;
        }
        Ok(())
    }

    /// Has all pods of a Deployment ready, as its controller would say.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn ready(&self, deployment: &str) -> anyhow::Result<()> {
        let deployments = self.all::<Deployment>();
        let found = deployments.get(deployment).await?;
        let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
        let status = json!({ "status": {
            "observedGeneration": found.metadata.generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas,
        } });
        deployments.patch_status(deployment, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// From nothing to `Ready=True`.
    ///
    /// # Errors
    /// If it does not get there.
    pub async fn installed(&self, name: &str, changes: Value) -> anyhow::Result<()> {
        self.create(name, changes).await?;
        self.migrate(name).await?;
        self.rollout(name).await?;
        self.reaches(name, "Ready", "True").await
    }

    /// From nothing to `Ready=True`, where [`served`](Self::served).
    ///
    /// # Errors
    /// If it does not get there.
    pub async fn installed_by_itself(&self, name: &str) -> anyhow::Result<()> {
        self.create(name, json!({})).await?;
        self.settles(name, SOON).await
    }

    /// How many pods a Deployment asks for.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn replicas(&self, deployment: &str) -> anyhow::Result<i32> {
        let found = self.all::<Deployment>().get(deployment).await?;
        Ok(found.spec.and_then(|spec| spec.replicas).unwrap_or(1))
    }

    /// The reasons of the Events about an object, oldest first.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub async fn events(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let mut events = self.all::<Event>().list(&ListParams::default()).await?.items;
        events.retain(|event| event.involved_object.name.as_deref() == Some(name));
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        Ok(events.into_iter().filter_map(|event| event.reason).collect())
    }

    /// Waits for Events of these reasons: they come after the status that they are about.
    ///
    /// # Errors
    /// If one does not come: with those that did.
    pub async fn tells(&self, name: &str, reasons: &[&str]) -> anyhow::Result<()> {
        let told = async || {
            let events = self.events(name).await?;
            Ok(reasons.iter().all(|reason| events.iter().any(|event| event == reason)))
        };
        match eventually(&format!("there are Events {reasons:?}"), SOON, told).await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(format!("{:?}", self.events(name).await?))),
        }
    }

    /// What the Deployment runs.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn image(&self, deployment: &str) -> anyhow::Result<String> {
        let found = serde_json::to_value(self.all::<Deployment>().get(deployment).await?)?;
        Ok(found["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned())
    }
}

/// What `pulse migrate` says in the end.
pub const MIGRATED: &str =
    r#"{"current":0,"pending":3,"names":["a"],"newest":3,"destructive":false,"ahead":0,"hash":"x"}"#;

/// `manifests/samples/minimal.yaml`, as JSON, under a name.
///
/// # Errors
/// If it is not YAML.
pub fn minimal(name: &str) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(repository().join("manifests/samples/minimal.yaml"))?;
    let mut object: Value = pulse_operator::yaml::read(&text)?;
    object["metadata"]["name"] = json!(name);
    Ok(object)
}

/// Puts `changes` into an object, as a merge patch does, but that a null stays.
pub fn merge(into: &mut Value, changes: &Value) {
    let Value::Object(changes) = changes else { return changes.clone_into(into) };
    if !into.is_object() {
        *into = json!({});
    }
    changes.iter().for_each(|(name, value)| merge(&mut into[name], value));
}

/// Installs the definition, once per control plane.
///
/// # Errors
/// If the API server refuses it.
pub async fn install_crd(plane: &ControlPlane) -> anyhow::Result<()> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED.get_or_try_init(async || define(plane.admin()).await).await.map(drop)
}

/// Installs the definition, and waits until it can be used.
///
/// # Errors
/// If the API server refuses it.
pub async fn define(access: &Access) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(access.client()?);
    let crd = pulse_operator::crd::crd();
    let name = crd.name_any();
    definitions.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await?;
    let established = async || {
        let status = definitions.get(&name).await?.status;
        let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True"))
    };
    eventually("the definition is established", SOON, established).await
}

pub(crate) fn has_ended(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed"))
}

/// Whether the status is about the newest spec, and says that all is as it should be.
pub fn is_settled(ingest: &Value) -> bool {
    let status = &ingest["status"];
    let has = |type_: &str, wanted: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == type_ && condition["status"] == wanted)
    };
    status["observedGeneration"] == ingest["metadata"]["generation"]
        && status["activeRevision"] == status["desiredRevision"]
        && has("Ready", "True")
        && !has("Reconciling", "True")
}

/// A running operator.
pub struct OperatorProcess {
    child: Child,
    /// Where its admin port is.
    pub admin: String,
    /// Its log.
    pub log: PathBuf,
}

impl OperatorProcess {
    /// Starts an operator for one namespace; its log goes into `folder`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(access: &Access, namespace: &str, folder: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let of_namespace = ["--watch-namespace", namespace];
        Self::spawn(access, namespace, folder, &[&of_namespace, &FAST[..], more].concat())
    }

    /// The same, for every namespace.
    ///
    /// # Errors
    /// If it does not start.
    pub fn of_cluster(access: &Access, own_namespace: &str, folder: &Path) -> anyhow::Result<Self> {
        Self::spawn(access, own_namespace, folder, &FAST)
    }

    fn spawn(access: &Access, own_namespace: &str, folder: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let admin = format!("127.0.0.1:{}", free_port()?);
        let log = folder.join(format!("operator-{}.log", admin.replace(':', "-")));
        let mut command = Command::new(binary());
        command.args(["operator", "--admin-listen", &admin, "--operator-namespace", own_namespace]).args(more);
        command.env("KUBECONFIG", access.kubeconfig()).env("PULSE_LOG", "info,pulse_operator=debug");
        let output = std::fs::File::create(&log)?;
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("failed to start the operator")?;
        Ok(Self { child, admin: format!("http://{admin}"), log })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.child.id(), signal)
    }

    /// Its process id, until it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGTERM and waits for the end; returns the exit code.
    ///
    /// # Errors
    /// If it does not end within a minute.
    pub async fn stop(mut self) -> anyhow::Result<i32> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Waits for the end; returns the exit code.
    ///
    /// # Errors
    /// If it does not end within a minute.
    pub async fn ended(&mut self) -> anyhow::Result<i32> {
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        Ok(ended.context("the operator did not end")??.code().unwrap_or(-1))
    }

    /// How many reconciles it has done; none if it does not answer.
    pub async fn reconciles(&self) -> usize {
        let Ok(answer) = crate::Client::new(&self.admin, "").get("/metrics").await else { return 0 };
        let counts = answer.text.lines().filter(|line| line.starts_with("pulse_operator_reconciles_total{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }

    /// Everything that it logged.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn output(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}
