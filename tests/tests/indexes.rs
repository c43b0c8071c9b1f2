//! Each documented query uses an index, with 1,000,000 events and 100,000 unsettled tasks.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use pulse_tests::TestEnv;
use sqlx::{AssertSqlSafe, PgPool, Row};

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
         SELECT gen_random_uuid(), 'process_event', 1 + n % 100, ARRAY[n], 'completed', 1, '[]', now(),
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
        ("one event", "FROM events WHERE id = $2", "7, 4711".into()),
        ("unprocessed", "FROM tasks WHERE user_id = $1", "7, 10000".into()),
        ("failed", "FROM dead_tasks WHERE user_id = $1", "7, 10000".into()),
        ("cancelled", "AND outcome = 'cancelled'", "7, 10000".into()),
        ("one task", "FROM task_history WHERE id = $2", format!("7, {id}")),
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
        ("task of an event", "SELECT child.id FROM task_history", "4711, NULL".into()),
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

/// Events of one user, among ten times as many of others.
const EVENTS_OF_USER: i64 = if cfg!(feature = "long") { 1_000_000 } else { 50_000 };

#[tokio::test(flavor = "multi_thread")]
async fn page_of_every_filter_reads_a_bounded_number_of_blocks() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let fill = format!(
        "INSERT INTO events (user_id, event_name, event_type, source, session_id, task_id, created_at, processed)
         SELECT CASE n % 10 WHEN 0 THEN 1 ELSE n % 1000 END, 'name ' || n % 50, 'type ' || n % 5, 'web',
                'session ' || n % 10000, gen_random_uuid(), now() - n * interval '1 millisecond', true
         FROM generate_series(1, {EVENTS_OF_USER} * 10::bigint) AS n;
         ANALYZE events"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&env.db).await?;
    let mut session = env.db.acquire().await?;
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_sort = off").execute(&mut *session).await?;
    let prepare = format!("PREPARE list AS {}", statement("WINDOW newest AS")?);
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *session).await?;
    for (name, filters) in [
        ("nothing", "NULL, NULL, NULL, NULL, NULL, NULL, NULL"),
        ("type", "'none', NULL, NULL, NULL, NULL, NULL, NULL"),
        ("name", "NULL, 'none', NULL, NULL, NULL, NULL, NULL"),
        ("source", "NULL, NULL, 'none', NULL, NULL, NULL, NULL"),
        ("session", "NULL, NULL, NULL, 'none', NULL, NULL, NULL"),
        ("processed", "NULL, NULL, NULL, NULL, false, NULL, NULL"),
        ("event_timestamp", "NULL, NULL, NULL, NULL, NULL, now() + interval '1 hour', NULL"),
    ] {
        // All that a page may read.
        let explain = format!(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE list (1, {filters}, NULL, NULL, NULL, NULL, 12000, 10000, 51)"
        );
        let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *session).await?;
        let plan: serde_json::Value = row.get(0);
        let blocks = |kind| plan[0]["Plan"][kind].as_i64().unwrap_or(i64::MAX);
        let (blocks, ms) = (blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"), &plan[0]["Execution Time"]);
        println!("a page by {name}: {blocks} blocks, {ms} ms");
        assert!(blocks <= 20_000, "a page by {name} reads {blocks} blocks: {plan:#}");
    }
    Ok(())
}
