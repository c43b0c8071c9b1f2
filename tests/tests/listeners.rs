//! Who reaches the ports of a role: both families of addresses, and in browsers pages of other origins.

use std::process::Stdio;
use std::time::Duration;

use http::Method;
use pulse_tests::{Client, Process, Response, TestEnv, eventually, free_port, pulse, pulse_output};

const TIMEOUT: Duration = Duration::from_secs(20);
const EVENTS: &str = "/api/v1/events";
const APP: &str = "https://app.example.com";

#[tokio::test(flavor = "multi_thread")]
async fn default_listeners_are_reached_by_ipv4_and_ipv6() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    for role in ["api", "worker", "scheduler", "console", "operator"] {
        let (_, help) = pulse_output(&env, &[role, "--help"]).await?;
        assert!(help.contains("[default: [::]:9090]"), "{help}");
        assert_eq!(help.contains("[default: [::]:8000]"), role == "api", "{help}");
        assert_eq!(help.contains("[default: [::]:5555]"), role == "console", "{help}");
    }
    let (api_port, admin_port) = (free_port()?, free_port()?);
    let (listen, admin_listen) = (format!("[::]:{api_port}"), format!("[::]:{admin_port}"));
    let mut command = pulse(&env, &["api", "--listen", &listen, "--admin-listen", &admin_listen]);
    let _api = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    for (port, path) in [(api_port, "/openapi.json"), (admin_port, "/readyz")] {
        for host in ["127.0.0.1", "[::1]"] {
            let client = Client::new(&format!("http://{host}:{port}"), "");
            let answers = async || Ok(client.get(path).await.is_ok_and(|answer| answer.status == 200));
            eventually(&format!("{host}:{port}{path} answers"), TIMEOUT, answers).await?;
        }
    }
    let (code, output) = pulse_output(&env, &["api", "--listen", &listen, "--admin-listen", "[::]:0"]).await?;
    assert!(code == 1 && output.contains("choose another address with --listen"), "{output}");
    Ok(())
}

/// Sends a preflight request of a page of `origin`.
async fn preflight(client: &Client, origin: &str) -> anyhow::Result<Response> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,idempotency-key"),
    ];
    client.send(Method::OPTIONS, EVENTS, &headers, Vec::new().into()).await
}

fn allowed_origin(response: &Response) -> Option<&str> {
    response.headers.get("access-control-allow-origin").and_then(|value| value.to_str().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_listed_origins_and_no_others_may_call_the_api() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let listed = format!("{APP},http://localhost:5173");
    let api = Process::start(&env, "api", &["--cors-allow-origin", &listed]).await?;
    let anyone = Client::new(&api.url, "");
    for origin in [APP, "http://localhost:5173"] {
        let answer = preflight(&anyone, origin).await?;
        assert_eq!((answer.status, allowed_origin(&answer)), (200, Some(origin)), "without a token: {answer:?}");
        let headers = answer.headers["access-control-allow-headers"].to_str()?;
        for header in ["authorization", "content-type", "idempotency-key"] {
            assert!(headers.split(',').any(|allowed| allowed == header), "{headers}");
        }
    }
    for origin in ["https://evil.example.com", "https://app.example.com.evil.com", "http://app.example.com", "null"] {
        assert_eq!(allowed_origin(&preflight(&anyone, origin).await?), None, "{origin}");
    }
    // Pages read errors too, and the headers that they need.
    for (client, status) in [(&anyone, 401), (&api.client("ada"), 200)] {
        let answer = client.send(Method::GET, EVENTS, &[("origin", APP)], Vec::new().into()).await?;
        assert_eq!((answer.status, allowed_origin(&answer)), (status, Some(APP)));
        assert!(answer.headers["access-control-expose-headers"].to_str()?.contains("x-request-id"), "{answer:?}");
        assert!(answer.headers.get_all("vary").iter().any(|value| value == "origin"), "{answer:?}");
        assert_eq!(answer.headers.get("access-control-allow-credentials"), None);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_is_off_by_default_and_refuses_wildcards() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let answer = preflight(&Client::new(&api.url, ""), APP).await?;
    assert_eq!((answer.status, allowed_origin(&answer)), (405, None));
    let (code, output) = pulse_output(&env, &["api", "--cors-allow-origin", "*"]).await?;
    assert!(code == 2 && output.contains("write the origin as browsers do"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn documentation_can_be_switched_off() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    for (docs, status) in [("true", 200), ("false", 404)] {
        let api = Process::start(&env, "api", &["--docs", docs]).await?;
        let anyone = Client::new(&api.url, "");
        for path in ["/docs/", "/openapi.json", "/api/v1/openapi.json"] {
            assert_eq!(anyone.get(path).await?.status, status, "{path} with --docs {docs}");
        }
        assert_eq!(api.client("ada").get(EVENTS).await?.status, 200);
    }
    Ok(())
}
