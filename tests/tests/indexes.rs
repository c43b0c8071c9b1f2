//! Each documented query uses an index, with 1,000,000 events and 100,000 unsettled tasks.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::time::{Duration, Instant};

use pulse_tests::TestEnv;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

/// Text of the one prepared statement in `.sqlx` that contains `fragment`.
fn statement(fragment: &str) -> anyhow::Result<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../.sqlx");
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let prepared: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file?.path())?)?;
        found.extend(prepared["query"].as_str().filter(|query| query.contains(fragment)).map(str::to_owned));
    }
    anyhow::ensure!(found.len() == 1, "{} statements contain `{fragment}`", found.len());
    Ok(found.remove(0))
}

async fn fill(db: &PgPool) -> anyhow::Result<()> {
    sqlx::raw_sql(
        "INSERT INTO users (subject) SELECT 'user ' || n FROM generate_series(1, 100) AS n;
         INSERT INTO events (user_id, event_name, event_type, source, session_id, task_id, created_at, processed)
         SELECT 1 + n % 100, 'name ' || n % 50, 'type ' || n % 5, 'web', 'session ' || n % 10000, gen_random_uuid(),
                now() - n * interval '1 millisecond', true
         FROM generate_series(1, 1000000) AS n;
         INSERT INTO tasks (id, kind, user_id, event_ids, bytes, max_attempts)
         SELECT gen_random_uuid(), 'process_event', 1 + n % 100, ARRAY[n], 600, 3 FROM generate_series(1, 100000) AS n;
         INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, request_id,
                                   traceparent)
         SELECT md5(n::text)::uuid, 'process_event', 1 + n % 100, ARRAY[n], 'completed', 1, '[]', now(),
                'request-' || n, '00-' || md5(n::text) || '-00f067aa0ba902b7-01'
         FROM generate_series(1, 100000) AS n;
         INSERT INTO dead_tasks (id, kind, user_id, event_ids, bytes, created_at, attempts, max_attempts, fencing_token,
                                 reason, errors, dead_at, request_id, traceparent)
         SELECT gen_random_uuid(), 'process_event', 1 + n % 100, ARRAY[n], 600, now(), 3, 3, 3, 'error',
                jsonb_build_array(jsonb_build_object('reason', 'error', 'error', 'kind ' || chr(97 + n % 20))),
                now() - n * interval '1 second', 'request-' || n, '00-' || md5(n::text) || '-00f067aa0ba902b7-01'
         FROM generate_series(1, 100000) AS n;
         ANALYZE;",
    )
    .execute(db)
    .await?;
    // For index-only scans.
    sqlx::query("VACUUM dead_tasks").execute(db).await?;
    Ok(())
}

/// Name, a fragment of the statement, and its arguments.
type Case = (&'static str, &'static str, String);

/// The statements of the API and of the roles.
fn cases() -> Vec<Case> {
    let id = "gen_random_uuid()";
    let list = "WINDOW newest AS";
    // Type, name, source, session, processed, and the range of event_timestamp.
    let any = "NULL, NULL, NULL, NULL, NULL, NULL, NULL";
    // The range of created_at, and the cursor.
    let all = "NULL, NULL, NULL, NULL";
    let page = "2000, 0, 51";
    vec![
        ("list", list, format!("7, {any}, {all}, {page}")),
        ("list by type", list, format!("7, 'type 1', NULL, NULL, NULL, NULL, NULL, NULL, {all}, {page}")),
        ("list by session", list, format!("7, NULL, NULL, NULL, 'session 6', NULL, NULL, NULL, {all}, {page}")),
        ("list since", list, format!("7, {any}, now() - interval '1 minute', NULL, NULL, NULL, {page}")),
        ("list after a cursor", list, format!("7, {any}, NULL, NULL, now(), 500000, {page}")),
        ("unprocessed", "FROM tasks WHERE user_id = $1", "7, 10000".into()),
        ("failed", "FROM dead_tasks WHERE user_id = $1", "7, 10000".into()),
        ("cancelled", "AND outcome = 'cancelled'", "7, 10000".into()),
        ("export of events", "OVER (ORDER BY created_at, id) -", "7, now() - interval '1 h', 7, 256, 4194304".into()),
        ("export of tasks", "OVER (ORDER BY run_at, id) -", format!("7, now(), {id}, 256, 4194304")),
        ("export of dead tasks", "OVER (ORDER BY id) - octet", format!("7, {id}, 256, 4194304")),
        ("export of settled tasks", "on_pages AS MATERIALIZED", format!("7, 32, 64, {id}, now(), 256, 4194304")),
        ("claim", "), claimed AS (", format!("ARRAY[{id}], 'worker', 30, 2000, false")),
        ("claim without Redis", "WITH RECURSIVE known", "100, 256".into()),
        (
            "events of a claim",
            "WITH ORDINALITY\n                AS wanted",
            format!("ARRAY[7], ARRAY[now()], ARRAY[1], ARRAY[2], ARRAY[{id}]"),
        ),
    ]
}

/// The statements of the console.
fn console_cases() -> Vec<Case> {
    let id = "gen_random_uuid()";
    let (first, last) = ("'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'");
    let page = format!("{last}, '{{dead,pending,completed}}', NULL, NULL, NULL, 51, 10000, {first}, NULL, NULL");
    vec![
        ("page of unsettled tasks", "FROM (SELECT * FROM tasks", page.clone()),
        ("page of dead tasks", "FROM (SELECT * FROM dead_tasks", page.clone()),
        ("page of settled tasks", "FROM (SELECT * FROM task_history", page),
        ("end of a page", "FROM task_history WHERE id < $1 AND id >= $2 ORDER", format!("{last}, {first}, 9999")),
        (
            "page of one error",
            "FROM (SELECT * FROM dead_tasks",
            format!("{last}, '{{dead}}', NULL, NULL, NULL, 51, 10000, {first}, 'kind a', NULL"),
        ),
        (
            "end of a page of one error",
            "SELECT id FROM dead_tasks WHERE id < $1",
            format!("{last}, {first}, 9999, NULL, 'kind a'"),
        ),
        ("tail of events", "FROM (SELECT * FROM events", "9999999, 10000, NULL, 'name 1', NULL, NULL, 51".into()),
        ("groups of dead letters", "WITH latest AS", "50000, false, 50".into()),
        ("dead letters of one error", "FROM dead_tasks AS other", id.into()),
        ("search by request", "FROM task_history\n             WHERE request_id", "'request-7', NULL, 50".into()),
        ("search by trace", "FROM task_history\n             WHERE trace_id", "md5('7'), NULL, 50".into()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_queries_use_an_index() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db).await?;
    // Tables and partitions with rows. The planner may use a sequential scan for empty partitions.
    let full = "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples > 1000 AND relname <> 'users'";
    let full: Vec<String> = sqlx::query(full).fetch_all(&env.db).await?.iter().map(|row| row.get(0)).collect();
    assert!(full.iter().any(|table| table.starts_with("events_y")), "{full:?}");
    let mut session = env.db.acquire().await?;
    // As on a pooled connection.
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_sort = off").execute(&mut *session).await?;
    for (place, (name, fragment, arguments)) in cases().into_iter().chain(console_cases()).enumerate() {
        let prepare = format!("PREPARE case_{place} AS {}", statement(fragment)?);
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *session).await?;
        let explain = format!("EXPLAIN EXECUTE case_{place} ({arguments})");
        let rows = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *session).await?;
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        for table in &full {
            let scans = plan.iter().any(|line| {
                line.split("Seq Scan on ").nth(1).is_some_and(|rest| rest.split(' ').next() == Some(table))
            });
            assert!(!scans, "{name} scans {table}:\n{}", plan.join("\n"));
        }
        let sorts = name.starts_with("list") && plan.iter().any(|line| line.contains("Sort  ("));
        assert!(!sorts, "{name} sorts:\n{}", plan.join("\n"));
    }
    Ok(())
}

/// Numbers of events, one in ten of the user who lists.
const SIZES: &[i64] = if cfg!(feature = "long") { &[100_000, 1_000_000, 10_000_000] } else { &[500_000] };
const RUNS: usize = if cfg!(feature = "long") { 100 } else { 10 };
/// A filter, by the first parameters of the list: it matches nothing, but for the first one.
const FILTERS: [(&str, &str); 7] = [
    ("nothing", "NULL, NULL, NULL, NULL, NULL, NULL, NULL"),
    ("type", "'none', NULL, NULL, NULL, NULL, NULL, NULL"),
    ("name", "NULL, 'none', NULL, NULL, NULL, NULL, NULL"),
    ("source", "NULL, NULL, 'none', NULL, NULL, NULL, NULL"),
    ("session", "NULL, NULL, NULL, 'none', NULL, NULL, NULL"),
    ("processed", "NULL, NULL, NULL, NULL, false, NULL, NULL"),
    ("event_timestamp", "NULL, NULL, NULL, NULL, NULL, now() + interval '1 hour', NULL"),
];

#[tokio::test(flavor = "multi_thread")]
async fn page_of_every_filter_reads_a_bounded_number_of_blocks() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut session = env.db.acquire().await?;
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_sort = off").execute(&mut *session).await?;
    let prepare = format!("PREPARE list AS {}", statement("WINDOW newest AS")?);
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *session).await?;
    let mut events = 0;
    for size in SIZES {
        let fill = format!(
            "INSERT INTO events (user_id, event_name, event_type, source, session_id, task_id, created_at, processed)
             SELECT CASE n % 10 WHEN 0 THEN 1 ELSE n % 1000 END, 'name ' || n % 50, 'type ' || n % 5, 'web',
                    'session ' || n % 10000, gen_random_uuid(), now() - n * interval '1 millisecond', true
             FROM generate_series({events} + 1, {size}::bigint) AS n;
             ANALYZE events"
        );
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&env.db).await?;
        events = *size;
        for (name, filters) in FILTERS {
            // All that a page may read.
            let explain = format!(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE list (1, {filters}, NULL, NULL, NULL, NULL, 12000, 10000, 51)"
            );
            let (mut blocks, mut times) = (0, Vec::new());
            for _ in 0..RUNS {
                let row = sqlx::raw_sql(AssertSqlSafe(explain.as_str())).fetch_one(&mut *session).await?;
                let plan: serde_json::Value = row.get(0);
                let read = |kind| plan[0]["Plan"][kind].as_i64().unwrap_or(i64::MAX / 2);
                blocks = blocks.max(read("Shared Hit Blocks") + read("Shared Read Blocks"));
                times.push(plan[0]["Execution Time"].as_f64().unwrap_or(f64::INFINITY));
                assert!(blocks <= 20_000, "a page by {name} reads {blocks} blocks: {plan:#}");
            }
            times.sort_by(f64::total_cmp);
            let p99 = times[(RUNS * 99).div_ceil(100) - 1];
            println!("{size} events, a page by {name}: {blocks} blocks, p99 {p99:.1} ms");
        }
    }
    Ok(())
}

/// Reads of an id, which is in any month: name, a fragment of the statement, its arguments, and the read without a kept
/// plan.
const BY_ID: [(&str, &str, &str, &str); 2] = [
    ("event", "events_by_id(ARRAY[$2", "12, 4711", "(int, bigint) AS SELECT * FROM events WHERE id = $2"),
    (
        "settled task",
        "settled_tasks_by_id(ARRAY[$2",
        "NULL, md5('4711')::uuid",
        "(int, uuid) AS SELECT * FROM task_history WHERE id = $2",
    ),
];
const MONTHS: usize = 26;
/// Of each kind of read.
const READS: u32 = 200;

/// The time of the fastest of many reads: on a busy machine others wait for the processor.
async fn time_of(session: &mut PgConnection, sql: &str) -> anyhow::Result<Duration> {
    let mut fastest = Duration::MAX;
    for _ in 0..READS {
        let started = Instant::now();
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut *session).await?;
        anyhow::ensure!(rows.len() == 1, "{sql} finds no row");
        fastest = fastest.min(started.elapsed());
    }
    Ok(fastest)
}

#[tokio::test(flavor = "multi_thread")]
async fn read_by_id_costs_no_plan_of_each_month() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db).await?;
    let months = format!(
        "DO $$ DECLARE parent text; BEGIN
             FOREACH parent IN ARRAY ARRAY['events', 'task_history'] LOOP
                 FOR month IN 1..{MONTHS} LOOP
                     EXECUTE format('CREATE TABLE %1$s_%2$s PARTITION OF %1$s FOR VALUES FROM (%3$L) TO (%4$L)', parent,
                                    month, '2001-01-01'::date + month, '2001-01-02'::date + month);
                 END LOOP;
             END LOOP;
         END $$"
    );
    sqlx::raw_sql(AssertSqlSafe(months)).execute(&env.db).await?;
    let mut session = env.db.acquire().await?;
    // As on a pooled connection.
    let settings =
        "SET plan_cache_mode = force_custom_plan; SET enable_seqscan = off; SET enable_sort = off; SET jit = off";
    sqlx::raw_sql(settings).execute(&mut *session).await?;
    for (place, (name, fragment, arguments, planned)) in BY_ID.into_iter().enumerate() {
        let prepare = format!("PREPARE read_{place} AS {}; PREPARE planned_{place} {planned}", statement(fragment)?);
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *session).await?;
        let read = format!("EXECUTE read_{place} ({arguments})");
        let planned = format!("EXECUTE planned_{place} ({arguments})");
        // The first read makes the plan.
        time_of(&mut session, &read).await?;
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {read}");
        let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *session).await?;
        let plan: serde_json::Value = row.get(0);
        let blocks = plan[0]["Plan"]["Shared Hit Blocks"].as_u64().unwrap_or(u64::MAX);
        assert!(blocks <= 4 * MONTHS as u64, "{name}: {blocks} blocks: {plan:#}");
        let (time, with_plan) = (time_of(&mut session, &read).await?, time_of(&mut session, &planned).await?);
        println!("{name}: {blocks} blocks, {time:?}; with a plan of {MONTHS} months {with_plan:?}");
        assert!(3 * time < 2 * with_plan, "{name} took {time:?}, and with a plan of each month {with_plan:?}");
    }
    Ok(())
}
