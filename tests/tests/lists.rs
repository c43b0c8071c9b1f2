//! Pages of the event list, against a plain query.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use pulse_store::{EventFilter, ListError, PageLimits, PageStart, Store, StoreConfig};
use pulse_tests::TestEnv;
use sqlx::PgPool;

const HISTORIES: i64 = if cfg!(feature = "long") { 10_000 } else { 500 };
/// Maximum number of events of a history.
const EVENTS: i64 = 60;

/// How a client reads a list.
#[derive(Debug, Clone)]
struct Reading {
    filter: EventFilter,
    offset: i64,
    limits: PageLimits,
}

fn reading() -> impl Strategy<Value = Reading> {
    let text = |name| proptest::option::weighted(0.3, (0..3).prop_map(move |value| format!("{name} {value}")));
    let texts = (text("event_type"), text("event_name"), text("source"), text("session_id"));
    let time = || proptest::option::weighted(0.3, (0..120u64).prop_map(day));
    let times = (time(), time(), time(), time());
    let limits = (1..20i64, prop_oneof![Just(600), Just(1_000_000)], 1..40i64);
    (texts, proptest::option::weighted(0.3, any::<bool>()), times, 0..8i64, limits).prop_map(
        |((event_type, event_name, source, session_id), processed, times, offset, (events, bytes, walk))| {
            let texts = [
                ("event_type", event_type),
                ("event_name", event_name),
                ("source", source),
                ("session_id", session_id),
            ];
            let texts: BTreeMap<_, _> = texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
            let (from, to, event_from, event_to) = times;
            let filter = EventFilter { texts, processed, from, to, event_from, event_to };
            Reading { filter, offset, limits: PageLimits { events, bytes, walk } }
        },
    )
}

fn day(days: u64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Days::new(days)
}

/// Events in four months and in the default partition, many at the same time.
async fn fill(db: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "CREATE TABLE events_y1970m01 PARTITION OF events FOR VALUES FROM ('1970-01-01Z') TO ('1970-02-01Z');
         CREATE TABLE events_y1970m02 PARTITION OF events FOR VALUES FROM ('1970-02-01Z') TO ('1970-03-01Z');
         CREATE TABLE events_y1970m03 PARTITION OF events FOR VALUES FROM ('1970-03-01Z') TO ('1970-04-01Z');",
    )
    .execute(db)
    .await?;
    sqlx::query("INSERT INTO users (subject) SELECT 'user ' || n FROM generate_series(1, $1) AS n")
        .bind(HISTORIES)
        .execute(db)
        .await?;
    sqlx::query(
        "INSERT INTO events (user_id, event_name, event_type, source, session_id, task_id, created_at, event_timestamp,
                             processed)
         SELECT users.id, 'event_name ' || floor(random() * 3), 'event_type ' || floor(random() * 2),
                nullif('source ' || floor(random() * 4), 'source 3'), 'session_id ' || floor(random() * 2),
                gen_random_uuid(), to_timestamp(floor(random() * 120) * 86400),
                to_timestamp(floor(random() * 120) * 86400), random() < 0.8
         FROM users, generate_series(1, users.id % $1) AS n",
    )
    .bind(EVENTS)
    .execute(db)
    .await?;
    Ok(())
}

/// The ids that a reader should see.
async fn expected(db: &PgPool, user: i64, Reading { filter, offset, .. }: &Reading) -> anyhow::Result<Vec<i64>> {
    let text = |name| filter.texts.get(name);
    let ids = sqlx::query_scalar(
        "SELECT id FROM events
         WHERE user_id = $1 AND ($2::text IS NULL OR event_type = $2) AND ($3::text IS NULL OR event_name = $3)
               AND ($4::text IS NULL OR source = $4) AND ($5::text IS NULL OR session_id = $5)
               AND ($6::bool IS NULL OR processed = $6) AND ($7::timestamptz IS NULL OR created_at >= $7)
               AND ($8::timestamptz IS NULL OR created_at < $8) AND ($9::timestamptz IS NULL OR event_timestamp >= $9)
               AND ($10::timestamptz IS NULL OR event_timestamp < $10)
         ORDER BY created_at DESC, id DESC OFFSET $11",
    )
    .bind(user)
    .bind(text("event_type"))
    .bind(text("event_name"))
    .bind(text("source"))
    .bind(text("session_id"))
    .bind(filter.processed)
    .bind(filter.from)
    .bind(filter.to)
    .bind(filter.event_from)
    .bind(filter.event_to)
    .bind(offset);
    Ok(ids.fetch_all(db).await?)
}

/// The ids on all pages.
async fn read(store: &Store, user: i64, reading: &Reading) -> anyhow::Result<Vec<i64>> {
    let mut ids = Vec::new();
    let mut start = PageStart::Offset(reading.offset);
    // Each page reads at least one event.
    for _ in 0..=EVENTS {
        let page = match store.list_events(user, &reading.filter, start, reading.limits).await {
            // The client uses cursors instead.
            Err(ListError::OffsetTooFar) => {
                let all = Reading { offset: 0, ..reading.clone() };
                let ids = Box::pin(read(store, user, &all)).await?;
                return Ok(ids.into_iter().skip(usize::try_from(reading.offset)?).collect());
            }
            page => page?,
        };
        anyhow::ensure!(i64::try_from(page.events.len())? <= reading.limits.events, "{} events", page.events.len());
        ids.extend(page.events.iter().map(|event| event.id));
        match page.next {
            Some(position) => start = PageStart::After(position),
            None => return Ok(ids),
        }
    }
    anyhow::bail!("the pages do not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_random_histories_have_the_events_of_a_plain_query() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db).await?;
    let config = StoreConfig {
        url: env.database_url.clone(),
        url_again: None,
        ca: None,
        identity: None,
        max_connections: 4,
        application_name: "pulse lists".into(),
    };
    let store = Store::connect_lazy(&config)?;
    let mut runner = TestRunner::deterministic();
    let mut readings = Vec::new();
    for user in 1..=HISTORIES {
        let tree = reading().new_tree(&mut runner).map_err(|why| anyhow::anyhow!("{why}"))?;
        readings.push((user, tree.current()));
    }
    let check = async |(user, reading): (i64, Reading)| {
        let (expected, listed) = (expected(&env.db, user, &reading).await?, read(&store, user, &reading).await?);
        anyhow::ensure!(listed == expected, "user {user}, {reading:?}: {listed:?} instead of {expected:?}");
        Ok(expected.len())
    };
    let found: usize =
        stream::iter(readings).map(check).buffer_unordered(4).try_fold(0, async |sum, events| Ok(sum + events)).await?;
    assert!(found > 500, "{found} events matched");
    Ok(())
}
