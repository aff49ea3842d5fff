//! Replays of cards (commerce.md 9, T8): the timeline on the clock of a recording.
//!
//! Invariants
//! - Order is kept, and so are distances but for the gaps, which are cut out.
//! - What happened in a gap happens at its end.
//!
//! Not here: the media of a replay ([`crate::broadcasts`]).

mod routes;

pub(super) use self::routes::routes;
use super::envelope::{Action, Event};
use super::timeline::Cards;
use crate::ids::EntryId;

/// The clock of a recording: room time without what was not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rebase {
    /// Stretches of room time that are recorded, in their order.
    stretches: Vec<(i64, i64)>,
}

impl Rebase {
    /// The clock of stretches of T that lie so far from room time.
    fn new(stretches: &[(i64, i64)], offset_us: i64) -> Self {
        let moved = stretches.iter();
        let moved = moved.map(|(from, to)| (from + offset_us, to + offset_us));
        Self {
            stretches: moved.collect(),
        }
    }

    /// The part of it between two of its own times.
    fn trimmed(&self, from_us: i64, to_us: i64) -> Self {
        let (mut stretches, mut passed_us) = (Vec::new(), 0);
        for &(begins, ends) in &self.stretches {
            let first = begins.saturating_add((from_us - passed_us).max(0));
            let last = begins.saturating_add((to_us - passed_us).max(0)).min(ends);
            if first < last {
                stretches.push((first, last));
            }
            passed_us += ends - begins;
        }
        Self { stretches }
    }

    fn duration_us(&self) -> i64 {
        self.stretches.iter().map(|(from, to)| to - from).sum()
    }

    /// The room time of its first frame.
    fn begins_us(&self) -> Option<i64> {
        self.stretches.first().map(|(from, _)| *from)
    }

    /// Where a room time is in it; none before its first frame and after its last.
    fn of(&self, at_us: i64) -> Option<i64> {
        let begins_us = self.begins_us()?;
        let mut passed_us = 0;
        for &(from, to) in &self.stretches {
            if at_us < to {
                let since_us = (at_us - from).max(0);
                return (at_us >= begins_us).then_some(passed_us + since_us);
            }
            passed_us += to - from;
        }
        None
    }
}

/// A time in which one entry is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chapter {
    entry: EntryId,
    from_us: i64,
    to_us: i64,
}

/// The times in which entries are explained, in the order of room time.
fn explained<'a>(events: impl IntoIterator<Item = &'a Event>, end_us: i64) -> Vec<Chapter> {
    let is_about = |event: &&Event| {
        matches!(event.action, Action::ExplainStart | Action::ExplainEnd) && event.at_us < end_us
    };
    let mut events: Vec<&Event> = events.into_iter().filter(is_about).collect();
    events.sort_by_key(|event| event.place());
    let mut edges: Vec<i64> = events
        .iter()
        .flat_map(|event| [Some(event.at_us), event.until_us()])
        .flatten()
        .filter(|edge| *edge < end_us)
        .chain([end_us])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    let (mut cards, mut chapters) = (Cards::default(), Vec::<Chapter>::new());
    let mut rest = events.into_iter().peekable();
    for (from_us, to_us) in edges.iter().zip(edges.iter().skip(1)) {
        while let Some(event) = rest.next_if(|event| event.at_us <= *from_us) {
            cards.apply(event);
        }
        let Some(entry) = cards.explained.at(*from_us).and_then(|held| held.value) else {
            continue;
        };
        match chapters.last_mut() {
            Some(last) if last.entry == entry && last.to_us == *from_us => last.to_us = *to_us,
            _ => chapters.push(Chapter {
                entry,
                from_us: *from_us,
                to_us: *to_us,
            }),
        }
    }
    chapters
}

/// Chapters as `WebVTT`: `(from, to, title)` on the clock of the recording.
fn webvtt(chapters: &[(i64, i64, String)]) -> String {
    let cue = |(number, (from_us, to_us, title)): (usize, &(i64, i64, String))| {
        let (from, to, title) = (clock(*from_us), clock(*to_us), plain(title));
        format!("\n{}\n{from} --> {to}\n{title}\n", number + 1)
    };
    let cues = chapters.iter().enumerate().map(cue);
    std::iter::once("WEBVTT\n".to_owned()).chain(cues).collect()
}

fn clock(us: i64) -> String {
    let ms = us / 1_000;
    let (s, ms) = (ms / 1_000, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3_600, s / 60 % 60, s % 60)
}

/// A title on one line, of which nothing is read as markup.
fn plain(title: &str) -> String {
    let words: Vec<&str> = title.split_whitespace().collect();
    let escaped = words.join(" ").replace('&', "&amp;").replace('<', "&lt;");
    escaped.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::envelope::{Data, Stamped};
    use super::*;
    use crate::db::NOON;
    use crate::ids::RoomId;

    fn stretches() -> impl Strategy<Value = Vec<(i64, i64)>> {
        let steps = prop::collection::vec((0_i64..50, 1_i64..100), 1..8);
        steps.prop_map(|steps| {
            let mut at = 0;
            let stretch = |(gap, length): (i64, i64)| {
                let from = at + gap;
                at = from + length;
                (from, at)
            };
            steps.into_iter().map(stretch).collect()
        })
    }

    proptest! {
        /// C21: order is kept, and distances outside gaps.
        #[test]
        fn a_replay_keeps_order_and_distances_outside_gaps(
            stretches in stretches(), offset in 0_i64..1_000,
            (one, other) in (0_i64..1_500, 0_i64..1_500),
        ) {
            let rebase = Rebase::new(&stretches, offset);
            let (early, late) = (one.min(other), one.max(other));
            let recorded = |at: i64| {
                let of_t = at - offset;
                stretches.iter().position(|(from, to)| (*from..*to).contains(&of_t))
            };
            if let (Some(a), Some(b)) = (rebase.of(early), rebase.of(late)) {
                prop_assert!(a <= b);
                if recorded(early).is_some() && recorded(early) == recorded(late) {
                    prop_assert_eq!(b - a, late - early);
                }
                prop_assert!(b < rebase.duration_us());
            }
            // What happened in a gap happens at its end.
            let first = stretches[0].0 + offset;
            let last = stretches.last().unwrap().1 + offset;
            let inside = (first..last).contains(&early);
            prop_assert_eq!(rebase.of(early).is_some(), inside);
            if let (true, None) = (inside, recorded(early)) {
                let next = stretches.iter().find(|(from, _)| from + offset > early).unwrap();
                prop_assert_eq!(rebase.of(early), rebase.of(next.0 + offset));
            }
        }

        #[test]
        fn a_trimmed_replay_begins_at_0_where_the_whole_one_is_at_its_first_time(
            stretches in stretches(), at in 0_i64..1_500, (from, to) in (0_i64..300, 0_i64..300),
        ) {
            let whole = Rebase::new(&stretches, 0);
            let trimmed = whole.trimmed(from, to);
            let length = (to.min(whole.duration_us()) - from).max(0);
            prop_assert_eq!(trimmed.duration_us(), length);
            let is_recorded = stretches.iter().any(|(from, to)| (*from..*to).contains(&at));
            let expected = whole.of(at).filter(|at| is_recorded && (from..to).contains(at));
            if let Some(place) = expected {
                prop_assert_eq!(trimmed.of(at), Some(place - from));
            }
        }
    }

    fn explain(seq: i64, action: Action, at_us: i64, ttl_us: i64, name: &str) -> Event {
        Event::write(Stamped {
            room: RoomId::derived(&["room"]),
            seq,
            action,
            at_us,
            issued_us: NOON.as_micros(),
            ttl_us,
            entry: (action == Action::ExplainStart).then(|| EntryId::derived(&[name])),
            data: Data::None,
        })
        .unwrap()
    }

    #[test]
    fn a_chapter_lasts_until_another_begins_or_nothing_is_explained() {
        let events = [
            explain(1, Action::ExplainStart, 10, 0, "a"),
            explain(2, Action::ExplainStart, 30, 20, "b"),
            explain(3, Action::ExplainEnd, 60, 0, ""),
            explain(4, Action::ExplainStart, 80, 0, "a"),
            explain(5, Action::ExplainStart, 200, 0, "b"),
        ];
        let chapter = |name: &str, from_us, to_us| Chapter {
            entry: EntryId::derived(&[name]),
            from_us,
            to_us,
        };
        let expected = [
            chapter("a", 10, 30),
            chapter("b", 30, 50),
            chapter("a", 50, 60),
            chapter("a", 80, 100),
        ];
        assert_eq!(explained(&events, 100), expected);
    }

    #[test]
    fn chapters_are_written_as_webvtt() {
        let chapters = [
            (0, 1_500_000, "Mug & <pan>".into()),
            (3_723_004_000, 3_724_000_000, "Two\n\nlines --> x".into()),
        ];
        let expected = "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.500\nMug &amp; &lt;pan&gt;\n\n2\n\
                        01:02:03.004 --> 01:02:04.000\nTwo lines --&gt; x\n";
        assert_eq!(webvtt(&chapters), expected);
    }
}
