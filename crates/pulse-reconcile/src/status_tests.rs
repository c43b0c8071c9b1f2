use pulse_crd::fixture::pulse_ingest;
use serde_json::json;

use super::*;
use crate::condition::find;

#[test]
fn active_revision_stays_while_paused() {
    let mut cr = pulse_ingest(json!({ "paused": true }));
    let desired = crate::revision::desired(&cr.spec);
    let active_before = pulse_crd::Revision { hash: "before".into(), ..desired.clone() };
    cr.status.get_or_insert_default().active_revision = Some(active_before.clone());
    let observed = Observed::default();
    let key = crate::secrets::DigestKey::new(vec![7]);
    let plan = ReconcilePlan {
        active: Some(desired.clone()),
        ..crate::plan::plan(&cr, &observed, &key, Timestamp::UNIX_EPOCH)
    };
    let active = |cr: &PulseIngest| {
        let inputs = StatusInputs {
            cr,
            observed: &observed,
            plan: &plan,
            rollouts: &Rollouts::default(),
            scaling: ScalingReport::default(),
            unapplied: None,
            missing_duration: None,
            pending: Vec::new(),
            crd_outdated: None,
            held: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
        };
        status(inputs).active_revision
    };
    assert_eq!(active(&cr), Some(active_before));
    cr.spec.paused = false;
    assert_eq!(active(&cr), Some(desired));
}

#[test]
fn migrated_condition_reports_why_a_secret_is_unreadable() {
    let cr = pulse_ingest(json!({}));
    let key = crate::secrets::DigestKey::new(vec![7]);
    let unreadable = crate::secrets::SecretRead::Unreadable("forbidden".into());
    let observed =
        Observed { secrets: [(cr.spec.database.url_secret_ref.clone(), unreadable)].into(), ..Observed::default() };
    let plan = crate::plan::plan(&cr, &observed, &key, Timestamp::UNIX_EPOCH);
    assert_eq!(migrated(&plan), ConditionState::new(False, "WaitingForReference", "forbidden"));
}

#[test]
fn approval_is_waited_for_before_the_object_stalls() {
    let mut cr = pulse_ingest(json!({ "migrations": { "policy": "Plan" } }));
    let at = |second| Timestamp::from_second(second).expect("in range");
    let plan = |cr: &PulseIngest| {
        let key = crate::secrets::DigestKey::new(vec![7]);
        let mut plan = crate::plan::plan(cr, &Observed::default(), &key, at(0));
        plan.migration.status.finished_at = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1000)));
        let message = "approve it".to_owned();
        plan.migration.waiting = Some(MigrationWait { reason: NEEDS_APPROVAL, message, needs_action: true });
        plan
    };
    let mut condition_at = |second| {
        let inputs = StatusInputs {
            cr: &cr,
            observed: &Observed::default(),
            plan: &plan(&cr),
            rollouts: &Rollouts::default(),
            scaling: ScalingReport::default(),
            unapplied: None,
            missing_duration: None,
            pending: Vec::new(),
            crd_outdated: None,
            held: Vec::new(),
            now: at(second),
        };
        cr.status = Some(status(inputs));
        let conditions = &cr.status.as_ref().expect("a status").conditions;
        let found = [ConditionType::Reconciling, ConditionType::Stalled]
            .map(|type_| find(conditions, type_).map(|found| found.reason.clone()));
        found.map(Option::unwrap_or_default)
    };
    assert_eq!(condition_at(1000), ["PlanNeedsApproval", ""]);
    assert_eq!(condition_at(1599), ["PlanNeedsApproval", ""]);
    assert_eq!(condition_at(1600), ["", "PlanNeedsApproval"]);
}
