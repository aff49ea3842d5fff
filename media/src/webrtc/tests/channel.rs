//! What a viewer is told on the channel of cues, and what the server settled for it.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_hears_the_clock_and_the_cues_that_are_open_and_those_to_come() {
    let mut show = Show::start(0);
    (0..5).for_each(|_| show.picture());
    let broadcast = Arc::clone(show.publisher.broadcast());
    let cue = |id: &str| NewCue {
        id: id.into(),
        class: "card".into(),
        duration: None,
        kind: CueKind::Listed,
        payload: Bytes::from_static(b"{}"),
    };
    let place = async |id: &str| {
        let at = At::Time(MediaTime::from_micros(100_000));
        broadcast.cue(Instant::now(), at, cue(id)).await.unwrap();
    };
    place("before").await;
    let port = port(&show);
    let traits = Traits {
        has_channel: true,
        ..Traits::default()
    };
    let (viewer, mut wire, session) = join(&port, &show, traits).await;
    let listen = async {
        let channel = viewer.channel.as_ref().unwrap();
        let mut heard = Vec::new();
        while heard.len() < 3 {
            let Some(DataChannelEvent::OnMessage(message)) = channel.poll().await else {
                continue;
            };
            let json: serde_json::Value = serde_json::from_slice(&message.data).unwrap();
            heard.push(format!("{} {}", json["type"], json["id"]));
            if heard.len() == 2 {
                place("after").await;
            }
        }
        heard
    };
    let heard = while_served(&port, (session, &mut wire), show, listen).await;
    let expected = ["\"clock\" null", "\"cue\" \"before\"", "\"cue\" \"after\""];
    assert_eq!(heard, expected);
}

/// What the server said on the channel of cues, message by message.
async fn hear(viewer: &Viewer) -> serde_json::Value {
    let channel = viewer.channel.as_ref().unwrap();
    loop {
        if let Some(DataChannelEvent::OnMessage(message)) = channel.poll().await {
            return serde_json::from_slice(&message.data).unwrap();
        }
    }
}

/// Its lease is cut to what is over: it is told so, and the session ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_whose_lease_is_over_is_told_so_and_let_go() {
    let mut show = Show::start(0);
    (0..5).for_each(|_| show.picture());
    let port = port(&show);
    let traits = Traits {
        has_channel: true,
        terms: Terms {
            expires_at: Some(Instant::now() + Duration::from_secs(600)),
            ..Terms::default()
        },
        ..Traits::default()
    };
    let (viewer, mut wire, session, control) = join_and_hold(&port, &show, traits).await;
    let listen = async {
        assert_eq!(hear(&viewer).await["type"], "clock");
        control.renew(Some(Instant::now()));
        loop {
            let message = hear(&viewer).await;
            if message["type"] == "bye" {
                return message["reason"].clone();
            }
        }
    };
    let cancel = CancellationToken::new();
    let hub = Arc::clone(&show.hub);
    let served = async {
        tokio::join!(
            Arc::clone(&port).run(cancel.clone()),
            session.run(cancel.clone(), hub),
            wire.run(),
        )
    };
    let reason = tokio::select! {
        _ = Box::pin(served) => unreachable!("the wire stays"),
        reason = timeout(WITHIN, listen) => reason.expect("it comes in time"),
    };
    assert_eq!(reason, "expired");
}

/// The session goes on: what comes after is heard, and the word is not said again.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_of_a_draining_server_is_told_once_to_connect_anew() {
    let mut show = Show::start(0);
    (0..5).for_each(|_| show.picture());
    let (port, hub) = (port(&show), Arc::clone(&show.hub));
    let broadcast = Arc::clone(show.publisher.broadcast());
    let traits = Traits {
        has_channel: true,
        ..Traits::default()
    };
    let (viewer, mut wire, session) = join(&port, &show, traits).await;
    let listen = async {
        assert_eq!(hear(&viewer).await["type"], "clock");
        hub.drain();
        assert_eq!(hear(&viewer).await["type"], "reconnect");
        let cue = NewCue {
            id: "after".into(),
            class: "card".into(),
            duration: None,
            kind: CueKind::Listed,
            payload: Bytes::from_static(b"{}"),
        };
        broadcast.cue(Instant::now(), At::Now, cue).await.unwrap();
        hear(&viewer).await["type"].clone()
    };
    let next = while_served(&port, (session, &mut wire), show, listen).await;
    assert_eq!(next, "cue");
}

/// After a discontinuity of T the map to the time of day is told again, and RTP time is on the
/// same line as before.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_told_again_when_the_publisher_has_come_back() {
    let mut show = Show::start(0);
    (0..5).for_each(|_| show.picture());
    let port = port(&show);
    let traits = Traits {
        has_channel: true,
        ..Traits::default()
    };
    let (viewer, mut wire, session) = join(&port, &show, traits).await;
    let hub = Arc::clone(&show.hub);
    let cancel = CancellationToken::new();
    let back = Arc::new(AtomicBool::new(false));
    let comes_back = Arc::clone(&back);
    let goes_on = async move {
        let mut ticks = interval(PICTURE);
        loop {
            ticks.tick().await;
            if comes_back.swap(false, Ordering::AcqRel) {
                show.pictures = 10_000;
            }
            show.picture();
        }
    };
    let listen = async {
        let first = hear(&viewer).await;
        back.store(true, Ordering::Release);
        let told = Instant::now();
        let second = hear(&viewer).await;
        // Not the one that comes every ten seconds.
        assert!(told.elapsed() < Duration::from_secs(5));
        (first, second)
    };
    let served = async {
        tokio::join!(
            Arc::clone(&port).run(cancel.clone()),
            session.run(cancel.clone(), hub),
            wire.run(),
            goes_on,
        )
    };
    let (first, second) = tokio::select! {
        _ = Box::pin(served) => unreachable!("the show goes on"),
        heard = timeout(WITHIN, listen) => heard.expect("it comes in time"),
    };
    let read = |message: &serde_json::Value| {
        assert_eq!(message["type"], "clock", "{message}");
        let rtp = message["video"]["rtp"].as_u64().unwrap();
        (
            message["t_us"].as_i64().unwrap(),
            i64::try_from(rtp).unwrap(),
        )
    };
    let ((t1, rtp1), (t2, rtp2)) = (read(&first), read(&second));
    let ticks = MediaTime::from_micros(t2).to_90khz() - MediaTime::from_micros(t1).to_90khz();
    assert_eq!((rtp2 - rtp1).rem_euclid(1 << 32), ticks);
    assert!(t2 > t1);
}

#[tokio::test]
async fn a_rendition_that_the_show_does_not_have_is_refused() {
    let show = Show::start(0);
    let port = port(&show);
    let viewer = Viewer::offer(Traits::default()).await;
    let accept = |rendition| {
        let terms = Terms {
            rendition: Some(rendition),
            ..Terms::default()
        };
        let broadcast = show.publisher.broadcast();
        whep::accept(&port, broadcast, &viewer.offer, terms, Instant::now())
    };
    let refused = accept(Rendition::Rung(480));
    assert!(matches!(
        refused,
        Err(WhepError::NoRendition(Rendition::Rung(480)))
    ));
    for there in [Rendition::Rung(240), Rendition::Source] {
        assert!(accept(there).is_ok(), "{there}");
    }
}
