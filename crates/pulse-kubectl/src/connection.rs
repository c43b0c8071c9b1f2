//! Connects the plugin with a user's credentials, and the errors of its commands.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pulse_reconcile::served::UPDATE_CRD;

/// Time-out of connecting, and of reading a response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Cluster and namespace, with the same defaults as `kubectl`.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Path of the kubeconfig; `None` for `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; `None` for the current one.
    pub context: Option<String>,
    /// Namespace; `None` for that of the context.
    pub namespace: Option<String>,
}

/// The plugin, connected with a user's credentials.
pub struct Plugin {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Errors of a command.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// There is neither a usable kubeconfig nor a service account.
    #[error("no cluster: set KUBECONFIG, or --kubeconfig: {0}")]
    NoCluster(#[source] Box<kube::config::InferConfigError>),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}: check --kubeconfig and --context (`kubectl config get-contexts`)")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// The client cannot be created, for example because of an unusable certificate.
    #[error("cannot create a Kubernetes client")]
    Client(#[source] kube::Error),
    /// The API server cannot be reached.
    #[error(
        "the API server cannot be reached: {0}: check the context (`kubectl config current-context`) and the network"
    )]
    Unreachable(String),
    /// The API server rejects the credentials.
    #[error("the API server rejects your credentials: {0}: log in again, or use another context")]
    Unauthorized(String),
    /// The CustomResourceDefinition is not installed.
    #[error("PulseIngest is not installed in this cluster: run `{UPDATE_CRD}`")]
    NotInstalled,
    /// The object does not exist.
    #[error("no PulseIngest {name} in namespace {namespace}{}", hint(.similar))]
    NoSuchObject {
        /// Name that was asked for.
        name: String,
        /// Namespace that was searched.
        namespace: String,
        /// Similar names that exist, the most similar first.
        similar: Vec<String>,
    },
    /// A permission is missing.
    #[error("forbidden: needs {0}")]
    Forbidden(String),
    /// The command does not apply to the object; the text says what to do.
    #[error("{0}")]
    Refused(String),
    /// Any other error of the API server.
    #[error("the API server returned an error: {0}")]
    Api(String),
}

fn hint(similar: &[String]) -> String {
    if similar.is_empty() { String::new() } else { format!(": did you mean {}?", similar.join(", ")) }
}

impl Plugin {
    /// Reads the kubeconfig and creates a client. Sends no request yet.
    ///
    /// # Errors
    /// [`PluginError`] if the kubeconfig is missing or cannot be used.
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
            // Without a kubeconfig, the pod's service account is used, as by kubectl.
            None => Config::infer().await.map_err(|error| PluginError::NoCluster(Box::new(error)))?,
        };
        config.default_retry = false;
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config).map_err(PluginError::Client)?, namespace })
    }
}
