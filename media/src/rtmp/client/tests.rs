//! The client against the server's own dialogue, and against a peer that misbehaves.

use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::request::{Refusal, RefusalCode};
use crate::rtmp::session::{Session, SessionEvent};

fn target() -> PublishTarget {
    "rtmp://127.0.0.1/live/live_abc".parse().unwrap()
}

/// Plays the server on `stream` until the client is done: accepts or refuses, returns the media.
async fn serve(mut stream: DuplexStream, refusal: Option<Refusal>) -> Vec<Message> {
    let mut session = Session::new(Instant::now());
    let mut media = Vec::new();
    loop {
        while let Some(event) = session.poll() {
            match event {
                SessionEvent::PublishRequested {
                    app, stream_name, ..
                } => {
                    assert_eq!((app.as_str(), stream_name.as_str()), ("live", "live_abc"));
                    match &refusal {
                        Some(refusal) => session.refuse(refusal),
                        None => session.accept(Instant::now()),
                    }
                }
                SessionEvent::Media(message) => media.push(message),
                SessionEvent::Encoder(_)
                | SessionEvent::PlayRequested { .. }
                | SessionEvent::Paused(_) => {}
                SessionEvent::Finished | SessionEvent::Closed(_) => {
                    let _ = stream.write_all(&session.take_output()).await;
                    return media;
                }
            }
        }
        stream.write_all(&session.take_output()).await.unwrap();
        let mut bytes = BytesMut::with_capacity(512);
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return media;
        }
        session.receive(Instant::now(), &bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn media_arrives_as_it_was_written() {
    let (near, far) = duplex(4_096);
    let publish = async {
        let mut client = Client::publish_on(near, &target()).await.unwrap();
        let size = ("width".to_owned(), Value::Number(1_280.0));
        client.write_metadata(vec![size]).await.unwrap();
        let big = Bytes::from(vec![0x17; 100_000]);
        client.write(Kind::Video, 40, big).await.unwrap();
        let sound = Bytes::from_static(&[0xaf, 1, 2]);
        client.write(Kind::Audio, 0x0100_0000, sound).await.unwrap();
        client.finish().await.unwrap();
    };
    let ((), media) = tokio::join!(publish, serve(far, None));
    let seen: Vec<_> = media
        .iter()
        .map(|m| (m.type_id, m.timestamp, m.payload.len()))
        .collect();
    let expected = [(kind::VIDEO, 40, 100_000), (kind::AUDIO, 0x0100_0000, 3)];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_brings_the_code_and_the_sentence_of_the_server() {
    let (near, far) = duplex(4_096);
    let sentence = "This stream key is not known. Copy it again.";
    let refusal = Refusal {
        code: RefusalCode::UnknownKey,
        sentence: sentence.into(),
    };
    let target = target();
    let (client, _) = tokio::join!(Client::publish_on(near, &target), serve(far, Some(refusal)));
    let Err(ClientError::Refused {
        code,
        sentence: said,
    }) = client
    else {
        panic!("{client:?}");
    };
    assert_eq!(
        (code.as_str(), said.as_str()),
        ("NetStream.Publish.BadName", sentence)
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_after_ten_seconds() {
    let (near, _far) = duplex(4_096);
    let start = Instant::now();
    let client = Client::publish_on(near, &target()).await;
    assert!(matches!(client, Err(ClientError::TimedOut("dialogue"))));
    assert_eq!(start.elapsed(), DIALOGUE);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_nothing_is_given_up_after_ten_seconds() {
    let (near, far) = duplex(16_384);
    let target = target();
    let mut server = Box::pin(serve(far, None));
    let mut client = tokio::select! {
        client = Client::publish_on(near, &target) => client.unwrap(),
        _ = &mut server => unreachable!("it serves until the client is done"),
    };
    let start = Instant::now();
    let big = Bytes::from(vec![0; 100_000]);
    let written = client.write(Kind::Video, 0, big).await;
    assert!(matches!(written, Err(ClientError::TimedOut("write"))));
    assert_eq!(start.elapsed(), WRITE);
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_is_noticed_while_publishing() {
    let (near, far) = duplex(16_384);
    let target = target();
    let mut server = Box::pin(serve(far, None));
    let mut client = tokio::select! {
        client = Client::publish_on(near, &target) => client.unwrap(),
        _ = &mut server => unreachable!("it serves until the client is done"),
    };
    drop(server);
    assert!(matches!(client.refused().await, ClientError::Io(_)));
}

#[test]
fn pings_are_answered_and_bytes_acknowledged() {
    let mut link = Link::new();
    let mut server = ChunkWriter::default();
    let mut bytes = BytesMut::new();
    let message = |type_id, payload: &[u8]| Message {
        type_id,
        stream_id: 0,
        timestamp: 0,
        payload: Bytes::copy_from_slice(payload),
    };
    let window = message(kind::WINDOW_ACK_SIZE, &20_u32.to_be_bytes());
    let ping = message(kind::USER_CONTROL, &[0, 6, 1, 2, 3, 4]);
    server.write(&mut bytes, CONTROL_ID, &window);
    server.write(&mut bytes, CONTROL_ID, &ping);
    link.receive(&bytes);
    while let Some(message) = link.next_message().unwrap() {
        assert!(link.take(&message).unwrap().is_none());
    }
    link.receive(&[]);
    let mut reader = ChunkReader::new(MessageLimits::DIALOGUE);
    reader.push(&link.out);
    let pong = reader.next_message().unwrap().unwrap();
    assert_eq!(&pong.payload[..], [0, 7, 1, 2, 3, 4]);
    let total = reader.next_message().unwrap().unwrap();
    assert_eq!(total.type_id, kind::ACKNOWLEDGEMENT);
    assert_eq!(
        total.payload.clone().get_u32(),
        u32::try_from(bytes.len()).unwrap()
    );
}

#[test]
fn targets_are_read_from_addresses() {
    let check = |url: &str, expected: Option<(&str, &str, &str)>| {
        let target = url.parse::<PublishTarget>().ok();
        let seen = target
            .as_ref()
            .map(|t| (t.addr.as_str(), t.app.as_str(), t.stream_key.as_str()));
        assert_eq!(seen, expected, "{url}");
    };
    check("rtmp://host/live/key", Some(("host:1935", "live", "key")));
    check("rtmp://host:1/a/b/key", Some(("host:1", "a/b", "key")));
    check("rtmp://[::1]/live/key", Some(("[::1]:1935", "live", "key")));
    check("rtmp://[::1]:7/live/key", Some(("[::1]:7", "live", "key")));
    for bad in [
        "",
        "http://host/live/key",
        "rtmp://host/live",
        "rtmp:///live/key",
    ] {
        check(bad, None);
    }
    check("rtmp://host/live/", None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_of_a_server_make_the_client_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..4_000),
        is_rtmp in any::<bool>(),
    ) {
        let mut answer = if is_rtmp { vec![3; 3_073] } else { Vec::new() };
        answer.extend(bytes);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let accepted = runtime.block_on(async {
            let (near, mut far) = duplex(16_384);
            far.write_all(&answer).await.unwrap();
            Client::publish_on(near, &target()).await.is_ok()
        });
        prop_assert!(!accepted);
    }
}
