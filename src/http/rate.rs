//! Rates: how often one caller may do one thing (GCRA), in this process.
//!
//! Invariants
//! - What is remembered is bounded: past the bound, those nearest to being free are forgotten.
//! - A take counts before the deed, so that many at once cannot pass together.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use dashmap::DashMap;
use http::{HeaderName, HeaderValue};

use super::error::{ApiError, Code};
use crate::app::App;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
/// Callers remembered, over all rates.
const CALLERS_MAX: usize = 65_536;

/// So many in a window; one more for each part of the window that passes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    name: &'static str,
    count: u32,
    window: Duration,
}

/// When each caller of each rate will have all its takes back, in microseconds.
#[derive(Debug, Default)]
struct Callers(DashMap<(&'static str, String), i64>);

/// One take.
#[derive(Clone, Debug)]
#[must_use = "a limited answer shows what is left"]
pub(crate) struct Taken {
    rate: Rate,
    who: String,
    left: i64,
    callers: Arc<Callers>,
}

impl Rate {
    pub(crate) const fn new(name: &'static str, count: u32, window: Duration) -> Self {
        Self {
            name,
            count,
            window,
        }
    }

    /// Counts one deed of `who`; refuses when there are too many.
    pub(crate) fn take(self, app: &App, who: &str) -> Result<Taken, ApiError> {
        let callers: Arc<Callers> = app.parts.part();
        callers.bound();
        let now = app.clock.now().as_micros();
        let (window, step) = (self.window_us(), self.step_us());
        let key = (self.name, who.to_owned());
        let mut full_at = callers.0.entry(key).or_insert(now);
        // A clock that was set back must not lock anyone out for longer than a window.
        let next = (*full_at).clamp(now, now.saturating_add(window)) + step;
        if next > now.saturating_add(window) {
            let wait = next.saturating_sub(now.saturating_add(window));
            drop(full_at);
            return Err(self.refusal(Duration::from_micros(u64::try_from(wait).unwrap_or(0))));
        }
        *full_at = next;
        drop(full_at);
        Ok(Taken {
            rate: self,
            who: who.into(),
            left: now.saturating_add(window).saturating_sub(next) / step,
            callers,
        })
    }

    /// The same by address: IPv4 whole, IPv6 by its /64. The machine itself is spared.
    pub(crate) fn take_by_ip(self, app: &App, ip: IpAddr) -> Result<Option<Taken>, ApiError> {
        if ip.to_canonical().is_loopback() {
            return Ok(None);
        }
        self.take(app, &network(ip)).map(Some)
    }

    fn refusal(self, wait: Duration) -> ApiError {
        let detail = format!(
            "at most {} of these in {} s; wait before the next",
            self.count,
            self.window.as_secs()
        );
        let header = self.header(0, wait.as_secs());
        ApiError::new(Code::RateLimited, detail)
            .after(wait)
            .with(POLICY, self.policy())
            .with(LEFT, header)
    }

    fn policy(self) -> String {
        format!(
            "\"{}\";q={};w={}",
            self.name,
            self.count,
            self.window.as_secs()
        )
    }

    fn header(self, left: i64, free_s: u64) -> String {
        format!("\"{}\";r={left};t={free_s}", self.name)
    }

    fn window_us(self) -> i64 {
        i64::try_from(self.window.as_micros()).unwrap_or(i64::MAX)
    }

    /// What one costs, at least a microsecond.
    fn step_us(self) -> i64 {
        (self.window_us() / i64::from(self.count.max(1))).max(1)
    }
}

impl Taken {
    /// Takes nothing after all: what was tried was right.
    pub(crate) fn give_back(&self) {
        let key = (self.rate.name, self.who.clone());
        if let Some(mut full_at) = self.callers.0.get_mut(&key) {
            *full_at = full_at.saturating_sub(self.rate.step_us());
        }
    }

    /// The answer with the headers that say what is left.
    pub(crate) fn show(&self, mut response: Response) -> Response {
        let step_s =
            Duration::from_micros(u64::try_from(self.rate.step_us()).unwrap_or(0)).as_secs();
        let pairs = [
            (POLICY, self.rate.policy()),
            (LEFT, self.rate.header(self.left, step_s)),
        ];
        for (name, text) in pairs {
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

impl Callers {
    /// Makes room when there is none.
    fn bound(&self) {
        if self.0.len() < CALLERS_MAX {
            return;
        }
        let mut all: Vec<i64> = self.0.iter().map(|entry| *entry.value()).collect();
        let middle = all.len() / 2;
        let (_, &mut median, _) = all.select_nth_unstable(middle);
        self.0.retain(|_, full_at| *full_at > median);
        // All of one age: none is nearer than another.
        if self.0.len() >= CALLERS_MAX {
            self.0.clear();
        }
    }
}

/// The part of an address that stands for one caller.
fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Fixture;

    const FIVE: Rate = Rate::new("five", 5, Duration::from_secs(900));

    #[tokio::test]
    async fn five_pass_at_once_and_then_one_each_fifth_of_the_window() {
        let it = Fixture::new().await;
        let mut left = Vec::new();
        for _ in 0..5 {
            left.push(FIVE.take(&it.app, "anna").unwrap().left);
        }
        assert_eq!(left, [4, 3, 2, 1, 0]);
        let refused = FIVE.take(&it.app, "anna").unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        let problem = refused.problem("/x", "r");
        assert_eq!(problem.retry_after_ms, Some(180_000));
        FIVE.take(&it.app, "bert").unwrap().give_back();
        it.app.clock.advance(Duration::from_secs(180));
        let again = FIVE.take(&it.app, "anna").unwrap();
        assert!(FIVE.take(&it.app, "anna").is_err());
        again.give_back();
        assert!(FIVE.take(&it.app, "anna").is_ok());
    }

    #[tokio::test]
    async fn the_machine_itself_is_spared_and_a_network_of_ipv6_is_one_caller() {
        let it = Fixture::new().await;
        for _ in 0..9 {
            let own = FIVE.take_by_ip(&it.app, [127, 0, 0, 1].into());
            assert!(own.unwrap().is_none());
        }
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 0..5 {
            let taken = FIVE.take_by_ip(&it.app, ip(&format!("2001:db8::{n}")));
            assert!(taken.unwrap().is_some());
        }
        assert!(FIVE.take_by_ip(&it.app, ip("2001:db8::ffff")).is_err());
        assert!(FIVE.take_by_ip(&it.app, ip("2001:db8:0:1::1")).is_ok());
        assert!(FIVE.take_by_ip(&it.app, ip("::ffff:203.0.113.7")).is_ok());
        assert_eq!(network(ip("::ffff:203.0.113.7")), "203.0.113.7");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let callers = Callers::default();
        for n in 0..CALLERS_MAX {
            callers
                .0
                .insert(("x", n.to_string()), i64::try_from(n).unwrap());
        }
        callers.bound();
        assert!(callers.0.len() < CALLERS_MAX / 2 + 2);
        assert!(
            callers
                .0
                .contains_key(&("x", (CALLERS_MAX - 1).to_string()))
        );
    }
}
