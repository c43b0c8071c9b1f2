//! The Tiltfile, evaluated by a Starlark interpreter, and the objects that it applies.

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::cluster::program;
use crate::python::{python_with, repository, run};

const STARLARK: &str = "2026.1.3";
/// The kustomize overlay that the Tiltfile applies after the CRD.
pub const OVERLAY: &str = "manifests/dev";

/// Calls of Tilt's functions that the Tiltfile made, and the error that it failed with.
pub struct Tiltfile {
    calls: Vec<(String, Value)>,
    /// Error message; `None` if the evaluation succeeded.
    pub error: Option<String>,
}

impl Tiltfile {
    /// Evaluates the Tiltfile for the context that it is made for, `kind-pulse`.
    ///
    /// # Errors
    /// If the evaluation fails.
    pub async fn read() -> anyhow::Result<Self> {
        let tiltfile = Self::in_context("kind-pulse").await?;
        anyhow::ensure!(tiltfile.error.is_none(), "{}", tiltfile.error.unwrap_or_default());
        Ok(tiltfile)
    }

    /// Evaluates the Tiltfile for a kubeconfig context. A failed evaluation is in [`error`](Self::error).
    ///
    /// # Errors
    /// If the interpreter cannot be installed or run.
    pub async fn in_context(context: &str) -> anyhow::Result<Self> {
        // Tests that start together must not install it twice.
        static PYTHON: OnceCell<PathBuf> = OnceCell::const_new();
        let python = PYTHON.get_or_try_init(|| python_with("starlark-pyo3", STARLARK)).await?;
        let mut command = Command::new(python);
        command.args(["tests/tilt/evaluate.py", "Tiltfile", context]).current_dir(repository());
        let answer: Value = serde_json::from_str(&run(&mut command).await?)?;
        let error = answer["error"].as_str().map(str::to_owned);
        Ok(Self { calls: serde_json::from_value(answer["calls"].clone())?, error })
    }

    /// Arguments of each call of a function.
    pub fn of(&self, function: &str) -> impl Iterator<Item = &Value> {
        self.calls.iter().filter(move |(name, _)| name == function).map(|(_, arguments)| arguments)
    }
}

/// Renders the objects of the overlay.
///
/// # Errors
/// If the overlay cannot be rendered.
pub async fn overlay() -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(program("kubectl").await?);
    let yaml = run(command.args(["kustomize", OVERLAY]).current_dir(repository())).await?;
    yaml.split("\n---\n").map(|object| Ok(pulse_crd::yaml::read(object)?)).collect()
}
