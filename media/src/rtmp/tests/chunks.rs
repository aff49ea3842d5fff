//! Chunks in any split, and chunks that lie.

use super::*;

fn message() -> impl Strategy<Value = (u8, Message)> {
    let payload = proptest::collection::vec(any::<u8>(), 0..2_000);
    let types = prop_oneof![Just(kind::AUDIO), Just(kind::VIDEO), Just(kind::COMMAND)];
    (3_u8..60, types, any::<u32>(), 0_u32..5, payload).prop_map(
        |(id, type_id, timestamp, stream_id, payload)| {
            (
                id,
                Message {
                    type_id,
                    stream_id,
                    timestamp,
                    payload: payload.into(),
                },
            )
        },
    )
}

fn read_all(pieces: &[&[u8]]) -> Result<Vec<Message>, ChunkError> {
    let mut reader = ChunkReader::new(MessageLimits::PUBLISHING);
    let mut out = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(message) = reader.next_message()? {
            out.push(message);
        }
    }
    Ok(out)
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_messages(
        list in proptest::collection::vec(message(), 1..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = BytesMut::new();
        let mut writer = ChunkWriter::default();
        for (id, message) in &list {
            writer.write(&mut bytes, *id, message);
        }
        let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        let expected: Vec<Message> = list.into_iter().map(|(_, m)| m).collect();
        prop_assert_eq!(read_all(&pieces), Ok(expected));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let _ = read_all(&[&bytes]);
    }
}

/// A video message cut by a sound message on another chunk stream: raw `rml_rtmp` panics here.
#[test]
fn interleaved_chunk_streams_do_not_mix_their_bytes() {
    let mut bytes = BytesMut::new();
    let head = |id: u8, length: u64, type_id: u8, out: &mut BytesMut| {
        out.put_u8(id);
        out.put_uint(40, 3);
        out.put_uint(length, 3);
        out.put_u8(type_id);
        out.put_u32_le(1);
    };
    head(6, 300, kind::VIDEO, &mut bytes);
    bytes.put_bytes(b'v', 128);
    head(4, 200, kind::AUDIO, &mut bytes);
    bytes.put_bytes(b'a', 128);
    bytes.put_u8(0xc6);
    bytes.put_bytes(b'v', 128);
    bytes.put_u8(0xc4);
    bytes.put_bytes(b'a', 72);
    bytes.put_u8(0xc6);
    bytes.put_bytes(b'v', 44);
    let got = read_all(&[&bytes]).unwrap();
    assert_eq!(got[0].payload, Bytes::from(vec![b'a'; 200]));
    assert_eq!(got[1].payload, Bytes::from(vec![b'v'; 300]));
}

#[test]
fn extended_times_are_repeated_on_every_chunk_and_deltas_add_up() {
    let mut bytes = BytesMut::new();
    let time = 0x0100_0005;
    let payload = Bytes::from(vec![7; 300]);
    let first = Message {
        type_id: kind::AUDIO,
        stream_id: 1,
        timestamp: time,
        payload,
    };
    ChunkWriter::default().write(&mut bytes, 4, &first);
    // Type 1: delta 20, ten bytes; then type 3: the same delta again.
    bytes.put_u8(0x44);
    bytes.put_uint(20, 3);
    bytes.put_uint(2, 3);
    bytes.put_u8(kind::AUDIO);
    bytes.put_slice(&[1, 2, 0xc4, 3, 4]);
    let times: Vec<u32> = read_all(&[&bytes])
        .unwrap()
        .iter()
        .map(|m| m.timestamp)
        .collect();
    assert_eq!(times, [time, time + 20, time + 40]);
}

#[test]
fn a_chunk_size_changes_between_the_chunks_of_another_stream() {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[6, 0, 0, 0, 0, 1, 44, kind::VIDEO, 1, 0, 0, 0]);
    bytes.put_bytes(b'v', 128);
    bytes.put_slice(&[
        2,
        0,
        0,
        0,
        0,
        0,
        4,
        kind::SET_CHUNK_SIZE,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0xff,
    ]);
    bytes.put_u8(0xc6);
    bytes.put_bytes(b'v', 172);
    assert_eq!(read_all(&[&bytes]).unwrap()[0].payload.len(), 300);
}

#[test]
fn abort_drops_what_was_begun() {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[6, 0, 0, 0, 0, 1, 44, kind::VIDEO, 1, 0, 0, 0]);
    bytes.put_bytes(b'x', 128);
    bytes.put_slice(&[2, 0, 0, 0, 0, 0, 4, kind::ABORT, 0, 0, 0, 0, 0, 0, 0, 6]);
    bytes.put_slice(&[6, 0, 0, 0, 0, 0, 2, kind::VIDEO, 1, 0, 0, 0, b'o', b'k']);
    let got = read_all(&[&bytes]).unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!(&got[0].payload[..], b"ok");
}

#[test]
fn chunks_that_lie_are_refused_by_name() {
    let set_size = |size: u32| {
        let mut b = vec![2, 0, 0, 0, 0, 0, 4, kind::SET_CHUNK_SIZE, 0, 0, 0, 0];
        b.extend(size.to_be_bytes());
        b
    };
    // A message of 256 bytes each of which 128 come, and whole messages of none.
    let begun = |n: u16| {
        let mut b = vec![1];
        b.extend(n.to_le_bytes());
        b.extend([0, 0, 0, 0, 1, 0, kind::AUDIO, 1, 0, 0, 0]);
        b.extend([0; 128]);
        b
    };
    let whole = |n: u16| {
        let mut b = vec![1];
        b.extend(n.to_le_bytes());
        b.extend([0, 0, 0, 0, 0, 0, kind::AUDIO, 1, 0, 0, 0]);
        b
    };
    let unfinished: Vec<u8> = (0..65).flat_map(begun).collect();
    let many: Vec<u8> = (0..1_025).flat_map(whole).collect();
    assert!(
        read_all(&[&unfinished[..64 * (3 + 11 + 128)]])
            .unwrap()
            .is_empty()
    );
    assert_eq!(read_all(&[&many[..1_024 * (3 + 11)]]).unwrap().len(), 1_024);
    let cases = [
        (set_size(0), ChunkError::ChunkSize),
        (set_size(127), ChunkError::ChunkSize),
        (set_size(1 << 31), ChunkError::ChunkSize),
        (vec![0xc5], ChunkError::ChunkOrder),
        (vec![0x45, 0, 0, 0, 0, 0, 1, 8], ChunkError::ChunkOrder),
        (
            vec![5, 0, 0, 0, 0xff, 0xff, 0xff, kind::VIDEO, 1, 0, 0, 0],
            ChunkError::MessageTooLarge,
        ),
        (unfinished, ChunkError::MessageTooLarge),
        (many, ChunkError::ChunkOrder),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read_all(&[&bytes]), Err(expected));
    }
}

/// Sound at 23 ms, then type 3 chunks: what ffmpeg and GStreamer write for sound of one size. A
/// time that is no step means itself again, as librtmp has it.
#[test]
fn a_type_3_chunk_after_a_type_0_one_takes_its_time_as_the_step_while_that_can_be_one() {
    let cases = [
        (0, [0, 0, 0]),
        (23, [23, 46, 69]),
        (3_000, [3_000, 6_000, 9_000]),
        (3_001, [3_001, 3_001, 3_001]),
        (0x00f0_0000, [0x00f0_0000; 3]),
    ];
    for (time, expected) in cases {
        let mut bytes = BytesMut::new();
        bytes.put_u8(4);
        bytes.put_uint(time, 3);
        bytes.put_slice(&[0, 0, 1, kind::AUDIO, 1, 0, 0, 0, 9, 0xc4, 9, 0xc4, 9]);
        let list = read_all(&[&bytes]).unwrap();
        let times: Vec<u32> = list.iter().map(|m| m.timestamp).collect();
        assert_eq!(times, expected);
    }
}
