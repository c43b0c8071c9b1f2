//! Signals: the first asks everything to end well, the second ends it at once.

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio_util::sync::CancellationToken;

/// The exit code of a process ended by Ctrl-C, as shells report it.
const INTERRUPTED: i32 = 130;

/// A token that SIGTERM or SIGINT cancels.
///
/// # Errors
/// If the process cannot listen to signals.
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
                tracing::info!("stopping; a second signal ends at once");
                token.cancel();
            }
        }
        // Private servers die with this process, by the kernel's hand.
        std::process::exit(INTERRUPTED);
    });
    Ok(shutdown)
}
