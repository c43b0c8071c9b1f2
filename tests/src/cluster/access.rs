//! A way to an API server: where it is, and as whom.

use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::process::Command;

use super::tools::program;
use crate::pki::Pair;
use crate::run;

/// Who asks.
pub(super) enum Credentials<'a> {
    /// Nobody, or whom a proxy speaks for.
    None,
    Certificate(&'a Pair),
    Token(&'a str),
}

/// A kubeconfig file, and clients that follow it.
#[derive(Clone, Debug)]
pub struct Access {
    kubeconfig: PathBuf,
    config: Config,
}

impl Access {
    /// Writes a kubeconfig.
    pub(super) async fn write(
        kubeconfig: PathBuf,
        server: &str,
        authority: Option<&str>,
        credentials: Credentials<'_>,
    ) -> anyhow::Result<Self> {
        let mut cluster = json!({ "server": server });
        if let Some(pem) = authority {
            cluster["certificate-authority-data"] = Value::from(BASE64_STANDARD.encode(pem));
        }
        let user = match credentials {
            Credentials::None => json!({}),
            Credentials::Certificate(Pair { certificate, key }) => json!({
                "client-certificate-data": BASE64_STANDARD.encode(certificate),
                "client-key-data": BASE64_STANDARD.encode(key),
            }),
            Credentials::Token(token) => json!({ "token": token }),
        };
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "it", "cluster": cluster }],
            "users": [{ "name": "us", "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "it", "user": "us" } }],
            "current-context": "test",
        });
        // JSON is YAML.
        std::fs::write(&kubeconfig, content.to_string())?;
        Self::read(kubeconfig).await
    }

    /// Follows a kubeconfig that exists.
    ///
    /// # Errors
    /// If it cannot be read or makes no sense.
    pub async fn read(kubeconfig: PathBuf) -> anyhow::Result<Self> {
        let content =
            Kubeconfig::read_from(&kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(content, &KubeConfigOptions::default()).await?;
        Ok(Self { kubeconfig, config })
    }

    /// The path of the kubeconfig file, for `KUBECONFIG`.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The same, as the `kube` crate wants it.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A new client. It belongs to the runtime that this is called on: make one per test.
    ///
    /// # Errors
    /// If the certificates make no sense.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.config())?)
    }

    /// Runs `kubectl` to its end; returns everything that it printed.
    ///
    /// # Errors
    /// If it fails: with everything that it printed.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(program("kubectl").await?);
        // A home of its own: kubectl keeps what it discovered there, and ports are used again.
        let home = self.kubeconfig.with_extension("home");
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", home);
        run(command.args(args)).await
    }
}
