//! Pages and bodies: rules without a server.

use proptest::prelude::*;

use super::page::limit;
use super::*;
use crate::app::Secrets;
use crate::clock::Timestamp;
use crate::ids::RoomId;

fn id(n: i64) -> RoomId {
    RoomId::new(Timestamp::from_micros(1_790_000_000_000_000 + n * 1_000))
}

/// What a store gives: ids in the order of the walk, one more than asked for.
fn fetch(all: &[RoomId], seek: &Seek<RoomId>, limit: usize) -> Vec<RoomId> {
    let newest_first = all.iter().rev().copied();
    let rows: Vec<_> = match seek {
        Seek::First => newest_first.collect(),
        Seek::After(from) => newest_first.filter(|id| id < from).collect(),
        Seek::Before(from) => all.iter().copied().filter(|id| id > from).collect(),
    };
    rows.into_iter().take(limit + 1).collect()
}

struct Walk<'a> {
    cursor: Cursor<'a>,
    all: Vec<RoomId>,
    limit: u32,
}

impl Walk<'_> {
    fn page(&self, after: Option<&str>, before: Option<&str>) -> (Page<RoomId>, serde_json::Value) {
        let seek = self.cursor.seek(after, before).unwrap();
        let limit = usize::try_from(self.limit).unwrap();
        let rows = fetch(&self.all, &seek, limit);
        let page = self
            .cursor
            .page(rows, self.limit, &seek, ToString::to_string);
        let around = serde_json::to_value(&page.page).unwrap();
        (page, around)
    }
}

#[test]
fn a_walk_forth_and_back_sees_every_row_once() {
    let secrets = Secrets::for_tests();
    for (count, limit) in [(0, 3), (1, 3), (3, 3), (4, 3), (10, 3), (9, 3), (5, 1)] {
        let all: Vec<_> = (0..count).map(id).collect();
        let walk = Walk {
            cursor: Cursor::of(&secrets, "all"),
            all: all.clone(),
            limit,
        };
        let (mut page, mut around) = walk.page(None, None);
        let mut forth = page.data.clone();
        while let Some(next) = around["next"].as_str().map(String::from) {
            (page, around) = walk.page(Some(&next), None);
            forth.extend(&page.data);
        }
        let newest_first: Vec<_> = all.iter().rev().copied().collect();
        assert_eq!(forth, newest_first, "{count} by {limit}");
        let mut back = page.data.clone();
        while let Some(prev) = around["prev"].as_str().map(String::from) {
            (page, around) = walk.page(None, Some(&prev));
            back.splice(0..0, page.data.iter().copied());
        }
        assert_eq!(back, newest_first, "{count} by {limit}, back");
    }
}

#[test]
fn a_cursor_fits_its_own_list_only_and_cannot_be_altered() {
    let secrets = Secrets::for_tests();
    let walk = Walk {
        cursor: Cursor::of(&secrets, "all"),
        all: (0..3).map(id).collect(),
        limit: 1,
    };
    let (_, around) = walk.page(None, None);
    let good = around["next"].as_str().unwrap().to_owned();
    let other = Cursor::of(&secrets, "some");
    let refused = other.seek::<RoomId>(Some(&good), None).unwrap_err();
    assert_eq!(refused.code(), Code::BadCursor);
    for at in 0..good.len() {
        let mut altered = good.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        let seek = walk.cursor.seek::<RoomId>(Some(&altered), None);
        assert!(seek.is_err(), "byte {at}");
    }
    let both = walk.cursor.seek::<RoomId>(Some(&good), Some(&good));
    assert_eq!(both.unwrap_err().code(), Code::Malformed);
}

#[test]
fn a_page_has_between_one_and_two_hundred_rows() {
    assert_eq!(limit(None).unwrap(), 50);
    assert_eq!(limit(Some(200)).unwrap(), 200);
    for bad in [0, 201, u32::MAX] {
        assert_eq!(limit(Some(bad)).unwrap_err().code(), Code::OutOfBounds);
    }
}

proptest! {
    #[test]
    fn no_text_is_taken_for_a_cursor(text in ".{0,80}") {
        let secrets = Secrets::for_tests();
        let cursor = Cursor::of(&secrets, "all");
        prop_assert!(cursor.seek::<RoomId>(Some(&text), None).is_err());
    }
}
