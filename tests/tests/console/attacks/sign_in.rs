//! Signing in: fixed, many and guessed sessions.

use futures_util::future::try_join_all;
use http::Method;

use super::target::{Findings, Target, admin, token_until};
use crate::{Browser, header};

/// Maximum number of refused sign-ins of an address per minute.
const REFUSED: usize = 10;

pub(super) async fn sessions(target: &Target, findings: &mut Findings) -> anyhow::Result<()> {
    let valid = admin();
    let sign_in = async |cookie: &str, form: String| target.send(Method::POST, "/login", cookie, &[], &form).await;

    // A session that an attacker put into the browser ends with the sign-in.
    for (fixed, next) in
        [("fixed", "//evil.example"), (&*token_until("mallory", "events:read", 3600), "https://evil.example")]
    {
        let answer = sign_in(fixed, format!("token={valid}&next={next}")).await?;
        let cookie = header(&answer, "set-cookie");
        let is_new = cookie == format!("pulse_console={valid}; Path=/; HttpOnly; SameSite=Strict");
        findings.check(is_new && header(&answer, "location") == "/", "a fixed session", &answer);
    }
    let encrypted = [("x-forwarded-proto", "https")];
    let answer = target.send(Method::POST, "/login", "", &encrypted, &format!("token={valid}")).await?;
    findings.check(header(&answer, "set-cookie").contains("; Secure"), "TLS", &answer);

    // There is nothing on the server that many sessions could use up.
    for number in 0..300 {
        let answer =
            sign_in("", format!("token={}", token_until(&format!("user-{number}"), "events:read", 3600))).await?;
        findings.check(answer.status == 303, "many sessions", &answer);
    }

    let csrf = Browser::with(&target.console, &valid).csrf().await?;
    let out = target.send(Method::POST, "/logout", &valid, &[], &format!("csrf={csrf}")).await?;
    let ended =
        header(&out, "set-cookie").contains("pulse_console=;") && header(&out, "set-cookie").contains("Max-Age=0");
    findings.check(out.status == 303 && ended, "logout", &out);

    // Guesses count before they are verified, also many at a time, and whatever they say about their address.
    let guesses = (0..40).map(|guess| async move {
        let forwarded = format!("10.0.0.{guess}");
        let headers = [("x-forwarded-for", forwarded.as_str()), ("forwarded", "for=10.1.1.1")];
        target.send(Method::POST, "/login", "", &headers, &format!("token=guess-{guess}")).await
    });
    let answers = try_join_all(guesses).await?;
    let refused = answers.iter().filter(|answer| answer.status == 401).count();
    let limited = answers.iter().filter(|answer| answer.status == 429).count();
    findings.check(refused <= REFUSED && refused + limited == 40, &format!("{refused} guesses"), &answers[0]);
    let late = sign_in("", format!("token={valid}")).await?;
    findings.check(late.status == 429 && header(&late, "retry-after") == "60", "after the guesses", &late);
    // Who is signed in is not locked out by the guesses of others.
    let page = target.get("/tasks", &valid).await?;
    findings.check(page.status == 200, "a session during the guesses", &page);
    Ok(())
}
