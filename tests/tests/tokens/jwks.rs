//! Keys of an identity provider whose server misbehaves, is away, and rotates: the answers are the documented ones.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pulse_tests::{Client, Process, Response, TestEnv, eventually};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::issuer::{AUDIENCE, ISSUER, claims};
use crate::jwks_server::{Answer, JwksServer, key_set};
use crate::load::Load;

const EVENTS: &str = "/api/v1/events";
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for which the provider is away.
const AWAY: Duration = Duration::from_secs(if cfg!(feature = "long") { 300 } else { 3 });
/// A request waits for 3 s for unknown keys; the rest is for a busy machine.
const ANSWERED: Duration = Duration::from_secs(8);

fn token(kid: &str, key: &KeyPair) -> anyhow::Result<String> {
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
    let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes())?;
    Ok(encode(&header, &claims(&json!({ "scope": "events:read" })), &key)?)
}

async fn get(api: &Process, token: &str) -> anyhow::Result<Response> {
    let started = Instant::now();
    let answer = Client::new(&api.url, token).get(EVENTS).await?;
    assert!(started.elapsed() < ANSWERED, "answered after {:?}", started.elapsed());
    Ok(answer)
}

/// The arguments of a role that reads keys from this URL.
fn args(url: &str) -> Vec<&str> {
    vec!["--jwks-url", url, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE]
}

fn with_users(url: &str) -> Vec<&str> {
    [&args(url)[..], &["--auto-provision", "true"]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn role_without_keys_is_not_ready_until_the_provider_answers() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let server = JwksServer::start(Answer::Silence).await?;
    let url = server.url();
    let api = Process::start_unready(&env, "api", &with_users(&url)).await?;
    let console = Process::start_unready(&env, "console", &args(&url)).await?;
    let key = KeyPair::generate()?;
    let why = async || {
        let ready = api.admin().get("/readyz").await?;
        Ok(ready.status == 503
            && ready.text.contains("waiting for the keys of --jwks-url: it did not answer within 5 s"))
    };
    eventually("the probe says why", TIMEOUT, why).await?;
    let answer = get(&api, &token("a", &key)?).await?;
    assert_eq!((answer.status, answer.json["code"].as_str()), (503, Some("unavailable")), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"));
    server.set(Answer::Document(key_set(&[("a", &key)])));
    api.wait_until_ready().await?;
    console.wait_until_ready().await?;
    assert_eq!(get(&api, &token("a", &key)?).await?.status, 200);

    // The console verifies in the same way.
    let list = Client::new(&console.url, &token("a", &key)?).get("/api/v1/admin/tasks").await?;
    assert_eq!(list.status, 200, "{}", list.text);
    let list = Client::new(&console.url, &token("a", &KeyPair::generate()?)?).get("/api/v1/admin/tasks").await?;
    assert_eq!(list.json["code"], "invalid_token", "{}", list.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn misbehaving_provider_causes_neither_server_errors_nor_long_waits() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let (known, unknown, other) = (KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?);
    let set = key_set(&[("known", &known)]);
    let mut private = set.clone();
    private["keys"][0]["d"] = json!("AAAA");
    for (name, answer) in [
        ("silence", Answer::Silence),
        ("a byte at a time", Answer::Drip),
        ("500", Answer::Status(500)),
        ("404", Answer::Status(404)),
        ("no end", Answer::Endless),
        ("a redirect", Answer::Redirect("http://127.0.0.1:1/".into())),
        ("no JSON Web Key Set", Answer::Document(json!({ "keys": 1 }))),
        ("no keys", Answer::Document(json!({ "keys": [] }))),
        ("a private key", Answer::Document(private)),
        ("a thousand keys", Answer::Document(json!({ "keys": vec![&set["keys"][0]; 1000] }))),
    ] {
        let server = JwksServer::start(Answer::Document(set.clone())).await?;
        let url = server.url();
        let api = Process::start(&env, "api", &with_users(&url)).await?;
        assert_eq!(get(&api, &token("known", &known)?).await?.status, 200);
        server.set(answer);
        let before = server.requests();
        let refused = get(&api, &token("unknown", &unknown)?).await?;
        assert_eq!((refused.status, refused.json["code"].as_str()), (401, Some("invalid_token")), "{name}");
        assert!(server.requests() > before, "{name}: an unknown key was not looked up");
        assert_eq!(get(&api, &token("known", &known)?).await?.status, 200, "{name}: the last keys stay in use");
        assert_eq!(api.metric("status=\"5").await?, 0.0, "{name}");
        assert_eq!(api.admin().get("/readyz").await?.status, 200, "{name}");
    }

    // Keys that are valid, but not those that the tokens are signed with, replace the others.
    let server = JwksServer::start(Answer::Document(set.clone())).await?;
    let url = server.url();
    let api = Process::start(&env, "api", &with_users(&url)).await?;
    server.set(Answer::Document(key_set(&[("other", &other)])));
    assert_eq!(get(&api, &token("other", &other)?).await?.status, 200);
    assert_eq!(get(&api, &token("known", &known)?).await?.status, 401);
    assert_eq!(get(&api, &token("other", &known)?).await?.status, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_that_rotates_and_goes_away_refuses_no_valid_token() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let keys = [KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?, KeyPair::generate()?];
    let set = |kids: &[usize]| -> Value {
        let named: Vec<(String, &KeyPair)> = kids.iter().map(|&at| (at.to_string(), &keys[at])).collect();
        key_set(&named.iter().map(|(kid, key)| (kid.as_str(), *key)).collect::<Vec<_>>())
    };
    let tokens = (0..4).map(|at| token(&at.to_string(), &keys[at])).collect::<anyhow::Result<Vec<_>>>()?;
    let mut server = JwksServer::start(Answer::Document(set(&[0]))).await?;
    let url = server.url();
    let api = Process::start(&env, "api", &with_users(&url)).await?;
    let token = Arc::new(Mutex::new(tokens[0].clone()));
    let load = Load::start(&[&api.url, &api.url], &token);
    // Twice within seconds, and the issuer signs with the new key at once.
    for next in [1, 2] {
        server.set(Answer::Document(set(&[next - 1, next])));
        *token.lock().expect("no panic") = tokens[next].clone();
        assert_eq!(get(&api, &tokens[next]).await?.status, 200, "key {next} is read when a token names it");
    }
    assert_eq!(get(&api, &tokens[0]).await?.status, 401, "a key that is gone verifies nothing");

    server.go_away().await;
    let refused = get(&api, &tokens[3]).await?;
    assert_eq!(refused.status, 401, "{}", refused.text);
    let logged = async || Ok(std::fs::read_to_string(&api.log)?.contains("cannot be reached"));
    eventually("the log says that the provider is away", TIMEOUT, logged).await?;
    let away = Instant::now();
    while away.elapsed() < AWAY {
        assert_eq!(get(&api, &tokens[2]).await?.status, 200, "the last keys stay in use");
        assert_eq!(api.admin().get("/readyz").await?.status, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.set(Answer::Document(set(&[2, 3])));
    server.come_back().await?;
    let known = async || Ok(get(&api, &tokens[3]).await?.status == 200);
    eventually("the next key is read after the provider is back", Duration::from_secs(90), known).await?;
    let (sent, failures) = load.stop().await;
    assert!(sent > 100 && failures.is_empty(), "{} of {sent}: {failures:?}", failures.len());
    println!("provider rotated twice and was away for {AWAY:?}: {sent} requests, none failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_with_made_up_keys_cause_few_reads() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let key = KeyPair::generate()?;
    let server = JwksServer::start(Answer::Document(key_set(&[("a", &key)]))).await?;
    let url = server.url();
    let api = Process::start(&env, "api", &with_users(&url)).await?;
    let before = server.requests();
    for number in 0..50 {
        assert_eq!(get(&api, &token(&format!("made up {number}"), &key)?).await?.status, 401);
    }
    let reads = server.requests() - before;
    assert!((1..=8).contains(&reads), "{reads} reads for 50 tokens");
    Ok(())
}
