//! Hostile input against real API processes: each request is refused with the documented status, none gets a 500, and
//! the memory of the process stays bounded.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pulse_core::TEXT_FIELDS;
use pulse_tests::{Client, Process, Response, SECRET, TestEnv, eventually, pulse_output, token};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";
const MAX_RSS_KIB: u64 = 200 * 1024;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "pulse";

/// Number of checked cases, and descriptions of the failed ones.
#[derive(Default)]
struct Cases {
    count: usize,
    failed: Vec<String>,
}

impl Cases {
    /// Checks status and problem code of a response and returns its body; `code` is empty if the body is not a problem.
    fn check(&mut self, name: &str, answer: anyhow::Result<Response>, status: u16, code: &str) -> Value {
        let Ok(answer) = answer.inspect_err(|error| self.record(name, false, &format!("{error:#}"))) else {
            return Value::Null;
        };
        let passed = answer.status == status && answer.json["code"].as_str().unwrap_or_default() == code;
        let text: String = answer.text.chars().take(300).collect();
        self.record(name, passed, &format!("expected {status} {code}, got {} {text}", answer.status));
        answer.json
    }

    fn record(&mut self, name: &str, passed: bool, got: &str) {
        self.count += 1;
        if !passed {
            self.failed.push(format!("{name}: {got}"));
        }
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed()
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> anyhow::Result<String> {
    Ok(encode(&Header::new(algorithm), claims, key)?)
}

fn hs256(claims: &Value) -> anyhow::Result<String> {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

/// A token whose header says that these extensions have to be understood (RFC 7515, section 4.1.11).
fn critical(extensions: &[&str], claims: &Value) -> anyhow::Result<String> {
    let crit = Some(extensions.iter().map(|&name| name.to_owned()).collect());
    let header = Header { crit, ..Header::new(Algorithm::HS256) };
    Ok(encode(&header, claims, &EncodingKey::from_secret(SECRET.as_bytes()))?)
}

/// An event with these fields on top, as text.
fn event(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"event_name":"seen","event_type":"hostile"{comma}{more}}}"#)
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_input_is_refused_without_server_errors() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let strict = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--header-timeout", "1s", "--body-timeout", "1s"];
    let strict = Process::start(&env, "api", &[&strict[..], &["--request-timeout", "4s"]].concat()).await?;
    let (private, public) = generate_rsa_key(&env).await?;
    let public_key = ["--jwt-public-key-file", &public, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE];
    let lenient = ["--default-scopes", "events:read,events:write", "--auto-provision", "true"];
    let rsa = Process::start(&env, "api", &[&public_key[..], &lenient].concat()).await?;

    let mut cases = Cases::default();
    bodies(&mut cases, &api).await;
    headers(&mut cases, &api).await;
    tokens(&mut cases, &api, &strict).await?;
    algorithm_confusion(&mut cases, &rsa, &private, &public).await?;
    scopes_and_users(&mut cases, &env, &api).await?;
    ids(&mut cases, &api).await?;
    filters(&mut cases, &api).await;
    cursors(&mut cases, &api).await?;
    slow_clients(&mut cases, &strict).await?;

    assert!(cases.failed.is_empty(), "{} of {} cases:\n{}", cases.failed.len(), cases.count, cases.failed.join("\n"));
    for process in [&api, &strict, &rsa] {
        assert_eq!(process.metric("status=\"500\"").await?, 0.0, "a response is a 500");
        let peak = peak_rss_kib(process)?;
        assert!(peak < MAX_RSS_KIB, "the API grew to {peak} KiB");
    }
    let still = api.client("ada").post(EVENTS, &json!({"event_name": "a", "event_type": "t"})).await?;
    assert_eq!(still.status, 202, "the API still serves: {}", still.text);
    Ok(())
}

/// Peak of the resident set size, in KiB.
fn peak_rss_kib(process: &Process) -> anyhow::Result<u64> {
    let pid = process.pid().context("the API runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the kernel reports VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Name, path, body, expected status and expected code; the code of an accepted body is empty.
type BodyCase = (&'static str, &'static str, Vec<u8>, u16, &'static str);

const INVALID: &str = "validation_error";

fn batch(count: usize, item: &str) -> String {
    format!(r#"{{"events":[{}]}}"#, vec![item; count].join(","))
}

/// Bodies that are wrong in their encoding, syntax, depth or size.
fn malformed_bodies() -> Vec<BodyCase> {
    let deep = |open: &str, close: &str| {
        event(&format!(r#""payload":{{"x":{}1{}}}"#, open.repeat(10_000), close.repeat(10_000)))
    };
    let text = |length: usize| format!(r#""payload":{{"x":"{}"}}"#, "x".repeat(length));
    let utf16 = |bom: bool| {
        let units = bom.then_some(0xfeff).into_iter().chain(event("").encode_utf16().collect::<Vec<u16>>());
        units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
    };
    let with = |bytes: &[u8]| [br#"{"event_name":"a"#, bytes, br#"","event_type":"b"}"#].concat();
    vec![
        ("NUL as a byte", EVENTS, with(b"\0"), 400, "malformed_json"),
        ("surrogate in UTF-8", EVENTS, with(b"\xed\xa0\x80"), 400, "malformed_json"),
        ("NaN", EVENTS, event(r#""payload":{"n":NaN}"#).into(), 400, "malformed_json"),
        ("arrays 10 000 deep", EVENTS, deep("[", "]").into(), 422, INVALID),
        ("objects 10 000 deep", EVENTS, deep(r#"{"":"#, "}").into(), 413, "event_too_large"),
        ("arrays 10 000 deep in a batch", BATCH, batch(1, &deep("[", "]")).into(), 422, INVALID),
        ("10 000 open brackets", EVENTS, "[".repeat(10_000).into(), 400, "malformed_json"),
        ("1 000 000 open brackets", BATCH, "[".repeat(1_000_000).into(), 400, "malformed_json"),
        ("BOM", EVENTS, format!("\u{feff}{}", event("")).into(), 202, ""),
        ("two BOMs", EVENTS, format!("\u{feff}\u{feff}{}", event("")).into(), 400, "malformed_json"),
        ("truncated", EVENTS, event("")[..30].into(), 400, "malformed_json"),
        ("trailing text", EVENTS, format!("{} x", event("")).into(), 400, "malformed_json"),
        ("empty", EVENTS, vec![], 400, "malformed_json"),
        ("empty batch body", BATCH, vec![], 400, "malformed_json"),
        ("white space", EVENTS, b" \r\n\t".to_vec(), 400, "malformed_json"),
        ("101 events", BATCH, batch(101, &event("")).into(), 422, "batch_too_large"),
        ("300 000 items", BATCH, batch(300_000, "1").into(), 422, "batch_too_large"),
        ("event over 32 KiB", EVENTS, event(&text(32 * 1024)).into(), 413, "event_too_large"),
        ("event over 32 KiB in a batch", BATCH, batch(1, &event(&text(32 * 1024))).into(), 422, INVALID),
        ("100 × 32 KiB", BATCH, batch(100, &event(&text(32 * 1024 - 100))).into(), 413, "body_too_large"),
        ("10 MiB", EVENTS, vec![b' '; 10 << 20], 413, "body_too_large"),
        ("UTF-16 with BOM", EVENTS, utf16(true), 400, "malformed_json"),
        ("UTF-16 without BOM", EVENTS, utf16(false), 400, "malformed_json"),
        ("not UTF-8", EVENTS, with(b"\xff\xfe"), 400, "malformed_json"),
        ("overlong UTF-8", EVENTS, with(b"\xc0\x80"), 400, "malformed_json"),
    ]
}

/// JSON bodies with values that are wrong or rare.
fn unusual_bodies() -> Vec<BodyCase> {
    vec![
        ("NUL as an escape", EVENTS, event(r#""payload":{"a\u0000":"\u0000"}"#).into(), 202, ""),
        ("lone high surrogate", EVENTS, event(r#""source":"\ud800""#).into(), 202, ""),
        ("lone low surrogate", EVENTS, event(r#""payload":{"\udfff":"\uDC00\uD800"}"#).into(), 202, ""),
        ("1e400", EVENTS, event(r#""payload":{"n":1e400}"#).into(), 422, INVALID),
        ("-1e400", EVENTS, event(r#""payload":{"n":[-1e400]}"#).into(), 422, INVALID),
        ("1e-99999", EVENTS, event(r#""payload":{"n":1e-99999}"#).into(), 422, INVALID),
        ("10 000 digits", EVENTS, event(&format!(r#""payload":{{"n":{}}}"#, "9".repeat(10_000))).into(), 422, INVALID),
        ("duplicate keys", EVENTS, event(r#""event_name":"last","payload":{"a":1,"a":2}"#).into(), 202, ""),
        ("duplicate keys, bad one last", EVENTS, event(r#""event_name":7"#).into(), 422, INVALID),
        ("an array", EVENTS, b"[]".to_vec(), 422, INVALID),
        ("null", EVENTS, b"null".to_vec(), 422, INVALID),
        ("a number", BATCH, b"7".to_vec(), 422, INVALID),
        ("name is a number", EVENTS, event(r#""event_name":7"#).into(), 422, INVALID),
        ("name is an object", EVENTS, event(r#""event_name":{}"#).into(), 422, INVALID),
        ("name is null", EVENTS, event(r#""event_name":null"#).into(), 422, INVALID),
        ("name is empty", EVENTS, event(r#""event_name":"""#).into(), 422, INVALID),
        (
            "name of 256 characters",
            EVENTS,
            event(&format!(r#""event_name":"{}""#, "é".repeat(256))).into(),
            422,
            INVALID,
        ),
        ("payload is an array", EVENTS, event(r#""payload":[]"#).into(), 422, INVALID),
        ("payload is a text", EVENTS, event(r#""payload":"{}""#).into(), 422, INVALID),
        ("invalid address", EVENTS, event(r#""ip_address":"' OR 1=1 --""#).into(), 202, ""),
        ("first year", EVENTS, event(r#""event_timestamp":"0001-01-01""#).into(), 202, ""),
        ("last microsecond", EVENTS, event(r#""event_timestamp":"9999-12-31 23:59:59.999999""#).into(), 202, ""),
        ("time out of range", EVENTS, event(r#""event_timestamp":1e300"#).into(), 422, INVALID),
        ("year 99999", EVENTS, event(r#""event_timestamp":"+99999-01-01T00:00:00Z""#).into(), 422, INVALID),
        ("leap second", EVENTS, event(r#""event_timestamp":"2016-12-31T23:59:60Z""#).into(), 202, ""),
        ("events is an object", BATCH, br#"{"events":{}}"#.to_vec(), 422, INVALID),
        ("events is empty", BATCH, br#"{"events":[]}"#.to_vec(), 422, INVALID),
        ("an event is null", BATCH, br#"{"events":[null]}"#.to_vec(), 422, INVALID),
    ]
}

async fn bodies(cases: &mut Cases, api: &Process) {
    let client = api.client("ada");
    for (name, path, body, status, code) in [malformed_bodies(), unusual_bodies()].concat() {
        let answer = client.send(Method::POST, path, &[], body.into()).await;
        cases.check(&format!("body: {name}"), answer, status, code);
    }

    // Accepted numbers can be read back exactly.
    let client = api.client("max");
    for number in ["1.7976931348623157e308", "-1.7976931348623157E+308", "5e-324", "1e-400"] {
        let body = event(&format!(r#""payload":{{"n":{number}}}"#));
        let answer = client.send(Method::POST, EVENTS, &[], body.into()).await;
        cases.check(&format!("body: {number}"), answer, 202, "");
        let page = cases.check(&format!("body: {number}, read"), client.get(EVENTS).await, 200, "");
        let read = &page["events"][0]["payload"]["n"];
        cases.record(&format!("body: {number}, exact"), read.as_f64() == number.parse().ok(), &read.to_string());
    }
}

async fn headers(cases: &mut Cases, api: &Process) {
    let client = api.client("ada");
    let long = "k".repeat(256);
    let table: [(&str, (&str, &str), u16, &str); 9] = [
        ("text/plain", ("content-type", "text/plain"), 415, "unsupported_media_type"),
        ("form", ("content-type", "application/x-www-form-urlencoded"), 415, "unsupported_media_type"),
        ("empty type", ("content-type", ""), 415, "unsupported_media_type"),
        ("gzip", ("content-encoding", "gzip"), 400, "malformed_encoding"),
        ("long key", ("idempotency-key", &long), 400, "invalid_idempotency_key"),
        ("empty key", ("idempotency-key", ""), 400, "invalid_idempotency_key"),
        ("strange request id", ("x-request-id", "' OR 1=1 --"), 202, ""),
        ("strange preference", ("prefer", "handling=;;\"\\,handling"), 202, ""),
        ("strange trace", ("traceparent", "00-zz-zz-zz"), 202, ""),
    ];
    for (name, header, status, code) in table {
        let answer = client.send(Method::POST, EVENTS, &[header], event("").into()).await;
        cases.check(&format!("header: {name}"), answer, status, code);
    }
    let deleted = client.send(Method::DELETE, EVENTS, &[], Vec::new().into()).await;
    cases.check("header: DELETE", deleted, 405, "method_not_allowed");
    cases.check("header: no route", client.get("/api/v1/../../etc/passwd").await, 404, "not_found");
}

/// Name, token, expected status and expected code.
type TokenCase = (&'static str, String, u16, &'static str);

fn token_cases() -> anyhow::Result<Vec<TokenCase>> {
    let good = json!({"sub": "ada", "exp": now() + 3600});
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        hs256(&claims)
    };
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let valid = hs256(&good)?;
    let (head, signature) = valid.rsplit_once('.').context("a token has three parts")?;
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let admin = part(&json!({"sub": "ada", "exp": now() + 3600, "scope": "admin"}));
    let unsigned = part(&json!({"alg": "none", "typ": "JWT"}));
    let cases = vec![
        ("valid", valid.clone(), 200, ""),
        ("none", String::new(), 401, "missing_token"),
        ("alg none", format!("{unsigned}.{}.", part(&good)), 401, "invalid_token"),
        ("alg none with a signature", format!("{unsigned}.{}.{signature}", part(&good)), 401, "invalid_token"),
        ("alg of another hash", signed(Algorithm::HS512, &key, &good)?, 401, "invalid_token"),
        (
            "another secret",
            signed(Algorithm::HS256, &EncodingKey::from_secret(&[b'x'; 40]), &good)?,
            401,
            "invalid_token",
        ),
        ("empty secret", signed(Algorithm::HS256, &EncodingKey::from_secret(b""), &good)?, 401, "invalid_token"),
        ("expired", but("exp", json!(now() - 3600))?, 401, "invalid_token"),
        ("exp is a string", but("exp", json!((now() + 3600).to_string()))?, 401, "invalid_token"),
        ("exp is negative", but("exp", json!(-1))?, 401, "invalid_token"),
        ("exp is null", but("exp", Value::Null)?, 401, "invalid_token"),
        ("no exp", hs256(&json!({"sub": "ada"}))?, 401, "invalid_token"),
        ("no sub", hs256(&json!({"exp": now() + 3600}))?, 401, "invalid_token"),
        ("sub is a number", but("sub", json!(1))?, 401, "invalid_token"),
        ("sub is empty", but("sub", json!(""))?, 401, "invalid_token"),
        ("sub has a NUL", but("sub", json!("ada\0"))?, 401, "invalid_token"),
        ("sub is long", but("sub", json!("a".repeat(256)))?, 401, "invalid_token"),
        ("scope is a list", but("scope", json!(["events:read"]))?, 401, "invalid_token"),
        ("nbf ahead", but("nbf", json!(now() + 3600))?, 401, "invalid_token"),
        ("tampered signature", format!("{head}.{flipped}{}", &signature[1..]), 401, "invalid_token"),
        ("cut signature", format!("{head}.{}", &signature[..20]), 401, "invalid_token"),
        (
            "tampered claims",
            format!("{}.{admin}.{signature}", head.split('.').next().unwrap_or_default()),
            401,
            "invalid_token",
        ),
        ("extension that is not known", critical(&["exp2"], &good)?, 401, "invalid_token"),
        ("empty list of extensions", critical(&[], &good)?, 401, "invalid_token"),
        ("not a token", "...".into(), 401, "invalid_token"),
        ("9 KiB", "a".repeat(9 << 10), 401, "invalid_token"),
        ("SQL as sub", but("sub", json!("'; DROP TABLE users; --"))?, 200, ""),
    ];
    Ok(cases)
}

async fn tokens(cases: &mut Cases, api: &Process, strict: &Process) -> anyhow::Result<()> {
    for (name, token, status, code) in token_cases()? {
        cases.check(&format!("token: {name}"), Client::new(&api.url, &token).get(EVENTS).await, status, code);
    }
    let basic =
        Client::new(&api.url, "").send(Method::GET, EVENTS, &[("authorization", "Basic YTpi")], "".into()).await;
    cases.check("token: basic", basic, 401, "missing_token");

    let request = format!("GET {EVENTS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", "a".repeat(1 << 20));
    let (text, _) = exchange(api, request.as_bytes(), None).await?;
    let refused = text.starts_with("HTTP/1.1 431") || text.starts_with("HTTP/1.1 401");
    cases.record("token: 1 MB", refused, &format!("expected 431 or 401, got {text:?}"));

    let (mut named, exp) = (Vec::new(), now() + 3600);
    for (name, claims, status, code) in [
        ("right", json!({"sub": "ada", "exp": exp, "iss": ISSUER, "aud": AUDIENCE}), 200, ""),
        ("wrong aud", json!({"sub": "ada", "exp": exp, "iss": ISSUER, "aud": "x"}), 401, "invalid_token"),
        ("wrong iss", json!({"sub": "ada", "exp": exp, "iss": "x", "aud": AUDIENCE}), 401, "invalid_token"),
        ("no aud", json!({"sub": "ada", "exp": exp, "iss": ISSUER}), 401, "invalid_token"),
        ("no iss", json!({"sub": "ada", "exp": exp, "aud": AUDIENCE}), 401, "invalid_token"),
    ] {
        named.push((name, hs256(&claims)?, status, code));
    }
    for (name, token, status, code) in named {
        cases.check(&format!("issuer: {name}"), Client::new(&strict.url, &token).get(EVENTS).await, status, code);
    }
    Ok(())
}

/// Generates an RSA key pair and returns the paths of the private and the public key.
async fn generate_rsa_key(env: &TestEnv) -> anyhow::Result<(String, String)> {
    let path = |name| env.file(name).to_string_lossy().into_owned();
    let (private, public) = (path("rsa.pem"), path("rsa.pub.pem"));
    for args in [
        vec!["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &private],
        vec!["pkey", "-in", &private, "-pubout", "-out", &public],
    ] {
        let output = tokio::process::Command::new("openssl").args(args).output().await.context("openssl runs")?;
        anyhow::ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((private, public))
}

/// Algorithm confusion: tokens that are signed with the public key as an HMAC secret are refused.
async fn algorithm_confusion(cases: &mut Cases, rsa: &Process, private: &str, public: &str) -> anyhow::Result<()> {
    let claims = json!({"sub": "ada", "exp": now() + 3600, "iss": ISSUER, "aud": AUDIENCE});
    let (private, public) = (std::fs::read(private)?, std::fs::read(public)?);
    let trimmed = public.trim_ascii_end();
    let key = EncodingKey::from_rsa_pem(&private)?;
    let table = [
        ("RS256 with the private key", signed(Algorithm::RS256, &key, &claims)?, 200, ""),
        ("RS512 with the private key", signed(Algorithm::RS512, &key, &claims)?, 401, "invalid_token"),
        (
            "HS256 with the PEM",
            signed(Algorithm::HS256, &EncodingKey::from_secret(&public), &claims)?,
            401,
            "invalid_token",
        ),
        (
            "HS256 with the PEM, trimmed",
            signed(Algorithm::HS256, &EncodingKey::from_secret(trimmed), &claims)?,
            401,
            "invalid_token",
        ),
        ("HS256 with the tests' secret", hs256(&claims)?, 401, "invalid_token"),
    ];
    for (name, token, status, code) in table {
        cases.check(&format!("confusion: {name}"), Client::new(&rsa.url, &token).get(EVENTS).await, status, code);
    }
    Ok(())
}

async fn scopes_and_users(cases: &mut Cases, env: &TestEnv, api: &Process) -> anyhow::Result<()> {
    let body = json!({"event_name": "a", "event_type": "t"});
    for (scope, read, write) in [
        ("events:write", 403, 202),
        ("events:read", 200, 403),
        ("admin", 403, 403),
        ("", 403, 403),
        ("events:*", 403, 403),
        ("events:readx EVENTS:READ", 403, 403),
    ] {
        let client = Client::new(&api.url, &token("ada", Some(scope)));
        let code = |status| if status == 403 { "insufficient_scope" } else { "" };
        cases.check(&format!("scope {scope:?}: read"), client.get(EVENTS).await, read, code(read));
        cases.check(&format!("scope {scope:?}: write"), client.post(EVENTS, &body).await, write, code(write));
    }

    let mallory = api.client("mallory");
    cases.check("user: not yet disabled", mallory.post(EVENTS, &body).await, 202, "");
    let (exit, output) = pulse_output(env, &["user", "disable", "mallory"]).await?;
    anyhow::ensure!(exit == 0, "pulse user disable: {output}");
    let refused = eventually("the user is refused", Duration::from_secs(15), async || {
        Ok(mallory.get(EVENTS).await?.status == 403)
    });
    refused.await?;
    cases.check("user: disabled, writes", mallory.post(EVENTS, &body).await, 403, "user_disabled");
    cases.check("user: disabled, reads", mallory.get(EVENTS).await, 403, "user_disabled");
    cases.check("user: another one", api.client("ada").get(EVENTS).await, 200, "");
    Ok(())
}

async fn ids(cases: &mut Cases, api: &Process) -> anyhow::Result<()> {
    let foreign = api.client("bob").post(EVENTS, &json!({"event_name": "a", "event_type": "t"})).await?.json;
    let task = foreign["task_id"].as_str().context("a task")?;
    let client = api.client("ada");
    let invalid = "validation_error";
    for (path, status, code) in [
        ("events/-1".to_owned(), 422, invalid),
        ("events/0".to_owned(), 422, invalid),
        ("events/9223372036854775808".to_owned(), 422, invalid),
        (format!("events/{}", "9".repeat(5_000)), 422, invalid),
        ("events/9223372036854775807".to_owned(), 404, "event_not_found"),
        ("events/abc".to_owned(), 422, invalid),
        ("events/1%20OR%201=1".to_owned(), 422, invalid),
        ("events/%00".to_owned(), 422, invalid),
        ("events/%ff".to_owned(), 422, invalid),
        ("events/1e3".to_owned(), 422, invalid),
        (format!("events/{}", foreign["event_id"]), 404, "event_not_found"),
        ("tasks/1".to_owned(), 422, invalid),
        ("tasks/-1".to_owned(), 422, invalid),
        (format!("tasks/{task}%00"), 422, invalid),
        ("tasks/00000000-0000-0000-0000-000000000000".to_owned(), 404, "task_not_found"),
        (format!("tasks/{task}"), 404, "task_not_found"),
    ] {
        let name = path.chars().take(60).collect::<String>();
        cases.check(&format!("id: {name}"), client.get(&format!("/api/v1/{path}")).await, status, code);
    }
    Ok(())
}

async fn filters(cases: &mut Cases, api: &Process) {
    let client = api.client("ada");
    let attacks =
        ["' OR '1'='1", "'; DROP TABLE events; --", "x' UNION SELECT null--", "%", "_", "\\", "$1", "\u{2019}", "{}"];
    for attack in attacks {
        for filter in TEXT_FIELDS.iter().filter(|field| field.filterable).map(|field| field.name) {
            let name = format!("filter: {filter}={attack}");
            let page = cases.check(&name, client.get(&format!("{EVENTS}?{filter}={}", percent(attack))).await, 200, "");
            cases.record(&name, page["events"] == json!([]), "rows were found");
        }
        for filter in ["limit", "offset", "processed", "from", "to"] {
            let answer = client.get(&format!("{EVENTS}?{filter}={}", percent(attack))).await;
            cases.check(&format!("filter: {filter}={attack}"), answer, 422, "validation_error");
        }
    }
    for query in [
        "event_type=%00",
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=99999999999999999999",
        "offset=-1",
        "offset=10001",
        "limit=1&limit=2",
        "from=%2B999999-01-01T00:00:00Z",
        "to=0000-00-00T00:00:00Z",
        "processed=2",
    ] {
        let answer = client.get(&format!("{EVENTS}?{query}")).await;
        cases.check(&format!("filter: {query}"), answer, 422, "validation_error");
    }
    for query in ["event_type=%ff", "%ff=%ff", "&&==&", "unknown[]=1", "from=0001-01-01T00:00:00Z"] {
        cases.check(&format!("filter: {query}"), client.get(&format!("{EVENTS}?{query}")).await, 200, "");
    }
    for time in ["-9999-01-01T00:00:00Z", "-262143-01-01T00:00:00Z", "+262142-12-31T23:59:59Z"] {
        for filter in ["from", "to"] {
            let answer = client.get(&format!("{EVENTS}?{filter}={}", percent(time))).await;
            cases.check(&format!("filter: {filter}={time}"), answer, 422, "validation_error");
        }
    }
}

async fn cursors(cases: &mut Cases, api: &Process) -> anyhow::Result<()> {
    let client = api.client("ada");
    let page = client.get(&format!("{EVENTS}?limit=1")).await?.json;
    let cursor = page["next_cursor"].as_str().context("there is a second page")?.to_owned();
    cases.check("cursor: good", client.get(&format!("{EVENTS}?limit=1&cursor={cursor}")).await, 200, "");
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&cursor)?;
    let changed = |at: usize, bits: u8| {
        let mut bytes = bytes.clone();
        bytes[at] ^= bits;
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    for (name, query) in [
        ("impossible time", format!("cursor={}", changed(0, 0x80))),
        ("other digest", format!("cursor={}", changed(16, 1))),
        ("other filter", format!("event_type=x&cursor={cursor}")),
        ("cut", format!("cursor={}", &cursor[..cursor.len() - 4])),
        ("only the position", format!("cursor={}", BASE64_URL_SAFE_NO_PAD.encode(&bytes[..16]))),
        ("longer", format!("cursor={cursor}AAAA")),
        ("empty", "cursor=".to_owned()),
        ("SQL", format!("cursor={}", percent("' OR 1=1 --"))),
    ] {
        let answer = client.get(&format!("{EVENTS}?{query}")).await;
        cases.check(&format!("cursor: {name}"), answer, 422, "invalid_cursor");
    }
    // A cursor is a position: it shows nothing but events of the token's user.
    let others = api.client("a user without events").get(&format!("{EVENTS}?cursor={cursor}")).await;
    let page = cases.check("cursor: of another user", others, 200, "");
    cases.record("cursor: of another user", page["events"] == json!([]), &page.to_string());
    let long = client.get(&format!("{EVENTS}?cursor={}", "A".repeat(257))).await;
    cases.check("cursor: long", long, 422, "validation_error");
    Ok(())
}

/// Slow clients: the API closes the connection or responds with 408 soon after the limit of 1 s, or
/// of 4 s.
async fn slow_clients(cases: &mut Cases, strict: &Process) -> anyhow::Result<()> {
    let token = hs256(&json!({"sub": "ada", "exp": now() + 3600, "iss": ISSUER, "aud": AUDIENCE}))?;
    let head = format!("POST {EVENTS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n");
    let body = format!("{head}content-length: 1000\r\n\r\n{{\"event_name\"");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n{{\"eve");
    // Enough at once for the minimum rate, but incomplete after the time limit of a request.
    let long = format!("{head}content-length: 100000\r\n\r\n{}", " ".repeat(8192));
    let every = Some(Duration::from_millis(200));
    for (name, request, interval, status, limit) in [
        ("silent", "", None, "", 1),
        ("slowloris", "GET / HTTP/1.1\r\nhost: a\r\nx: ", every, "", 1),
        ("half a head", &head, None, "", 1),
        ("half a body", &body, None, "HTTP/1.1 408", 1),
        ("half a chunk", &chunked, None, "HTTP/1.1 408", 1),
        ("a body in single bytes", &body, every, "HTTP/1.1 408", 1),
        ("a long body in single bytes", &long, every, "HTTP/1.1 408", 4),
    ] {
        let (text, took) = exchange(strict, request.as_bytes(), interval).await?;
        let expected = if status.is_empty() { text.is_empty() } else { text.starts_with(status) };
        let passed = expected && took < Duration::from_secs(limit + 4);
        cases.record(&format!("slow: {name}"), passed, &format!("after {took:?}: {text:?}"));
    }
    Ok(())
}

/// Sends `request`, then one byte per `interval`, until the server closes the connection. Returns the response and the
/// elapsed time.
async fn exchange(process: &Process, request: &[u8], interval: Option<Duration>) -> anyhow::Result<(String, Duration)> {
    let started = Instant::now();
    let stream = process.connect().await?;
    let (mut read, mut write) = stream.into_split();
    let writing = async {
        let mut closed = write.write_all(request).await.is_err();
        while let (Some(interval), false) = (interval, closed) {
            tokio::time::sleep(interval).await;
            closed = write.write_all(b"x").await.is_err();
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let (mut text, mut piece) = (Vec::new(), [0; 4096]);
        // A reset ends the loop as well as a close.
        while let Ok(length @ 1..) = read.read(&mut piece).await {
            text.extend_from_slice(&piece[..length]);
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    tokio::select! {
        text = reading => Ok((text, started.elapsed())),
        () = writing => unreachable!("the writer waits for the reader"),
        () = tokio::time::sleep(Duration::from_secs(20)) => Ok(("still open".into(), started.elapsed())),
    }
}
