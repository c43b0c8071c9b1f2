//! The CRD in a real API server: validation rules, bounds, defaults, nulls and samples.

use anyhow::Context;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use pulse_tests::operator::{OperatorEnv, merge, minimal};
use pulse_tests::repository;
use serde_json::{Value, json};

/// Creates an object with a server-side dry run. Returns what the API server would store, or its error message.
async fn dry_run(env: &OperatorEnv, name: &str, changes: &Value) -> anyhow::Result<Result<Value, String>> {
    let mut object = minimal(name)?;
    merge(&mut object["spec"], changes);
    let object: DynamicObject = serde_json::from_value(object)?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    Ok(match env.instances().create(&params, &object).await {
        Ok(stored) => Ok(stored.data),
        Err(kube::Error::Api(status)) => Err(status.message.clone()),
        Err(error) => return Err(error.into()),
    })
}

/// A valid spec, an invalid spec, and a part of the error message.
type RuleCase = (Value, Value, &'static str);

/// Rules of images, replicas, retries and policies.
fn rules_of_roles() -> Vec<RuleCase> {
    let digest = format!("sha256:{}", "a".repeat(64));
    vec![
        (json!({"image": {"tag": null, "digest": digest}}), json!({"image": {"tag": null}}), "set a digest, or a tag"),
        (json!({"image": {"tag": "1"}}), json!({"image": {"tag": "latest"}}), "other than latest"),
        (json!({"image": {"tag": "1"}}), json!({"image": {"tag": ""}}), "spec.image.tag"),
        (
            json!({"tasks": {"retry": {"baseSeconds": 5, "capSeconds": 5}}}),
            json!({"tasks": {"retry": {"baseSeconds": 6, "capSeconds": 5}}}),
            "baseSeconds must be less than or equal to capSeconds",
        ),
        (
            json!({"workers": {"drainTimeoutSeconds": 3600}}),
            json!({"workers": {"drainTimeoutSeconds": 3601}}),
            "drainTimeoutSeconds",
        ),
        (json!({"api": {"replicas": 100}}), json!({"api": {"replicas": 101}}), "spec.api.replicas"),
        (json!({"api": {"replicas": 1}}), json!({"api": {"replicas": 0}}), "spec.api.replicas"),
        (json!({"console": {"replicas": 5}}), json!({"console": {"replicas": 6}}), "spec.console.replicas"),
        (
            json!({"migrations": {"policy": "Plan"}}),
            json!({"migrations": {"policy": "Sometimes"}}),
            "Unsupported value",
        ),
    ]
}

/// Rules of scaling: who sets the number of pods, and its bounds.
fn rules_of_scaling() -> Vec<RuleCase> {
    let workers = |autoscaling: Value| json!({"workers": {"autoscaling": autoscaling}});
    let external = || json!({"mode": "External"});
    let schedule = |start: &str, min: u32| json!({"start": start, "end": "0 18 * * *", "timeZone": "America/Argentina/Buenos_Aires", "minReplicas": min});
    let not_in_external = "maxReplicas, fallback, schedules, target and behavior must not be set in the mode External";
    vec![
        (
            workers(json!({"minReplicas": 3, "maxReplicas": 3})),
            workers(json!({"minReplicas": 4, "maxReplicas": 3})),
            "minReplicas must be less than or equal to maxReplicas",
        ),
        (workers(json!({"maxReplicas": 1})), workers(json!({})), "maxReplicas must be set in the mode Internal"),
        (workers(external()), workers(json!({"mode": "External", "maxReplicas": 3})), not_in_external),
        (
            workers(json!({"maxReplicas": 3, "target": {}})),
            workers(json!({"mode": "External", "target": {}})),
            not_in_external,
        ),
        (
            workers(json!({"maxReplicas": 3, "behavior": {}})),
            workers(json!({"mode": "External", "behavior": {}})),
            not_in_external,
        ),
        (
            workers(json!({"maxReplicas": 3, "fallback": 3})),
            workers(json!({"maxReplicas": 3, "fallback": 4})),
            "fallback must be less than or equal to maxReplicas",
        ),
        (workers(external()), workers(json!({"mode": "External", "fallback": 3})), not_in_external),
        (
            workers(json!({"mode": "External", "schedules": []})),
            workers(json!({"mode": "External", "schedules": [schedule("0 8 * * 1-5", 3)]})),
            not_in_external,
        ),
        (
            workers(json!({"maxReplicas": 3, "schedules": [schedule("*/5 8-18 1,15 JAN MON#1", 3)]})),
            workers(json!({"maxReplicas": 3, "schedules": [schedule("8:00", 3)]})),
            "start and end must be cron expressions of five fields",
        ),
        (
            workers(json!({"maxReplicas": 3, "schedules": [schedule("0 8 * * *", 3)]})),
            workers(json!({"maxReplicas": 3, "schedules": [schedule("0 8 * * *", 4)]})),
            "schedules: minReplicas must be less than or equal to maxReplicas",
        ),
        (
            json!({"workers": {"replicas": 0, "autoscaling": external()}}),
            json!({"workers": {"replicas": 0}}),
            "replicas must be at least 1 without autoscaling",
        ),
        (json!({"api": {"autoscaling": external()}}), json!({"api": {"autoscaling": {}}}), "mode"),
        (
            json!({"api": {"autoscaling": external()}}),
            json!({"api": {"autoscaling": {"mode": "Internal"}}}),
            "Unsupported value",
        ),
    ]
}

/// Changes to tokens of an identity provider, with these fields of `auth`.
fn public_key(auth: Value) -> Value {
    let mut spec = json!({"auth": {
        "jwtSecretRef": null, "publicKeySecretRef": {"name": "a", "key": "b"}, "issuer": "i", "audience": "a",
    }});
    spec["auth"].as_object_mut().expect("an object").extend(auth.as_object().cloned().unwrap_or_default());
    spec
}

fn jwks(url: &str) -> Value {
    public_key(json!({"publicKeySecretRef": null, "jwks": {"url": url}}))
}

/// Rules of references to Secrets.
fn rules_of_secrets() -> Vec<RuleCase> {
    vec![
        (
            public_key(json!({})),
            json!({"auth": {"publicKeySecretRef": {"name": "a", "key": "b"}}}),
            "exactly one of jwtSecretRef",
        ),
        (public_key(json!({})), public_key(json!({"issuer": null})), "set issuer and audience with public keys"),
        (public_key(json!({})), public_key(json!({"audience": null})), "set issuer and audience with public keys"),
        (
            json!({"auth": {"nextJwtSecretRef": {"name": "a", "key": "b"}}}),
            public_key(json!({"nextJwtSecretRef": {"name": "a", "key": "b"}})),
            "nextJwtSecretRef needs jwtSecretRef",
        ),
        (jwks("https://id.example/jwks.json"), jwks("http://id.example/jwks.json"), "spec.auth.jwks.url"),
        (jwks("https://[2001:db8::1]:8443/keys?x=1"), jwks("https://user@id.example/jwks.json"), "spec.auth.jwks.url"),
        (
            json!({"auth": {"defaultScopes": ["events:write", "admin"]}}),
            json!({"auth": {"defaultScopes": ["events"]}}),
            "spec.auth.defaultScopes",
        ),
        (
            json!({"api": {"tls": {"secretRef": {"name": "a"}, "clientCaSecretRef": {"name": "b"}}}}),
            json!({"api": {"tls": {"clientCaSecretRef": {"name": "b"}}}}),
            "spec.api.tls.secretRef",
        ),
        (json!({}), json!({"auth": {"jwtSecretRef": null}}), "exactly one of jwtSecretRef"),
        (
            json!({"database": {"migrationUrlSecretRef": {"name": "owner"}, "servingRole": "pulse_serving"}}),
            json!({"database": {"migrationUrlSecretRef": {"name": "owner"}}}),
            "set migrationUrlSecretRef and servingRole together",
        ),
        (
            json!({"database": {"readRole": "reports"}}),
            json!({"database": {"servingRole": "pulse_serving"}}),
            "set migrationUrlSecretRef and servingRole together",
        ),
        (
            json!({"database": {"caSecretRef": {"name": "db-ca", "key": "root.pem"}}}),
            json!({"database": {"caSecretRef": {"key": "root.pem"}}}),
            "spec.database.caSecretRef.name",
        ),
        (
            json!({"database": {"caSecretRef": {"name": "n".repeat(253)}}}),
            json!({"database": {"caSecretRef": {"name": "n".repeat(254)}}}),
            "spec.database.caSecretRef.name",
        ),
        (
            json!({"redis": {"caSecretRef": {"name": "redis-ca", "key": "k".repeat(253)}}}),
            json!({"redis": {"caSecretRef": {"name": "redis-ca", "key": "k".repeat(254)}}}),
            "spec.redis.caSecretRef.key",
        ),
        (
            json!({"redis": {"caSecretRef": {"name": "redis-ca"}}}),
            json!({"redis": {"caSecretRef": {"name": "redis-ca", "key": ""}}}),
            "spec.redis.caSecretRef.key",
        ),
    ]
}

/// Rules of pod settings.
fn rules_of_pods() -> Vec<RuleCase> {
    let key = |length: usize| format!("{}/{}", "p".repeat(253), "k".repeat(length - 254));
    vec![
        (
            json!({"workers": {"resources": {"requests": {"cpu": 1}}}}),
            json!({"workers": {"resources": {"requests": {"cpu": "much"}}}}),
            "requests",
        ),
        (
            json!({"api": {"podTemplate": {"labels": {key(317): "v".repeat(63)}}}}),
            json!({"api": {"podTemplate": {"labels": {key(318): "v"}}}}),
            "at most 317 characters",
        ),
        (
            json!({"scheduler": {"podTemplate": {"nodeSelector": {"zone": "v".repeat(63)}}}}),
            json!({"scheduler": {"podTemplate": {"nodeSelector": {"zone": "v".repeat(64)}}}}),
            "spec.scheduler.podTemplate.nodeSelector.zone",
        ),
        (
            json!({"workers": {"podTemplate": {"labels": {"team": "a.b-c"}}}}),
            json!({"workers": {"podTemplate": {"labels": {"team": "a b"}}}}),
            "spec.workers.podTemplate.labels.team",
        ),
        (
            json!({"workers": {"podTemplate": {"annotations": {key(317): "any text"}}}}),
            json!({"workers": {"podTemplate": {"annotations": {key(318): "any text"}}}}),
            "at most 317 characters",
        ),
    ]
}

/// Rules of pod templates, rollouts and drains.
fn rules_of_templates() -> Vec<RuleCase> {
    let worker = |template: Value| json!({ "workers": { "podTemplate": template } });
    let mount = |path: &str| worker(json!({ "volumeMounts": [{ "name": "a", "mountPath": path }] }));
    let api = |delay: u32, grace: u32| json!({ "api": { "drainDelaySeconds": delay, "podTemplate": { "terminationGracePeriodSeconds": grace } } });
    let drain = |drain: Value, grace: u32| json!({ "workers": { "drainTimeoutSeconds": drain, "podTemplate": { "terminationGracePeriodSeconds": grace } } });
    let rollout = |surge: Value, unavailable: Value| json!({ "api": { "rollout": { "maxSurge": surge, "maxUnavailable": unavailable } } });
    let zero = "maxUnavailable and maxSurge must not both be zero";
    vec![
        (drain(json!(60), 75), drain(json!(60), 74), "at least 15 s more than drainTimeoutSeconds"),
        (drain(Value::Null, 15), drain(Value::Null, 14), "at least 15 s more than drainTimeoutSeconds"),
        (api(20, 50), api(20, 49), "at least 30 s more than drainDelaySeconds"),
        (rollout(json!(0), json!("1%")), rollout(json!(0), json!("0%")), zero),
        (rollout(json!("100%"), json!(0)), rollout(json!("0%"), json!(0)), zero),
        (
            json!({ "database": { "maxConnectionsTotal": 500 } }),
            json!({ "database": { "maxConnectionsTotal": 500 }, "api": { "rollout": { "maxSurge": "50%" } } }),
            "rollout must not be changed with database.maxConnectionsTotal",
        ),
        (rollout(json!(2), json!(0)), rollout(json!("101%"), json!(0)), "spec.api.rollout.maxSurge"),
        (mount("/etc/pulsar"), mount("/etc/pulse/auth"), "use another mountPath"),
        (
            worker(json!({ "volumes": [{ "name": "pulse" }] })),
            worker(json!({ "volumes": [{ "name": "pulse-auth" }] })),
            "use another name",
        ),
        (
            worker(json!({ "sidecars": [{ "name": "pulse-agent" }] })),
            worker(json!({ "sidecars": [{ "name": "pulse" }] })),
            "use another name",
        ),
        (
            worker(json!({ "env": [{ "name": "A" }, { "name": "B" }] })),
            worker(json!({ "env": [{ "name": "A" }, { "name": "A" }] })),
            "Duplicate value",
        ),
        (
            worker(json!({ "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "a", "key": "b" } } }] })),
            worker(json!({ "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "a" } } }] })),
            "valueFrom.secretKeyRef.key",
        ),
        (
            worker(json!({ "serviceAccount": { "name": "a" } })),
            worker(json!({ "serviceAccount": { "name": "a", "annotations": { "b": "c" } } })),
            "set them on the account",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn crd_rules_accept_valid_and_refuse_invalid_specs() -> anyhow::Result<()> {
    let env = OperatorEnv::start("rules").await?;
    for (valid, invalid, expected) in
        [rules_of_roles(), rules_of_scaling(), rules_of_secrets(), rules_of_pods(), rules_of_templates()].concat()
    {
        dry_run(&env, "main", &valid).await?.map_err(|error| anyhow::anyhow!("{valid}: {error}"))?;
        let refusal =
            dry_run(&env, "main", &invalid).await?.err().with_context(|| format!("{invalid} is not refused"))?;
        assert!(refusal.contains(expected), "{invalid}: {refusal}");
    }
    let long = "n".repeat(41);
    dry_run(&env, &long[1..], &json!({})).await?.map_err(anyhow::Error::msg)?;
    assert!(dry_run(&env, &long, &json!({})).await?.is_err_and(|error| error.contains("at most 40 characters")));
    for name in ["shop.main", "1st"] {
        assert!(
            dry_run(&env, name, &json!({})).await?.is_err_and(|error| error.contains("must start with a letter")),
            "{name}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn crd_schema_contains_every_default() -> anyhow::Result<()> {
    let env = OperatorEnv::start("defaults").await?;
    let stored = dry_run(&env, "main", &json!({})).await?.map_err(anyhow::Error::msg)?;
    let spec: pulse_crd::PulseIngestSpec = serde_json::from_value(stored["spec"].clone())?;
    let bare: pulse_crd::PulseIngestSpec = serde_json::from_value(minimal("main")?["spec"].clone())?;
    assert_eq!(spec, bare, "the API server and the binary have the same defaults");
    assert_eq!(
        serde_json::to_value(&bare)?,
        stored["spec"],
        "the API server stores every default, so an upgrade changes no behaviour"
    );
    assert_eq!(stored["status"]["observedGeneration"], -1, "a new object is not yet observed");

    let cas = json!({"database": {"caSecretRef": {"name": "a"}}, "redis": {"caSecretRef": {"name": "b"}}});
    let stored = dry_run(&env, "main", &cas).await?.map_err(anyhow::Error::msg)?;
    assert_eq!(stored["spec"]["database"]["caSecretRef"], json!({"name": "a", "key": "ca.crt"}));
    assert_eq!(stored["spec"]["redis"]["caSecretRef"], json!({"name": "b", "key": "ca.crt"}));

    let scaled = json!({"workers": {"autoscaling": {"maxReplicas": 5, "target": {}, "behavior": {}}}});
    let stored = dry_run(&env, "main", &scaled).await?.map_err(anyhow::Error::msg)?;
    let scaling = &stored["spec"]["workers"]["autoscaling"];
    assert_eq!(scaling["mode"], "Internal");
    assert_eq!(
        (&scaling["minReplicas"], &scaling["idleSeconds"], &scaling["paused"]),
        (&json!(1), &json!(60), &json!("None"))
    );
    assert_eq!(scaling["target"], json!({"backlogPerWorker": 100, "drainSeconds": 60}));
    assert_eq!(
        scaling["behavior"]["scaleDown"],
        json!({"stabilizationWindowSeconds": 120, "percent": 50, "workers": 2, "periodSeconds": 60})
    );
    assert_eq!(
        scaling["behavior"]["scaleUp"],
        json!({"stabilizationWindowSeconds": 0, "percent": 300, "workers": 10, "periodSeconds": 15})
    );
    let schedules = json!([{"start": "0 8 * * *", "end": "0 9 * * *", "minReplicas": 2}]);
    let scheduled = json!({"workers": {"autoscaling": {"maxReplicas": 5, "schedules": schedules}}});
    let stored = dry_run(&env, "main", &scheduled).await?.map_err(anyhow::Error::msg)?;
    assert_eq!(stored["spec"]["workers"]["autoscaling"]["schedules"][0]["timeZone"], "UTC");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn crd_null_means_default() -> anyhow::Result<()> {
    let env = OperatorEnv::start("nulls").await?;
    let nulls = [
        json!({"api": {"replicas": null}}),
        json!({"api": {"autoscaling": null}}),
        json!({"workers": {"replicas": null}}),
        json!({"workers": {"autoscaling": null}}),
        json!({"database": {"maxConnectionsTotal": null}}),
        json!({"database": {"caSecretRef": null}}),
        json!({"redis": {"caSecretRef": null}}),
        json!({"migrations": {"approvedPlan": null}}),
        json!({"migrations": {"trigger": null}}),
        json!({"auth": {"issuer": null}}),
        json!({"auth": {"audience": null}}),
        json!({"api": {"podTemplate": {"priorityClassName": null}}}),
        json!({"workers": null}),
        json!({"api": null}),
        json!({"tasks": {"retry": null}}),
        json!({"paused": null}),
    ];
    for null in nulls {
        let stored = dry_run(&env, "main", &null).await?.map_err(|error| anyhow::anyhow!("{null}: {error}"))?;
        let parsed = serde_json::from_value::<pulse_crd::PulseIngestSpec>(stored["spec"].clone());
        parsed.with_context(|| format!("the operator cannot read {null}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_by_hand_is_refused_while_the_operator_scales() -> anyhow::Result<()> {
    let env = OperatorEnv::start("scale").await?;
    let scale = async |replicas: &str| {
        let args = ["scale", "pi/main", replicas, "-n", &env.namespace];
        env.plane.admin().kubectl(&args).await
    };
    env.create("main", json!({"workers": {"replicas": 2, "autoscaling": {"maxReplicas": 5}}})).await?;
    let refused = scale("--replicas=3").await.err().context("it is refused")?;
    let message = format!("{refused:#}");
    anyhow::ensure!(
        message.contains("the operator sets the number of workers: change workers.autoscaling"),
        "{message}"
    );
    env.patch_spec("main", json!({"workers": {"autoscaling": {"maxReplicas": 6}}})).await?;
    // A manifest without the field that it had before sets the default.
    env.patch_spec("main", json!({"workers": {"replicas": null}})).await?;
    env.patch_spec(
        "main",
        json!({"workers": {"replicas": 3, "autoscaling": {"mode": "External", "maxReplicas": null}}}),
    )
    .await?;
    scale("--replicas=4").await?;
    env.patch_spec("main", json!({"workers": {"replicas": 1, "autoscaling": {"mode": "Internal", "maxReplicas": 5}}}))
        .await?;
    scale("--replicas=4").await.err().context("it is refused again")?;
    env.patch_spec("main", json!({"workers": {"autoscaling": null}})).await?;
    scale("--replicas=4").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn misspelt_field_is_refused_by_name() -> anyhow::Result<()> {
    let env = OperatorEnv::start("strict").await?;
    let mut object = minimal("main")?;
    object["spec"]["workers"]["replcas"] = json!(3);
    let params =
        PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..PatchParams::apply("test") };
    let refused = env.instances().patch("main", &params, &Patch::Apply(&object)).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("replcas")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_and_crd_manifest_apply_unchanged() -> anyhow::Result<()> {
    let env = OperatorEnv::start("samples").await?;
    for sample in ["minimal", "production", "external-scaling", "cnpg-valkey"] {
        let path = repository().join(format!("manifests/samples/{sample}.yaml"));
        let path = path.to_str().context("the path is not UTF-8")?;
        let args =
            ["-n", &env.namespace, "apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", path];
        env.plane.admin().kubectl(&args).await.with_context(|| sample.to_owned())?;
        let listed = env.plane.admin().kubectl(&["-n", &env.namespace, "get", "pi"]).await?;
        assert!(listed.starts_with("NAME") && listed.contains("READY") && listed.contains("main"), "{listed}");
    }
    let text = std::fs::read_to_string(repository().join("manifests/crds.yaml"))?;
    let file: Value = pulse_crd::yaml::read(&text)?;
    assert_eq!(
        file,
        serde_json::to_value(pulse_crd::crd())?,
        "manifests/crds.yaml is out of date: run `make generate`"
    );
    // Five pod templates with affinity, volumes, two lists of containers and two security contexts.
    assert_eq!(text.matches("x-kubernetes-preserve-unknown-fields").count(), 5 * 6, "other objects have a schema");
    Ok(())
}

/// Strings, lists, maps and numbers all have an upper bound.
#[test]
fn crd_fields_are_all_bounded() -> anyhow::Result<()> {
    fn walk(path: &str, schema: &Value, unbounded: &mut Vec<String>) {
        let has = |name: &str| !schema[name].is_null();
        let bounded = match schema["type"].as_str() {
            Some("string") => has("maxLength") || has("enum") || has("format"),
            Some("array") => has("maxItems"),
            Some("integer") if path.contains(".spec") => has("maximum"),
            Some("object") => has("properties") || has("maxProperties"),
            _ => true,
        };
        if !bounded {
            unbounded.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, unbounded);
        }
        for inner in ["items", "additionalProperties"] {
            if has(inner) {
                walk(&format!("{path}[]"), &schema[inner], unbounded);
            }
        }
    }
    let crd = serde_json::to_value(pulse_crd::crd())?;
    let mut unbounded = Vec::new();
    walk("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut unbounded);
    assert_eq!(unbounded, Vec::<String>::new());
    Ok(())
}
