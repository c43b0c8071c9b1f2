//! A real Prometheus that scrapes the processes of a test.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::process::Child;

use crate::client::Client;
use crate::daemon;
use crate::env::TestEnv;
use crate::host::free_port;

/// A running Prometheus. It is killed when this is dropped.
pub struct Prometheus {
    _child: Child,
    client: Client,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes these admin ports each second, as the pods of an instance, and evaluates these rules.
    ///
    /// # Errors
    /// If it is not installed, refuses the rules, or does not start within 20 s.
    pub async fn start(env: &TestEnv, admin_urls: &[&str], rules: &str) -> anyhow::Result<Self> {
        let targets: Vec<_> = admin_urls.iter().map(|url| url.trim_start_matches("http://")).collect();
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "pulse",
                "honor_labels": true,
                "static_configs": [{
                    "targets": targets,
                    "labels": { "namespace": "shop", "app_kubernetes_io_instance": "main" },
                }],
            }],
        });
        let folder = env.file("prometheus");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("rules.yaml"), rules)?;
        // JSON is YAML.
        std::fs::write(folder.join("prometheus.yaml"), config.to_string())?;
        let port = free_port()?;
        let args = [
            format!("--config.file={}", folder.join("prometheus.yaml").display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--enable-feature=exemplar-storage".into(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let child = daemon::start(env, "prometheus", &[], &args, port).await?;
        Ok(Self { _child: child, client: Client::new(&format!("http://127.0.0.1:{port}"), "") })
    }

    /// The result of a query: a list of series, or a scalar as one.
    ///
    /// # Errors
    /// If Prometheus refuses the query.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.post("/api/v1/query", query).await?;
        let result = &answer["data"]["result"];
        Ok(match answer["data"]["resultType"].as_str() {
            Some("scalar") => vec![result.clone()],
            _ => result.as_array().cloned().unwrap_or_default(),
        })
    }

    /// The exemplars of the series that a query names.
    ///
    /// # Errors
    /// If Prometheus refuses the query.
    pub async fn exemplars(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        Ok(self.post("/api/v1/query_exemplars", query).await?["data"].as_array().cloned().unwrap_or_default())
    }

    /// The labels and annotations of the firing alert with this name.
    ///
    /// # Errors
    /// If Prometheus does not answer.
    pub async fn firing(&self, alert: &str) -> anyhow::Result<Option<Value>> {
        let answer = self.client.get("/api/v1/alerts").await?.json;
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        Ok(alerts.into_iter().find(|found| found["labels"]["alertname"] == alert && found["state"] == "firing"))
    }

    async fn post(&self, path: &str, query: &str) -> anyhow::Result<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = Bytes::from(format!("query={encoded}"));
        let answer = self.client.send(Method::POST, path, &form, body).await?;
        anyhow::ensure!(answer.json["status"] == "success", "{query}: {}", answer.text);
        Ok(answer.json)
    }
}
