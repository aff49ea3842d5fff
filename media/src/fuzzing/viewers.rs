//! What players send over HTTP.

use crate::frame::{Codec, Shape, TrackInfo};
use crate::hls::{Directives, RenditionId, Skip};
use crate::record::{Index, Row, Span, read_rows};
use crate::webrtc::sdp::{Fragment, Offer, PublishOffer};
use crate::webrtc::{Answer, Credentials};

/// Offers: the answer to one has its sections in its order, and is not much longer.
pub fn sdp_offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let sources = [
        None,
        Some((Codec::H264, [1, 77, 0])),
        Some((Codec::Hevc, [1, 1, 0x60])),
        Some((Codec::Av1, [0x81, 0, 0x0c])),
    ];
    if let Ok(offer) = PublishOffer::read(text) {
        // What is handed on has no address and nothing that was not in it.
        assert!(!offer.text.contains("a=candidate"));
        assert!(offer.text.len() <= 2 * text.len());
    }
    for source in sources {
        let source = source.map(|(codec, head)| picture_info(codec, &head));
        let Ok(offer) = Offer::read(text, source.as_ref()) else {
            continue;
        };
        let ours = Credentials {
            ufrag: "ufrag".into(),
            password: "password".into(),
        };
        let answer = Answer {
            offer: &offer,
            session: 1,
            ice: &ours,
            fingerprint: "AA",
            candidates: &[],
            video_ssrc: 1,
            audio_ssrc: 2,
        };
        let answer = answer.text();
        let kinds = |text: &str| -> Vec<String> {
            let sections = text.lines().filter_map(|line| line.strip_prefix("m="));
            let kinds = sections.filter_map(|section| section.split(' ').next());
            kinds.map(str::to_owned).collect()
        };
        assert_eq!(kinds(&answer), kinds(text));
        assert!(answer.len() <= text.len() + 2_048 * (offer.sections.len() + 1));
        let is_line = |line: &str| line.get(1..2) == Some("=") && !line.contains(['\r', '\0']);
        assert!(answer.split_terminator("\r\n").all(is_line));
    }
}

/// A source whose record begins with these bytes.
fn picture_info(codec: Codec, head: &[u8]) -> TrackInfo {
    TrackInfo {
        codec,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: [head, &[0; 10]].concat().into(),
        reorder_frames: Some(0),
    }
}

/// Fragments of a `PATCH`: what reads names an ICE session within its bounds, and reads back.
pub fn sdpfrag(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(fragment) = Fragment::read(text) else {
        return;
    };
    assert!((4..=256).contains(&fragment.ufrag.len()) && fragment.ufrag.is_ascii());
    let password = fragment.password.as_deref();
    let password = password.map_or_else(String::new, |word| format!("a=ice-pwd:{word}\r\n"));
    let again = format!("a=ice-ufrag:{}\r\n{password}", fragment.ufrag);
    assert_eq!(Fragment::read(&again), Ok(fragment));
}

/// Delivery directives: what was read can be written and reads back, beside other parameters.
pub fn hls_directives(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(directives) = Directives::parse(query) else {
        return;
    };
    assert!(directives.part.is_none() || directives.msn.is_some());
    let skip = directives.skip.map(|skip| match skip {
        Skip::Segments => "_HLS_skip=YES".to_owned(),
        Skip::DateRanges => "_HLS_skip=v2".to_owned(),
    });
    let part = directives.part.map(|part| format!("_HLS_part={part}"));
    let msn = directives.msn.map(|msn| format!("_HLS_msn={msn}"));
    let other = Some("token=a".to_owned());
    let pairs: Vec<String> = [skip, other, part, msn].into_iter().flatten().collect();
    assert_eq!(Directives::parse(&pairs.join("&")), Ok(directives));
}

/// The index of a recording: whatever it says, its replay is of consecutive segments, and a row
/// that was read is one line again.
pub fn index_lines(data: &[u8]) {
    let rows: Vec<Row> = read_rows(data).collect();
    for row in &rows {
        let again: Vec<Row> = read_rows(row.line().as_bytes()).collect();
        assert!(again.len() == 1, "a row is one line");
    }
    let index = Index::read(data);
    index.duration();
    for rendition in [RenditionId::Src, RenditionId::Aac] {
        for span in [None, Span::new(1_000_000, 5_000_000)] {
            let Some(text) = index.playlist("abcdefghijkl", rendition, span) else {
                continue;
            };
            let numbers = text.lines().filter_map(|line| {
                let rest = line.strip_prefix("abcdefghijkl-s")?;
                rest.strip_suffix(".m4s")?.parse::<u64>().ok()
            });
            let numbers: Vec<u64> = numbers.collect();
            assert!(!numbers.is_empty());
            assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1));
        }
    }
    let text = index.multivariant("");
    assert_eq!(text.is_some(), index.has_media());
}
