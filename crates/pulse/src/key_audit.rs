//! Records in the audit log which keys tokens are verified with.

use std::time::Duration;

use pulse_http::{UsedKey, UsedKeys};
use pulse_store::{Act, Store, TokenKey, Via};
use tokio_util::sync::CancellationToken;

/// Time between two notes. Keys that no process notes for four of them count as removed.
const PERIOD: Duration = Duration::from_secs(30);

/// Notes the keys now, whenever they change, and every 30 s, until `shutdown`.
pub(crate) async fn run(store: Store, mut keys: UsedKeys, role: &'static str, shutdown: CancellationToken) {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let actor = format!("pulse {role} on {host}");
    while !shutdown.is_cancelled() {
        let used = tokio::task::block_in_place(|| keys.now()).into_iter();
        let used: Vec<TokenKey> = used.map(|UsedKey { name, fingerprint }| TokenKey { name, fingerprint }).collect();
        let noting = async {
            loop {
                // Before the first keys are read, nothing is known.
                if !used.is_empty() {
                    let noted = store.note_token_keys(&used, &Act::new(actor.clone(), Via::Process, None)).await;
                    if let Err(error) = noted {
                        tracing::debug!(%error, "cannot note the keys of tokens for the audit log: trying again");
                    }
                }
                tokio::time::sleep(PERIOD).await;
            }
        };
        tokio::select! {
            () = noting => {}
            () = keys.changed() => {}
            () = shutdown.cancelled() => {}
        }
    }
}
