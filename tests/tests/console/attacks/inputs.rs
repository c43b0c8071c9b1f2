//! Filters, ids and bodies that are too large, or that something behind could misunderstand.

use std::time::{Duration, Instant};

use http::Method;

use super::target::{Findings, Target, admin};
use crate::Browser;

/// Status codes of a request that was understood and refused, or that found nothing.
const HARMLESS: [u16; 7] = [200, 400, 404, 413, 414, 422, 431];
/// Time within which each answer comes.
const PROMPT: Duration = Duration::from_secs(5);

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

pub(super) async fn filters(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let texts = [
        "'; DROP TABLE tasks; --".to_owned(),
        "user:' OR 1=1 --".into(),
        "error:\"(a+)+$\" reason:.* group:[".into(),
        "state:dead state:completed state:".into(),
        "error:%25_\\ reason:%".into(),
        "\0".into(),
        "user:a\0b".into(),
        "error:\"\u{202e}\u{feff}\u{10ffff}".into(),
        "error:\\".into(),
        ":\":\":\"".into(),
        "since:-1d since:999999999999999999999d since:9999-12-31T23:59:59Z since:0001-01-01T00:00:00Z".into(),
        "state:dead,dead,dead,pending;".into(),
        "a ".repeat(400),
        "user:x ".repeat(140),
        "\"".repeat(1024),
        "x".repeat(4000),
        "00000000-0000-0000-0000-000000000000".into(),
        "9223372036854775808".into(),
        "-1".into(),
    ];
    let paths =
        ["/tasks?q=", "/go?id=", "/acts/new?do=retry&q=", "/acts/new?do=retry&id=", "/tasks?below=", "/events?below="];
    let json = [
        "tasks?q=",
        "tasks?below=",
        "tasks?limit=",
        "search?id=",
        "events?event_name=",
        "events?below=",
        "audit?below=",
        "series?range=",
        "dead-letters?order=",
    ]
    .map(|path| format!("/api/v1/admin/{path}"));
    let more = ["/audit?below=", "/dead-letters?order=", "/?range=", "/tasks/", "/acts/", "/api/v1/admin/tasks/"];
    let paths: Vec<String> = paths.into_iter().chain(more).map(str::to_owned).chain(json).collect();
    for text in &texts {
        for path in &paths {
            let started = Instant::now();
            let answer = target.get(&format!("{path}{}", encoded(text)), &admin()).await?;
            let harmless = HARMLESS.contains(&answer.status) && started.elapsed() < PROMPT;
            findings.check(harmless && !answer.text.contains("syntax error"), &format!("{path}{text:.60}"), &answer);
        }
    }
    queries(target, findings).await
}

/// Query strings that are no form, or a huge one.
async fn queries(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let raw = [
        "%",
        "%zz",
        "%ff%fe",
        "q=%c0%80",
        &"&".repeat(5000),
        &"a&".repeat(10_000),
        &"id=1&".repeat(10_000),
        &"q[]=1&".repeat(500),
    ];
    for query in raw {
        for path in ["/tasks", "/acts/new", "/events", "/api/v1/admin/tasks", "/api/v1/admin/audit"] {
            let answer = target.get(&format!("{path}?{query}"), &admin()).await?;
            findings.check(HARMLESS.contains(&answer.status), &format!("{path}?{query:.20}"), &answer);
        }
    }
    Ok(())
}

pub(super) async fn bodies(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let csrf = Browser::with(&target.console, &admin()).csrf().await?;
    let filler = "x".repeat(17 * 1024);
    let many: String = (0..300).map(|_| format!("id={}&", target.task)).collect();
    for (name, body, statuses) in [
        ("a large field", format!("csrf={csrf}&do=retry&q={filler}"), [413, 413]),
        ("a large form", format!("csrf={csrf}&{}", "a=b&".repeat(200_000)), [413, 413]),
        ("many ids", format!("csrf={csrf}&do=cancel&{many}"), [422, 413]),
        ("no valid id", format!("csrf={csrf}&do=cancel&id=x"), [422, 422]),
        ("a number", format!("csrf={csrf}&do=cancel&q=user:x&rate=1e9&limit=0x10"), [422, 422]),
        ("a huge number", format!("csrf={csrf}&do=cancel&q=user:x&limit=99999999999999999999"), [422, 422]),
        ("an unknown verb", format!("csrf={csrf}&do=retry%00&q=state:dead"), [422, 422]),
        ("NUL", format!("csrf={csrf}&do=retry&q=error:%00"), [422, 422]),
        ("no text", format!("csrf={csrf}&do=retry&q=error:%ff"), [303, 422]),
    ] {
        let answer = target.send(Method::POST, "/acts", &admin(), &[], &body).await?;
        findings.check(statuses.contains(&answer.status), name, &answer);
    }
    sqlx::query("ALTER TABLE audit_log DISABLE TRIGGER audit_log_is_append_only").execute(&target.env.db).await?;
    sqlx::query("DELETE FROM audit_log").execute(&target.env.db).await?;
    sqlx::query("ALTER TABLE audit_log ENABLE TRIGGER audit_log_is_append_only").execute(&target.env.db).await?;
    let deep = format!("{}{}", "[".repeat(8000), "]".repeat(8000));
    for (name, headers, body, status) in [
        ("a large body", vec![], format!(r#"{{"do":"retry","filter":"{filler}"}}"#), 413),
        ("no JSON", vec![], "do=retry".into(), 400),
        ("deep JSON", vec![], deep, 400),
        ("an unknown field", vec![], r#"{"do":"retry","filter":"state:dead","all":true}"#.into(), 422),
        ("NUL", vec![], r#"{"do":"retry","filter":"error:\u0000"}"#.into(), 422),
        ("a form", vec![("content-type", "application/x-www-form-urlencoded")], "{}".into(), 415),
        ("an unknown coding", vec![("content-encoding", "x-zip")], "{}".into(), 415),
        ("broken gzip", vec![("content-encoding", "gzip")], "{}".into(), 400),
    ] {
        let answer = target.send(Method::POST, "/api/v1/admin/acts", &admin(), &headers, &body).await?;
        findings.check(answer.status == status && answer.json["code"].is_string(), name, &answer);
    }
    Ok(())
}
