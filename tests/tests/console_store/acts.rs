//! The audit log: each act leaves its rows, and no row changes.

use pulse_tests::{Process, TestEnv, pulse_output};

use crate::{TIMEOUT, store};

#[tokio::test(flavor = "multi_thread")]
async fn acts_leave_rows_that_cannot_be_changed() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let task = client.post_event("a").await?;
    let many = "INSERT INTO tasks (id, kind, user_id, event_ids, bytes, max_attempts)
                SELECT gen_random_uuid(), 'process_event', user_id, ARRAY[-n], 600, 3
                FROM tasks, generate_series(1, 1500) AS n";
    sqlx::query(many).execute(&env.db).await?;
    let by = ["--actor", "grace", "--because", "a bad deploy"];
    let run = async |args: &[&str]| {
        let (code, output) = pulse_output(&env, &[args, &by].concat()).await?;
        anyhow::ensure!(code == 0, "{args:?}: {output}");
        anyhow::Ok(())
    };
    run(&["tasks", "cancel", &task]).await?;
    run(&["tasks", "cancel", "--all", "--state", "pending"]).await?;
    run(&["user", "limit", "ada", "--max-in-flight", "5"]).await?;
    run(&["user", "disable", "ada"]).await?;
    run(&["user", "enable", "ada"]).await?;
    run(&["user", "erase", "ada", "--yes"]).await?;
    let mut rows = store(&env)?.audit_page(None, 100).await?;
    rows.reverse();
    rows.retain(|row| row.action != "schema.migrate" && row.via != "process");
    let seen: Vec<(&str, i64)> = rows.iter().map(|row| (row.action.as_str(), row.count)).collect();
    assert_eq!(seen[..2], [("tasks.cancel", 1), ("tasks.cancel", 1500)], "{rows:?}");
    let users: Vec<&str> = seen[2..].iter().map(|(action, _)| *action).collect();
    assert_eq!(users, ["user.limit", "user.disable", "user.enable", "user.disable", "user.erase"]);
    assert!(rows.iter().all(|row| row.actor == "grace" && row.via == "cli"), "{rows:?}");
    assert!(rows.iter().all(|row| row.reason.as_deref() == Some("a bad deploy")), "{rows:?}");
    assert!(rows[0].target.contains(&task), "{rows:?}");
    assert!(rows[0].act != rows[1].act && rows[1].outcome.as_deref() == Some("completed"), "{rows:?}");
    let page = store(&env)?.audit_page(Some(rows[3].id), 2).await?;
    assert_eq!(page, [rows[2].clone(), rows[1].clone()], "pages go back in time");
    for change in ["UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log", "TRUNCATE audit_log"] {
        let error = sqlx::query(change).execute(&env.db).await.expect_err(change).to_string();
        assert!(error.contains("append-only"), "{change}: {error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn retried_dead_letters_of_one_error_are_counted_first_and_audited() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    let worker = Process::start(&env, "worker", &[]).await?;
    for name in ["fail", "fail", "invalid"] {
        api.client("ada").post_event(name).await?;
    }
    env.wait_until_settled(TIMEOUT).await?;
    worker.kill().await?;
    let store = store(&env)?;
    let groups = store.dead_groups(pulse_store::console::DeadOrder::Count, 10).await?;
    let counts: Vec<i64> = groups.iter().map(|group| group.count).collect();
    assert_eq!(counts, [2, 1], "{groups:?}");
    let filter = pulse_store::TaskFilter {
        states: vec![pulse_store::TaskState::Dead],
        reason: Some(groups[0].reason.clone()),
        error_group: Some(groups[0].error_group.clone()),
        ..pulse_store::TaskFilter::default()
    };
    assert_eq!(store.count_tasks(&filter).await?, pulse_store::MatchingTasks { tasks: 2, is_complete: true });
    let act = pulse_store::Act::new("grace".into(), pulse_store::Via::Console, None);
    let moved = store.act_on_tasks(pulse_store::TaskAction::Retry, &filter, 100, &act).await?;
    assert_eq!(moved, Some(pulse_store::MovedTasks { moved: 2, busy: 0 }));
    assert_eq!(store.count_tasks(&filter).await?.tasks, 0);
    let row = store.audit_page(None, 1).await?.remove(0);
    assert_eq!((row.action.as_str(), row.count, row.via.as_str()), ("tasks.retry", 2, "console"));
    assert!(row.target.contains(&groups[0].error_group), "{row:?}");
    Ok(())
}
