//! Lists that match nothing delay no other user.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use pulse_tests::latency::{GOOD, p99, post_steadily};
use pulse_tests::{Process, TestEnv};
use sqlx::AssertSqlSafe;

/// Events of each user who lists.
const EVENTS: i64 = if cfg!(feature = "long") { 1_000_000 } else { 20_000 };
const LISTS: usize = 30;
const TIME: Duration = Duration::from_secs(if cfg!(feature = "long") { 30 } else { 10 });

#[tokio::test(flavor = "multi_thread")]
async fn thirty_lists_that_match_nothing_delay_no_other_user() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    // A user may have four lists at a time.
    let readers: Vec<_> = (0..LISTS.div_ceil(4)).map(|number| api.client(&format!("reader {number}"))).collect();
    try_join_all(readers.iter().map(|reader| reader.post_event("first"))).await?;
    let fill = format!(
        "INSERT INTO events (user_id, event_name, event_type, task_id, processed, created_at)
         SELECT users.id, 'a', 't', gen_random_uuid(), true, now() - n * interval '1 millisecond'
         FROM generate_series(1, {EVENTS}) AS n, users"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&env.db).await?;

    let other = api.client("other");
    let before = p99(&post_steadily(&other, TIME / 3).await?);
    let until = Instant::now() + TIME;
    let list = async |number: usize| {
        let (mut lists, mut longest) = (0, Duration::ZERO);
        while Instant::now() < until {
            let begin = Instant::now();
            let answer = readers[number / 4].get("/api/v1/events?event_name=none&limit=1").await?;
            anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.json);
            anyhow::ensure!(answer.json["next_cursor"].is_string(), "more events follow: {}", answer.json);
            lists += 1;
            longest = longest.max(begin.elapsed());
        }
        anyhow::Ok((lists, longest))
    };
    let ready = async {
        while Instant::now() < until {
            let answer = api.admin().get("/readyz").await?;
            anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.json);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    let lists = join_all((0..LISTS).map(list));
    let (posts, lists, ready) = tokio::join!(post_steadily(&other, TIME), lists, ready);
    ready?;
    let (during, lists) = (p99(&posts?), lists.into_iter().collect::<anyhow::Result<Vec<_>>>()?);
    let count: u32 = lists.iter().map(|(lists, _)| lists).sum();
    println!("{count} lists; p99 of the other's posts {during:?}, {before:?} before");
    assert!(
        during <= (2 * before).max(GOOD),
        "p99 of the other's posts: {during:?} beside {count} lists, {before:?} before"
    );
    Ok(())
}
