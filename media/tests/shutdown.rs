//! How a package ends: with its broadcast, with the process, before it was ready.

use std::time::Duration;

use lamplight_media::broadcast::EndReason;
use lamplight_media::hls::{Answer, Directives, Media, RenditionId};
use tokio::time::Instant;

use crate::support::hls::{BOTH, Packaged, settle};

/// Parts are flushed, and the list is left open: players go on with the next process.
#[tokio::test(start_paused = true)]
async fn when_the_process_stops_parts_are_flushed_and_the_list_is_not_ended() {
    for is_cancelled in [true, false] {
        let mut packaged = Packaged::start();
        packaged.run(Duration::from_millis(7_200)).await;
        let before = packaged.list(RenditionId::Src).await;
        let stream = std::sync::Arc::clone(&packaged.stream);
        let asked = Directives::parse("_HLS_msn=4").unwrap();
        let hint = before.hint.clone().unwrap();
        let mut waits = Box::pin(async {
            tokio::join!(
                stream.playlist(RenditionId::Src, asked),
                stream.playlist(RenditionId::Aac, asked),
                stream.media(RenditionId::Aac, "abcdefghijkl-p9999.m4s"),
                stream.media(RenditionId::Src, &hint),
            )
        });
        let early = tokio::time::timeout(Duration::from_millis(1), &mut waits).await;
        assert!(early.is_err(), "they wait");
        if is_cancelled {
            packaged.cancel.cancel();
        } else {
            packaged.show.finish(EndReason::Shutdown);
        }
        let stopped = Instant::now();
        let (src, aac, unknown, hinted) = waits.await;
        assert_eq!(stopped.elapsed(), Duration::ZERO, "nobody is kept waiting");
        assert!(matches!((src, aac), (Answer::Busy, Answer::Busy)));
        assert!(matches!(unknown, Media::NotFound));
        assert!(matches!(hinted, Media::Found(_)), "flushed: {hinted:?}");
        for rendition in BOTH {
            let list = packaged.list(rendition).await;
            list.check();
            assert!(!list.is_ended && list.hint.is_some(), "{}", list.text);
            let msn = list.complete().last().unwrap().msn;
            assert_eq!(msn, 3, "the open segment is complete: {}", list.text);
            packaged.media_of(rendition).await;
        }
        let late = packaged.answer(RenditionId::Src, "_HLS_msn=5").await;
        assert!(matches!(late, Answer::Busy));
    }
}

/// It never had anything to play: whoever waits or comes is told so at once.
#[tokio::test(start_paused = true)]
async fn a_broadcast_that_ended_before_it_was_ready_is_not_live() {
    for ms in [0, 900] {
        let mut packaged = Packaged::start();
        packaged.run(Duration::from_millis(ms)).await;
        let stream = std::sync::Arc::clone(&packaged.stream);
        let mut waits = Box::pin(stream.multivariant(None));
        let early = tokio::time::timeout(Duration::from_millis(1), &mut waits).await;
        assert!(early.is_err(), "it waits");
        packaged.show.finish(EndReason::Finished);
        settle().await;
        let ended = Instant::now();
        assert!(matches!(waits.await, Answer::NotLive));
        assert!(matches!(stream.multivariant(None).await, Answer::NotLive));
        let list = packaged.answer(RenditionId::Src, "").await;
        assert!(matches!(list, Answer::NotLive), "{list:?}");
        assert_eq!(ended.elapsed(), Duration::ZERO);
    }
}
