//! Each page with all its files is small, whatever the texts of events, errors and reasons are.

use pulse_tests::{Process, TestEnv, eventually};

use super::{Browser, TIMEOUT, run};

/// Maximum number of bytes of a page with all its files.
const MAX_BYTES: usize = 100_000;

/// Rows with the longest texts that there can be, and which hardly shrink.
const LONG_TEXTS: &str = "
    CREATE FUNCTION noise(n int) RETURNS text LANGUAGE sql VOLATILE AS $$
        SELECT left(string_agg(encode(sha512(random()::text::bytea), 'base64'), ''), n) FROM generate_series(1, 1 + n / 85)
    $$;
    INSERT INTO users (subject) SELECT noise(255) FROM generate_series(1, 100);
    INSERT INTO events (id, user_id, event_name, event_type, source, session_id, task_id, processing_error)
    SELECT n, 1 + n % 100, noise(255), noise(100), noise(100), noise(255), gen_random_uuid(), noise(1000)
    FROM generate_series(1, 2000) AS n;
    INSERT INTO dead_tasks (id, kind, user_id, event_ids, bytes, created_at, attempts, max_attempts, fencing_token, reason,
                            errors)
    SELECT gen_random_uuid(), 'process_event', 1 + n % 100, ARRAY[n], 600, now(), 100, 100, 3, 'error',
           (SELECT jsonb_agg(jsonb_build_object('attempt', attempt, 'at', now(), 'reason', 'error', 'error', noise(1000)))
            FROM generate_series(1, 100) AS attempt WHERE attempt + n > 0)
    FROM generate_series(1, 100) AS n;
    INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, children, request_id)
    SELECT gen_random_uuid(), 'process_events_batch', 1, ARRAY(SELECT generate_series(1, 2000)), 'completed', 1, '[]',
           now(), ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 2000)), 'request'
    FROM generate_series(1, 60);
    INSERT INTO audit_log (act, actor, via, action, target, reason, count)
    SELECT gen_random_uuid(), noise(255), 'console', 'tasks.retry', noise(1000), noise(500), 1 FROM generate_series(1, 100);
    INSERT INTO workers (name, version, state, concurrency, running, in_flight, seen_at, longest_task, longest_since)
    SELECT noise(63), '1', 'running', 64, n % 64, n, now() + interval '1 day', gen_random_uuid(), now()
    FROM generate_series(1, 200) AS n;
    INSERT INTO throughput (period, start, accepted, accepted_events, completed, failed, backlog, completion_times)
    SELECT period, date_bin(step, now(), 'epoch') - n * step, random() * 1e6, random() * 1e6, random() * 1e6, random() * 1e6,
           random() * 1e6, histogram(ARRAY(SELECT random() * 1000 * (n % 50) FROM generate_series(1, 20)))
    FROM generate_series(1, 1400) AS n,
         (VALUES ('minute', interval '1 minute'), ('ten_minutes', interval '10 minutes')) AS periods (period, step);";

/// Bytes of an answer: its head and its body as it is sent.
async fn bytes(browser: &Browser, path: &str) -> anyhow::Result<usize> {
    let headers = [("cookie", browser.cookie.as_str()), ("accept-encoding", "gzip, deflate, br, zstd")];
    let answer = browser.client.send(http::Method::GET, path, &headers, bytes::Bytes::new()).await?;
    anyhow::ensure!(answer.status == 200, "{path}: {}", answer.status);
    let head: usize = answer.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let body = answer.headers.get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(head + body.unwrap_or(answer.text.len()))
}

/// The files that a page needs: those in its head, and the font in its style sheet.
fn files(page: &str) -> Vec<String> {
    let paths = page.split('"').filter(|text| text.starts_with("/assets/")).map(str::to_owned);
    let mut files: Vec<String> = paths.collect();
    files.sort_unstable();
    files.dedup();
    if let Some((folder, _)) = files.iter().find_map(|file| file.rsplit_once('/')) {
        files.push(format!("{folder}/inter-subset.woff2"));
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_with_its_files_is_less_than_100_kb_whatever_its_texts_are() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    run(&env, LONG_TEXTS).await?;
    let console = Process::start(&env, "console", &[]).await?;
    let browser = Browser::new(&console);
    let shown = async || Ok(!browser.get("/?range=7d").await?.text.contains("No charts"));
    eventually("the charts are read", TIMEOUT, shown).await?;
    let one = async |sql: &'static str| sqlx::query_scalar::<_, String>(sql).fetch_one(&env.db).await;
    let dead = one("SELECT id::text FROM dead_tasks LIMIT 1").await?;
    let batch = one("SELECT id::text FROM task_history LIMIT 1").await?;
    let fixed = [
        "/",
        "/?range=24h",
        "/?range=7d",
        "/tasks",
        "/tasks?q=state:dead",
        "/dead-letters",
        "/dead-letters?order=newest",
        "/workers",
        "/events",
        "/schedules",
        "/queue",
        "/audit",
        "/login",
        "/go?id=request",
    ];
    let pages = fixed.map(str::to_owned).into_iter().chain([format!("/tasks/{dead}"), format!("/tasks/{batch}")]);
    for path in pages {
        let page = browser.get(&path).await?.text;
        let mut total = bytes(&browser, &path).await?;
        let alone = total;
        let files = files(&page);
        assert_eq!(files.len(), 6, "{path}: {files:?}");
        for file in files {
            total += bytes(&browser, &file).await?;
        }
        super::print(&format!("{path}: {} bytes, {alone} as sent, {total} with its files", page.len()));
        assert!(total < MAX_BYTES, "{path}: {total} bytes");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_kept_for_a_year_and_only_under_their_version() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let console = Process::start(&env, "console", &[]).await?;
    let browser = Browser::new(&console);
    let page = browser.get("/login").await?.text;
    for file in files(&page) {
        let name = file.rsplit('/').next().unwrap_or_default();
        let kept = async |path: &str| {
            let answer = browser.get(path).await?;
            let header = answer.headers.get("cache-control").and_then(|value| value.to_str().ok()).map(str::to_owned);
            anyhow::Ok((answer.status, header.unwrap_or_default()))
        };
        assert_eq!(kept(&file).await?, (200, "public, max-age=31536000, immutable".into()), "{file}");
        assert_eq!(kept(&format!("/assets/old/{name}")).await?, (200, "no-store".into()), "another version's {name}");
    }
    assert_eq!(browser.get("/assets/old/nothing").await?.status, 404);
    Ok(())
}
