//! Users with rows in every table.

use sqlx::AssertSqlSafe;

use crate::TestEnv;

/// The tables with rows of users, besides `users`.
pub const TABLES: [&str; 5] = ["events", "tasks", "dead_tasks", "task_history", "idempotency_keys"];

/// Inserts a user with events in several months, tasks that are due in an hour, dead tasks, history and keys. `canary` is in
/// a row of each table.
///
/// # Errors
/// If a statement fails.
pub async fn insert_user(env: &TestEnv, subject: &str, canary: &str, events: u32) -> anyhow::Result<()> {
    let sql = format!(
        "INSERT INTO users (subject) VALUES ('{subject}');
         INSERT INTO events (user_id, event_name, event_type, task_id, created_at, payload)
         SELECT currval('users_id_seq'), 'a', 't', gen_random_uuid(), now() - n % 3 * interval '40 days',
                jsonb_build_object('text', '{canary}' || repeat('x', 500))
         FROM generate_series(1, {events}) AS n;
         INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, settled_at, request_id)
         SELECT task_id, 'process_event', user_id, ARRAY[id], 'completed', 1, '[]', created_at, created_at, '{canary}'
         FROM events WHERE user_id = currval('users_id_seq');
         INSERT INTO tasks (id, kind, user_id, event_ids, bytes, max_attempts, run_at, request_id)
         SELECT gen_random_uuid(), 'process_event', currval('users_id_seq'), ARRAY[n], 600, 3, now() + interval '1 hour',
                '{canary}'
         FROM generate_series(1, {events} / 20) AS n;
         INSERT INTO dead_tasks (id, kind, user_id, event_ids, bytes, created_at, attempts, max_attempts, fencing_token, reason,
                                 errors)
         SELECT gen_random_uuid(), 'process_event', currval('users_id_seq'), ARRAY[n], 600, now(), 3, 3, 3, 'error',
                jsonb_build_array(jsonb_build_object('error', '{canary}'))
         FROM generate_series(1, {events} / 20) AS n;
         INSERT INTO idempotency_keys (user_id, route, key, fingerprint, task_id, event_ids, replay)
         SELECT currval('users_id_seq'), '/api/v1/events', '{canary} ' || n, '', gen_random_uuid(), ARRAY[n], '{{}}'
         FROM generate_series(1, {events} / 20) AS n;"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&env.db).await?;
    Ok(())
}

/// The id of a user.
///
/// # Errors
/// If there is no such user.
pub async fn id_of(env: &TestEnv, subject: &str) -> anyhow::Result<i64> {
    env.number(&format!("SELECT id FROM users WHERE subject = '{subject}'")).await
}

/// Number of rows of all tables that belong to the user with this id.
///
/// # Errors
/// If PostgreSQL does not answer.
pub async fn rows_of(env: &TestEnv, id: i64) -> anyhow::Result<i64> {
    let tables = TABLES.map(|table| format!("(SELECT count(*) FROM {table} WHERE user_id = {id})"));
    env.number(&format!("SELECT {} + (SELECT count(*) FROM users WHERE id = {id})", tables.join(" + "))).await
}

/// The tables of the schema that have a row with this text in any column.
///
/// # Errors
/// If PostgreSQL does not answer.
pub async fn tables_with(env: &TestEnv, canary: &str) -> anyhow::Result<Vec<String>> {
    let tables = "SELECT relname::text FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                  ORDER BY relname";
    let mut found = Vec::new();
    for table in sqlx::query_scalar::<_, String>(tables).fetch_all(&env.db).await? {
        let rows = format!("SELECT count(*) FROM {table} AS t WHERE to_jsonb(t)::text LIKE '%{canary}%'");
        if env.number(&rows).await? > 0 {
            found.push(table);
        }
    }
    Ok(found)
}

/// Makes the API's knowledge of the user older than its cache, so that an erasure begins at once.
///
/// # Errors
/// If PostgreSQL does not answer.
pub async fn disable_long_ago(env: &TestEnv, id: i64) -> anyhow::Result<()> {
    let sql = "UPDATE users SET disabled_at = now() - interval '1 minute' WHERE id = $1";
    sqlx::query(sql).bind(id).execute(&env.db).await?;
    Ok(())
}
