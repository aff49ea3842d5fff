//! Who watches a broadcast, by protocol and in all (spec media.md 8.3).
//!
//! A session of WHEP, HTTP-FLV or RTMP counts from its connection to its end. One of LL-HLS has no
//! end: it counts until [`HLS_ALIVE`] after its last request for a playlist.
//!
//! Invariants
//! - Sessions of one named viewer are one viewer; each unnamed session is one of its own.
//! - LL-HLS sessions are at most [`HLS_SESSIONS_MAX`]; newcomers beyond are served, not counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::time::MediaTime;

/// How long an LL-HLS session counts after its last request for a playlist.
const HLS_ALIVE: Duration = Duration::from_secs(10);
/// LL-HLS sessions that are counted.
const HLS_SESSIONS_MAX: usize = 65_536;

/// What a viewer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// WebRTC.
    Whep,
    /// LL-HLS.
    Hls,
    /// HTTP-FLV.
    Flv,
    /// RTMP.
    Rtmp,
}

/// The viewers of one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputCounts {
    /// Now.
    pub viewers: u64,
    /// The most at once so far.
    pub peak: u64,
    /// Seconds watched so far, over all viewers.
    pub viewer_seconds: u64,
}

/// The viewers of a broadcast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// WebRTC.
    pub whep: OutputCounts,
    /// LL-HLS.
    pub hls: OutputCounts,
    /// HTTP-FLV.
    pub flv: OutputCounts,
    /// RTMP.
    pub rtmp: OutputCounts,
    /// Persons: whoever moves from one output to the other counts once, if the server knows who.
    pub unique: u64,
}

impl Counts {
    /// The sessions of all outputs now.
    pub const fn sessions(&self) -> u64 {
        self.whep.viewers + self.hls.viewers + self.flv.viewers + self.rtmp.viewers
    }
}

/// Who watches a broadcast.
#[derive(Debug, Default)]
pub struct Audience(Arc<Mutex<State>>);

/// A viewer counts for as long as this lives.
#[derive(Debug)]
pub struct Presence {
    state: Arc<Mutex<State>>,
    output: Output,
    viewer: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct State {
    whep: Tally,
    hls: Tally,
    flv: Tally,
    rtmp: Tally,
    /// How many sessions each named viewer has.
    named: HashMap<Arc<str>, u32>,
    unnamed: u64,
    sessions: HashMap<Box<str>, Session>,
    told: [u64; 5],
}

/// One session of LL-HLS.
#[derive(Debug)]
struct Session {
    began: Instant,
    seen: Instant,
    viewer: Option<Arc<str>>,
    listed: Option<(MediaTime, MediaTime)>,
}

#[derive(Debug, Default)]
struct Tally {
    viewers: u64,
    peak: u64,
    watched: Duration,
    /// Until when `watched` is summed up.
    until: Option<Instant>,
}

impl Audience {
    /// A viewer is there until its presence is dropped.
    pub fn enter(&self, now: Instant, output: Output, viewer: Option<Arc<str>>) -> Presence {
        lock(&self.0).enter(now, output, viewer.as_ref());
        Presence {
            state: Arc::clone(&self.0),
            output,
            viewer,
        }
    }

    /// A session of LL-HLS asked for a playlist. False when it is one too many to be counted.
    pub fn ask(&self, now: Instant, session: &str, viewer: Option<&str>) -> bool {
        let mut state = lock(&self.0);
        if let Some(known) = state.sessions.get_mut(session) {
            known.seen = now;
            return true;
        }
        if state.sessions.len() >= HLS_SESSIONS_MAX {
            return false;
        }
        let viewer = viewer.map(Arc::from);
        state.enter(now, Output::Hls, viewer.as_ref());
        let known = Session {
            began: now,
            seen: now,
            viewer,
            listed: None,
        };
        state.sessions.insert(session.into(), known);
        true
    }

    /// A session of LL-HLS was given a list that reaches from one T to another.
    pub fn show(&self, session: &str, listed: (MediaTime, MediaTime)) {
        if let Some(known) = lock(&self.0).sessions.get_mut(session) {
            known.listed = Some(listed);
        }
    }

    /// Since when a session of LL-HLS is known, and the T that its viewer can be seeing: what its
    /// newest list held (spec media.md 1.5 rule 6). `None` when it asks for playlists no more.
    pub fn session(&self, session: &str) -> Option<(Instant, Option<(MediaTime, MediaTime)>)> {
        let state = lock(&self.0);
        let known = state.sessions.get(session)?;
        Some((known.began, known.listed))
    }

    /// How many watch now, and did before.
    pub fn counts(&self, now: Instant) -> Counts {
        let mut state = lock(&self.0);
        state.expire(now);
        Counts {
            whep: state.whep.counts(now),
            hls: state.hls.counts(now),
            flv: state.flv.counts(now),
            rtmp: state.rtmp.counts(now),
            unique: state.unique(),
        }
    }

    /// Whether the counts are others than they were when this was asked last.
    pub(super) fn has_news(&self, now: Instant) -> bool {
        let mut state = lock(&self.0);
        state.expire(now);
        let tallies = [&state.whep, &state.hls, &state.flv, &state.rtmp];
        let [whep, hls, flv, rtmp] = tallies.map(|tally| tally.viewers);
        let told = [whep, hls, flv, rtmp, state.unique()];
        std::mem::replace(&mut state.told, told) != told
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        lock(&self.state).leave(Instant::now(), self.output, self.viewer.as_ref());
    }
}

impl State {
    fn tally(&mut self, output: Output) -> &mut Tally {
        match output {
            Output::Whep => &mut self.whep,
            Output::Hls => &mut self.hls,
            Output::Flv => &mut self.flv,
            Output::Rtmp => &mut self.rtmp,
        }
    }

    fn enter(&mut self, now: Instant, output: Output, viewer: Option<&Arc<str>>) {
        match viewer {
            Some(viewer) => *self.named.entry(Arc::clone(viewer)).or_default() += 1,
            None => self.unnamed += 1,
        }
        let tally = self.tally(output);
        tally.sum_up(now);
        tally.viewers += 1;
        tally.peak = tally.peak.max(tally.viewers);
    }

    fn leave(&mut self, now: Instant, output: Output, viewer: Option<&Arc<str>>) {
        match viewer {
            Some(viewer) => {
                if let Some(sessions) = self.named.get_mut(viewer) {
                    *sessions -= 1;
                    if *sessions == 0 {
                        self.named.remove(viewer);
                    }
                }
            }
            None => self.unnamed = self.unnamed.saturating_sub(1),
        }
        let tally = self.tally(output);
        tally.sum_up(now);
        tally.viewers = tally.viewers.saturating_sub(1);
    }

    fn expire(&mut self, now: Instant) {
        let is_over = |s: &Session| now.saturating_duration_since(s.seen) >= HLS_ALIVE;
        let gone = self.sessions.extract_if(|_, session| is_over(session));
        let gone: Vec<Session> = gone.map(|(_, session)| session).collect();
        for session in gone {
            self.leave(now, Output::Hls, session.viewer.as_ref());
        }
    }

    fn unique(&self) -> u64 {
        self.unnamed + u64::try_from(self.named.len()).unwrap_or(u64::MAX)
    }
}

impl Tally {
    fn sum_up(&mut self, now: Instant) {
        let since = self.until.replace(now).unwrap_or(now);
        let passed = now.saturating_duration_since(since);
        let viewers = u32::try_from(self.viewers).unwrap_or(u32::MAX);
        self.watched = self.watched.saturating_add(passed.saturating_mul(viewers));
    }

    fn counts(&mut self, now: Instant) -> OutputCounts {
        self.sum_up(now);
        OutputCounts {
            viewers: self.viewers,
            peak: self.peak,
            viewer_seconds: self.watched.as_secs(),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn one_person_on_two_outputs_counts_once_and_a_stranger_by_session() {
        let audience = Audience::default();
        let now = Instant::now();
        let ada: Arc<str> = "ada".into();
        let _whep = audience.enter(now, Output::Whep, Some(ada));
        assert!(audience.ask(now, "s1", Some("ada")));
        assert!(audience.ask(now, "s2", None));
        assert!(audience.ask(now, "s2", None), "the same again");
        let counts = audience.counts(now);
        assert_eq!(
            (counts.whep.viewers, counts.hls.viewers, counts.unique),
            (1, 2, 2)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_of_playlists_counts_ten_seconds_beyond_its_last_request() {
        let audience = Audience::default();
        let start = Instant::now();
        audience.ask(start, "s", None);
        audience.ask(start + SECOND * 5, "s", None);
        let almost = SECOND * 15 - Duration::from_millis(1);
        assert_eq!(audience.counts(start + almost).hls.viewers, 1);
        let counts = audience.counts(start + SECOND * 15);
        let expected = OutputCounts {
            viewers: 0,
            peak: 1,
            viewer_seconds: 15,
        };
        assert_eq!(counts.hls, expected);
        assert_eq!(counts.unique, 0);
        assert_eq!(audience.session("s"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_sees_what_its_newest_list_holds() {
        let audience = Audience::default();
        let now = Instant::now();
        let t = |s: i64| MediaTime::from_micros(s * 1_000_000);
        audience.show("s", (t(0), t(10)));
        assert_eq!(
            audience.session("s"),
            None,
            "who never asked was shown nothing"
        );
        audience.ask(now, "s", None);
        assert_eq!(audience.session("s"), Some((now, None)));
        audience.show("s", (t(0), t(10)));
        audience.ask(now + SECOND, "s", None);
        audience.show("s", (t(1), t(11)));
        assert_eq!(audience.session("s"), Some((now, Some((t(1), t(11))))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_counts_until_its_presence_is_dropped() {
        let audience = Audience::default();
        let one = audience.enter(Instant::now(), Output::Whep, None);
        let other = audience.enter(Instant::now(), Output::Whep, None);
        assert!(audience.has_news(Instant::now()));
        assert!(!audience.has_news(Instant::now()));
        tokio::time::advance(SECOND * 3).await;
        drop(one);
        tokio::time::advance(SECOND * 4).await;
        let counts = audience.counts(Instant::now()).whep;
        assert_eq!(
            (counts.viewers, counts.peak, counts.viewer_seconds),
            (1, 2, 10)
        );
        drop(other);
        assert!(audience.has_news(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn at_its_bound_the_table_takes_no_more_and_forgets_none() {
        let audience = Audience::default();
        let now = Instant::now();
        for n in 0..HLS_SESSIONS_MAX {
            assert!(audience.ask(now, &n.to_string(), None));
        }
        assert!(!audience.ask(now, "one more", None));
        assert!(audience.ask(now, "0", None));
        let later = now + HLS_ALIVE;
        assert_eq!(audience.counts(later).hls.viewers, 0);
        assert!(audience.ask(later, "one more", None));
    }
}
