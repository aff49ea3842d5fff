//! The checker against an origin that is right, and against one that is wrong in one thing.
//!
//! The show runs in virtual time: it goes on by a part when somebody waits for that part, so
//! nothing here depends on how fast the machine is.

mod fault;
mod fragment;
mod origin;
mod show;

use std::time::Duration;

use fault::Fault;
use origin::Origin;
use tokio::task::JoinSet;

use super::play::{Settings, check};
use super::rules;

/// Over a discontinuity, a gap, and a discontinuity that leaves the list.
const ROUNDS: u64 = 45;
/// Shows that run at once.
const SHOWS: usize = 8;

async fn broken(fault: Option<Fault>, is_strict: bool) -> (Vec<&'static str>, String) {
    let origin = Origin::start(fault).await;
    let settings = Settings {
        lasts: Duration::from_secs(600),
        rounds_max: ROUNDS,
        is_strict,
        only: None,
    };
    let report = check(&origin.url(), &settings).await;
    let report = report.expect("the origin answers");
    assert!(report.parts > 0, "{report}");
    (report.ids(), report.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_origin_breaks_no_rule() {
    let (ids, report) = broken(None, true).await;
    assert!(ids.is_empty(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_seeded_fault_is_found_by_name() {
    let mut missed = Vec::new();
    for some in fault::ALL.chunks(SHOWS) {
        let mut shows = JoinSet::new();
        for &(fault, id) in some {
            shows.spawn(async move { (fault, id, broken(Some(fault), true).await) });
        }
        for (fault, id, (ids, report)) in shows.join_all().await {
            if !ids.contains(&id) {
                missed.push(format!("{fault:?}, not found as {id}: {report}"));
            }
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_promises_bind_nobody_else() {
    for fault in [Fault::CorsMissing, Fault::EtagMissing, Fault::HintMissing] {
        let (ids, report) = broken(Some(fault), false).await;
        assert!(ids.is_empty(), "{fault:?}: {report}");
    }
}

#[test]
fn a_rule_has_one_name_and_a_fault_that_breaks_it() {
    let mut ids: Vec<_> = rules::ALL.iter().map(|rule| rule.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), rules::ALL.len());
    for (fault, id) in fault::ALL {
        assert!(ids.contains(id), "{fault:?} names {id}");
    }
    for id in ids {
        let is_seeded = fault::ALL.iter().any(|(_, seeded)| *seeded == id);
        assert!(is_seeded, "nothing shows that {id} can be found");
    }
}
