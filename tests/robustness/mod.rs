//! Hostile peers over real sockets (media.md 9): whatever they send, the server goes on serving,
//! leaves no task behind and gives its memory back.
//!
//! Where each row of that table is tested, from the top:
//! - other protocols, half handshakes, silence, chunk order, sizes, AMF, dialogue, early
//!   media: [`rtmp`], `media/src/rtmp/tests/{mod,chunks,hostile}.rs`, fuzz `handshake`,
//!   `rtmp_chunk`, `amf`, `rtmp_session`
//! - tags, units and parameter sets that are none; absurd sizes: `media/src/flv/tests`,
//!   `bitstream`, fuzz `flv_tag`, `enhanced_flv`, `h264_sps`, `hevc_sps`, `av1_obu`
//! - stamps: `media/tests/timestamps.rs`, `media/src/broadcast/timeline.rs`
//! - too many pictures, hardly any, only keyframes, none:
//!   `media/tests/{odd_rates,long_gop}.rs`, `whep/tests/mod.rs`
//! - parameters changed each frame; a publisher that vanishes: `media/src/flv/tests/mod.rs`,
//!   `whep/tests/publisher_reconnect.rs`, `tests/e2e/outages.rs`
//! - SDP; `PATCH`: `tests/broadcasts/{whep,whip}.rs`, `media/src/webrtc/sdp`, fuzz
//!   `sdp_offer`, `sdpfrag`
//! - STUN; DTLS: `media/src/webrtc/{penalty,port,ice,dtls}.rs`, fuzz `stun`, `dtls_record`
//! - RTP: `media/src/whip/{tests,reorder}.rs`, `depacketise`, fuzz `rtp_payload`, `jitter`
//! - RTCP: `media/src/webrtc/{history,srtp,feedback}.rs`, `webrtc/tests`, fuzz
//!   `rtcp_compound`, `nack`, `twcc`, `remb`, `srtp_unprotect`
//! - a player that talks on the data channel: `media/src/webrtc/channel.rs`, fuzz `sctp_dcep`
//! - HLS requests: `tests/broadcasts/hls.rs`, `media/src/hls/directives.rs`, fuzz
//!   `hls_directives`
//! - decoder and encoder: `media/src/transcode/tests`
//! - a full disk: nothing is stored yet
//! - the clock of the host: T and every timeout come from the monotonic clock: no code reads
//!   the other
//! - file descriptors: `media/src/rtmp/listener/tests.rs`, `src/serve/http`

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

/// The allocator gives memory back after a second.
async fn memory_is_back(kib_max: u64) {
    let began = Instant::now();
    while resident_kib() > kib_max {
        let kib = resident_kib();
        assert!(began.elapsed() < QUIET_WITHIN, "{kib} KiB of {kib_max}");
        sleep(LOOK_AGAIN).await;
    }
    eprintln!(
        "{} KiB of {kib_max} after {:?}",
        resident_kib(),
        began.elapsed()
    );
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
