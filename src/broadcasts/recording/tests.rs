//! Stores, and recordings whose store is slow, broken or cut off.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{Event, Publisher};
use lamplight_media::hls::RenditionId;
use lamplight_media::record::{
    self, Entry, InitRow, Recorder, Row, SEGMENTS_MAX, SegmentRow, Stored, read_rows,
};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

#[cfg(feature = "s3")]
use super::s3::S3;
use super::store::{Directory, Store, StoreError};
use super::{Recordings, Standing, keeper, recorded, recover_once, standing, waiting};
use crate::app::Fixture;
#[cfg(feature = "s3")]
use crate::config::S3Store;
use crate::db::Folder;

#[cfg(feature = "s3")]
#[path = "../../../tests/support/moto.rs"]
mod moto;

/// How a store in memory behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Fails,
    Hangs,
}

/// A store in memory.
#[derive(Debug)]
pub(in crate::broadcasts) struct Memory {
    objects: Mutex<BTreeMap<String, Bytes>>,
    pub(super) mood: watch::Sender<Mood>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            objects: Mutex::default(),
            mood: watch::Sender::new(Mood::Good),
        }
    }

    pub(super) fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.objects.lock().unwrap()
    }

    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let mut mood = self.mood.subscribe();
        let mood = *mood.wait_for(|mood| *mood != Mood::Hangs).await.unwrap();
        if mood == Mood::Fails {
            let source = std::io::ErrorKind::StorageFull.into();
            let (doing, key) = ("writing", key.into());
            return Err(StoreError::Io { doing, key, source });
        }
        self.objects().insert(key.into(), bytes);
        Ok(())
    }

    pub(super) fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let found = self.objects().get(key).cloned();
        let bytes = found.ok_or_else(|| StoreError::NotFound(key.into()))?;
        let Some(range) = range else {
            return Ok(bytes);
        };
        let at = |n: u64| usize::try_from(n).unwrap().min(bytes.len());
        Ok(bytes.slice(at(range.start)..at(range.end)))
    }

    pub(super) fn list(&self, prefix: &str) -> Vec<String> {
        let objects = self.objects();
        let keys = objects.keys().filter(|key| {
            key.strip_prefix(prefix)
                .is_some_and(|rest| !rest.contains('/'))
        });
        keys.cloned().collect()
    }

    pub(super) fn delete(&self, key: &str) {
        self.objects().remove(key);
    }
}

/// A show that is recorded into a store in memory.
struct Stage {
    fixture: Fixture,
    store: Arc<Store>,
    name: String,
    recorder: Option<Recorder>,
    publisher: Publisher,
}

impl Stage {
    async fn set() -> Self {
        let fixture = Fixture::new().await;
        // The database needed the real one.
        tokio::time::pause();
        let store = Arc::new(Store::Memory(Memory::new()));
        let recordings = Recordings::of(&fixture.app);
        recordings.store.set(Arc::clone(&store)).unwrap();
        let publisher = fixture.publish("room_1", Instant::now());
        let broadcast = Arc::clone(publisher.broadcast());
        let name = record::recording_name("room_1", broadcast.instance());
        let recorder = super::start(&fixture.app, &broadcast, |_, _| {});
        Self {
            fixture,
            store,
            name,
            recorder,
            publisher,
        }
    }

    fn memory(&self) -> &Memory {
        match &*self.store {
            Store::Memory(memory) => memory,
            _ => panic!("it is in memory"),
        }
    }

    fn push(&self, entry: Entry) -> u64 {
        self.recorder.as_ref().unwrap().push(entry)
    }

    /// A segment of two seconds, and before the first its init section.
    fn segment(&self, msn: u64) -> u64 {
        if msn == 0 {
            self.push(init(&self.name));
        }
        self.push(segment(&self.name, msn))
    }

    async fn finish(&mut self) {
        self.recorder = None;
        recorded(&self.fixture.app).await;
    }

    fn index(&self) -> Vec<Row> {
        let bytes = self.memory().objects()[&keeper::index_key(&self.name)].clone();
        read_rows(&bytes).collect()
    }

    /// The numbers of segments that are kept, and of gaps.
    fn kept_and_lost(&self) -> (Vec<u64>, Vec<u64>) {
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for row in self.index() {
            match row {
                Row::Segment(row) => {
                    assert!(
                        self.memory().objects().contains_key(&row.key),
                        "{}",
                        row.key
                    );
                    kept.push(row.msn);
                }
                Row::Gap(row) => lost.push(row.msn),
                _ => {}
            }
        }
        (kept, lost)
    }

    fn dropped(&self) -> u64 {
        self.fixture.app.media.stats().total("store_dropped_total")
    }
}

fn object(key: String, row: Row) -> Entry {
    let bytes = Bytes::from_static(b"media");
    Entry::Object(Stored { key, bytes }, row)
}

fn init(name: &str) -> Entry {
    let key = format!("{name}/src/init");
    let row = Row::Init(InitRow {
        rendition: RenditionId::Src,
        n: 0,
        key: key.clone(),
        bytes: 5,
        codecs: "avc1.42c01e".into(),
        size: Some((640, 360)),
        frame_rate: None,
    });
    object(key, row)
}

fn segment(name: &str, msn: u64) -> Entry {
    let key = format!("{name}/src/{msn}");
    let row = Row::Segment(SegmentRow {
        rendition: RenditionId::Src,
        msn,
        t_us: i64::try_from(msn).unwrap() * 2_000_000,
        duration_us: 2_000_000,
        wall: OffsetDateTime::UNIX_EPOCH,
        init: 0,
        key: key.clone(),
        bytes: 5,
        keyframes: Vec::new(),
    });
    object(key, row)
}

#[tokio::test]
async fn a_recording_ends_as_one_index_and_is_told() {
    let mut stage = Stage::set().await;
    (0..60).for_each(|msn| assert_eq!(stage.segment(msn), 0));
    stage.finish().await;
    let (kept, lost) = stage.kept_and_lost();
    assert_eq!((kept, lost), ((0..60).collect(), vec![]));
    let Some(Row::End(end)) = stage.index().pop() else {
        panic!("the last row is the end");
    };
    assert_eq!(end.t_us, 120_000_000);
    let others: Vec<String> = stage.memory().objects().keys().cloned().collect();
    let others = others.into_iter().filter(|key| !key.contains("/src/"));
    assert_eq!(others.collect::<Vec<_>>(), [keeper::index_key(&stage.name)]);
    let told = async {
        while !matches!(
            stage.fixture.app.media.next_event().await,
            Event::RecordingReady(_)
        ) {}
    };
    told.await;
}

#[tokio::test]
async fn an_index_of_many_pages_is_put_together_in_order() {
    let mut stage = Stage::set().await;
    for msn in 0..700 {
        assert_eq!(stage.segment(msn), 0);
        while standing_of(&stage).waiting > 0 {
            tokio::task::yield_now().await;
        }
    }
    let pages = stage.memory().list(&format!("{}/index-", stage.name));
    assert_eq!(pages.len(), 3);
    stage.finish().await;
    assert_eq!(stage.kept_and_lost().0, (0..700).collect::<Vec<_>>());
}

fn standing_of(stage: &Stage) -> Standing {
    standing(&stage.fixture.app, stage.publisher.broadcast()).unwrap()
}

#[tokio::test]
async fn a_store_that_fails_costs_segments_and_is_counted() {
    let mut stage = Stage::set().await;
    stage.segment(0);
    while standing_of(&stage).segments < 1 {
        tokio::task::yield_now().await;
    }
    stage.memory().mood.send_replace(Mood::Fails);
    (1..4).for_each(|msn| assert_eq!(stage.segment(msn), 0));
    while stage.dropped() < 3 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(standing_of(&stage).lost, 3);
    stage.memory().mood.send_replace(Mood::Good);
    stage.segment(4);
    stage.finish().await;
    assert_eq!(stage.kept_and_lost(), (vec![0, 4], vec![1, 2, 3]));
}

#[tokio::test]
async fn a_store_that_hangs_loses_the_oldest_and_takes_the_rest_when_it_is_back() {
    let mut stage = Stage::set().await;
    stage.segment(0);
    while standing_of(&stage).segments < 1 {
        tokio::task::yield_now().await;
    }
    stage.memory().mood.send_replace(Mood::Hangs);
    let dropped: u64 = (1..100).map(|msn| stage.segment(msn)).sum();
    // One may be in the keeper's hands.
    let room = u64::try_from(SEGMENTS_MAX).unwrap();
    assert!((98 - room..=99 - room).contains(&dropped), "{dropped}");
    assert_eq!(waiting(&stage.fixture.app), SEGMENTS_MAX);
    stage.memory().mood.send_replace(Mood::Good);
    stage.finish().await;
    let (kept, lost) = stage.kept_and_lost();
    assert_eq!(kept.len() + lost.len(), 100);
    assert_eq!(u64::try_from(lost.len()).unwrap(), dropped);
    assert_eq!(kept.last(), Some(&99));
}

#[tokio::test]
async fn what_a_crash_left_is_ended_at_the_next_start() {
    let mut stage = Stage::set().await;
    (0..10).for_each(|msn| assert_eq!(stage.segment(msn), 0));
    while standing_of(&stage).segments < 10 {
        tokio::task::yield_now().await;
    }
    // As after kill -9: the pages and the marker are there, the last line is torn.
    let before: Vec<(String, Bytes)> = stage.memory().objects().clone().into_iter().collect();
    stage.finish().await;
    let page = format!("{}/index-00000.jsonl", stage.name);
    {
        let mut objects = stage.memory().objects();
        objects.clear();
        objects.extend(before);
        let text = objects[&page].clone();
        objects.insert(page, text.slice(..text.len() - 9));
    }
    recover_once(&stage.fixture.app).await;
    assert_eq!(stage.kept_and_lost(), ((0..9).collect(), vec![]));
    assert!(matches!(stage.index().last(), Some(Row::End(end)) if end.t_us == 18_000_000));
    let first = stage.index();
    recover_once(&stage.fixture.app).await;
    assert_eq!(stage.index(), first, "twice changes nothing");
    assert!(stage.memory().list(super::UNFINISHED).is_empty());
}

#[tokio::test]
async fn what_another_node_keeps_is_left_alone_until_that_is_gone() {
    let mut stage = Stage::set().await;
    (0..3).for_each(|msn| assert_eq!(stage.segment(msn), 0));
    while standing_of(&stage).segments < 3 {
        tokio::task::yield_now().await;
    }
    let marker = format!("{}{}", super::UNFINISHED, stage.name);
    let own = stage.memory().objects()[&marker].clone();
    let objects: Vec<(String, Bytes)> = stage.memory().objects().clone().into_iter().collect();
    stage.finish().await;
    let seen_us = stage.fixture.app.clock.now().as_micros();
    let others: Bytes = format!("other {seen_us}\n").into();
    assert_ne!(own, others);
    {
        let mut kept = stage.memory().objects();
        kept.clear();
        kept.extend(objects);
        kept.insert(marker.clone(), others);
    }
    let index = format!("{}/index.jsonl", stage.name);
    recover_once(&stage.fixture.app).await;
    assert!(!stage.memory().objects().contains_key(&index));
    stage.fixture.app.clock.advance(Duration::from_secs(600));
    recover_once(&stage.fixture.app).await;
    assert_eq!(stage.kept_and_lost(), (vec![0, 1, 2], vec![]));
    assert!(!stage.memory().objects().contains_key(&marker));
}

/// What every store does.
async fn check_store(store: &Store) {
    assert_eq!(store.list("a/").await.unwrap(), [] as [&str; 0]);
    for key in ["a/one", "a/two", "a/b/three", "four"] {
        store.put(key, Bytes::from_static(b"old")).await.unwrap();
        let bytes = Bytes::copy_from_slice(key.as_bytes());
        store.put(key, bytes.clone()).await.unwrap();
        assert_eq!(store.get(key, None).await.unwrap(), bytes);
    }
    assert_eq!(store.get("a/b/three", Some(4..7)).await.unwrap(), "thr");
    assert_eq!(store.list("a/").await.unwrap(), ["a/one", "a/two"]);
    assert_eq!(store.list("a/t").await.unwrap(), ["a/two"]);
    assert_eq!(store.list("").await.unwrap(), ["four"]);
    store.delete("a/one").await.unwrap();
    store.delete("a/one").await.unwrap();
    let gone = store.get("a/one", None).await;
    assert!(matches!(gone, Err(StoreError::NotFound(_))));
    for key in [
        "../four",
        "a/../four",
        "/four",
        "a//one",
        "",
        ".four",
        "a/.one",
    ] {
        assert!(store.put(key, Bytes::new()).await.is_err(), "{key}");
    }
}

#[tokio::test]
async fn a_directory_keeps_reads_lists_and_removes_and_takes_no_odd_key() {
    let folder = Folder::new();
    let store = Store::Directory(Directory::new(folder.path().join("kept")));
    check_store(&store).await;
    // A file where a folder should be, as a stand-in for a disk that takes nothing.
    let refused = store.put("four/five", Bytes::new()).await;
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    assert_eq!(store.list("").await.unwrap(), ["four"]);
}

/// Segments behind it could not be played without it.
#[tokio::test]
async fn an_init_section_that_was_refused_is_kept_before_the_next_segment_that_is() {
    let mut stage = Stage::set().await;
    stage.memory().mood.send_replace(Mood::Fails);
    stage.segment(0);
    while stage.dropped() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    stage.memory().mood.send_replace(Mood::Good);
    stage.segment(1);
    stage.finish().await;
    assert_eq!(stage.kept_and_lost(), (vec![1], vec![0]));
    let rows = stage.index();
    let at = |is: fn(&Row) -> bool| rows.iter().position(is).unwrap();
    let (init, segment) = (
        at(|row| matches!(row, Row::Init(_))),
        at(|row| matches!(row, Row::Segment(_))),
    );
    assert!(init < segment, "{rows:?}");
}

/// Rows that only this process has, and the end, wait for the store.
#[tokio::test]
async fn a_store_that_is_away_when_the_show_ends_has_the_whole_recording_later() {
    let mut stage = Stage::set().await;
    stage.segment(0);
    while standing_of(&stage).segments < 1 {
        tokio::task::yield_now().await;
    }
    stage.memory().mood.send_replace(Mood::Fails);
    stage.segment(1);
    stage.recorder = None;
    while stage.dropped() < 1 {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_secs(60)).await;
    assert!(standing(&stage.fixture.app, stage.publisher.broadcast()).is_some());
    stage.memory().mood.send_replace(Mood::Good);
    stage.finish().await;
    assert_eq!(stage.kept_and_lost(), (vec![0], vec![1]));
    assert!(matches!(stage.index().last(), Some(Row::End(_))));
}

#[tokio::test]
async fn what_writing_was_cut_off_is_swept_from_a_folder() {
    let folder = Folder::new();
    let root = folder.path().join("kept");
    let store = Store::Directory(Directory::new(root.clone()));
    store.sweep("show").await.unwrap();
    store
        .put("show/one", Bytes::from_static(b"1"))
        .await
        .unwrap();
    let torn = root.join("show/.two.7.tmp");
    std::fs::write(&torn, b"2").unwrap();
    store.sweep("show").await.unwrap();
    assert!(!torn.exists());
    assert_eq!(store.list("show/").await.unwrap(), ["show/one"]);
}

#[cfg(feature = "s3")]
fn s3(moto: &moto::Moto, folder: &Folder, prefix: &str) -> Store {
    let config = S3Store {
        bucket: moto::BUCKET.into(),
        prefix: prefix.into(),
        endpoint: Some(format!("http://{}", moto.addr)),
        region: "us-east-1".into(),
        credentials_file: moto.credentials(folder.path()),
    };
    Store::S3(S3::open(&config).unwrap())
}

#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn an_s3_store_does_the_same_with_and_without_a_prefix() {
    let (moto, folder) = (moto::Moto::start(), Folder::new());
    for prefix in ["", "eu/shows"] {
        check_store(&s3(&moto, &folder, prefix)).await;
    }
    let elsewhere = s3(&moto, &folder, "eu");
    assert_eq!(elsewhere.list("").await.unwrap(), [] as [&str; 0]);
    let kept = elsewhere.get("shows/four", None).await;
    assert_eq!(kept.unwrap(), "four");
}

/// A store that is away is an error in bounded time, and is used again once it is back.
#[cfg(feature = "s3")]
#[tokio::test(flavor = "multi_thread")]
async fn an_s3_store_that_is_away_is_told_and_taken_up_again() {
    let (mut moto, folder) = (moto::Moto::start(), Folder::new());
    let store = s3(&moto, &folder, "");
    store.put("a/one", Bytes::from_static(b"1")).await.unwrap();
    moto.stop();
    let put = store.put("a/two", Bytes::from_static(b"2")).await;
    assert!(matches!(put, Err(StoreError::Io { .. })), "{put:?}");
    let got = store.get("a/one", None).await;
    assert!(matches!(got, Err(StoreError::Io { .. })), "{got:?}");
    assert!(store.list("a/").await.is_err() && store.delete("a/one").await.is_err());
    let _moto = moto::Moto::start_at(moto.addr);
    store.put("a/two", Bytes::from_static(b"2")).await.unwrap();
    assert_eq!(store.list("a/").await.unwrap(), ["a/two"]);
}
