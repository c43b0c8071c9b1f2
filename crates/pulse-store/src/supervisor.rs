//! Restarts a background task that panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pulse_core::panic_message;

/// Number of panics without progress in between from which a task is not live.
const MAX_PANICS: u32 = 3;
/// Pause before a restart, so that a task that panics at once does not use up the processor.
const RESTART_DELAY: Duration = Duration::from_millis(200);

/// Counts the panics of a supervised task since it last made progress. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct TaskHealth(Arc<AtomicU32>);

impl TaskHealth {
    /// Call it after each completed piece of work.
    pub(crate) fn record_progress(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn record_panic(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// False if the task panics again and again.
    pub(crate) fn is_live(&self) -> bool {
        self.0.load(Ordering::Relaxed) < MAX_PANICS
    }
}

/// Starts the task, and starts it again whenever it panics, until it returns.
pub(crate) async fn supervise<F>(name: &str, health: TaskHealth, mut start: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // An error without a panic means that the runtime shuts down.
    while let Err(error) = tokio::spawn(start()).await
        && let Ok(panic) = error.try_into_panic()
    {
        health.record_panic();
        tracing::error!(task = name, panic = panic_message(&*panic), "a background task panicked: restarting it");
        tokio::time::sleep(RESTART_DELAY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panicked_task_is_restarted_until_it_returns() {
        let health = TaskHealth::default();
        let mut starts = 0;
        let task = |number: u32| async move { assert!(number > 2, "as requested") };
        supervise("test", health.clone(), || {
            starts += 1;
            task(starts)
        })
        .await;
        assert_eq!(starts, 3);
        assert!(health.is_live());
    }

    /// Supervises a task that panics at each start, with or without progress before, until it was started often.
    async fn health_after_panics(makes_progress: bool) -> TaskHealth {
        let health = TaskHealth::default();
        let (enough, mut starts) = (tokio::sync::Notify::new(), 0);
        let task = |health: TaskHealth| async move {
            if makes_progress {
                health.record_progress();
            }
            panic!("as requested")
        };
        let supervisor = supervise("test", health.clone(), || {
            starts += 1;
            if starts > MAX_PANICS {
                enough.notify_one();
            }
            task(health.clone())
        });
        tokio::select! {
            () = supervisor => {}
            () = enough.notified() => {}
        }
        health
    }

    #[tokio::test]
    async fn task_that_panics_again_and_again_is_not_live() {
        assert!(!health_after_panics(false).await.is_live());
    }

    #[tokio::test]
    async fn task_with_progress_between_panics_is_live() {
        assert!(health_after_panics(true).await.is_live());
    }
}
