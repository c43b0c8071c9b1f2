//! The audit log: users, limits, applied migrations and keys of tokens, each with who did it. Acts on tasks and the pause are
//! tested with the console.

use std::time::Duration;

use pulse_tests::{Client, Process, SECRET, TestEnv, eventually, pulse_output, token};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The rows with actions that start with `prefix`: action, target, actor, via and role of PostgreSQL.
async fn rows(env: &TestEnv, prefix: &str) -> anyhow::Result<Vec<[String; 5]>> {
    let rows = "SELECT ARRAY[action, target, actor, via, database_role] FROM audit_log
                WHERE starts_with(action, $1) ORDER BY id";
    let rows: Vec<Vec<String>> = sqlx::query_scalar(rows).bind(prefix).fetch_all(&env.db).await?;
    Ok(rows.into_iter().filter_map(|row| row.try_into().ok()).collect())
}

fn row(columns: [&str; 5]) -> [String; 5] {
    columns.map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_migration_is_audited_once_with_who_applied_it() -> anyhow::Result<()> {
    let env = TestEnv::unmigrated().await?;
    for actor in ["release-1", "release-2"] {
        let (code, output) = pulse_output(&env, &["migrate", "--actor", actor, "--because", "ticket 7"]).await?;
        assert_eq!(code, 0, "{output}");
    }
    let applied = "SELECT format('%s %s', version, name) FROM pulse_migrations ORDER BY version";
    let applied: Vec<String> = sqlx::query_scalar(applied).fetch_all(&env.db).await?;
    let expected = applied.iter().map(|target| row(["schema.migrate", target, "release-1", "cli", "pulse"]));
    assert_eq!(rows(&env, "schema").await?, expected.collect::<Vec<_>>());
    assert!(applied.len() > 3);
    assert_eq!(env.number("SELECT count(*) FROM audit_log WHERE reason = 'ticket 7'").await?, applied.len() as i64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_act_on_a_user_is_audited_with_who_did_it() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let acts = [
        (&["create", "ada"][..], "user.create"),
        (&["limit", "ada", "--events-per-second", "5"], "user.limit"),
        (&["limit", "ada", "--clear"], "user.clear_limits"),
        (&["disable", "ada"], "user.disable"),
        (&["enable", "ada"], "user.enable"),
        (&["hold", "ada"], "user.hold"),
        (&["release", "ada"], "user.release"),
        (&["erase", "ada", "--yes"], "user.erase"),
    ];
    for (command, _) in acts {
        let args = [&["user"], command, &["--actor", "ops"]].concat();
        let (code, output) = pulse_output(&env, &args).await?;
        assert_eq!(code, 0, "{args:?}: {output}");
    }
    let mut expected: Vec<_> = acts.iter().map(|(_, act)| row([act, "ada", "ops", "cli", "pulse"])).collect();
    // An erasure disables the user first.
    expected.insert(7, row(["user.disable", "ada", "ops", "cli", "pulse"]));
    assert_eq!(rows(&env, "user").await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn change_of_token_keys_is_audited_once_for_all_processes_and_without_the_secret() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let file = env.file("secret");
    std::fs::write(&file, SECRET)?;
    let path = file.display().to_string();
    let keys = ["--jwt-secret-file", path.as_str()];
    let _one = Process::start(&env, "api", &keys).await?;
    let _other = Process::start(&env, "api", &keys).await?;
    let console = Process::start(&env, "console", &keys).await?;
    let added = async |number: usize| Ok(rows(&env, "key.add").await?.len() == number);
    eventually("the first key is audited", TIMEOUT, async || added(1).await).await?;

    std::fs::write(&file, "another-secret-of-32-bytes-or-more-for-tests")?;
    eventually("the second key is audited", TIMEOUT, async || added(2).await).await?;
    std::fs::write(&file, SECRET)?;
    // As if 2 min had passed. A process may note the second key once more before it reads the file.
    let age = "UPDATE token_keys SET seen_at = now() - interval '3 min'
               WHERE right(fingerprint, 8) = (SELECT right(target, 8) FROM audit_log WHERE action = 'key.add' ORDER BY id DESC LIMIT 1)";
    let removed = async || {
        sqlx::query(age).execute(&env.db).await?;
        Ok(rows(&env, "key.remove").await?.len() == 1)
    };
    eventually("the removed key is audited", TIMEOUT, removed).await?;

    let all = rows(&env, "key").await?;
    let actions: Vec<&str> = all.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(actions, ["key.add", "key.add", "key.remove"], "{all:?}");
    assert_eq!(all[2][1], all[1][1], "the second key is removed, and the first one is known");
    for [_, target, actor, via, role] in &all {
        assert!(target.starts_with("HS256 ") && target.len() == "HS256 ".len() + 8, "{target}");
        assert!(actor.starts_with("pulse ") && actor.contains(" on "), "{actor}");
        assert_eq!((via.as_str(), role.as_str()), ("process", "pulse"));
    }
    let admin = Client::new(&console.url, &token("ops", Some("admin events:read")));
    let json = admin.get("/api/v1/admin/audit").await?.text;
    for part in ["key.add", "key.remove", "schema.migrate", "database_role", "\"via\":\"process\""] {
        assert!(json.contains(part), "{part}: {json}");
    }
    let cookie = format!("pulse_console={}", token("ops", Some("admin events:read")));
    let browser = Client::new(&console.url, "");
    let page = browser.send(http::Method::GET, "/audit", &[("cookie", &cookie)], bytes::Bytes::new()).await?.text;
    assert!(page.contains("key.remove") && page.contains("schema.migrate") && page.contains("process"), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn public_key_is_audited_with_its_kid_and_thumbprint() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let file = env.file("jwks.json");
    // RFC 8037, appendix A.
    let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a\u001b[2J"}]}"#;
    std::fs::write(&file, jwks)?;
    let path = file.display().to_string();
    let keys = ["--jwt-public-key-file", &path, "--jwt-issuer", "i", "--jwt-audience", "a"];
    let _api = Process::start(&env, "api", &keys).await?;
    eventually("the key is audited", TIMEOUT, async || Ok(!rows(&env, "key").await?.is_empty())).await?;
    let target = "EdDSA a\u{1b}[2J kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    assert_eq!(rows(&env, "key").await?[0][1], target);
    Ok(())
}
