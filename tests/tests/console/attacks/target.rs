//! What is attacked: a console with the tasks of one user.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use pulse_http::NewClaims;
use pulse_tests::{Client, Process, Response, SECRET, TestEnv, token};
use serde_json::json;

use crate::{ADMIN, started};

/// What no page may have in this form.
pub(super) const EVIL: &str = "<script>x</script>\"'><img src=x>";
/// Pages and JSON that show the data of one user, and those of administrators alone. `{task}` is a task of the victim.
pub(super) const OF_USERS: [&str; 4] = ["/tasks", "/tasks?q=user:victim", "/events", "/api/v1/admin/events"];
pub(super) const OF_ADMINS: [&str; 19] = [
    "/dead-letters",
    "/workers",
    "/schedules",
    "/queue",
    "/audit",
    "/live/overview",
    "/live/workers",
    "/acts/new?do=retry&id={task}",
    "/acts/new?do=retry&q=state:dead",
    "/acts/{task}",
    "/api/v1/admin/overview",
    "/api/v1/admin/series",
    "/api/v1/admin/dead-letters",
    "/api/v1/admin/workers",
    "/api/v1/admin/schedules",
    "/api/v1/admin/queue",
    "/api/v1/admin/audit",
    "/api/v1/admin/acts",
    "/api/v1/admin/acts/{task}",
];
/// Reads by an id of the victim.
pub(super) const BY_ID: [&str; 4] =
    ["/tasks/{task}", "/go?id={task}", "/go?id=order-4711", "/api/v1/admin/tasks/{task}"];
/// Forms, and bodies that would do something.
pub(super) const FORMS: [(&str, &str); 7] = [
    ("/acts", "do=cancel&id={task}"),
    ("/acts", "do=discard&q=state:dead"),
    ("/acts/{task}/stop", ""),
    ("/queue/pause", "reason=x"),
    ("/queue/resume", "reason=x"),
    ("/logout", ""),
    ("/theme", "theme=dark"),
];
pub(super) const CALLS: [(&str, &str); 4] = [
    ("/api/v1/admin/acts", r#"{"do":"cancel","ids":["{task}"]}"#),
    ("/api/v1/admin/acts/{task}/stop", ""),
    ("/api/v1/admin/pause", "{}"),
    ("/api/v1/admin/resume", "{}"),
];

/// A console, with a pending and a dead task of `victim`.
pub(super) struct Target {
    pub(super) env: TestEnv,
    pub(super) console: Process,
    pub(super) task: String,
}

impl Target {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let (env, console) = started(&[]).await?;
        let api = Process::start(&env, "api", &[]).await?;
        let event = json!({ "event_name": EVIL, "event_type": EVIL, "source": EVIL, "session_id": EVIL, "payload": { "a": EVIL } });
        let client = api.client("victim");
        client.post("/api/v1/events", &event).await?;
        let failed = json!([{ "attempt": 1, "at": "2026-01-01T00:00:00Z", "reason": "timeout", "error": EVIL }]);
        let die = "WITH gone AS (DELETE FROM tasks RETURNING *)
                   INSERT INTO dead_tasks (id, kind, user_id, event_ids, created_at, attempts, max_attempts, fencing_token,
                                           bytes, worker, reason, errors)
                   SELECT id, kind, user_id, event_ids, created_at, 1, 1, 1, bytes, $2, 'timeout', $1 FROM gone";
        sqlx::query(die).bind(&failed).bind(EVIL).execute(&env.db).await?;
        let headers = [("x-request-id", "order-4711")];
        let pending = client.send(Method::POST, "/api/v1/events", &headers, Bytes::from(event.to_string())).await?;
        let task = pending.json["task_id"].as_str().unwrap_or_default().to_owned();
        sqlx::query("UPDATE tasks SET attempts = 1, errors = $1, worker = $2")
            .bind(&failed)
            .bind(EVIL)
            .execute(&env.db)
            .await?;
        let worker = "INSERT INTO workers (name, version, state, concurrency, running, in_flight)
                      VALUES ($1, $1, 'running', 4, 1, 1)";
        sqlx::query(worker).bind(EVIL).execute(&env.db).await?;
        Ok(Self { env, console, task })
    }

    pub(super) fn path(&self, template: &str) -> String {
        template.replace("{task}", &self.task)
    }

    /// Sends a request with a token, as a cookie to a page and as a bearer token to JSON; an empty one is left out.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Response> {
        let path = self.path(path);
        let is_json = path.starts_with("/api/");
        let client = Client::new(&self.console.url, if is_json { token } else { "" });
        let cookie = format!("pulse_console={token}");
        let mut all = headers.to_vec();
        if !is_json && !token.is_empty() {
            all.push(("cookie", &cookie));
        }
        if !is_json && method == Method::POST && !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/x-www-form-urlencoded"));
        }
        client.send(method, &path, &all, Bytes::from(self.path(body))).await
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> anyhow::Result<Response> {
        self.send(Method::GET, path, token, &[], "").await
    }

    /// Nothing was done: no row anywhere that an act leaves.
    pub(super) async fn is_untouched(&self) -> anyhow::Result<bool> {
        let traces = "SELECT (SELECT count(*) FROM audit_log WHERE via IN ('console', 'api'))
                             + (SELECT count(*) FROM running_acts)
                             + (SELECT count(*) FROM pause) + (SELECT count(*) FROM task_history)";
        Ok(self.env.number(traces).await? == 0)
    }
}

/// A token that ends so many seconds from now.
pub(super) fn token_until(user: &str, scope: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = NewClaims { sub: user, scope: Some(scope), ..NewClaims::default() };
    let expires = now.saturating_add_signed(seconds);
    pulse_http::issue(SECRET.as_bytes(), &claims, now - 7200, expires).unwrap_or_default()
}

pub(super) fn admin() -> String {
    token("ops", Some(ADMIN))
}

/// The requests that failed, with what they got.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<String>);

impl Findings {
    pub(super) fn check(&mut self, passed: bool, attack: &str, answer: &Response) {
        if !passed {
            let text: String = answer.text.chars().take(200).collect();
            self.0.push(format!("{attack}: {} {text}", answer.status));
        }
    }
}
