//! Who publishes into a broadcast: one session after the other (spec media.md 3.4).
//!
//! Pure state; the broadcast holds it behind one lock, and a session writes under that lock, so
//! that two never write at once (I7).

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::EndReason;
use crate::time::MediaTime;

/// A publisher that sent media within this is at work.
const AT_WORK: Duration = Duration::from_secs(2);
/// More takeovers from one at work than this, within this, are two encoders fighting.
const TAKEOVERS_MAX: usize = 3;
const TAKEOVERS_WITHIN: Duration = Duration::from_secs(60);
/// How long the newer one is refused then.
const CALM: Duration = Duration::from_secs(30);

/// What the same key may do while a session lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// The newer one is let in and the older one told so.
    #[default]
    Newest,
    /// The newer one is refused.
    Refuse,
}

/// What happens when another publisher comes, or the one there goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishPolicy {
    /// When another comes.
    pub takeover: Takeover,
    /// How long a broadcast waits for a publisher whose connection broke.
    pub grace: Duration,
    /// The same for one who said goodbye.
    pub stop_grace: Duration,
}

impl PublishPolicy {
    /// One publisher, once: whoever comes second is refused, and the broadcast ends with the first.
    pub const ONCE: Self = Self {
        takeover: Takeover::Refuse,
        grace: Duration::ZERO,
        stop_grace: Duration::ZERO,
    };
}

impl Default for PublishPolicy {
    fn default() -> Self {
        Self {
            takeover: Takeover::Newest,
            grace: Duration::from_secs(30),
            stop_grace: Duration::from_secs(5),
        }
    }
}

/// Why a later session was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotNow {
    /// One is there, and the policy keeps it.
    Busy,
    /// Two encoders take the broadcast from each other.
    TwoEncoders,
    /// The broadcast is ending: the next session begins a new one.
    Over,
}

/// How a session came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Nobody was there.
    Back,
    /// The one there had to go.
    InsteadOf,
}

/// How a session went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// Another had taken its place before.
    Unnoticed,
    /// The broadcast waits for the next one.
    Awaited,
    /// That was the end.
    ForGood,
}

/// The sessions of one broadcast.
#[derive(Clone, Debug)]
pub(super) struct Attendance {
    /// Of the session that may write.
    number: u64,
    is_present: bool,
    /// True once it was decided that nobody comes back.
    is_over: bool,
    policy: PublishPolicy,
    /// Until when the next session is awaited, and how the last one went.
    awaited: Option<(Instant, EndReason)>,
    takeovers: VecDeque<Instant>,
    calm_until: Option<Instant>,
    /// True once any session wrote something; and the present one.
    pub(super) has_media: bool,
    pub(super) is_sending: bool,
    pub(super) newest: Option<MediaTime>,
    pub(super) newest_at: Option<Instant>,
}

impl Attendance {
    /// The first session is there.
    pub(super) const fn new(policy: PublishPolicy) -> Self {
        Self {
            number: 1,
            is_present: true,
            is_over: false,
            policy,
            awaited: None,
            takeovers: VecDeque::new(),
            calm_until: None,
            has_media: false,
            is_sending: false,
            newest: None,
            newest_at: None,
        }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) const fn policy(&self) -> PublishPolicy {
        self.policy
    }

    pub(super) const fn is_present(&self) -> bool {
        self.is_present
    }

    /// Lets another session in, or not.
    pub(super) fn enter(&mut self, now: Instant, policy: PublishPolicy) -> Result<Came, NotNow> {
        if self.is_over {
            return Err(NotNow::Over);
        }
        let came = if self.is_present {
            self.displace(now, policy)?;
            Came::InsteadOf
        } else {
            Came::Back
        };
        self.number += 1;
        self.is_present = true;
        self.is_sending = false;
        self.awaited = None;
        self.policy = policy;
        Ok(came)
    }

    /// Whether [`Self::enter`] would let another session in; a refusal counts like one of it.
    pub(super) fn would_enter(
        &mut self,
        now: Instant,
        policy: PublishPolicy,
    ) -> Result<(), NotNow> {
        let mut after = self.clone();
        let entered = after.enter(now, policy).map(drop);
        if entered.is_err() {
            *self = after;
        }
        entered
    }

    /// Whether two encoders were parted a moment ago.
    pub(super) fn had_fight(&self, now: Instant) -> bool {
        self.calm_until.is_some_and(|until| now < until)
    }

    fn displace(&mut self, now: Instant, policy: PublishPolicy) -> Result<(), NotNow> {
        if policy.takeover == Takeover::Refuse {
            return Err(NotNow::Busy);
        }
        if self.calm_until.is_some_and(|until| now < until) {
            return Err(NotNow::TwoEncoders);
        }
        let last = self.newest_at.filter(|_| self.is_sending);
        let is_at_work = last.is_some_and(|at| now.saturating_duration_since(at) <= AT_WORK);
        if !is_at_work {
            return Ok(());
        }
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > TAKEOVERS_WITHIN;
        while self.takeovers.front().is_some_and(is_old) {
            self.takeovers.pop_front();
        }
        if self.takeovers.len() >= TAKEOVERS_MAX {
            self.calm_until = Some(now + CALM);
            self.takeovers.clear();
            return Err(NotNow::TwoEncoders);
        }
        self.takeovers.push_back(now);
        Ok(())
    }

    /// A session goes.
    pub(super) fn leave(&mut self, now: Instant, number: u64, reason: EndReason) -> Went {
        if self.number != number || !self.is_present {
            return Went::Unnoticed;
        }
        self.is_present = false;
        self.is_sending = false;
        let grace = match reason {
            EndReason::Lost | EndReason::CodecChanged => self.policy.grace,
            EndReason::Finished => self.policy.stop_grace,
            EndReason::Server | EndReason::Shutdown | EndReason::Replaced => Duration::ZERO,
        };
        // Nobody waits for more of what never was.
        if grace.is_zero() || !self.has_media {
            self.is_over = true;
            return Went::ForGood;
        }
        self.awaited = Some((now + grace, reason));
        Went::Awaited
    }

    /// Until when the next session is awaited.
    pub(super) fn awaited_until(&self) -> Option<Instant> {
        self.awaited.map(|(until, _)| until)
    }

    /// The reason to end, once nobody came in time; then nobody comes any more.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<EndReason> {
        let (until, reason) = self.awaited?;
        self.is_over |= until <= now;
        self.is_over.then_some(reason)
    }

    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_work(now: Instant) -> Attendance {
        let mut there = Attendance::new(PublishPolicy::default());
        sends(&mut there, now);
        there
    }

    fn sends(there: &mut Attendance, now: Instant) {
        (there.has_media, there.is_sending) = (true, true);
        there.newest_at = Some(now);
    }

    #[test]
    fn how_long_the_next_is_awaited_depends_on_how_the_last_one_went() {
        let cases = [
            (EndReason::Lost, Some(30)),
            (EndReason::CodecChanged, Some(30)),
            (EndReason::Finished, Some(5)),
            (EndReason::Server, None),
            (EndReason::Shutdown, None),
        ];
        let now = Instant::now();
        for (reason, seconds) in cases {
            let mut there = at_work(now);
            let went = there.leave(now, 1, reason);
            let until = seconds.map(|s| now + Duration::from_secs(s));
            assert_eq!(there.awaited_until(), until, "{reason:?}");
            let expected = if seconds.is_some() {
                Went::Awaited
            } else {
                Went::ForGood
            };
            assert_eq!(went, expected);
            if let Some(until) = until {
                assert_eq!(there.overdue(until - Duration::from_millis(1)), None);
                assert_eq!(there.overdue(until), Some(reason));
            }
        }
    }

    #[test]
    fn a_publisher_that_never_sent_is_not_awaited() {
        let mut there = Attendance::new(PublishPolicy::default());
        assert_eq!(
            there.leave(Instant::now(), 1, EndReason::Lost),
            Went::ForGood
        );
    }

    #[test]
    fn the_going_of_a_displaced_session_changes_nothing() {
        let now = Instant::now();
        let mut there = at_work(now);
        assert_eq!(
            there.enter(now, PublishPolicy::default()),
            Ok(Came::InsteadOf)
        );
        assert_eq!(there.leave(now, 1, EndReason::Lost), Went::Unnoticed);
        assert!(there.is_present());
        assert_eq!(there.number(), 2);
    }

    #[test]
    fn the_policy_of_the_one_who_comes_decides() {
        let now = Instant::now();
        let mut there = at_work(now);
        assert_eq!(there.enter(now, PublishPolicy::ONCE), Err(NotNow::Busy));
        there.leave(now, 1, EndReason::Lost);
        assert_eq!(there.enter(now, PublishPolicy::ONCE), Ok(Came::Back));
    }

    /// Over three takeovers from one at work within a minute (spec media.md 3.4).
    #[test]
    fn two_encoders_that_fight_are_parted_for_half_a_minute() {
        let start = Instant::now();
        let mut there = at_work(start);
        let policy = PublishPolicy::default();
        let at = |s| start + Duration::from_secs(s);
        for n in 1..=3 {
            assert_eq!(there.enter(at(n), policy), Ok(Came::InsteadOf));
            sends(&mut there, at(n));
        }
        assert_eq!(there.enter(at(4), policy), Err(NotNow::TwoEncoders));
        sends(&mut there, at(33));
        assert_eq!(there.enter(at(33), policy), Err(NotNow::TwoEncoders));
        assert_eq!(there.enter(at(34), policy), Ok(Came::InsteadOf));
    }

    #[test]
    fn taking_over_from_one_that_hangs_is_no_fight() {
        let start = Instant::now();
        let mut there = at_work(start);
        for n in 1..=10 {
            let now = start + Duration::from_secs(3 * n);
            let came = there.enter(now, PublishPolicy::default());
            assert_eq!(came, Ok(Came::InsteadOf));
            // It sent something when it began, more than two seconds before the next one.
            sends(&mut there, now);
        }
    }

    #[test]
    fn takeovers_a_minute_apart_are_no_fight() {
        let start = Instant::now();
        let mut there = at_work(start);
        for n in 1..=10 {
            let now = start + Duration::from_secs(21 * n);
            sends(&mut there, now);
            assert!(there.enter(now, PublishPolicy::default()).is_ok(), "{n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn once_nobody_is_waited_for_nobody_comes_in() {
        let now = Instant::now();
        let mut without_media = Attendance::new(PublishPolicy::ONCE);
        assert_eq!(
            without_media.leave(now, 1, EndReason::Finished),
            Went::ForGood
        );
        let enters = without_media.enter(now, PublishPolicy::ONCE);
        assert_eq!(enters, Err(NotNow::Over));
    }
}
