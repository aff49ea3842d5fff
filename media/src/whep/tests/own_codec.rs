//! A viewer that takes the source's own codec, beside H.264 or alone.

use super::*;
use crate::webrtc::sdp::Bounds;

/// HEVC, Main profile, of this level.
pub(super) fn hevc_info(level: u8) -> TrackInfo {
    TrackInfo {
        codec: Codec::Hevc,
        config: Bytes::copy_from_slice(&[1, 1, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, level]),
        ..picture_info(0)
    }
}

/// Whoever takes HEVC of level 4, and H.264 of a profile or not at all.
pub(super) fn of_hevc(h264: Option<u8>) -> Wants {
    let bounds = Bounds {
        profile: 1,
        is_high_tier: false,
        level: 120,
    };
    let decodes = Decodes {
        h264,
        own: Some((Codec::Hevc, bounds)),
    };
    Wants {
        picture: Some(decodes),
        ..BOTH
    }
}

/// Number of each picture, and the track it is of.
fn numbers(viewer: &mut Playout) -> Vec<(TrackId, i64)> {
    let all = all(viewer).into_iter();
    let pictures = all.filter(|(track, _)| track.kind() == Kind::Video);
    pictures.map(|(track, t)| (track, t / STEP_US)).collect()
}

fn source(pictures: impl IntoIterator<Item = i64>) -> Vec<(TrackId, i64)> {
    let pictures = pictures.into_iter();
    pictures.map(|n| (TrackId::Video, n)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_source_of_hevc_is_passed_through_and_nothing_is_made() {
    for wants in [of_hevc(None), of_hevc(Some(66))] {
        let mut show = Show::of(hevc_info(93));
        show.run(10, 30).await;
        let mut viewer = show.viewer(wants);
        show.picture(30);
        assert_eq!(numbers(&mut viewer), source(0..11));
        assert_eq!(show.clean.writer.users(), 0);
    }
}

/// With H.264 the viewer goes to `clean`; without, it waits for what it can decode.
#[tokio::test(start_paused = true)]
async fn what_a_viewer_cannot_decode_is_not_sent() {
    for h264 in [Some(66), None] {
        let mut show = Show::of(hevc_info(93));
        show.run(15, 15).await;
        let mut viewer = show.viewer(of_hevc(h264));
        assert_eq!(numbers(&mut viewer), source(0..15));
        show.set(hevc_info(123));
        show.run(15, 15).await;
        assert_eq!(numbers(&mut viewer), []);
        assert_eq!(show.clean.writer.users(), usize::from(h264.is_some()));
        if h264.is_none() {
            show.set(hevc_info(93));
            show.run(2, 15).await;
            assert_eq!(numbers(&mut viewer), source(30..32));
        }
    }
}

/// A picture is missing to it, and the next keyframe is far: whoever takes H.264 gets one of
/// `clean`, whoever does not waits.
#[tokio::test(start_paused = true)]
async fn a_keyframe_that_only_an_encoder_can_give_is_waited_for_without_h264() {
    for h264 in [Some(66), None] {
        let mut show = Show::of(hevc_info(93));
        show.run(90, 89).await;
        let mut viewer = show.viewer(of_hevc(h264));
        numbers(&mut viewer);
        viewer.request_keyframe();
        show.run(1, 89).await;
        assert_eq!(numbers(&mut viewer), source([90]));
        assert_eq!(show.clean.writer.users(), usize::from(h264.is_some()));
    }
}

/// What is shown goes forward, and after what was left out comes a keyframe (I11, I30).
#[tokio::test(start_paused = true)]
async fn of_a_source_that_begins_to_reorder_a_viewer_without_h264_gets_what_is_in_order() {
    let mut show = Show::of(hevc_info(93));
    show.run(15, 15).await;
    let mut viewer = show.viewer(of_hevc(None));
    assert_eq!(numbers(&mut viewer), source(0..15));
    let mut shown = Vec::new();
    for n in 0..45_u32 {
        // A keyframe; then each picture before its two predecessors in order.
        let later = [1, 3, 0, 0][usize::try_from(n % 4).unwrap()];
        show.write(n % 15 == 0, STEP * later, false);
        advance(STEP).await;
        while let Some(frame) = viewer.next(Instant::now()) {
            if frame.track == TrackId::Video {
                shown.push((frame.pts, frame.is_key));
            }
        }
        assert_eq!(viewer.check(Instant::now()), None);
    }
    assert!(
        shown.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "{shown:?}"
    );
    assert_eq!(shown.iter().filter(|(_, is_key)| *is_key).count(), 3);
    assert!(shown.len() < 15 && shown[0].1, "{shown:?}");
    assert_eq!(show.clean.writer.users(), 0);
}
