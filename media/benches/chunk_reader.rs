//! Reading RTMP chunks: bytes per second of our bounded reader beside the reader of `rml_rtmp`.
//!
//! Fixed input: 4 s of 720p30 at 6 Mb/s with sound, in chunks of 4 096 bytes as OBS sends them,
//! given in reads of 4 KiB and of 64 KiB.

use std::hint::black_box;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lamplight_media::rtmp::chunk::{ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use rml_rtmp::chunk_io::ChunkDeserializer;

const CHUNK_BYTES: u32 = 4_096;
const PICTURE_BYTES: usize = 25_000;
const SOUND_BYTES: usize = 420;

fn show() -> Bytes {
    let (mut writer, mut out) = (ChunkWriter::default(), BytesMut::new());
    let mut size = BytesMut::new();
    size.put_u32(CHUNK_BYTES);
    let mut write = |id, type_id, timestamp, payload: Bytes| {
        let stream_id = u32::from(type_id != kind::SET_CHUNK_SIZE);
        let message = Message {
            type_id,
            stream_id,
            timestamp,
            payload,
        };
        writer.write(&mut out, id, &message);
    };
    write(2, kind::SET_CHUNK_SIZE, 0, size.freeze());
    for n in 0..120 {
        write(6, kind::VIDEO, n * 33, vec![0x27; PICTURE_BYTES].into());
        write(4, kind::AUDIO, n * 33, vec![0xaf; SOUND_BYTES].into());
    }
    out.freeze()
}

/// Media messages read by our reader.
fn ours(bytes: &[u8], read: usize) -> usize {
    let mut reader = ChunkReader::new(MessageLimits::PUBLISHING);
    let mut count = 0;
    for piece in bytes.chunks(read) {
        reader.push(piece);
        while let Some(message) = reader.next_message().expect("the input is well-formed") {
            black_box(message);
            count += 1;
        }
    }
    count
}

/// Media messages read by the baseline.
fn theirs(bytes: &[u8], read: usize) -> usize {
    let mut reader = ChunkDeserializer::new();
    let mut count = 0;
    for piece in bytes.chunks(read) {
        let mut next = reader
            .get_next_message(piece)
            .expect("the input is well-formed");
        while let Some(message) = next {
            // Ours takes this message itself.
            if message.type_id == kind::SET_CHUNK_SIZE {
                let set = reader.set_max_chunk_size(4_096);
                set.expect("the size is allowed");
            } else {
                black_box(message);
                count += 1;
            }
            next = reader
                .get_next_message(&[])
                .expect("the input is well-formed");
        }
    }
    count
}

fn chunk_reader(c: &mut Criterion) {
    let bytes = show();
    assert_eq!(ours(&bytes, 4_096), theirs(&bytes, 4_096));
    let mut group = c.benchmark_group("rtmp/chunk_reader");
    group.throughput(Throughput::Bytes(
        u64::try_from(bytes.len()).expect("it is in memory"),
    ));
    for read in [4_096, 65_536] {
        group.bench_with_input(BenchmarkId::new("ours", read), &read, |b, read| {
            b.iter(|| ours(&bytes, *read));
        });
        group.bench_with_input(BenchmarkId::new("rml_rtmp", read), &read, |b, read| {
            b.iter(|| theirs(&bytes, *read));
        });
    }
    group.finish();
}

criterion_group!(benches, chunk_reader);
criterion_main!(benches);
