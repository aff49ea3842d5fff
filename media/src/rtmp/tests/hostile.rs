//! Clients that are odd, damaged or mean.

use super::*;

/// An aggregate of sound tags without a body, each a millisecond after the other.
fn empty_tags(count: u32) -> Bytes {
    let mut out = BytesMut::new();
    for n in 0..count {
        out.put_u8(kind::AUDIO);
        out.put_uint(0, 3);
        out.put_uint(u64::from(n), 3);
        out.put_slice(&[0, 0, 0, 0]);
        out.put_u32(11);
    }
    out.freeze()
}

#[tokio::test(start_paused = true)]
async fn the_tags_of_an_aggregate_are_messages_and_their_number_is_bounded() {
    let mut client = Client::accepted();
    client.send(kind::AGGREGATE, 1, empty_tags(1_024));
    for n in 0..1_024 {
        let event = client.session.poll();
        assert!(
            matches!(&event, Some(SessionEvent::Media(m)) if m.timestamp == n),
            "{event:?}"
        );
    }
    assert!(client.session.poll().is_none());
    client.send(kind::AGGREGATE, 1, empty_tags(1_025));
    assert_eq!(
        client.closed(),
        Some(chunk_error(ChunkError::MessageTooLarge))
    );
}

/// A fault in the first of many messages: one sentence, one end, and none of what came behind it.
#[tokio::test(start_paused = true)]
async fn nothing_is_said_or_handed_on_after_a_refusal() {
    let mut client = Client::accepted();
    client.send(kind::AGGREGATE, 1, empty_tags(500));
    assert!(matches!(
        client.session.poll(),
        Some(SessionEvent::Media(_))
    ));
    let refusal = Refusal {
        code: RefusalCode::Unsupported,
        sentence: "No.".into(),
    };
    for _ in 0..3 {
        client.session.refuse(&refusal);
    }
    let expected = ["onStatus NetStream.Publish.Rejected"];
    assert_eq!(codes(&client.answers()), expected);
    assert!(matches!(
        client.session.poll(),
        Some(SessionEvent::Closed(CloseReason::Refused(_)))
    ));
    client.send(kind::AUDIO, 1, Bytes::from_static(&[0xaf, 0, 0x12, 0x10]));
    assert!(client.session.poll().is_none());
}

#[tokio::test(start_paused = true)]
async fn media_that_comes_behind_the_question_waits_for_the_decision() {
    let mut client = Client::shaken();
    client.connect(Vec::new());
    client.publish("live_key");
    client.send(kind::VIDEO, 1, Bytes::from(vec![0x17; 200_000]));
    assert!(client.asked().is_some());
    assert!(client.session.poll().is_none());
    client.session.accept(client.now);
    let event = client.session.poll();
    assert!(matches!(event, Some(SessionEvent::Media(m)) if m.payload.len() == 200_000));
}

#[tokio::test(start_paused = true)]
async fn metadata_in_another_code_page_is_no_reason_to_end_a_show() {
    let title = |text: &[u8]| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let head = [&[2, 0, 10][..], b"onMetaData", &[3, 0, 5], b"title", &[2]].concat();
        [&head[..], &length, text, &[0, 0, 9]].concat()
    };
    let mut client = Client::accepted();
    client.send(kind::DATA, 1, title(&[b'c', b'a', b'f', 0xe9]).into());
    assert_eq!(client.closed(), None);
    client.send(kind::DATA, 1, title(&[b'a'; 9_000]).into());
    assert_eq!(
        client.closed(),
        Some(CloseReason::Amf),
        "a text over its bound"
    );
}

#[tokio::test(start_paused = true)]
async fn creating_streams_does_not_put_off_the_time_to_publish() {
    let mut client = Client::shaken();
    client.connect(Vec::new());
    let until = client.session.deadline();
    client.now += std::time::Duration::from_secs(9);
    let create = [Value::text("createStream"), Value::Number(4.0), Value::Null];
    client.command(0, &create);
    assert_eq!(codes(&client.answers()).last().unwrap(), "_result");
    assert_eq!(client.session.deadline(), until);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_none_is_refused_with_what_is_wrong_with_it() {
    let long = "k".repeat(513);
    let cases: [(&[u8], &str); 4] = [
        (b"", "There is no stream key."),
        (long.as_bytes(), "longer than any key"),
        (b"live\0key", "characters that no key has"),
        (b"live\xffkey", "characters that no key has"),
    ];
    for (key, says) in cases {
        let mut client = Client::shaken();
        client.connect(Vec::new());
        let create = [Value::text("createStream"), Value::Number(4.0), Value::Null];
        client.command(0, &create);
        client.answers();
        let head = [Value::text("publish"), Value::Number(5.0), Value::Null];
        let length = u16::try_from(key.len()).unwrap().to_be_bytes();
        let payload = [&amf::write(&head)[..], &[2], &length, key].concat();
        client.send(kind::COMMAND, 1, payload.into());
        let answers = client.answers();
        let (_, stream_id, values) = answers.last().unwrap();
        let text = values[3].property("description").and_then(Value::as_text);
        assert!(text.unwrap().contains(says), "{text:?}");
        let code = values[3].property("code").and_then(Value::as_text);
        assert_eq!((*stream_id, code), (1, Some("NetStream.Publish.BadName")));
        assert_eq!(client.closed(), Some(CloseReason::Dialogue), "{says}");
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_and_a_small_window_is_acknowledged_by_halves() {
    let mut client = Client::accepted();
    let ping = Bytes::from_static(&[0, 6, 0, 0, 0x12, 0x34]);
    client.send(kind::USER_CONTROL, 0, ping);
    let output = client.session.take_output();
    assert_eq!(output[12..], [0, 7, 0, 0, 0x12, 0x34]);

    client.send(kind::WINDOW_ACK_SIZE, 0, Bytes::from_static(&[0, 0, 0, 0]));
    client.send(
        kind::WINDOW_ACK_SIZE,
        0,
        Bytes::from_static(&[0, 0, 0x20, 0]),
    );
    client.answers();
    let mut acknowledged = 0;
    for _ in 0..100 {
        // Sound of 100 bytes with a header of 12.
        client.send(kind::AUDIO, 1, Bytes::from(vec![0xaf; 100]));
        assert!(matches!(
            client.session.poll(),
            Some(SessionEvent::Media(_))
        ));
        acknowledged += client.answers().len();
    }
    assert_eq!(acknowledged, 11_200 / 4_096);
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_goes_has_not_shaken_hands() {
    let mut session = Session::new(Instant::now());
    session.hang_up();
    assert!(matches!(
        session.poll(),
        Some(SessionEvent::Closed(CloseReason::Handshake))
    ));
    let mut client = Client::shaken();
    client.session.hang_up();
    assert!(client.closed().is_none());
}
