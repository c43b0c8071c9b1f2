//! Keeps the limits of users up to date, with one small query for all users.

use std::sync::Weak;
use std::time::Duration;

use pulse_store::Store;

use crate::users::Users;

/// Time between two updates. A changed limit and a changed number of API processes apply after it.
const PERIOD: Duration = Duration::from_secs(5);

/// Updates `users` until they are dropped. Without PostgreSQL, the last limits stay.
pub(crate) async fn run(store: Store, process: String, users: Weak<Users>) {
    let mut since = None;
    loop {
        match store.update_limits(&process, since).await {
            Ok(update) => {
                let Some(users) = users.upgrade() else { return };
                since = Some(update.read_at);
                users.apply(update).await;
            }
            Err(error) => tracing::debug!(%error, "cannot read the limits of users"),
        }
        tokio::time::sleep(PERIOD).await;
        if users.strong_count() == 0 {
            return;
        }
    }
}
