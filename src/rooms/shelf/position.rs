//! Places in a row that take another between any two: fractions written in base 36. Pure.
//!
//! Invariant: a position never ends in `0`, so that there is always one before it.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const BASE: usize = DIGITS.len();
/// Longer ones are shortened by spreading the whole row anew.
const LEN_MAX: usize = 32;
/// Digits of a spread position, before the one that keeps it off `0`.
const SPREAD_DIGITS: u32 = 3;

/// A position behind `low` and before `high`; none is the end on that side.
pub(super) fn between(low: Option<&str>, high: Option<&str>) -> String {
    let low = low.unwrap_or_default().as_bytes();
    let mut high = high.map(str::as_bytes);
    let is_at_end = high.is_none();
    let mut position = String::new();
    for place in 0.. {
        let from = low.get(place).map_or(0, |digit| value(*digit));
        let to = high.map_or(BASE, |high| {
            high.get(place).map_or(0, |digit| value(*digit))
        });
        if to == from {
            position.push(digit(from));
        } else if to - from == 1 {
            // Nothing is between these two digits: behind the lower one everything is.
            position.push(digit(from));
            high = None;
        } else {
            // Most are put at the end: one by one they use up the digits slower than by halves.
            let step = if is_at_end { 1 } else { (to - from) / 2 };
            position.push(digit(from + step));
            break;
        }
    }
    position
}

/// Whether the row is to be spread anew.
pub(super) const fn is_long(position: &str) -> bool {
    position.len() > LEN_MAX
}

/// So many positions, far from each other.
pub(super) fn spread(count: usize) -> Vec<String> {
    let step = BASE.pow(SPREAD_DIGITS) / (count + 1);
    let written = |n: usize| {
        let digits = (0..SPREAD_DIGITS).rev();
        let digits = digits.map(|power| digit(n / BASE.pow(power) % BASE));
        digits.chain([digit(BASE / 2)]).collect()
    };
    (1..=count).map(|n| written(n * step)).collect()
}

fn value(byte: u8) -> usize {
    DIGITS.iter().position(|digit| *digit == byte).unwrap_or(0)
}

fn digit(value: usize) -> char {
    DIGITS.get(value).map_or('0', |digit| char::from(*digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn five_hundred_at_the_end_stay_short() {
        let mut last = between(None, None);
        for _ in 0..500 {
            let next = between(Some(&last), None);
            assert!(last < next && !is_long(&next), "{last} {next}");
            last = next;
        }
    }

    #[test]
    fn a_spread_row_is_in_order_and_has_space_everywhere() {
        for count in [1, 2, 500] {
            let row = spread(count);
            assert!(row.is_sorted_by(|a, b| a < b), "{row:?}");
            assert!(row.iter().all(|it| !it.ends_with('0') && it.len() == 4));
            let first = between(None, row.first().map(String::as_str));
            assert!(first < row[0]);
        }
    }

    proptest! {
        #[test]
        fn wherever_one_is_put_the_row_stays_in_order(
            places in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
        ) {
            let mut row: Vec<String> = Vec::new();
            for place in places {
                let place = place.index(row.len() + 1);
                let low = place.checked_sub(1).map(|at| row[at].as_str());
                let position = between(low, row.get(place).map(String::as_str));
                prop_assert!(!position.ends_with('0'));
                row.insert(place, position);
                prop_assert!(row.is_sorted_by(|a, b| a < b), "{:?}", row);
            }
        }
    }
}
