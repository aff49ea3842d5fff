//! AV1 (RTP payload format for AV1, version 1.0): OBUs without delimiters, several in a packet or
//! one in many.
//!
//! A coded video sequence begins with a sequence header and a keyframe that is shown: only where
//! both are in one temporal unit can decoding start.

use super::Bad;
use super::assembly::Assembly;
use crate::bitstream::av1::{self, ObuKind, SequenceFacts, obus, put_obu, split_size};

/// The first element continues one of the packet before.
const CONTINUES: u8 = 0x80;
/// The last element goes on in the next packet.
const GOES_ON: u8 = 0x40;
/// A coded video sequence begins with this packet.
const NEW_SEQUENCE: u8 = 0x08;
/// In an OBU's header: there is a second byte, which names layers.
const HAS_EXTENSION: u8 = 0x04;
/// In that byte.
const SPATIAL_LAYER: u8 = 0x18;

pub(super) fn take(to: &mut Assembly, payload: &[u8]) -> Result<(), Bad> {
    let (&head, list) = payload.split_first().ok_or(Bad)?;
    // What goes on says so at its end and at its beginning, or something between is missing.
    if (head & CONTINUES != 0) == to.is_whole() {
        return Err(Bad);
    }
    let elements = elements(head, list)?;
    let last = elements.len().checked_sub(1).ok_or(Bad)?;
    for (place, element) in elements.into_iter().enumerate() {
        let continues = place == 0 && head & CONTINUES != 0;
        let goes_on = place == last && head & GOES_ON != 0;
        if !continues && !goes_on {
            whole(to, element)?;
            continue;
        }
        let begin = (!continues).then_some(&[][..]);
        if let Some(obu) = to.fragment(begin, element, !goes_on)? {
            whole(to, &obu)?;
        }
    }
    Ok(())
}

/// A new sequence, a delimiter or a sequence header.
pub(super) fn begins_unit(payload: &[u8]) -> bool {
    let Some((&head, list)) = payload.split_first() else {
        return false;
    };
    let elements = elements(head, list).unwrap_or_default();
    let first = elements.first().and_then(|obu| obu.first());
    let is_first = first.is_some_and(|header| matches!(header >> 3 & 15, 1 | 2));
    head & CONTINUES == 0 && (head & NEW_SEQUENCE != 0 || is_first)
}

/// The elements of a packet: as many as its head says, the last without a length; or, where it
/// says zero, all with one.
fn elements(head: u8, list: &[u8]) -> Result<Vec<&[u8]>, Bad> {
    let count = usize::from(head >> 4 & 3);
    let (mut out, mut rest) = (Vec::new(), list);
    while !rest.is_empty() {
        let (size, after) = if out.len() + 1 == count {
            (rest.len(), rest)
        } else {
            split_size(rest).ok_or(Bad)?
        };
        let (element, after) = after.split_at_checked(size).ok_or(Bad)?;
        out.push(element);
        rest = after;
    }
    let is_whole = count == 0 || out.len() == count;
    is_whole.then_some(out).ok_or(Bad)
}

fn whole(to: &mut Assembly, element: &[u8]) -> Result<(), Bad> {
    let obu = obus(element).next().ok_or(Bad)?.map_err(|_bad| Bad)?;
    if obu.whole.len() != element.len() {
        return Err(Bad);
    }
    if layer(element) > 0 {
        // Enhances a picture that is whole without it.
        return Ok(());
    }
    match obu.kind {
        ObuKind::Filler => return Ok(()),
        ObuKind::SequenceHeader => to.set(0, obu.payload),
        ObuKind::Frame if !to.has_picture => {
            to.has_picture = true;
            let [sequences, ..] = &to.sets;
            let facts = sequences.first().map(|s| SequenceFacts::parse(s));
            if let Some(facts) = facts {
                let facts = facts.map_err(|_bad| Bad)?;
                to.is_key = av1::is_key(obu.payload, facts.is_reduced);
            }
        }
        ObuKind::Frame | ObuKind::Other => {}
    }
    put_obu(&mut to.payload, &obu);
    Ok(())
}

/// The spatial layer of an OBU.
fn layer(obu: &[u8]) -> u8 {
    match obu {
        [first, layers, ..] if first & HAS_EXTENSION != 0 => (layers & SPATIAL_LAYER) >> 3,
        _ => 0,
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]
mod tests {
    use super::super::{Depacketiser, Unit};
    use super::*;
    use crate::frame::Codec;

    /// libaom of 198x108, without its size.
    const SEQUENCE: &[u8] = &[0x08, 0, 0, 0, 3, 0xb6, 0x2e, 0xb3, 0x6b, 0xe4, 1];
    const KEY: &[u8] = &[0x30, 0x10, 9, 9];
    const INTER: &[u8] = &[0x30, 0x30, 8];
    const ONE: u8 = 0x10;
    const TWO: u8 = 0x20;

    /// A packet of elements that all have their length, but for the last of so many.
    fn packet(head: u8, elements: &[&[u8]]) -> Vec<u8> {
        let count = usize::from(head >> 4 & 3);
        let mut out = vec![head];
        for (n, element) in elements.iter().enumerate() {
            if n + 1 != count {
                out.push(u8::try_from(element.len()).unwrap());
            }
            out.extend(*element);
        }
        out
    }

    fn push(to: &mut Depacketiser, time: u32, packets: &[Vec<u8>]) -> Vec<Unit> {
        let mut out = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let pushed = to.push(time, n + 1 == packets.len(), packet);
            out.extend(pushed.unwrap_or_default());
        }
        out
    }

    fn sized(obus: &[&[u8]]) -> Vec<u8> {
        let with_size = obus.iter().map(|obu| {
            let size = u8::try_from(obu.len() - 1).unwrap();
            [&[obu[0] | 2, size], &obu[1..]].concat()
        });
        with_size.collect::<Vec<_>>().concat()
    }

    /// However its elements are laid into packets, a temporal unit is the same.
    #[test]
    fn all_forms_of_packets_give_the_same_unit() {
        let delimiter: &[u8] = &[0x12, 0];
        let sequence_with_size = sized(&[SEQUENCE]);
        let (cut, rest) = KEY.split_at(2);
        let forms = [
            vec![packet(TWO | NEW_SEQUENCE, &[SEQUENCE, KEY])],
            vec![packet(NEW_SEQUENCE, &[SEQUENCE, KEY])],
            vec![packet(0x30, &[delimiter, &sequence_with_size, KEY])],
            vec![packet(ONE, &[SEQUENCE]), packet(ONE, &[KEY])],
            vec![
                packet(TWO | GOES_ON, &[SEQUENCE, cut]),
                packet(ONE | CONTINUES, &[rest]),
            ],
            vec![
                packet(GOES_ON, &[SEQUENCE, &cut[..1]]),
                packet(ONE | CONTINUES | GOES_ON, &[&cut[1..]]),
                packet(CONTINUES, &[rest, &[0x7a, 1, 0]]),
            ],
        ];
        for packets in forms {
            let mut depacketiser = Depacketiser::new(Codec::Av1);
            let units = push(&mut depacketiser, 7, &packets);
            assert_eq!(units.len(), 1, "{packets:02x?}");
            assert!(units[0].is_key);
            assert_eq!(units[0].payload, sized(&[SEQUENCE, KEY]), "{packets:02x?}");
        }
    }

    #[test]
    fn decoding_starts_where_a_sequence_does_and_nowhere_else() {
        let rows: [(&[&[u8]], bool); 5] = [
            (&[SEQUENCE, KEY], true),
            (&[KEY], false),
            (&[SEQUENCE, INTER], false),
            // Not shown, and of the layer above.
            (&[SEQUENCE, &[0x30, 0, 9]], false),
            (&[SEQUENCE, &[0x34, 0x08, 0x10, 9]], false),
        ];
        for (obus, starts) in rows {
            let mut depacketiser = Depacketiser::new(Codec::Av1);
            let units = push(&mut depacketiser, 0, &[packet(0, obus)]);
            assert_eq!(units.len(), usize::from(starts), "{obus:02x?}");
            assert_eq!(depacketiser.waits_for_key(), !starts);
            let next = push(&mut depacketiser, 1, &[packet(ONE, &[INTER])]);
            assert_eq!(next.len(), usize::from(starts), "{obus:02x?}");
        }
    }

    #[test]
    fn payloads_that_are_none_damage_their_unit_only() {
        let key = || packet(TWO | NEW_SEQUENCE, &[SEQUENCE, KEY]);
        let bad = [
            vec![],
            vec![ONE],
            vec![ONE | CONTINUES, 1],
            packet(TWO, &[INTER]),
            vec![0, 9, 0x30],
            vec![0, 0x80],
            vec![0, 0],
            packet(ONE, &[&[0xb0, 1]]),
            packet(ONE, &[&[0x32, 1, 0x30, 0]]),
            packet(ONE | GOES_ON, &[INTER]),
        ];
        for payload in bad {
            let mut depacketiser = Depacketiser::new(Codec::Av1);
            assert_eq!(push(&mut depacketiser, 0, &[key()]).len(), 1);
            drop(depacketiser.push(1, false, &payload));
            let rest = packet(ONE, &[INTER]);
            assert_eq!(push(&mut depacketiser, 1, &[rest]), [], "{payload:02x?}");
            assert_eq!(
                push(&mut depacketiser, 2, &[key()]).len(),
                1,
                "{payload:02x?}"
            );
        }
    }
}
