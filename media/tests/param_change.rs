//! The publisher changes the parameters of a track in mid-session.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::hls::Packaged;
use crate::support::sound_info;

/// Another sample rate: at the next segment both renditions have a discontinuity, and the sound
/// goes on there with its own init section.
#[tokio::test(start_paused = true)]
async fn new_parameters_of_the_sound_are_one_discontinuity_in_both_renditions() {
    for cut_ms in [4_100, 4_700, 5_900] {
        let mut packaged = Packaged::start();
        packaged.run(Duration::from_millis(cut_ms)).await;
        let changed = packaged
            .show
            .publisher()
            .set_track(Instant::now(), sound_info(48_000));
        changed.expect("the codec is the same");
        packaged.run(Duration::from_millis(10_000)).await;
        let [src, aac] = packaged.lists().await;
        assert_eq!(src.breaks(), [3], "{}", src.text);
        assert_eq!(aac.breaks(), [3], "{}", aac.text);
        let maps = |msn: usize| aac.segments[msn].map.as_str();
        assert!(maps(2).ends_with("-init0.mp4"), "{}", aac.text);
        assert!(maps(3).ends_with("-init1.mp4"), "{}", aac.text);
        assert!(aac.segments.iter().all(|s| !s.is_gap), "{}", aac.text);
        packaged
            .media_of(lamplight_media::hls::RenditionId::Aac)
            .await;
    }
}
