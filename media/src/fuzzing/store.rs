//! What comes out of a store, which may be damaged.

use crate::record::boxes::{Init, Shift, begins_at, shift};

/// Recorded boxes: moving fragments moves no byte, and what was moved reads back that much
/// earlier; the track of an init section reads back from another one.
pub fn mp4_parts(data: &[u8]) {
    let by = Shift {
        track: 2,
        ticks: 90_000,
        us: 1_000_000,
        sequence: 5,
        sequences: 4,
    };
    let mut moved = data.to_vec();
    if shift(&mut moved, &by).is_ok() {
        let (before, after) = (begins_at(data), begins_at(&moved));
        assert_eq!(before.map(|ticks| ticks - by.ticks), after);
        let mut again = moved.clone();
        let none = Shift {
            ticks: 0,
            us: 0,
            ..by
        };
        assert_eq!(shift(&mut again, &none), Ok(()));
        assert!(again == moved, "what is where it belongs is not changed");
    }
    if let Ok(init) = Init::read(data, 2) {
        let mvex = boxed(*b"mvex", &init.trex);
        let moov = boxed(*b"moov", &[&init.trak[..], &mvex].concat());
        let again = Init::read(&moov, 2).expect("what was read is whole");
        assert!(again.trak == init.trak && again.trex == init.trex);
        assert_eq!(again.rate, init.rate);
    }
}

fn boxed(kind: [u8; 4], body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 8).expect("a seed is small");
    [&size.to_be_bytes()[..], &kind, body].concat()
}
