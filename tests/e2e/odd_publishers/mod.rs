//! Publishers that are odd in one thing each: every one gives an LL-HLS stream whose lengths,
//! keyframes and sync are right, or is refused with a sentence that says why.
//!
//! The rows are in `rows.rs`. Each has a room of its own, and a few are on air at a time.

mod clips;
mod listener;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use lamplight_media::frame::Kind;
use lamplight_media::rtmp::amf::Value;
use lamplight_media::rtmp::client::{Client, ClientError, PublishTarget};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use self::listener::Fetched;
use self::rows::{Expected, Plays, Row, Sent};
use crate::flv::{AUDIO, VIDEO};
use crate::server::Server;

/// Rows on air at a time: two cores make the clips and some of the pictures.
const AT_A_TIME: usize = 6;
const REFUSED_MAX: Duration = Duration::from_secs(20);
/// What decoding and the steps of the measurement may add to a frame.
const STEP_S: f64 = 0.03;

/// A room of its own for a row, and the key to publish into it.
struct Stage {
    hls: String,
    target: PublishTarget,
}

impl Stage {
    async fn of(server: &Server, name: &str) -> Self {
        let urls = &server.urls;
        let client = reqwest::Client::new();
        let ask = |request: reqwest::RequestBuilder| async {
            let answer = request
                .bearer_auth(&urls.operator_token)
                .send()
                .await
                .unwrap();
            let status = answer.status();
            let body: serde_json::Value = answer.json().await.unwrap();
            assert!(status.is_success(), "{status}: {body}");
            body
        };
        let rooms = format!("{}/api/v1/rooms", urls.http);
        let demo = ask(client.get(format!("{rooms}/{}", urls.room))).await;
        let new = serde_json::json!({ "creator_id": demo["creator"]["id"], "title": name });
        let room = ask(client.post(&rooms).json(&new)).await;
        let id = room["id"].as_str().unwrap();
        let key = ask(client.post(format!("{rooms}/{id}/publish_keys"))).await;
        let addr = urls
            .rtmp
            .trim_start_matches("rtmp://")
            .trim_end_matches("/live");
        Self {
            hls: format!("{}/hls/{id}", urls.http),
            target: PublishTarget {
                addr: addr.into(),
                app: "live".into(),
                stream_key: key["key"].as_str().unwrap().into(),
            },
        }
    }
}

/// Sends a show at the pace at which it was recorded, until it is over or refused.
async fn send(target: &PublishTarget, show: &[Sent]) -> Result<(), ClientError> {
    let mut client = Client::connect(target).await?;
    let began = Instant::now();
    for Sent { at_ms, stamp, tag } in show {
        sleep_until(began + Duration::from_millis(*at_ms)).await;
        let kind = match tag.kind {
            AUDIO => Kind::Audio,
            VIDEO => Kind::Video,
            _ => {
                let width = ("width".into(), Value::Number(640.0));
                client.write_metadata(vec![width]).await?;
                continue;
            }
        };
        client.write(kind, *stamp, tag.body.clone()).await?;
    }
    client.finish().await
}

async fn try_row(server: Arc<Server>, row: Row) {
    let folder = clips::folder(server.folder(), row.name);
    let show = row.show(&folder).await;
    let stage = Stage::of(&server, row.name).await;
    match row.expected {
        Expected::Refused(words) => {
            let refused = timeout(REFUSED_MAX, refusal(&stage.target, &show)).await;
            let sentence = refused.expect("it is refused soon");
            assert!(sentence.contains(words), "{}: {sentence}", row.name);
        }
        Expected::Plays(plays) => {
            let watched = async {
                let seen = watch(&stage.hls, &plays, &folder).await;
                seen.check(row.name, &plays).await;
            };
            tokio::select! {
                () = watched => {}
                sent = send(&stage.target, &show) => {
                    panic!("{}: the show ended before it was seen: {sent:?}", row.name);
                }
            }
        }
    }
}

/// The sentence with which a publisher is refused.
async fn refusal(target: &PublishTarget, show: &[Sent]) -> String {
    let mut client = match Client::connect(target).await {
        Ok(client) => client,
        Err(error) => return error.to_string(),
    };
    for Sent { stamp, tag, .. } in show.iter().take(20) {
        let kind = match tag.kind {
            AUDIO => Kind::Audio,
            VIDEO => Kind::Video,
            _ => continue,
        };
        if client.write(kind, *stamp, tag.body.clone()).await.is_err() {
            break;
        }
    }
    client.refused().await.to_string()
}

/// What was seen of a row.
struct Watched {
    multivariant: String,
    src: Option<Fetched>,
    aac: Option<Fetched>,
}

async fn watch(hls: &str, plays: &Plays, folder: &std::path::Path) -> Watched {
    let src = match plays.video {
        Some(_) => Some(Fetched::of((hls, "src"), plays, folder).await),
        None => None,
    };
    let aac = match plays.audio {
        Some(_) => Some(Fetched::of((hls, "aac"), plays, folder).await),
        None => None,
    };
    Watched {
        multivariant: listener::multivariant(hls).await,
        src,
        aac,
    }
}

impl Watched {
    async fn check(&self, name: &str, plays: &Plays) {
        let Self { multivariant, .. } = self;
        for codec in plays.video.iter().chain(&plays.audio) {
            assert!(
                multivariant.contains(codec),
                "{name}: no {codec} in {multivariant}"
            );
        }
        assert_eq!(
            plays.audio.is_some(),
            multivariant.contains("mp4a"),
            "{name}: {multivariant}"
        );
        if let Some(src) = &self.src {
            src.check_segments(true, plays.frame_s);
            assert_eq!(
                src.discontinuities(),
                plays.discontinuities,
                "{name}: {}",
                src.list
            );
        }
        if let Some(aac) = &self.aac {
            aac.check_segments(false, plays.sound_s);
            assert_eq!(
                aac.discontinuities(),
                plays.discontinuities,
                "{name}: {}",
                aac.list
            );
        }
        if let (Some(src), Some(aac)) = (&self.src, &self.aac) {
            let (flashes, tones) = (src.flashes().await, aac.tones().await);
            check_sync(name, &flashes, &tones, plays.frame_s + STEP_S);
        }
    }
}

/// Each flash has its tone.
fn check_sync(name: &str, flashes: &[f64], tones: &[f64], apart_max: f64) {
    let says = || format!("{name}: {flashes:?} {tones:?}");
    let mut pairs = 0;
    for flash in flashes {
        let apart = tones.iter().map(|tone| (tone - flash).abs());
        let Some(apart) = apart.min_by(f64::total_cmp).filter(|apart| *apart < 0.5) else {
            continue;
        };
        assert!(apart <= apart_max, "{apart} s apart: {}", says());
        pairs += 1;
    }
    assert!(pairs >= 2, "{}", says());
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "a row that fails must not end the others"
)]
async fn odd_publishers_are_played_right_or_refused_with_a_reason() {
    let server = Arc::new(Server::start("odd_publishers").await);
    let rows = rows::all();
    assert!(rows.len() >= 30);
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut all = JoinSet::new();
    for row in rows {
        let (server, places) = (Arc::clone(&server), Arc::clone(&places));
        let name = row.name;
        all.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let tried = tokio::spawn(try_row(server, row)).await;
            (name, tried.is_ok())
        });
    }
    let mut failed = Vec::new();
    while let Some(done) = all.join_next().await {
        let (name, is_right) = done.unwrap();
        eprintln!("{name}: {}", if is_right { "right" } else { "wrong" });
        failed.extend((!is_right).then_some(name));
    }
    assert!(failed.is_empty(), "{failed:?}: see above");
}
