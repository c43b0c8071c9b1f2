//! The operator's decisions, as a ConfigMap that the console mounts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pulse_core::{ConditionRow, Decisions, MigrationDecision, ScalingDecision};
use pulse_crd::names::{self, Role};
use pulse_crd::{PulseIngest, PulseIngestStatus};

use crate::condition::{ConditionStatus, ConditionType, find};

/// Key of the ConfigMap, and name of the file.
const FILE: &str = "decisions.json";
/// Name of the volume, with a prefix that the schema refuses for other volumes.
const VOLUME: &str = "pulse-decisions";
const FOLDER: &str = "/etc/pulse/decisions";

/// Path of the file in the pods.
pub(super) fn path() -> String {
    format!("{FOLDER}/{FILE}")
}

/// Mounts the ConfigMap as a folder, because a single file would never be renewed. The pods start without it, too.
pub(super) fn mount(cr: &PulseIngest) -> (Volume, VolumeMount) {
    let name = names::child(cr, Role::Console.component());
    let source = ConfigMapVolumeSource { name, optional: Some(true), ..ConfigMapVolumeSource::default() };
    let volume = Volume { name: VOLUME.into(), config_map: Some(source), ..Volume::default() };
    let mount =
        VolumeMount { name: VOLUME.into(), mount_path: FOLDER.into(), read_only: Some(true), ..VolumeMount::default() };
    (volume, mount)
}

/// Returns the ConfigMap with the decisions in a status. Equal decisions give equal bytes.
pub fn config_map(cr: &PulseIngest, status: &PulseIngestStatus) -> ConfigMap {
    let component = Role::Console.component();
    let text = serde_json::to_string(&decisions(status)).unwrap_or_default();
    ConfigMap {
        metadata: names::metadata(cr, names::child(cr, component), component),
        data: Some(BTreeMap::from([(FILE.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// What is decided, without what is measured: an unchanged decision is not written again.
fn decisions(status: &PulseIngestStatus) -> Decisions {
    let image = |revision: &pulse_crd::Revision| revision.image.clone();
    let is_true = |name| find(&status.conditions, name).filter(|found| found.status == ConditionStatus::True);
    let unfinished = is_true(ConditionType::Stalled).or_else(|| is_true(ConditionType::Reconciling));
    let last = status.autoscaling.as_ref().and_then(|scaling| scaling.last_decision.as_ref());
    let conditions = status.conditions.iter().map(|condition| ConditionRow {
        name: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: text(&condition.last_transition_time),
    });
    let decisions = Decisions {
        generation: status.observed_generation,
        active: status.active_revision.as_ref().map(image),
        desired: status.desired_revision.as_ref().map(image),
        rollout: unfinished.map(|condition| condition.message.clone()),
        migration: status.migrations.as_ref().map(|migration| MigrationDecision {
            state: format!("{:?}", migration.state),
            job: migration.job_name.clone(),
            message: migration.message.clone(),
            finished_at: migration.finished_at.as_ref().map(text),
        }),
        scaling: last.map(|last| ScalingDecision {
            at: text(&last.time),
            from: last.from,
            to: last.to,
            reason: last.reason.clone(),
            limited_by: last.limited_by.clone(),
            message: last.message.clone(),
        }),
        conditions: conditions.collect(),
    };
    decisions.bounded()
}

fn text(time: &Time) -> String {
    time.0.to_string()
}

#[cfg(test)]
mod tests {
    use pulse_crd::fixture::pulse_ingest;
    use serde_json::json;

    use super::*;

    fn status(backlog: i64, ready: i32, to: i32) -> PulseIngestStatus {
        let time = "2026-01-02T03:04:05Z";
        let decision = json!({
            "time": time, "from": 1, "to": to, "reason": "BacklogTarget", "inputs": { "waiting": 700 },
            "message": "700 tasks wait, target is 100 per worker: 7 workers",
        });
        let condition = json!({
            "type": "Reconciling", "status": "True", "reason": "RolloutInProgress", "message": "main-api is rolling out",
            "lastTransitionTime": time, "observedGeneration": 3,
        });
        let revision = json!({
            "hash": "a", "image": "pulse:2", "version": "2", "databaseUrlSecretRef": { "name": "a", "key": "uri" },
        });
        serde_json::from_value(json!({
            "observedGeneration": 3, "activeRevision": revision, "conditions": [condition],
            "workers": { "ready": ready },
            "autoscaling": { "mode": "Internal", "backlog": backlog, "lastDecision": decision },
            "migrations": { "state": "Done", "jobName": "main-migrate-1", "message": "" },
        }))
        .expect("valid")
    }

    #[test]
    fn config_map_changes_with_decisions_and_not_with_measurements() {
        let cr = pulse_ingest(json!({ "console": { "enabled": true } }));
        let before = config_map(&cr, &status(700, 1, 7));
        assert_eq!(config_map(&cr, &status(800, 2, 7)), before);
        assert_ne!(config_map(&cr, &status(700, 1, 8)), before);
        assert_eq!(before.metadata.name.as_deref(), Some("main-console"));
        assert!(names::is_owned(&before.metadata, &cr));
        let read: Decisions = serde_json::from_str(&before.data.expect("data")[FILE]).expect("reads");
        assert_eq!(read.active.as_deref(), Some("pulse:2"));
        assert_eq!(read.rollout.as_deref(), Some("main-api is rolling out"));
        assert_eq!(read.scaling.map(|scaling| (scaling.from, scaling.to)), Some((1, 7)));
        assert_eq!(read.migration.map(|migration| migration.state).as_deref(), Some("Done"));
        assert_eq!(read.conditions[0].since, "2026-01-02T03:04:05Z");
    }
}
