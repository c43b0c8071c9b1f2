//! Creates and changes a Deployment, whose number of pods has another owner than its other fields.

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use pulse_crd::names::{APPLIED, Role, SCALER};
use pulse_reconcile::compare::project;
use pulse_reconcile::done::ApplyReport;
use pulse_reconcile::error::ReconcileError;
use serde_json::{Value, json};

use super::applier::Applier;
use super::object::{Rendered, api_error, json_of, key};

impl Applier<'_> {
    pub(super) async fn converge_deployment(
        &self,
        role: Role,
        desired: Deployment,
        live: Option<&Deployment>,
        initial: i32,
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let rendered = Rendered::of(&desired);
        if let Some(live) = live
            && self.used.is_some_and(|used| used.holds(role, false))
        {
            let mut planned = ApplyReport::default();
            Applier { dry_run: true, ..*self }.update(desired, &rendered, live, &mut planned).await?;
            report.held.extend((!planned.changes.is_empty()).then(|| live.name_any()));
            return Ok(());
        }
        let key = key::<Deployment>(&desired.name_any());
        let attempt = async {
            match live {
                Some(live) => {
                    if !live.annotations().contains_key(APPLIED) && !self.dry_run {
                        // Its creation was interrupted.
                        let replicas = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(initial);
                        self.hand_over_replicas(live, replicas, None).await?;
                    }
                    self.update(desired, &rendered, live, report).await
                }
                None => self.create_deployment(desired, &rendered, initial, report).await,
            }
        };
        let changed = self.guarded(key, &rendered.hash, attempt).await?;
        report.deployments.extend(changed.map(|deployment| (role, deployment)));
        Ok(())
    }

    /// Creates the complete Deployment with its number of pods, and then gives that number to the scaler.
    async fn create_deployment(
        &self,
        desired: Deployment,
        rendered: &Rendered,
        replicas: i32,
        report: &mut ApplyReport,
    ) -> Result<Option<Deployment>, ReconcileError> {
        let Rendered { text, hash } = rendered;
        let mut complete = desired.clone();
        complete.spec.get_or_insert_default().replicas = Some(replicas);
        let Some(live) = self.create(&complete, report).await? else { return Ok(None) };
        if live.annotations().contains_key(APPLIED) {
            // It existed already, and the cache is stale.
            return self.update(desired, rendered, &live, report).await;
        }
        let replicas = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(replicas);
        // The hash marks the Deployment as complete.
        let applied = self.hand_over_replicas(&live, replicas, Some(hash)).await?;
        let version = applied.resource_version().unwrap_or_default();
        let key = key::<Deployment>(&live.name_any());
        self.memory().cache.remember(key, hash, version, &project(&json_of(&applied), text));
        Ok(Some(applied))
    }

    /// Makes the scaler an owner of the number of pods, so that the main apply can drop it without resetting it.
    async fn hand_over_replicas(
        &self,
        live: &Deployment,
        replicas: i32,
        hash: Option<&str>,
    ) -> Result<Deployment, ReconcileError> {
        let name = live.name_any();
        let mut patch = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "uid": live.uid() },
            "spec": { "replicas": replicas },
        });
        if let Some(hash) = hash {
            patch["metadata"]["annotations"][APPLIED] = Value::from(hash);
        }
        let forced = PatchParams::apply(SCALER).force();
        let patched = self.api::<Deployment>().patch(&name, &forced, &Patch::Apply(&patch)).await;
        patched.map_err(api_error::<Deployment>("apply", &name))
    }
}
