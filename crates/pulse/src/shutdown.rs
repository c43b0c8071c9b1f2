//! Signals: the first SIGTERM or SIGINT starts a graceful shutdown, the second ends the process at once.

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio_util::sync::CancellationToken;

/// 128 + SIGINT: the exit code that shells report for Ctrl-C.
const INTERRUPTED: i32 = 130;

/// Returns a token that the first SIGTERM or SIGINT cancels. The second one exits the process with [`INTERRUPTED`].
///
/// # Errors
/// If the signal handlers cannot be installed.
pub(crate) fn signal() -> std::io::Result<CancellationToken> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("shutting down; a second signal exits at once");
                token.cancel();
            }
        }
        // The kernel ends the private servers of `pulse dev` together with this process.
        std::process::exit(INTERRUPTED);
    });
    Ok(shutdown)
}
