//! What `kubectl pulse` asks and does for a person: with that person's rights, and past the operator.
//!
//! SecretRead (`read.rs`) is apart from what it says (`report.rs`, `preview.rs`) and from its text (`text.rs`), which are
//! pure. Only the object itself has to be readable: every other part says which right it lacks.

mod advice;
mod diff;
mod edit;
mod preview;
mod read;
mod report;
pub mod text;

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub use diff::Field;
pub use edit::{Pause, PendingPlan};
pub use preview::{Change, Preview, Scale};
pub use read::Section;
pub use report::{ConditionLine, EventLine, PodLine, StatusReport, Summary};

use crate::operator::OperatorError;

/// How long a person waits for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which cluster and namespace, as `kubectl` has them.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The kubeconfig; that of `KUBECONFIG` or of the home, if none.
    pub kubeconfig: Option<PathBuf>,
    /// Its context; the current one, if none.
    pub context: Option<String>,
    /// The namespace; that of the context, if none.
    pub namespace: Option<String>,
}

/// A person at an API server.
pub struct Plugin {
    client: Client,
    namespace: String,
}

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Nothing says where the API server is.
    #[error(transparent)]
    NoCluster(#[from] OperatorError),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}: check --kubeconfig and --context (`kubectl config get-contexts`)")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// It names keys that cannot be used.
    #[error("no client for Kubernetes")]
    Client(#[source] kube::Error),
    /// Nobody answers.
    #[error(
        "the API server cannot be reached: {0}: check the context (`kubectl config current-context`) and the way there"
    )]
    Unreachable(String),
    /// The API server does not know the person.
    #[error("the API server does not know you: {0}: log in again, or take another context")]
    Unauthorized(String),
    /// The definition is not there.
    #[error("PulseIngest is not installed in this cluster: `pulse crd | kubectl apply --server-side -f -` installs it")]
    NotInstalled,
    /// No such object.
    #[error("no PulseIngest {name} in namespace {namespace}{}", hint(.near))]
    NoSuchObject {
        /// Which.
        name: String,
        /// Where.
        namespace: String,
        /// Names that are there, the nearest first.
        near: Vec<String>,
    },
    /// A right is missing.
    #[error("forbidden: needs {0}")]
    Forbidden(String),
    /// The command does not fit the object: a sentence that says what would.
    #[error("{0}")]
    Refused(String),
    /// Anything else that the API server says.
    #[error("the API server says: {0}")]
    Api(String),
}

fn hint(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(": did you mean {}?", near.join(", ")) }
}

impl Plugin {
    /// Finds the API server; asks it nothing yet.
    ///
    /// # Errors
    /// [`PluginError`] for a kubeconfig that is missing or makes no sense.
    pub async fn connect(target: Target) -> Result<Self, PluginError> {
        let Target { kubeconfig, context, namespace } = target;
        let failed = |error| PluginError::Kubeconfig(Box::new(error));
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let mut config = match kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path).map_err(failed)?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(failed)?
            }
            None if options.context.is_some() => Config::from_kubeconfig(&options).await.map_err(failed)?,
            // Without any, a pod's own service account is tried, as kubectl does.
            None => Config::infer().await.map_err(|error| OperatorError::NoCluster(Box::new(error)))?,
        };
        config.default_retry = false;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config).map_err(PluginError::Client)?, namespace })
    }
}
