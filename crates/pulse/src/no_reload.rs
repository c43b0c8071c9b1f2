//! A build without `--dev-reload`, such as that of the image: its program is not replaced by another one.

#[cfg(feature = "kubernetes")]
use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::shutdown;

/// No flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReloadArgs {}

impl ReloadArgs {
    /// Path at which newer builds appear: none.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn file(self) -> Option<PathBuf> {
        None
    }

    /// Runs a role until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// If the role fails.
    pub(crate) async fn run<F>(self, role: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        role(shutdown::signal()?).await
    }
}
