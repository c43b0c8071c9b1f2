//! Requests in flight: of one user, and those that list events.

use std::time::Duration;

use futures_util::future::join_all;
use pulse_tests::{Process, TestEnv, eventually, token};
use sqlx::AssertSqlSafe;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::{EVENTS, event, header};

#[tokio::test(flavor = "multi_thread")]
async fn slow_lists_of_one_user_fail_no_post_and_no_probe() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let historian = api.client("historian");
    historian.post_event("first").await?;
    // Enough events that a filter without a match takes a while.
    let events = "INSERT INTO events (user_id, event_name, event_type, task_id)
                  SELECT (SELECT id FROM users), 'a', 't', gen_random_uuid() FROM generate_series(1, 200000)";
    sqlx::query(AssertSqlSafe(events)).execute(&env.db).await?;

    let stop = CancellationToken::new();
    let lists = join_all((0..30).map(async |_| {
        let mut statuses = Vec::new();
        while !stop.is_cancelled() {
            let answer = historian.get(&format!("{EVENTS}?event_name=nope&limit=1")).await?;
            if answer.status == 429 {
                assert_eq!(answer.json["code"], "too_many_in_flight", "{}", answer.text);
                assert_eq!(header(&answer, "retry-after"), "1");
                assert_eq!(header(&answer, "ratelimit-policy"), r#""lists";q=4;qu="concurrent-requests""#);
                assert_eq!(header(&answer, "ratelimit"), r#""lists";r=0;t=1"#);
            }
            statuses.push(answer.status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(statuses)
    }));
    let others = async {
        let _stop = stop.drop_guard_ref();
        for number in 0..40 {
            let posted = api.client(&format!("user {number}")).post(EVENTS, &event()).await?;
            assert_eq!(posted.status, 202, "{}", posted.text);
            let posted = historian.post(EVENTS, &event()).await?;
            assert_eq!(posted.status, 202, "lists take no place of posts: {}", posted.text);
            let ready = api.admin().get("/readyz").await?;
            assert_eq!(ready.status, 200, "{}", ready.text);
        }
        anyhow::Ok(())
    };
    let (lists, others) = tokio::join!(lists, others);
    others?;
    let statuses = lists.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert!(count(200) > 0 && count(429) > 0 && count(200) + count(429) == statuses.len(), "{statuses:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_of_one_user_take_no_places_of_others() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-in-flight", "64"]).await?;
    let hog = api.client("hog");
    assert_eq!(hog.post(EVENTS, &event()).await?.status, 202);
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 1000\r\n\r\n{{",
        token("hog", None)
    );
    let mut slow = Vec::new();
    for _ in 0..80 {
        let mut stream = api.connect().await?;
        stream.write_all(head.as_bytes()).await?;
        slow.push(stream);
    }
    let limited = async || Ok(api.metric("pulse_requests_limited_total{limit=\"in_flight\"}").await? >= 72.0);
    eventually("72 of 80 slow requests are refused", Duration::from_secs(10), limited).await?;
    let refused = hog.post(EVENTS, &event()).await?;
    assert_eq!((refused.status, refused.json["code"].as_str()), (429, Some("too_many_in_flight")), "{}", refused.text);
    assert_eq!(header(&refused, "ratelimit-policy"), r#""in_flight";q=8;qu="concurrent-requests""#);
    for number in 0..50 {
        let posted = api.client(&format!("user {number}")).post(EVENTS, &event()).await?;
        assert_eq!(posted.status, 202, "{}", posted.text);
    }
    drop(slow);
    let free = async || Ok(hog.post(EVENTS, &event()).await?.status == 202);
    eventually("closed connections take no place", Duration::from_secs(10), free).await
}
