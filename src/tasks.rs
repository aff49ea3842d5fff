//! Tasks: the only place that spawns. Every task has a name and ends when the server does.
//!
//! Invariant: after [`Tasks::stop`] returned an empty list, no task of the server runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A cheap handle on all tasks of one server.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancel: CancellationToken,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a future to its end. It must end soon after [`Tasks::cancel_token`] is cancelled.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that spawns"
    )]
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = Running::enter(self, name);
        let span = tracing::info_span!(parent: None, "task", task.name = name);
        let future = async move {
            future.await;
            drop(running);
        };
        drop(tokio::spawn(
            self.tracker.track_future(future.instrument(span)),
        ));
    }

    /// Runs a future until it ends or the server stops, whichever is first. For futures that may
    /// be dropped at any `.await`.
    pub fn spawn_until_stop<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        self.spawn(name, async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Cancelled when the server stops.
    pub fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// How many tasks of each name run now.
    pub fn running(&self) -> BTreeMap<&'static str, usize> {
        self.lock().clone()
    }

    /// Cancels all tasks and waits for them, at most `limit`; returns those that still run.
    pub async fn stop(&self, limit: Duration) -> BTreeMap<&'static str, usize> {
        self.cancel.cancel();
        self.tracker.close();
        // A task that does not end in time is reported, not waited for.
        drop(tokio::time::timeout(limit, self.tracker.wait()).await);
        self.running()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a task as running until dropped, also when it panics.
struct Running {
    tasks: Tasks,
    name: &'static str,
}

impl Running {
    fn enter(tasks: &Tasks, name: &'static str) -> Self {
        *tasks.lock().entry(name).or_default() += 1;
        Self {
            tasks: tasks.clone(),
            name,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.tasks.lock();
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_names_the_task_that_does_not_end() {
        let tasks = Tasks::new();
        tasks.spawn_until_stop("well.behaved", std::future::pending());
        tasks.spawn("deaf", std::future::pending());
        assert_eq!(tasks.running().len(), 2);
        let left = tasks.stop(Duration::from_secs(1)).await;
        assert_eq!(left.into_iter().collect::<Vec<_>>(), [("deaf", 1)]);
    }

    #[tokio::test]
    async fn a_task_that_panics_is_no_longer_running() {
        let tasks = Tasks::new();
        tasks.spawn("broken", async { panic!("as the test wants") });
        assert!(tasks.stop(Duration::from_secs(5)).await.is_empty());
    }
}
