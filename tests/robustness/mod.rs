//! Hostile peers over real sockets (media.md 9): whatever they send, the server goes on serving,
//! leaves no task behind and gives its memory back.

mod cycles;
mod rtmp;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::support::TestServer;

/// For tasks to notice that their peer has gone.
const QUIET_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.and_then(|kib| kib.parse().ok())
        .expect("Linux tells it")
}

/// Waits until the tasks that run are those that ran before.
async fn quiet_as(server: &TestServer, before: &BTreeMap<&'static str, usize>, about: &str) {
    let began = Instant::now();
    // Connections of the test's own HTTP client come and go as it likes.
    let others = || {
        let mut running = server.app().tasks.running();
        running.retain(|name, _| *name != "http.connection");
        running
    };
    let mut before = before.clone();
    before.retain(|name, _| *name != "http.connection");
    while others() != before {
        let running = others();
        assert!(
            began.elapsed() < QUIET_WITHIN,
            "{about} left tasks: {running:?}"
        );
        sleep(LOOK_AGAIN).await;
    }
}

/// How often each reason was counted.
fn rejections(server: &TestServer) -> u64 {
    let rows = server.app().media.stats().rejections();
    rows.iter().map(|(_, _, count)| count).sum()
}

/// Something that must come soon.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = timeout(QUIET_WITHIN, future).await;
    done.unwrap_or_else(|_| panic!("{what} did not come"))
}
