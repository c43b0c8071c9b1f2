use serde_json::json;

use super::tests::{container, env, made};

#[test]
fn console_objects_exist_only_while_it_is_enabled() {
    let of_console =
        |changes| -> Vec<String> { made(changes).into_keys().filter(|name| name.ends_with("/main-console")).collect() };
    assert_eq!(of_console(json!({})), [""; 0]);
    assert_eq!(of_console(json!({ "console": { "enabled": false, "replicas": 3 } })), [""; 0]);
    let one = ["Deployment/main-console", "Service/main-console", "ServiceAccount/main-console"];
    assert_eq!(of_console(json!({ "console": { "enabled": true } })), one);
    let two = ["Deployment/main-console", "PodDisruptionBudget/main-console", one[1], one[2]];
    assert_eq!(of_console(json!({ "console": { "enabled": true, "replicas": 2 } })), two);
}

#[test]
fn console_pods_are_as_restricted_as_those_of_the_api_and_mount_the_decisions() {
    let objects = made(json!({ "console": { "enabled": true }, "auth": { "issuer": "x" } }));
    let (console, api) = (container(&objects, "Deployment/main-console"), container(&objects, "Deployment/main-api"));
    for field in ["securityContext", "livenessProbe", "readinessProbe", "terminationMessagePolicy", "image"] {
        assert_eq!(console[field], api[field], "{field}");
    }
    assert_eq!(console["args"], json!(["console"]));
    assert_eq!(console["ports"][1], json!({ "name": "http", "containerPort": 5555, "protocol": "TCP" }));
    for name in ["PULSE_JWT_SECRET_FILE", "PULSE_JWT_ISSUER", "PULSE_DATABASE_URL", "PULSE_REDIS_URL"] {
        assert_eq!(env(console, name), env(api, name), "{name}");
    }
    assert_eq!(env(console, "PULSE_READ_ONLY"), json!(null));
    assert_eq!(env(console, "PULSE_DECISIONS_FILE")["value"], "/etc/pulse/decisions/decisions.json");
    let pod = &objects["Deployment/main-console"]["spec"]["template"]["spec"];
    let (name, path) = ("pulse-decisions", "/etc/pulse/decisions");
    let volume = json!({ "name": name, "configMap": { "name": "main-console", "optional": true } });
    assert!(pod["volumes"].as_array().is_some_and(|volumes| volumes.contains(&volume)));
    let mount = json!({ "name": name, "mountPath": path, "readOnly": true });
    assert!(console["volumeMounts"].as_array().is_some_and(|mounts| mounts.contains(&mount)));
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    assert_eq!(
        objects["Deployment/main-console"]["spec"]["template"]["metadata"]["annotations"]["pulseboard.dev/connections"],
        "8"
    );
    assert_eq!(objects["Service/main-console"]["spec"]["ports"][0]["port"], 5555);

    let read_only = made(json!({ "console": { "enabled": true, "readOnly": true } }));
    assert_eq!(env(container(&read_only, "Deployment/main-console"), "PULSE_READ_ONLY")["value"], "true");
}
