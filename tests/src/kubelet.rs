//! Simulates the Job and Deployment controllers, the garbage collector and the kubelets, for fast operator tests.
//!
//! No pod runs here: the simulator only writes the statuses that the operator reads. Jobs complete, and the pods of
//! Deployments become ready. `tests/tests/operator_node` runs the operator with real pods on a real node.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::operator::{MIGRATED, OperatorEnv, has_ended};

const POLL_INTERVAL: Duration = Duration::from_millis(100);
const CONCURRENCY: usize = 16;

impl OperatorEnv {
    /// Runs `body` while every Job is completed and the pods of every Deployment are marked as ready.
    ///
    /// # Errors
    /// Those of `body`.
    pub async fn with_simulator<T>(&self, body: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let simulate = async {
            loop {
                // An error is retried after the interval.
                let _ = self.simulate_once().await;
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            result = body => result,
            never = simulate => never,
        }
    }

    async fn simulate_once(&self) -> anyhow::Result<()> {
        let jobs = self.api::<Job>().list(&ListParams::default()).await?.items;
        let (deleted, mut jobs): (Vec<Job>, Vec<Job>) =
            jobs.into_iter().partition(|job| job.metadata.deletion_timestamp.is_some());
        jobs.retain(|job| !has_ended(job));
        let mut deployments = self.api::<Deployment>().list(&ListParams::default()).await?.items;
        deployments.retain(is_behind);
        // A write fails if its object has changed or was deleted; the next pass handles it.
        let finish = async |job: Job| drop(self.finish_job(&job, 0, MIGRATED).await);
        stream::iter(jobs).for_each_concurrent(CONCURRENCY, finish).await;
        stream::iter(deleted).for_each_concurrent(CONCURRENCY, async |job| drop(self.end_deletion(&job).await)).await;
        let ready = async |deployment: Deployment| drop(self.mark_ready(&deployment.name_any()).await);
        stream::iter(deployments).for_each_concurrent(CONCURRENCY, ready).await;
        Ok(())
    }

    /// Ends a foreground deletion: deletes the pods of a Job, and then the Job.
    async fn end_deletion(&self, job: &Job) -> anyhow::Result<()> {
        let name = job.name_any();
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        self.api::<Pod>().delete_collection(&DeleteParams::background().grace_period(0), &of_job).await?;
        let patch = Patch::Merge(serde_json::json!({ "metadata": { "finalizers": null } }));
        self.api::<Job>().patch(&name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes the objects whose owner no longer exists, as the garbage collector would.
    ///
    /// # Errors
    /// If a list or a deletion fails.
    pub async fn collect_garbage(&self) -> anyhow::Result<()> {
        let owners = self.instances().list(&ListParams::default()).await?;
        let owners: Vec<String> = owners.iter().filter_map(ResourceExt::uid).collect();
        self.collect_kind::<Deployment>(&owners).await?;
        self.collect_kind::<Job>(&owners).await?;
        self.collect_kind::<Service>(&owners).await?;
        self.collect_kind::<ServiceAccount>(&owners).await?;
        self.collect_kind::<PodDisruptionBudget>(&owners).await?;
        self.collect_kind::<ConfigMap>(&owners).await?;
        self.collect_kind::<Pod>(&owners).await
    }

    async fn collect_kind<K>(&self, owners: &[String]) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        for object in self.api::<K>().list(&ListParams::default()).await? {
            let is_orphan = object.owner_references().iter().any(|owner| !owners.contains(&owner.uid));
            if is_orphan {
                self.api::<K>().delete(&object.name_any(), &DeleteParams::background()).await?;
            }
        }
        Ok(())
    }
}

fn is_behind(deployment: &Deployment) -> bool {
    let Some(spec) = &deployment.spec else { return false };
    let status = deployment.status.clone().unwrap_or_default();
    let count = |count: Option<i32>| count.unwrap_or(0);
    status.observed_generation != deployment.metadata.generation
        || count(status.ready_replicas) != count(spec.replicas)
        || count(status.updated_replicas) != count(spec.replicas)
}
