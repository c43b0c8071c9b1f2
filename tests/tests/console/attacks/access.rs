//! Requests without a right.

use http::Method;
use pulse_tests::token;

use super::target::{BY_ID, CALLS, FORMS, Findings, OF_ADMINS, OF_USERS, Target, token_until};
use crate::{ADMIN, header};

/// No token, or one that does not open the console.
pub(super) async fn strangers(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let valid = token("ops", Some(ADMIN));
    let (head, tail) = valid.split_at(valid.len() / 2);
    let other_key = format!("{head}{}", tail.replace(|letter: char| letter.is_ascii_lowercase(), "A"));
    // {"alg":"none"} and {"sub":"ops","scope":"admin","exp":9999999999}
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJvcHMiLCJzY29wZSI6ImFkbWluIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    let tokens = [
        ("no token", String::new(), 401),
        ("garbage", "a.b.c".into(), 401),
        ("a changed token", other_key, 401),
        ("an unsigned token", unsigned.into(), 401),
        ("an expired token", token_until("ops", ADMIN, -3600), 401),
        ("a long token", "a".repeat(9000), 401),
        ("a token that only writes", token("victim", Some("events:write")), 403),
        ("a token with a scope like admin", token("ops", Some("administrator xadmin Admin")), 403),
    ];
    let reads = ["/", "/go?id=1"].into_iter().chain(OF_USERS).chain(OF_ADMINS).chain(BY_ID);
    let reads = reads.map(|path| (Method::GET, path, ""));
    let writes = FORMS.into_iter().chain(CALLS).map(|(path, body)| (Method::POST, path, body));
    for (method, path, body) in reads.chain(writes) {
        for (name, token, status) in &tokens {
            let answer = target.send(method.clone(), path, token, &[], body).await?;
            let refused = if path.starts_with("/api/") {
                answer.status == *status && header(&answer, "content-type") == "application/problem+json"
            } else if path.starts_with("/live/") {
                answer.status == 401
            } else {
                answer.status == 303 && header(&answer, "location") == "/login"
            };
            findings.check(refused && !answer.text.contains("img src"), &format!("{name}: {method} {path}"), &answer);
        }
    }
    // The cookie of a session opens no JSON: a page of another origin could send it.
    let cookie = format!("pulse_console={valid}");
    for path in OF_ADMINS.into_iter().filter(|path| path.starts_with("/api/")) {
        let answer = target.send(Method::GET, path, "", &[("cookie", &cookie)], "").await?;
        findings.check(answer.status == 401, &format!("cookie: {path}"), &answer);
    }
    Ok(())
}

/// Tokens of users who want what belongs to others.
pub(super) async fn other_users(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    for user in ["mallory", "VICTIM", "victim ", "%", "victim' OR '1'='1"] {
        let own = token(user, Some("events:read events:write"));
        for path in OF_USERS {
            let answer = target.get(path, &own).await?;
            let hidden = !answer.text.contains("img src") && !answer.text.contains(&target.task);
            findings.check(answer.status == 200 && hidden, &format!("{user}: {path}"), &answer);
        }
        for path in BY_ID {
            let answer = target.get(path, &own).await?;
            findings.check(answer.status == 404, &format!("{user}: {path}"), &answer);
        }
        let filtered = target.get("/api/v1/admin/tasks?q=user:victim", &own).await?;
        findings.check(filtered.status == 422, &format!("{user}: filter by user"), &filtered);
        let found = target.get("/api/v1/admin/search?id=order-4711", &own).await?;
        findings.check(!found.text.contains(&target.task), &format!("{user}: search"), &found);
        let calls = CALLS.map(|(path, body)| (Method::POST, path, body));
        for (method, path, body) in OF_ADMINS.map(|path| (Method::GET, path, "")).into_iter().chain(calls) {
            let answer = target.send(method, path, &own, &[], body).await?;
            findings.check(answer.status == 403, &format!("{user}: {path}"), &answer);
        }
    }
    Ok(())
}
