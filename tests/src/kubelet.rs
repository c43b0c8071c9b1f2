//! Stands in for Kubernetes' controllers and kubelets: Jobs end well, and the pods of Deployments become ready.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::operator::{MIGRATED, OperatorEnv, has_ended};

const LOOK_EVERY: Duration = Duration::from_millis(100);
const AT_ONCE: usize = 16;

impl OperatorEnv {
    /// Runs a test's body while Jobs end well, and while whatever a Deployment asks for becomes ready.
    ///
    /// # Errors
    /// The body's.
    pub async fn served<T>(&self, body: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let serve = async {
            loop {
                // The next look is soon.
                let _ = self.serve().await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            result = body => result,
            never = serve => never,
        }
    }

    async fn serve(&self) -> anyhow::Result<()> {
        let mut jobs = self.all::<Job>().list(&ListParams::default()).await?.items;
        jobs.retain(|job| !has_ended(job) && job.metadata.deletion_timestamp.is_none());
        let mut deployments = self.all::<Deployment>().list(&ListParams::default()).await?.items;
        deployments.retain(is_behind);
        // What was changed or deleted meanwhile is looked at again.
        let finish = async |job: Job| drop(self.finish_job(&job, 0, MIGRATED).await);
        stream::iter(jobs).for_each_concurrent(AT_ONCE, finish).await;
        let ready = async |deployment: Deployment| drop(self.ready(&deployment.name_any()).await);
        stream::iter(deployments).for_each_concurrent(AT_ONCE, ready).await;
        Ok(())
    }

    /// Deletes what belongs to an owner that is gone, as the garbage collector would.
    ///
    /// # Errors
    /// If something cannot be listed or deleted.
    pub async fn collect_garbage(&self) -> anyhow::Result<()> {
        let owners = self.instances().list(&ListParams::default()).await?;
        let owners: Vec<String> = owners.iter().filter_map(ResourceExt::uid).collect();
        self.collect::<Deployment>(&owners).await?;
        self.collect::<Job>(&owners).await?;
        self.collect::<Service>(&owners).await?;
        self.collect::<ServiceAccount>(&owners).await?;
        self.collect::<PodDisruptionBudget>(&owners).await?;
        self.collect::<Pod>(&owners).await
    }

    async fn collect<K>(&self, owners: &[String]) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        for object in self.all::<K>().list(&ListParams::default()).await? {
            let orphan = object.owner_references().iter().any(|owner| !owners.contains(&owner.uid));
            if orphan {
                self.all::<K>().delete(&object.name_any(), &DeleteParams::background()).await?;
            }
        }
        Ok(())
    }
}

fn is_behind(deployment: &Deployment) -> bool {
    let Some(spec) = deployment.spec.as_ref().filter(|spec| spec.paused != Some(true)) else { return false };
    let status = deployment.status.clone().unwrap_or_default();
    let count = |count: Option<i32>| count.unwrap_or(0);
    status.observed_generation != deployment.metadata.generation
        || count(status.ready_replicas) != count(spec.replicas)
        || count(status.updated_replicas) != count(spec.replicas)
}
