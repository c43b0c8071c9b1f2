//! Access to an API server: its address and the user's credentials.

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
use crate::python::run;

/// Credentials of a kubeconfig.
pub(super) enum Credentials<'a> {
    /// No credentials: an anonymous user, or a proxy that adds its own.
    None,
    Certificate(&'a Pair),
    Token(&'a str),
}

/// A kubeconfig file and the clients that use it.
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
            "clusters": [{ "name": "cluster", "cluster": cluster }],
            "users": [{ "name": "user", "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "cluster", "user": "user" } }],
            "current-context": "test",
        });
        // JSON is YAML.
        std::fs::write(&kubeconfig, content.to_string())?;
        Self::read(kubeconfig).await
    }

    /// Reads an existing kubeconfig.
    ///
    /// # Errors
    /// If the file cannot be read or is invalid.
    pub async fn read(kubeconfig: PathBuf) -> anyhow::Result<Self> {
        let content =
            Kubeconfig::read_from(&kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(content, &KubeConfigOptions::default()).await?;
        Ok(Self { kubeconfig, config })
    }

    /// Path of the kubeconfig file, for `KUBECONFIG`.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Configuration for a client of the `kube` crate.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// Creates a client. It belongs to the current runtime, so each test needs a separate one.
    ///
    /// # Errors
    /// If the certificates are invalid.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::try_from(self.config())?)
    }

    /// Runs `kubectl` to completion and returns its output.
    ///
    /// # Errors
    /// If `kubectl` fails; the error includes its output.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(program("kubectl").await?);
        // A private home: kubectl caches discovery results there by address, and ports are reused.
        let home = self.kubeconfig.with_extension("home");
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", home);
        run(command.args(args)).await
    }
}
