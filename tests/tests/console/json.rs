//! The JSON of the console, and its document.

use std::time::Duration;

use pulse_tests::{Client, Process, TestEnv, eventually, python_tool, run, token};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{ADMIN, started};

const ROOT: &str = "/api/v1/admin";
const SCHEMATHESIS: &str = "4.32.5";
/// Time limit of the fuzzer, in seconds.
const MAX_TIME: &str = "15";

/// A dead, a completed and a pending task, and all roles.
async fn with_tasks() -> anyhow::Result<(TestEnv, Process, Vec<Process>)> {
    let (env, console) = started(&[]).await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    let roles = vec![Process::start(&env, "worker", &[]).await?, Process::start(&env, "scheduler", &[]).await?];
    for name in ["fail", "order"] {
        api.client("ada").post_event(name).await?;
    }
    env.wait_until_settled(Duration::from_secs(20)).await?;
    Ok((env, console, roles))
}

fn routes(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, methods)| {
            methods.as_object().into_iter().flatten().map(|(method, _)| (method.clone(), path.clone()))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_shows_administrators_all_and_users_their_own() -> anyhow::Result<()> {
    let (env, console, _roles) = with_tasks().await?;
    let client = |user, scope| Client::new(&console.url, &token(user, Some(scope)));
    let (admin, ada, eve) = (client("ops", ADMIN), client("ada", "events:read"), client("eve", "events:read"));
    let ready = async || Ok(admin.get(&format!("{ROOT}/overview")).await?.json["workers"] == 1);
    eventually("the worker is registered", Duration::from_secs(30), ready).await?;
    for path in ["overview", "series", "workers", "schedules", "queue", "audit", "dead-letters", "acts"] {
        assert_eq!(admin.get(&format!("{ROOT}/{path}")).await?.status, 200, "{path}");
        let refused = ada.get(&format!("{ROOT}/{path}")).await?;
        assert_eq!((refused.status, refused.json["code"].as_str()), (403, Some("insufficient_scope")), "{path}");
    }
    let tasks = admin.get(&format!("{ROOT}/tasks?q=state:dead")).await?.json;
    let task = tasks["tasks"][0]["id"].as_str().unwrap_or_default().to_owned();
    assert!(tasks["tasks"][0]["worker"].is_string(), "{tasks}");
    let own = ada.get(&format!("{ROOT}/tasks/{task}")).await?;
    assert_eq!((own.status, &own.json["task"]["state"]), (200, &json!("dead")), "{}", own.text);
    assert!(own.json["same_error"].is_null() && own.json["task"]["worker"].is_null(), "{}", own.text);
    assert_eq!(
        ada.get(&format!("{ROOT}/events?event_name=order")).await?.json["events"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(ada.get(&format!("{ROOT}/search?id={task}")).await?.json["hits"][0]["task_id"], json!(task));
    assert_eq!(eve.get(&format!("{ROOT}/tasks/{task}")).await?.status, 404);

    let paused = admin.post(&format!("{ROOT}/pause"), &json!({ "reason": "calm" })).await?.json;
    assert_eq!((&paused["changed"], &paused["pause"]["actor"]), (&json!(true), &json!("ops")), "{paused}");
    assert_eq!(
        admin.post(&format!("{ROOT}/resume"), &json!({})).await?.json,
        json!({ "changed": true, "pause": null })
    );
    let by_api = "SELECT count(*) FROM audit_log WHERE via = 'api' AND actor = 'ops'";
    assert_eq!(env.number(by_api).await?, 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn json_answers_are_those_of_its_document() -> anyhow::Result<()> {
    let tool = python_tool("schemathesis", SCHEMATHESIS).await?;
    let (env, console, _roles) = with_tasks().await?;
    let admin = token("ops", Some(ADMIN));
    let document = Client::new(&console.url, "").get(&format!("{ROOT}/openapi.json")).await?.json;
    let documented = routes(&document);
    assert_eq!(documented.len(), 17, "{documented:?}");
    let stranger = Client::new(&console.url, "");
    for (method, path) in &documented {
        let method = method.to_uppercase().parse()?;
        let path = path.replace("{id}", "0193a8f1-7c22-7d0e-b1f4-66d94c1e9a07");
        let answer = stranger.send(method, &path, &[], "{}".into()).await?;
        assert_eq!(
            (answer.status, answer.json["code"].as_str()),
            (401, Some("missing_token")),
            "{path}: {}",
            answer.text
        );
    }
    let mut command = Command::new(tool);
    command.current_dir(env.data.path()).args(["run", "--no-color"]);
    command.args(["--header", &format!("Authorization: Bearer {admin}")]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    command.args(["--checks", checks, "--seed", "20"]);
    command.args(["--max-time", MAX_TIME, "--warnings", "off", "--continue-on-failure"]);
    command.arg(format!("{}{ROOT}/openapi.json", console.url));
    let output = tokio::time::timeout(Duration::from_secs(90), run(&mut command)).await??;
    assert!(output.contains("Operations:"), "the fuzzer tested no operation: {output}");
    Ok(())
}
