//! What the controllers of Jobs and Deployments and the kubelet would do.

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{MIGRATED, OperatorEnv, TIMEOUT, has_ended};
use crate::wait::eventually;

impl OperatorEnv {
    /// Waits for an unfinished Job whose name has the prefix.
    ///
    /// # Errors
    /// If there is none within [`TIMEOUT`].
    pub async fn wait_for_job(&self, prefix: &str) -> anyhow::Result<Job> {
        let jobs = self.api::<Job>();
        let found = async || -> anyhow::Result<Option<Job>> {
            let list = jobs.list(&ListParams::default()).await?;
            Ok(list.items.into_iter().find(|job| job.name_any().starts_with(prefix) && !has_ended(job)))
        };
        eventually(&format!("a Job {prefix}… exists"), TIMEOUT, async || Ok(found().await?.is_some())).await?;
        found().await?.context("the object was deleted meanwhile")
    }

    /// Ends a Job as the kubelet and the Job controller would: its pod terminates with `exit_code` and a termination
    /// message, and the Job is complete or failed.
    ///
    /// # Errors
    /// If the API server refuses a write.
    pub async fn finish_job(&self, job: &Job, exit_code: i32, message: &str) -> anyhow::Result<()> {
        let name = job.name_any();
        let pods = self.api::<Pod>();
        let pod = if self.controllers { self.wait_for_job_pod(&name).await? } else { self.create_job_pod(job).await? };
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
        self.api::<Job>().patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    async fn wait_for_job_pod(&self, job: &str) -> anyhow::Result<Pod> {
        let (pods, of_job) =
            (self.api::<Pod>(), ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}")));
        let found = async || -> anyhow::Result<Option<Pod>> { Ok(pods.list(&of_job).await?.items.pop()) };
        eventually("the Job has a pod", TIMEOUT, async || Ok(found().await?.is_some())).await?;
        found().await?.context("the object was deleted meanwhile")
    }

    /// Waits until a Job is being deleted.
    ///
    /// # Errors
    /// If none is within [`TIMEOUT`].
    pub async fn wait_for_deleted_job(&self) -> anyhow::Result<()> {
        let deleted = async || {
            let jobs = self.api::<Job>().list(&ListParams::default()).await?;
            Ok(jobs.iter().any(|job| job.metadata.deletion_timestamp.is_some()))
        };
        eventually("a Job is being deleted", TIMEOUT, deleted).await
    }

    /// Creates a pod for a Job, as the Job controller would.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn create_job_pod(&self, job: &Job) -> anyhow::Result<Pod> {
        self.create_pod_of(job, &[]).await
    }

    /// Creates a pod for a Job with another container, as an admission webhook would add it.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub async fn create_job_pod_beside(&self, job: &Job, container: &str) -> anyhow::Result<Pod> {
        self.create_pod_of(job, &[json!({ "name": container, "image": container })]).await
    }

    async fn create_pod_of(&self, job: &Job, added: &[Value]) -> anyhow::Result<Pod> {
        let name = job.name_any();
        let mut template = serde_json::to_value(job.spec.as_ref().map(|spec| &spec.template))?;
        let containers = template["spec"]["containers"].as_array_mut();
        containers.context("the Job has no containers")?.extend_from_slice(added);
        let mut pod = json!({ "metadata": template["metadata"], "spec": template["spec"] });
        pod["metadata"]["generateName"] = json!(format!("{name}-"));
        pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = json!(name);
        Ok(self.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
    }

    /// Waits for the migration Job of an instance and completes it.
    ///
    /// # Errors
    /// If there is no Job within [`TIMEOUT`].
    pub async fn finish_migration(&self, name: &str) -> anyhow::Result<()> {
        let job = self.wait_for_job(&format!("{name}-migrate-")).await?;
        self.finish_job(&job, 0, MIGRATED).await
    }

    /// Waits for the three Deployments, and marks all of their pods as ready.
    ///
    /// # Errors
    /// If a Deployment is not there within [`TIMEOUT`].
    pub async fn finish_rollout(&self, name: &str) -> anyhow::Result<()> {
        for role in ["api", "worker", "scheduler"] {
            let child = format!("{name}-{role}");
            let applied = async || {
                let found = self.api::<Deployment>().get(&child).await?;
                Ok(found.annotations().contains_key("pulseboard.dev/applied"))
            };
            eventually(&format!("{child} is applied"), TIMEOUT, applied).await?;
            self.mark_ready(&child).await?;
        }
        Ok(())
    }

    /// Writes the status that the Deployment controller writes when all pods are updated and ready.
    ///
    /// # Errors
    /// If it does not exist.
    pub async fn mark_ready(&self, deployment: &str) -> anyhow::Result<()> {
        let deployments = self.api::<Deployment>();
        let found = deployments.get(deployment).await?;
        let replicas = found.spec.as_ref().and_then(|spec| spec.replicas);
        let status = json!({ "status": {
            "observedGeneration": found.metadata.generation, "replicas": replicas, "updatedReplicas": replicas,
            "readyReplicas": replicas, "availableReplicas": replicas,
        } });
        deployments.patch_status(deployment, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }
}
