//! `compose.yaml` and the page about the move from Celery. With docker, `tests/compose` runs both.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use pulse_tests::cluster::packaging_program;
use pulse_tests::{Process, TestEnv, pulse, repository, run};
use serde_json::{Value, json};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(30);

const SECRET: &str = "a-secret-of-the-compose-file-with-32-bytes";

/// The project as docker compose reads it.
async fn project(secret: Option<&str>) -> anyhow::Result<Value> {
    let mut command = Command::new(packaging_program("compose-config").await?);
    command.arg(repository().join("compose.yaml")).env_remove("PULSE_JWT_SECRET");
    command.envs(secret.map(|secret| ("PULSE_JWT_SECRET", secret)));
    Ok(serde_json::from_str(&run(&mut command).await?)?)
}

/// Variables of a service, without those of the servers.
fn variables(service: &Value) -> Vec<(&str, String)> {
    let variables: BTreeMap<&str, &Value> =
        service["environment"].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value)).collect();
    let ours = variables.into_iter().filter(|(name, _)| !["PULSE_DATABASE_URL", "PULSE_REDIS_URL"].contains(name));
    ours.map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect()
}

#[tokio::test]
async fn compose_file_has_a_service_for_each_of_the_old_system_and_asks_for_a_secret() -> anyhow::Result<()> {
    let refusal = project(None).await.expect_err("there is no secret").to_string();
    assert!(refusal.contains("openssl rand -hex 32"), "{refusal}");
    let project = project(Some(SECRET)).await?;
    let services = project["services"].as_object().context("services")?;
    let names: Vec<_> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ["api", "console", "db", "migrate", "redis", "scheduler", "worker"]);
    for (name, service) in services {
        let published = service["ports"].as_array().into_iter().flatten().filter(|port| port["host_ip"] != "127.0.0.1");
        assert_eq!(published.count(), 0, "{name} is open to the network");
    }
    assert!(services["worker"]["ports"].as_array().is_none_or(Vec::is_empty), "a port cannot be scaled");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_of_the_compose_file_process_an_event_and_the_commands_of_the_page_work() -> anyhow::Result<()> {
    let project = project(Some(SECRET)).await?;
    let env = TestEnv::start().await?;
    let mut roles = BTreeMap::new();
    for name in ["api", "worker", "scheduler", "console"] {
        let service = &project["services"][name];
        assert_eq!(service["command"], json!([name]));
        let variables: Vec<_> =
            variables(service).into_iter().filter(|(variable, _)| *variable != "PULSE_JWT_SECRET").collect();
        let role = Process::spawn_with_variables(&env, name, &variables, &[])?;
        role.wait_until_ready().await?;
        roles.insert(name, role);
    }
    let task = roles["api"].client("ada").post_event("page_view").await?;
    env.wait_until_settled(TIMEOUT).await?;
    // As in the container of the API.
    let exec = async |args: &[&str]| {
        let output = pulse(&env, args).envs(variables(&project["services"]["api"])).output().await?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        anyhow::Ok((output.status.code(), text))
    };

    let page = std::fs::read_to_string(repository().join("docs/how-to/migrate-from-celery.md"))?;
    let commands = page.split('`').filter_map(|code| code.strip_prefix("docker compose exec api /pulse "));
    let mut count = 0;
    for command in commands {
        let args: Vec<&str> =
            command.split(' ').map(|word| if word == "TASK_ID" { task.as_str() } else { word }).collect();
        let (code, output) = exec(&args).await?;
        assert_eq!(code, Some(0), "{command}: {output}");
        count += 1;
    }
    assert!(count >= 6, "the page has only {count} commands");
    for row in page.lines().filter(|row| row.starts_with("| `GET") || row.starts_with("| `POST")) {
        let (_, route) = row.split_once('`').context("a route")?;
        let (method, path) = route.split('`').next().and_then(|route| route.split_once(' ')).context("a route")?;
        if !path.starts_with("/api/") {
            continue;
        }
        let client = roles["api"].client("ada");
        let event = json!({ "event_name": "a", "event_type": "t" });
        let answer = match (method, path) {
            ("POST", path) if path.ends_with("batch") => client.post(path, &json!({ "events": [event] })).await?,
            ("POST", path) => client.post(path, &event).await?,
            (_, path) => client.get(&path.replace("{id}", "1")).await?,
        };
        assert!(answer.status < 300, "{row}: {}", answer.text);
    }
    let found = roles["api"].client("ada").get(&format!("/api/v1/tasks/{task}")).await?;
    assert_eq!(found.status, 200, "{}", found.text);
    Ok(())
}
