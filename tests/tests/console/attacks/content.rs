//! Texts of clients in pages, and the headers of pages.

use http::Method;
use pulse_tests::token;

use super::target::{EVIL, Findings, OF_ADMINS, Target, admin};
use crate::{ADMIN, Browser, header};

/// Each text that a client, a worker or an administrator chooses is shown as a text.
pub(super) async fn escaped(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let evil_admin = token(EVIL, Some(ADMIN));
    let csrf = Browser::with(&target.console, &evil_admin).csrf().await?;
    let reason = "%3Cscript%3Ex%3C%2Fscript%3E%22%27%3E%3Cimg%20src%3Dx%3E";
    for (path, body) in [("/queue/pause", ""), ("/acts", "&do=cancel&q=user:unknown")] {
        let form = format!("csrf={csrf}&reason={reason}{body}");
        let answer = target.send(Method::POST, path, &evil_admin, &[], &form).await?;
        findings.check(answer.status == 303, path, &answer);
    }
    let dead: String = sqlx::query_scalar("SELECT id::text FROM dead_tasks").fetch_one(&target.env.db).await?;
    let act: String = sqlx::query_scalar("SELECT act::text FROM audit_log WHERE outcome IS NOT NULL")
        .fetch_one(&target.env.db)
        .await?;
    let with_text = [
        "/tasks".to_owned(),
        "/tasks/{task}".into(),
        format!("/tasks/{dead}"),
        format!("/tasks?q={reason}"),
        format!("/tasks?q=event:%22{reason}%22"),
        format!("/acts/new?do=retry&q=error:%22{}", reason.replace("%22", "%5C%22")),
        format!("/acts/{act}"),
        "/dead-letters".into(),
        "/dead-letters?order=newest".into(),
        "/workers".into(),
        "/events".into(),
        "/queue".into(),
        "/audit".into(),
        "/".into(),
    ];
    let without = ["/schedules", "/login?next=%3Cscript%3Ex", "/acts/new?do=%3Cscript%3Ex", "/go?id=%3Cscript%3Ex"];
    for (path, has_text) in with_text.iter().map(|path| (path.as_str(), true)).chain(without.map(|path| (path, false)))
    {
        let page = target.get(path, &evil_admin).await?;
        let raw = page.text.contains("<script>x") || page.text.contains("<img") || page.text.contains("\"'>");
        let shown = !has_text || page.text.contains("&lt;script&gt;x");
        findings.check(!raw && shown, path, &page);
    }
    let json = target.get("/api/v1/admin/events", &evil_admin).await?;
    findings.check(header(&json, "content-type") == "application/json", "JSON is no page", &json);
    Ok(())
}

/// No page is cached, framed, sniffed or able to load what is not the console's.
pub(super) async fn headers(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let pages = [
        "/",
        "/login",
        "/tasks",
        "/tasks/{task}",
        "/events",
        "/nothing",
        "/tasks/nothing",
        "/api/v1/admin/openapi.json",
    ];
    let streams = |path: &&str| !path.starts_with("/live/");
    for path in pages.into_iter().chain(OF_ADMINS.into_iter().filter(streams)) {
        for token in [admin(), String::new()] {
            let page = target.get(path, &token).await?;
            let policy = header(&page, "content-security-policy");
            let strict = ["default-src 'none'", "frame-ancestors 'none'"].iter().all(|part| policy.contains(part));
            let fixed = [("cache-control", "no-store"), ("x-content-type-options", "nosniff")];
            let has = |(name, value): &(&str, &str)| header(&page, name) == *value;
            let passed = strict && !policy.contains("unsafe") && !policy.contains('*') && fixed.iter().all(has);
            findings.check(passed && !page.headers.contains_key("server"), &format!("headers: {path}"), &page);
            let cross = page.headers.contains_key("access-control-allow-origin");
            findings.check(!cross, &format!("no other origin reads {path}"), &page);
        }
    }
    for (method, path) in
        [("OPTIONS", "/api/v1/admin/pause"), ("TRACE", "/"), ("PUT", "/queue/pause"), ("DELETE", "/tasks/{task}")]
    {
        let answer = target.send(Method::from_bytes(method.as_bytes())?, path, &admin(), &[], "").await?;
        findings.check([404, 405, 501].contains(&answer.status), &format!("{method} {path}"), &answer);
    }
    // No path leads to another origin.
    for path in [
        "//evil.example/",
        "/\\evil.example",
        "/login?next=//evil.example",
        "/%2f%2fevil.example",
        "/go?id=//evil.example",
    ] {
        let answer = target.get(path, &admin()).await?;
        findings.check(!header(&answer, "location").contains("evil"), path, &answer);
    }
    Ok(())
}
