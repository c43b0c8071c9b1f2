//! Secrets as files and variables of pods.

use serde_json::{Value, json};

use super::tests::{check_variables, made};

fn with_jwks(auth: Value) -> Value {
    let mut spec = json!({ "auth": {
        "jwtSecretRef": null, "issuer": "https://id.example", "audience": "pulse",
        "jwks": { "url": "https://id.example/jwks.json", "caSecretRef": { "name": "id-ca" } },
    } });
    spec["auth"].as_object_mut().expect("an object").extend(auth.as_object().cloned().unwrap_or_default());
    spec
}

#[test]
fn certificate_of_the_api_is_mounted_there_alone_and_used_by_its_probes() {
    let tls = json!({ "secretRef": { "name": "api-tls" }, "clientCaSecretRef": { "name": "clients" } });
    let objects = made(json!({ "api": { "tls": tls }, "console": { "enabled": true } }));
    let api = &objects["Deployment/main-api"]["spec"]["template"]["spec"];
    let volume = |name: &str| api["volumes"].as_array()?.iter().find(|volume| volume["name"] == name).cloned();
    let items = json!([{ "key": "tls.crt", "path": "tls.crt" }, { "key": "tls.key", "path": "tls.key" }]);
    let secret = json!({ "secretName": "api-tls", "items": items });
    assert_eq!(volume("pulse-tls"), Some(json!({ "name": "pulse-tls", "secret": secret })));
    assert_eq!(volume("pulse-client-ca").expect("the CA")["secret"]["secretName"], "clients");
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(api["containers"][0][probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
    }
    assert_eq!(objects["Service/main-api"]["spec"]["ports"][0]["appProtocol"], "https");
    for role in ["worker", "scheduler", "console"] {
        let pod = objects[&format!("Deployment/main-{role}")].to_string();
        assert!(!pod.contains("api-tls") && !pod.contains("HTTPS"), "{role}");
    }
}

#[test]
fn tokens_become_variables_of_the_api() {
    let settings = [
        (json!({"auth": {"issuer": "me"}}), "api", "PULSE_JWT_ISSUER", "me"),
        (json!({"auth": {"audience": "you"}}), "api", "PULSE_JWT_AUDIENCE", "you"),
        (json!({"auth": {"autoProvision": false}}), "api", "PULSE_AUTO_PROVISION", "false"),
        (with_jwks(json!({})), "api", "PULSE_AUTO_PROVISION", "false"),
        (with_jwks(json!({})), "api", "PULSE_JWKS_URL", "https://id.example/jwks.json"),
        (with_jwks(json!({})), "api", "PULSE_JWKS_CA_FILE", "/etc/pulse/jwks-ca/ca.crt"),
        (
            json!({"auth": {"nextJwtSecretRef": {"name": "next", "key": "secret"}}}),
            "api",
            "PULSE_JWT_SECRET_FILE",
            "/etc/pulse/jwt-secret/secret,/etc/pulse/next-jwt-secret/secret",
        ),
        (
            json!({"auth": {"defaultScopes": ["events:write", "admin"]}}),
            "api",
            "PULSE_DEFAULT_SCOPES",
            "events:write,admin",
        ),
        (json!({"auth": {"defaultScopes": []}}), "api", "PULSE_DEFAULT_SCOPES", ""),
        (json!({"auth": {"maxTokenAgeSeconds": 3600}}), "api", "PULSE_MAX_TOKEN_AGE", "3600s"),
    ];
    check_variables(&settings);
}

#[test]
fn certificates_become_files_of_the_pods_that_connect() {
    let settings = [
        (
            json!({"database": {"caSecretRef": {"name": "a"}}}),
            "worker",
            "PULSE_DATABASE_CA_FILE",
            "/etc/pulse/database-ca/ca.crt",
        ),
        (
            json!({"redis": {"caSecretRef": {"name": "a"}}}),
            "scheduler",
            "PULSE_REDIS_CA_FILE",
            "/etc/pulse/redis-ca/ca.crt",
        ),
        (json!({"requireTls": true}), "scheduler", "PULSE_REQUIRE_TLS", "true"),
        (
            json!({"database": {"clientCertificateSecretRef": {"name": "a"}}}),
            "worker",
            "PULSE_DATABASE_KEY_FILE",
            "/etc/pulse/database-client/tls.key",
        ),
        (
            json!({"redis": {"clientCertificateSecretRef": {"name": "a"}}}),
            "scheduler",
            "PULSE_REDIS_CERT_FILE",
            "/etc/pulse/redis-client/tls.crt",
        ),
        (json!({"api": {"tls": {"secretRef": {"name": "a"}}}}), "api", "PULSE_TLS_CERT", "/etc/pulse/tls/tls.crt"),
    ];
    check_variables(&settings);
}
