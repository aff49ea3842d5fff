//! Room time (commerce.md 9): one clock over all instances of a room's media.
//!
//! Invariants
//! - Room time is T of the running instance plus its offset; without one it runs on with wall time.
//! - It never runs back in one process, whatever the publishers' clocks do.
//! - A room that is over stands where it ended.

use sqlx::{AnyConnection, Executor, Row};

use super::model::{Room, State};
use crate::broadcasts::RunningT;
use crate::clock::Timestamp;
use crate::ids::RoomId;

/// Room time now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoomClock {
    pub(crate) now_us: i64,
    /// The running instance that has its place on the timeline.
    pub(crate) instance: Option<Place>,
}

/// An instance's place on the room's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) instance: String,
    /// What to add to its T.
    pub(crate) offset_us: i64,
}

/// A row of `room_timelines`.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) place: Place,
    pub(super) first_us: i64,
    pub(super) last_us: Option<i64>,
}

impl Span {
    /// The room time up to which it is known to reach.
    fn end_us(&self) -> i64 {
        let last_us = self.last_us.unwrap_or(self.first_us);
        last_us - self.first_us + self.place.offset_us
    }
}

/// The instances of a room, the first one first.
pub(super) async fn spans(connection: &mut AnyConnection, id: RoomId) -> sqlx::Result<Vec<Span>> {
    let sql = "SELECT instance, offset_us, first_us, last_us FROM room_timelines \
               WHERE room_id = $1 ORDER BY offset_us, first_us";
    let query = sqlx::query(sql).bind(id.to_string());
    let rows = connection.fetch_all(query).await?;
    rows.iter()
        .map(|row| {
            Ok(Span {
                place: Place {
                    instance: row.try_get(0)?,
                    offset_us: row.try_get(1)?,
                },
                first_us: row.try_get(2)?,
                last_us: row.try_get(3)?,
            })
        })
        .collect()
}

/// Room time by what is stored and what runs; `floor_us` is where it was seen last.
pub(super) fn read(
    room: &Room,
    spans: &[Span],
    running: Option<RunningT>,
    (now, floor_us): (Timestamp, i64),
) -> RoomClock {
    if room.state.is_over() {
        return RoomClock {
            now_us: spans.iter().map(Span::end_us).max().unwrap_or(0),
            instance: None,
        };
    }
    let is_before = matches!(room.state, State::Scheduled | State::Rehearsal);
    let of_instance = |running: &RunningT| {
        let span = spans
            .iter()
            .find(|it| it.place.instance == running.instance);
        // The first instance will be the beginning of the timeline.
        span.map_or(0, |span| span.place.offset_us)
    };
    let placed = running
        .filter(|it| is_before || spans.iter().any(|span| span.place.instance == it.instance));
    match placed {
        Some(running) => {
            let offset_us = of_instance(&running);
            RoomClock {
                now_us: running.t_us.saturating_add(offset_us).max(floor_us),
                instance: Some(Place {
                    instance: running.instance,
                    offset_us,
                }),
            }
        }
        None => RoomClock {
            now_us: by_wall(spans, now).max(floor_us),
            instance: None,
        },
    }
}

/// Room time without an instance.
pub(super) fn by_wall(spans: &[Span], now: Timestamp) -> i64 {
    let epoch_us = spans
        .iter()
        .map(|it| it.first_us - it.place.offset_us)
        .min();
    let end_us = spans.iter().map(Span::end_us).max().unwrap_or(0);
    let passed_us = epoch_us.map(|epoch_us| now.as_micros().saturating_sub(epoch_us));
    passed_us.unwrap_or(0).max(end_us)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::db::NOON;

    /// What a publisher does next: it sends for a while by a clock of its own, or is away.
    #[derive(Clone, Debug)]
    struct Stretch {
        away_us: i64,
        sends_us: i64,
        /// How much faster its clock runs, in millionths.
        drift_ppm: i64,
        /// Whether the media core starts a new instance.
        is_new: bool,
    }

    fn stretches() -> impl Strategy<Value = Vec<Stretch>> {
        let times = (0_i64..20_000_000, 1_i64..600_000_000);
        let stretch = (times, -500_i64..500, any::<bool>());
        let stretch = stretch.prop_map(|((away_us, sends_us), drift_ppm, is_new)| Stretch {
            away_us,
            sends_us,
            drift_ppm,
            is_new,
        });
        prop::collection::vec(stretch, 1..8)
    }

    fn drifted(us: i64, ppm: i64) -> i64 {
        us + us / 1_000_000 * ppm
    }

    proptest! {
        /// C21: whatever instances come and go, room time never runs back.
        #[test]
        fn room_time_never_runs_back(stretches in stretches(), rows_of_old in any::<bool>()) {
            let room = super::super::tests::at(State::Live);
            let (mut spans, mut t_us, mut floor_us) = (Vec::<Span>::new(), 0, 0);
            let mut now = NOON;
            let look = |spans: &[Span], running: Option<(usize, i64)>, now, floor_us: i64| {
                let running = running.map(|(n, t_us)| RunningT {
                    instance: n.to_string(),
                    t_us,
                });
                read(&room, spans, running, (now, floor_us)).now_us
            };
            for stretch in stretches {
                let passes = |us: i64| std::time::Duration::from_micros(us.unsigned_abs());
                now = now.plus(passes(stretch.away_us));
                let seen_us = look(&spans, None, now, floor_us);
                prop_assert!(seen_us >= floor_us);
                floor_us = seen_us;
                if stretch.is_new || spans.is_empty() {
                    if let Some(last) = spans.last_mut().filter(|_| rows_of_old) {
                        last.last_us = Some(now.as_micros());
                    }
                    t_us = 0;
                    let offset_us = if spans.is_empty() {
                        0
                    } else {
                        by_wall(&spans, now).max(floor_us - t_us)
                    };
                    let place = Place {
                        instance: spans.len().to_string(),
                        offset_us,
                    };
                    spans.push(Span {
                        place,
                        first_us: now.as_micros(),
                        last_us: None,
                    });
                }
                now = now.plus(passes(stretch.sends_us));
                t_us += drifted(stretch.sends_us, stretch.drift_ppm);
                let seen_us = look(&spans, Some((spans.len() - 1, t_us)), now, floor_us);
                prop_assert!(seen_us >= floor_us);
                floor_us = seen_us;
            }
        }
    }
}
