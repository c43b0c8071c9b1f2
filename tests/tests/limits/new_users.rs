//! Users that one issuer creates.

use futures_util::future::try_join_all;
use pulse_tests::{Process, TestEnv};

use super::{EVENTS, event, header};

#[tokio::test(flavor = "multi_thread")]
async fn flood_of_new_subjects_creates_few_users_and_affects_no_known_one() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-new-users-per-minute", "20"]).await?;
    let known = api.client("known");
    assert_eq!(known.post(EVENTS, &event()).await?.status, 202);
    let event = event();
    let flood = try_join_all((0..300).map(async |number| {
        let client = api.client(&format!("new {number}"));
        if number % 2 == 0 { client.post(EVENTS, &event).await } else { client.get(EVENTS).await }
    }));
    let others = async {
        for _ in 0..30 {
            let (posted, read) = (known.post(EVENTS, &event).await?, known.get(EVENTS).await?);
            assert_eq!((posted.status, read.status), (202, 200), "{} {}", posted.text, read.text);
            assert_eq!(api.admin().get("/readyz").await?.status, 200);
        }
        anyhow::Ok(())
    };
    let (flood, others) = tokio::join!(flood, others);
    others?;
    let (admitted, limited): (Vec<_>, Vec<_>) = flood?.into_iter().partition(|answer| answer.status != 429);
    assert!(admitted.iter().all(|answer| matches!(answer.status, 200 | 202)), "{admitted:?}");
    // 20 at once, with `known`, and then one every 3 s.
    assert!((19..=30).contains(&admitted.len()), "{} are admitted", admitted.len());
    for answer in &limited {
        assert_eq!(answer.json["code"], "rate_limited", "{}", answer.text);
        assert!((1..=3).contains(&header(answer, "retry-after").parse::<u64>()?), "{:?}", answer.headers);
    }
    assert_eq!(env.number("SELECT count(*) FROM users").await?, admitted.len() as i64 + 1);
    assert_eq!(api.metric("pulse_requests_limited_total{limit=\"new_users\"}").await?, limited.len() as f64);

    // A restarted process knows no user yet, and known users cost none of the new ones.
    let restarted = Process::start(&env, "api", &["--max-new-users-per-minute", "1"]).await?;
    for client in [restarted.client("known"), restarted.client("newest"), restarted.client("known")] {
        assert_eq!(client.post(EVENTS, &event).await?.status, 202);
    }
    assert_eq!(restarted.client("one more").post(EVENTS, &event).await?.status, 429);
    Ok(())
}
