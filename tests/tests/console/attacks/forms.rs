//! Forms that no page of the session sent.

use http::Method;
use pulse_tests::token;

use super::target::{FORMS, Findings, Target, admin};
use crate::{ADMIN, Browser};

pub(super) async fn forged(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let session = admin();
    let own = Browser::with(&target.console, &session).csrf().await?;
    let other = Browser::new(&target.console, "other", ADMIN).csrf().await?;
    let user = Browser::new(&target.console, "victim", "events:read").csrf().await?;
    let host = target.console.address().to_owned();
    let same = format!("http://{host}");
    let tokens = [
        ("no token", String::new()),
        ("an empty token", "csrf=".into()),
        ("a wrong token", format!("csrf={}", "0".repeat(64))),
        ("the token of another session", format!("csrf={other}")),
        ("the token of a user", format!("csrf={user}")),
        ("the beginning of the token", format!("csrf={}", &own[..32])),
        ("a second token", format!("csrf=x&csrf={own}")),
        ("the session", format!("csrf={session}")),
    ];
    for (path, body) in FORMS {
        for (name, csrf) in &tokens {
            let answer = target.send(Method::POST, path, &session, &[], &format!("{csrf}&{body}")).await?;
            findings.check(answer.status == 403, &format!("{name}: {path}"), &answer);
        }
        for (name, headers) in [
            ("cross-site", vec![("sec-fetch-site", "cross-site")]),
            ("same-site", vec![("sec-fetch-site", "same-site"), ("origin", same.as_str())]),
            ("another origin", vec![("origin", "https://evil.example")]),
            ("no origin", vec![("origin", "null")]),
            ("an origin that begins alike", vec![("origin", &*format!("{same}.evil.example"))]),
            ("JSON", vec![("content-type", "application/json")]),
            ("text", vec![("content-type", "text/plain")]),
            ("a file", vec![("content-type", "multipart/form-data; boundary=x")]),
        ]
        .map(|(name, headers)| {
            (name, headers.into_iter().map(|(key, value)| (key, value.to_owned())).collect::<Vec<_>>())
        }) {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(key, value)| (*key, value.as_str())).collect();
            let answer = target.send(Method::POST, path, &session, &headers, &format!("csrf={own}&{body}")).await?;
            findings.check([403, 415].contains(&answer.status), &format!("{name}: {path}"), &answer);
        }
        // A link does nothing.
        let answer = target.get(&format!("{path}?csrf={own}&{body}"), &session).await?;
        findings.check([404, 405].contains(&answer.status), &format!("link: {path}"), &answer);
    }
    // The form of a user who is no administrator.
    let victim = token("victim", Some("events:read"));
    for (path, body) in FORMS.into_iter().filter(|(path, _)| path.starts_with("/acts") || path.starts_with("/queue")) {
        let answer = target.send(Method::POST, path, &victim, &[], &format!("csrf={user}&{body}")).await?;
        findings.check(answer.status == 403, &format!("a user's form: {path}"), &answer);
    }
    // Another origin cannot sign the browser in, either.
    for headers in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let form = format!("token={session}");
        let answer = target.send(Method::POST, "/login", "", &[headers], &form).await?;
        findings.check(answer.status == 403 && !answer.headers.contains_key("set-cookie"), "foreign sign-in", &answer);
    }
    Ok(())
}
