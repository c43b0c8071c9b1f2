//! Sessions: who may see and do what.

use pulse_tests::token;

use super::{ADMIN, Browser, header, started};

#[tokio::test(flavor = "multi_thread")]
async fn sign_in_sets_a_strict_cookie_and_no_page_opens_without_one() -> anyhow::Result<()> {
    let (_env, console) = started(&[]).await?;
    let stranger = Browser::with(&console, "forged");
    for path in ["/", "/tasks", "/dead-letters", "/workers", "/events", "/queue", "/audit", "/go?id=1"] {
        let answer = stranger.get(path).await?;
        assert_eq!((answer.status, header(&answer, "location")), (303, "/login"), "{path}");
    }
    assert_eq!(stranger.get("/live/overview").await?.status, 401);
    let login = stranger.get("/login?next=https://evil.example").await?;
    assert_eq!(login.status, 200);
    assert!(!login.text.contains("evil"), "there is no way to be led elsewhere");
    let valid = token("ops", Some(ADMIN));
    let answer = stranger.post("/login", &format!("token={valid}&next=https://evil.example")).await?;
    assert_eq!((answer.status, header(&answer, "location")), (303, "/"));
    let cookie = header(&answer, "set-cookie");
    assert_eq!(
        cookie,
        format!("pulse_console={valid}; Path=/; HttpOnly; SameSite=Strict"),
        "not the cookie that was sent"
    );
    let writer = stranger.post("/login", &format!("token={}", token("ops", Some("events:write")))).await?;
    assert_eq!(writer.status, 401, "the scope is wrong");

    let browser = Browser::with(&console, &valid);
    assert_eq!(browser.post("/logout", "csrf=wrong").await?.status, 403);
    let answer = browser.post("/logout", &format!("csrf={}", browser.csrf().await?)).await?;
    assert!(header(&answer, "set-cookie").contains("Max-Age=0"), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_tokens_of_a_peer_are_limited() -> anyhow::Result<()> {
    let (_env, console) = started(&[]).await?;
    let browser = Browser::with(&console, "");
    for _ in 0..10 {
        assert_eq!(browser.post("/login", "token=wrong").await?.status, 401);
    }
    let answer = browser.post("/login", &format!("token={}", token("ops", Some(ADMIN)))).await?;
    assert_eq!((answer.status, header(&answer, "retry-after")), (429, "60"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_only_own_data_and_does_nothing() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    let api = pulse_tests::Process::start(&env, "api", &[]).await?;
    let task = api.client("ada").post_event("secret_name").await?;
    let (ada, eve) = (Browser::new(&console, "ada", "events:read"), Browser::new(&console, "eve", "events:read"));
    assert!(ada.get("/tasks").await?.text.contains("secret_name"));
    for path in ["/tasks", "/tasks?q=user:ada", "/events"] {
        assert!(!eve.get(path).await?.text.contains("secret_name"), "{path}");
    }
    for path in [format!("/tasks/{task}"), format!("/go?id={task}"), "/go?id=1".into()] {
        assert_eq!(eve.get(&path).await?.status, 404, "{path}");
    }
    for path in ["/dead-letters", "/workers", "/queue", "/audit", "/schedules", "/live/overview"] {
        assert_eq!(ada.get(path).await?.status, 403, "{path}");
    }
    let form = format!("csrf={}", ada.csrf().await?);
    assert_eq!(ada.post("/acts", &format!("{form}&do=cancel&id={task}")).await?.status, 403);
    Ok(())
}
