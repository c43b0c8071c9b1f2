//! TLS of each listener, and certificates that are renewed while requests are answered.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use pulse_tests::{Authority, Process, TestEnv, eventually};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_util::sync::CancellationToken;

use crate::certificates::Certificates;
use crate::client::{Connection, config, connect};

const TIMEOUT: Duration = Duration::from_secs(20);
const EVENTS: &str = "/api/v1/events?limit=1";

fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Starts a role with TLS, and waits until it is ready.
async fn start(env: &TestEnv, role: &str, tls: &Certificates, more: &[&str]) -> anyhow::Result<Process> {
    let flags = tls.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let process = Process::spawn(env, role, &flags)?;
    let client = config(&tls.authority.pem(), &[&TLS13], &["http/1.1"], None)?;
    let ready = async || Ok(status(address(&process.admin), &client, Version::HTTP_11, "/readyz").await? == 200);
    eventually(&format!("{role} is ready"), TIMEOUT, ready).await?;
    Ok(process)
}

async fn status(address: &str, client: &Arc<ClientConfig>, version: Version, path: &str) -> anyhow::Result<u16> {
    let stream = connect(address, client.clone()).await?;
    Ok(Connection::open(stream, version).await?.send("GET", path, "").await?.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_of_all_roles_speak_tls_and_both_versions_of_http() -> anyhow::Result<()> {
    let (env, tls) = (TestEnv::start().await?, Certificates::new()?);
    let ca = tls.authority.pem();
    for (role, path) in [("api", EVENTS), ("console", "/api/v1/admin/tasks"), ("worker", ""), ("scheduler", "")] {
        let process = start(&env, role, &tls, &[]).await?;
        for version in [&TLS12, &TLS13] {
            for (protocol, http) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
                let client = config(&ca, &[version], &[protocol], None)?;
                let admin = status(address(&process.admin), &client, http, "/metrics").await?;
                assert_eq!(admin, 200, "{role} {version:?} {protocol}");
                if !path.is_empty() {
                    let answer = status(process.address(), &client, http, path).await?;
                    assert_eq!(answer, 200, "{role} {version:?} {protocol}");
                }
            }
        }
        let both = connect(address(&process.admin), config(&ca, &[&TLS13], &["http/1.1", "h2"], None)?).await?;
        assert_eq!(both.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "HTTP/2 is preferred");
        let none = connect(address(&process.admin), config(&ca, &[&TLS13], &[], None)?).await?;
        assert_eq!(Connection::open(none, Version::HTTP_11).await?.send("GET", "/livez", "").await?.0, 200);
        let plain = process.admin().get("/livez").await;
        assert!(plain.is_err(), "{role} answers without TLS: {plain:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificate_is_required_by_the_api_and_not_by_probes() -> anyhow::Result<()> {
    let (env, tls) = (TestEnv::start().await?, Certificates::new()?);
    let ca = tls.authority.pem();
    let api = start(&env, "api", &tls, &["--tls-client-ca", &tls.text_path("ca.crt")]).await?;
    let good = tls.authority.client("gateway", None)?;
    let foreign = Authority::new()?.client("gateway", None)?;
    for (identity, accepted) in [(Some(&good), true), (Some(&foreign), false), (None, false)] {
        let client = config(&ca, &[&TLS13], &["http/1.1"], identity)?;
        let answer = status(api.address(), &client, Version::HTTP_11, EVENTS).await;
        assert_eq!(answer.as_ref().ok(), accepted.then_some(&200), "{answer:?}");
    }
    Ok(())
}

/// Requests over new and over kept connections of both versions, until `end`. Returns their number and the failures.
async fn load(
    address: String,
    client: Arc<ClientConfig>,
    version: Version,
    end: CancellationToken,
) -> (u64, Vec<String>) {
    let (mut sent, mut failures, mut kept) = (0, Vec::new(), None);
    let open = async || Connection::open(connect(&address, client.clone()).await?, version).await;
    while !end.is_cancelled() {
        let exchange = async {
            let kept = match &mut kept {
                Some(kept) => kept,
                none => none.insert(open().await?),
            };
            let answers = [kept.send("GET", EVENTS, "").await?, open().await?.send("GET", EVENTS, "").await?];
            anyhow::ensure!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
            anyhow::Ok(())
        };
        failures.extend(exchange.await.err().map(|error| format!("{error:#}")));
        sent += 2;
    }
    (sent, failures)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_renewed_under_load_without_a_failed_request() -> anyhow::Result<()> {
    let (env, tls) = (TestEnv::start().await?, Certificates::new()?);
    let api = start(&env, "api", &tls, &[]).await?;
    let ca = tls.authority.pem();
    let (mut clients, end) = (JoinSet::new(), CancellationToken::new());
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let client = config(&ca, &[&TLS13], &[protocol], None)?;
        clients.spawn(load(api.address().to_owned(), client, version, end.clone()));
    }
    let client = config(&ca, &[&TLS13], &[], None)?;
    for _ in 0..3 {
        let renewed = tls.renew()?;
        for listener in [api.address(), address(&api.admin)] {
            let has_new = async || {
                let stream = connect(listener, client.clone()).await?;
                Ok(stream.get_ref().1.peer_certificates().is_some_and(|chain| chain[0].as_ref() == renewed))
            };
            eventually("new connections get the new certificate", TIMEOUT, has_new).await?;
        }
    }
    end.cancel();
    let (mut sent, mut failures) = (0, Vec::new());
    while let Some(client) = clients.join_next().await {
        let (requests, failed) = client?;
        sent += requests;
        failures.extend(failed);
    }
    assert!(sent > 50 && failures.is_empty(), "{} of {sent}: {failures:?}", failures.len());
    println!("certificate renewed three times: {sent} requests, none failed");

    tls.write("tls.crt", "broken")?;
    let logged = async || Ok(std::fs::read_to_string(&api.log)?.contains("the last one stays"));
    eventually("the log says that the certificate cannot be used", TIMEOUT, logged).await?;
    assert_eq!(status(api.address(), &client, Version::HTTP_11, EVENTS).await?, 200);
    Ok(())
}
