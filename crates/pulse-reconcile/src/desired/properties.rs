//! Properties of every object that the schema accepts.

use proptest::prelude::*;
use pulse_crd::fixture::pulse_ingest;
use serde_json::{Value, json};

use super::*;
use crate::observed::Observed;
use crate::plan::plan;
use crate::revision;
use crate::secrets::{DigestKey, SecretRead, SecretValue};

const CANARY: &str = "canary-of-a-secret";

fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
}

fn text() -> impl Strategy<Value = String> {
    "[ -~]{1,60}"
}

/// Changes of a spec, within the bounds of the schema.
fn spec() -> impl Strategy<Value = Value> {
    let image = prop_oneof![
        "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
            .prop_filter("latest moves", |tag| tag != "latest")
            .prop_map(|tag| json!({ "tag": tag })),
        "[0-9a-f]{64}".prop_map(|digest| json!({ "digest": format!("sha256:{digest}") })),
    ];
    let template = (
        proptest::collection::btree_map("[a-z]{1,20}", text(), 0..4),
        proptest::collection::vec(("[A-Z_]{1,20}", text()), 0..4),
        proptest::option::of("[a-z]{1,20}"),
    )
        .prop_map(|(labels, env, class)| {
            let env: Vec<Value> = env.into_iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            json!({ "labels": labels, "annotations": labels, "nodeSelector": labels, "env": env, "priorityClassName": class })
        });
    let external = || Just(json!({ "mode": "External" }));
    let internal = (0u32..=10, 10u32..=1000).prop_map(|(min, max)| json!({ "minReplicas": min, "maxReplicas": max }));
    let scaling = proptest::option::of(prop_oneof![internal, external()]);
    let api_scaling = proptest::option::of(external());
    (
        image,
        template,
        scaling,
        (1u32..=100, api_scaling, 1u32..=1000, 0u32..=3600, 1u32..=1024),
        (60u32..=86_400, proptest::option::of("[ -~]{0,128}"), any::<bool>(), any::<bool>()),
        "[a-zA-Z0-9._-]{1,253}",
    )
        .prop_map(
            |(
                image,
                template,
                scaling,
                (api, api_scaling, workers, drain, concurrency),
                (deadline, trigger, stopped, public),
                key,
            )| {
                let auth = if public {
                    json!({ "jwtSecretRef": null, "publicKeySecretRef": { "name": "keys", "key": key }, "issuer": "i", "audience": "a" })
                } else {
                    json!({ "jwtSecretRef": { "name": "keys", "key": key } })
                };
                json!({
                    "image": image,
                    "auth": auth,
                    "api": { "replicas": api, "autoscaling": api_scaling, "podTemplate": template },
                    "workers": {
                        "replicas": workers, "drainTimeoutSeconds": drain, "concurrency": concurrency,
                        "autoscaling": scaling, "podTemplate": template,
                    },
                    "scheduler": { "podTemplate": template },
                    "migrations": { "activeDeadlineSeconds": deadline, "trigger": trigger },
                    "stopped": stopped,
                })
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_objects_create_valid_names_and_show_no_secret(name in name(), changes in spec()) {
        // The API server stores no field for a null of an optional field.
        let mut cr = pulse_ingest(changes);
        cr.metadata.name = Some(name);
        let key = DigestKey::new(vec![1; 32]);
        let value = || SecretRead::Found(SecretValue::new(CANARY.into()));
        let secrets = crate::secret_uses::referenced(&cr).into_iter().map(|key| (key, value()));
        let observed = Observed { secrets: secrets.collect(), ..Observed::default() };
        let plan = plan(&cr, &observed, &key, jiff::Timestamp::UNIX_EPOCH);
        prop_assert!(plan.migration.create.is_some());
        let desired = revision::desired(&cr.spec);
        let digests = Role::ALL.map(|role| (role, key.digest(&[CANARY.as_bytes()]))).into();
        let inputs = Inputs { revision: Some(&desired), secrets: digests, job: plan.migration.create.as_ref(), dev_reload: None };
        let all = resources(&cr, &inputs);
        let names = all
            .service_accounts.iter().map(ResourceExt::name_any)
            .chain(all.migration.iter().map(ResourceExt::name_any))
            .chain(all.services.iter().map(ResourceExt::name_any))
            .chain(all.disruption_budgets.iter().map(ResourceExt::name_any))
            .chain(all.deployments.iter().map(|(_, deployment)| deployment.name_any()));
        for name in names {
            prop_assert!(name.len() <= 63, "{}", name);
        }
        for (_, deployment) in &all.deployments {
            let again = resources(&cr, &inputs);
            prop_assert!(again.deployments.iter().any(|(_, same)| same == deployment), "the same inputs give the same bytes");
        }
        let shown = format!("{all:?} {plan:?} {observed:?}");
        prop_assert!(!shown.contains(CANARY));
    }
}
