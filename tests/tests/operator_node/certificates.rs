//! TLS of the API, and two shared secrets of tokens.

use anyhow::Context;
use pulse_tests::{Authority, SECRET, run};
use serde_json::json;
use tokio::process::Command;

use crate::node_env::NodeEnv;

const NEXT_SECRET: &str = "the next secret of tokens, 32 bytes or more";

#[tokio::test(flavor = "multi_thread")]
async fn api_serves_tls_to_clients_and_probes_and_accepts_the_next_secret() -> anyhow::Result<()> {
    let env = NodeEnv::start("certificates").await?;
    let _operator = env.start_operator()?;
    let authority = Authority::new()?;
    let (ca, pair) = (env.servers.file("ca.crt"), authority.server(&["main-api"])?);
    std::fs::write(&ca, authority.pem())?;
    let files = [("cert", "tls.crt", pair.certificate), ("key", "tls.key", pair.key)];
    let files = files.map(|(flag, name, text)| {
        let path = env.servers.file(name);
        std::fs::write(&path, text).map(|()| format!("--{flag}={}", path.display()))
    });
    let [certificate, key] = files;
    env.apply(json!({
        "api": { "tls": { "secretRef": { "name": "api-tls" } } },
        "auth": { "nextJwtSecretRef": { "name": "next-auth", "key": "secret" } },
    }))
    .await?;
    env.eventually("missing Secrets are named", async || {
        let text = env.kubectl(&["get", "pi/main", "-o", "jsonpath={.status.conditions}"]).await?;
        Ok(text.contains("Secret api-tls does not exist") && text.contains("Secret next-auth does not exist"))
    })
    .await?;
    env.kubectl(&["create", "secret", "tls", "api-tls", &certificate?, &key?]).await?;
    env.apply_secret("next-auth", "secret", NEXT_SECRET).await?;
    env.wait_for_condition("Ready").await?;

    let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 600;
    for secret in [SECRET, NEXT_SECRET] {
        let claims = json!({ "sub": "tester", "exp": expires });
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key)?;
        assert_eq!(post(&env, &ca.display().to_string(), &token).await?, "202 2", "over HTTP/2");
    }
    // The pod signs with the first secret.
    let api = env.pods("api").await?.pop().and_then(|pod| pod.metadata.name).context("an API pod")?;
    let issued = env.kubectl(&["exec", &api, "--", "/pulse", "token", "issue", "--user", "ada"]).await?;
    assert_eq!(post(&env, &ca.display().to_string(), issued.trim()).await?, "202 2");

    env.patch_spec(json!({ "requireTls": true })).await?;
    env.eventually("the condition names the connection that is not encrypted", async || {
        let text = env.kubectl(&["get", "pi/main", "-o", "jsonpath={.status.conditions}"]).await?;
        Ok(text.contains("--require-tls refuses the connection to"))
    })
    .await
}

/// Posts an event to the Service with curl; returns the status and the version of HTTP.
async fn post(env: &NodeEnv, ca: &str, token: &str) -> anyhow::Result<String> {
    let url = env.api_url().await?;
    let address = url.trim_start_matches("http://").trim_end_matches(":8000");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", "--output", "/dev/null"]);
    curl.args(["--write-out", "%{http_code} %{http_version}", "--cacert", ca]);
    curl.args(["--resolve", &format!("main-api:8000:{address}"), "https://main-api:8000/api/v1/events"]);
    curl.args(["--header", &format!("Authorization: Bearer {token}"), "--header", "Content-Type: application/json"]);
    curl.args(["--data", r#"{"event_name": "page_view", "event_type": "test"}"#]);
    run(&mut curl).await
}
