//! Keys in files are replaced while two API processes answer requests, as during a roll-out: none is refused.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use pulse_http::NewClaims;
use pulse_tests::{Client, Process, TestEnv, eventually};
use serde_json::json;

use crate::issuer::{AUDIENCE, ISSUER, Issuer, now};
use crate::load::Load;

const TIMEOUT: Duration = Duration::from_secs(20);
const EVENTS: &str = "/api/v1/events";

fn hs256(secret: &str) -> anyhow::Result<String> {
    let claims = NewClaims { sub: "ada", ..NewClaims::default() };
    Ok(pulse_http::issue(secret.as_bytes(), &claims, now(), now() + 3600)?)
}

/// Waits until every process answers a request with this token with this status.
async fn wait_for(processes: &[&Process], token: &str, status: u16) -> anyhow::Result<()> {
    for process in processes {
        let client = Client::new(&process.url, token);
        let known = async || Ok(client.get(EVENTS).await?.status == status);
        eventually("the keys are read again", TIMEOUT, known).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_of_shared_secrets_refuses_no_request() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let issuer = Issuer::new()?;
    let secrets = ["a", "b", "c"].map(|letter| letter.repeat(40));
    let (now_path, next_path) = (issuer.text_path("now"), issuer.text_path("next-secret"));
    issuer.write("now", &secrets[0])?;
    issuer.write("next-secret", &secrets[0])?;
    let files = ["--jwt-secret-file", &format!("{now_path},{next_path}")];
    let (one, two) = (Process::start(&env, "api", &files).await?, Process::start(&env, "api", &files).await?);
    let token = Arc::new(Mutex::new(hs256(&secrets[0])?));
    let load = Load::start(&[&one.url, &two.url], &token);
    for (old, new) in [(&secrets[0], &secrets[1]), (&secrets[1], &secrets[2])] {
        issuer.write("next-secret", format!("{new}\n"))?;
        wait_for(&[&one, &two], &hs256(new)?, 200).await?;
        *token.lock().expect("no panic") = hs256(new)?;
        issuer.write("now", new)?;
        wait_for(&[&one, &two], &hs256(old)?, 401).await?;
    }
    let (sent, failures) = load.stop().await;
    assert!(sent > 100 && failures.is_empty(), "{} of {sent}: {failures:?}", failures.len());
    println!("shared secrets, rotated twice: {sent} requests, none failed");

    issuer.write("now", "short")?;
    let refused = async || Ok(std::fs::read_to_string(&one.log)?.contains("the last ones stay in use"));
    eventually("the log says that the file cannot be used", TIMEOUT, refused).await?;
    assert_eq!(Client::new(&one.url, &hs256(&secrets[2])?).get(EVENTS).await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_of_public_keys_refuses_no_request() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let issuer = Issuer::new()?;
    issuer.write("keys", issuer.read("rsa.pub")?)?;
    let keys = issuer.text_path("keys");
    let args = ["--jwt-public-key-file", &keys, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE];
    let args = [&args[..], &["--auto-provision", "true"]].concat();
    let (one, two) = (Process::start(&env, "api", &args).await?, Process::start(&env, "api", &args).await?);
    let scope = json!({ "scope": "events:read" });
    let (rsa, ec) = (issuer.token(Algorithm::RS256, &scope)?, issuer.token(Algorithm::ES256, &scope)?);
    let token = Arc::new(Mutex::new(rsa.clone()));
    let load = Load::start(&[&one.url, &two.url], &token);
    issuer.write("keys", [issuer.read("rsa.pub")?, issuer.read("ec.pub")?].concat())?;
    wait_for(&[&one, &two], &ec, 200).await?;
    *token.lock().expect("no panic") = ec;
    issuer.write("keys", issuer.read("ec.pub")?)?;
    wait_for(&[&one, &two], &rsa, 401).await?;
    let (sent, failures) = load.stop().await;
    assert!(sent > 100 && failures.is_empty(), "{} of {sent}: {failures:?}", failures.len());
    println!("public keys, rotated: {sent} requests, none failed");

    let write = Client::new(&one.url, &issuer.token(Algorithm::ES256, &scope)?);
    let answer = write.post(EVENTS, &json!({ "event_name": "a", "event_type": "t" })).await?;
    assert_eq!(answer.json["code"], "insufficient_scope", "{}", answer.text);
    let none = Client::new(&one.url, &issuer.token(Algorithm::ES256, &json!({}))?).get(EVENTS).await?;
    assert_eq!(none.json["code"], "insufficient_scope", "a token without scopes has no rights: {}", none.text);
    Ok(())
}
