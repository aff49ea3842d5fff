//! Silence in the place of a sound that is missing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{onset, open, publish, source, tone};
use crate::broadcast::Start;
use crate::frame::{Kind, Sample, TrackId};
use crate::time::SourceTime;
use crate::transcode::{ConvertConfig, run};

/// 3.5: silence for as long as there is no sound, then the sound, on one line.
#[tokio::test]
async fn silence_stands_in_for_sound_until_it_comes() {
    let (info, units) = source(4);
    let mut publisher = open(info);
    let (before, after) = units.split_at(units.len() / 2);
    publish(&mut publisher, before);
    let broadcast = Arc::clone(publisher.broadcast());
    let config = Arc::new(ConvertConfig {
        has_silent_audio: true,
        ..ConvertConfig::default()
    });
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), config, cancel.clone());
    let hearing = async {
        let mut cursor = broadcast.cursor(TrackId::Aac, Start::OldestKey);
        let mut heard = Vec::new();
        while heard.len() < 60 {
            heard.push(cursor.next().await.unwrap().frame);
        }
        let (tone_info, packets) = tone(0, 100);
        publisher.set_track(Instant::now(), tone_info).unwrap();
        publish(&mut publisher, after);
        for (t, payload) in &packets {
            let sample = Sample {
                kind: Kind::Audio,
                dts: SourceTime::from_micros(t + 2_000_000),
                composition: Duration::ZERO,
                samples: 1_024,
                is_key: true,
                is_discardable: false,
                payload: payload.clone(),
            };
            publisher.write(Instant::now(), sample);
        }
        while heard.last().unwrap().dts.as_micros() < 3_900_000 {
            heard.push(cursor.next().await.unwrap().frame);
        }
        cancel.cancel();
        heard
    };
    let ((), heard) = tokio::join!(running, hearing);
    let steps = heard.windows(2).map(|w| w[1].dts.micros_since(w[0].dts));
    assert!(steps.into_iter().all(|us| (21_333..=21_334).contains(&us)));
    let info = Arc::clone(&heard[0].info);
    let packets: Vec<(i64, Bytes)> = heard
        .iter()
        .map(|f| (f.dts.as_micros(), f.payload.clone()))
        .collect();
    let began = onset(&info, &packets);
    assert!((began - 2_000_000).abs() < 70_000, "loud from {began} on");
}
