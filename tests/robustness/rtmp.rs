//! What is sent to the RTMP port by scanners, broken encoders and those who mean harm.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{memory_is_back, quiet_as, rejections, resident_kib, soon};
use crate::support::TestServer;
use crate::support::show::Show;

const HANDSHAKE_BYTES: usize = 1_536;
const HALF_OPEN: usize = 500;
/// What memory may have grown by after everything.
const GROWTH_KIB_MAX: u64 = 5 << 10;
const ROUNDS: i64 = 7;
const RANDOM_PEERS: u64 = 40;

/// What a peer does.
struct Attack {
    name: &'static str,
    /// Whether it shakes hands first.
    has_handshake: bool,
    bytes: Vec<u8>,
    /// Whether the server closes by itself, at once.
    is_closed: bool,
}

/// A message of one chunk with a full header.
fn message(stream: u8, kind: u8, announced: usize, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(announced).unwrap().to_be_bytes();
    let mut out = vec![stream & 63, 0, 0, 0, high, middle, low, kind, 0, 0, 0, 0];
    out.extend(body);
    out
}

fn whole(stream: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    message(stream, kind, body.len(), body)
}

fn text(word: &str) -> Vec<u8> {
    let length = u16::try_from(word.len()).unwrap().to_be_bytes();
    [&[2][..], &length, word.as_bytes()].concat()
}

fn number(value: f64) -> Vec<u8> {
    [&[0][..], &value.to_be_bytes()].concat()
}

/// `connect`, small enough for one chunk of 128 bytes.
fn connect() -> Vec<u8> {
    let app = [&[0, 3][..], b"app", &text("live")].concat();
    let object = [&[3][..], &app, &[0, 0, 9]].concat();
    whole(3, 20, &[text("connect"), number(1.0), object].concat())
}

fn publish(name: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap().to_be_bytes();
    let name = [&[2][..], &length, name].concat();
    whole(
        3,
        20,
        &[text("publish"), number(0.0), vec![5], name].concat(),
    )
}

fn with_handshake(name: &'static str, bytes: Vec<u8>, is_closed: bool) -> Attack {
    Attack {
        name,
        has_handshake: true,
        bytes,
        is_closed,
    }
}

fn before_handshake(name: &'static str, bytes: &[u8], is_closed: bool) -> Attack {
    Attack {
        name,
        has_handshake: false,
        bytes: bytes.to_vec(),
        is_closed,
    }
}

fn attacks() -> Vec<Attack> {
    [without_handshake(), bad_messages(), bad_dialogues()]
        .into_iter()
        .flatten()
        .collect()
}

fn without_handshake() -> Vec<Attack> {
    vec![
        before_handshake("nothing at all", &[], false),
        before_handshake("a scan", &[0], true),
        before_handshake("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
        before_handshake("TLS", &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], true),
        before_handshake(
            "a later version",
            &[[6].as_slice(), &[0; HANDSHAKE_BYTES]].concat(),
            true,
        ),
        before_handshake("half a C1", &[[3].as_slice(), &[0; 700]].concat(), false),
    ]
}

fn bad_messages() -> Vec<Attack> {
    let chunk_size = |size: u32| whole(2, 1, &size.to_be_bytes());
    let nested =
        |depth: usize| [text("connect"), number(1.0), [10, 0, 0, 0, 1].repeat(depth)].concat();
    let in_small_chunks = |kind: u8, body: &[u8]| {
        let mut out = message(3, kind, body.len(), &[]);
        for (n, piece) in body.chunks(128).enumerate() {
            if n > 0 {
                out.push(0xc3);
            }
            out.extend(piece);
        }
        out
    };
    vec![
        with_handshake("no word after it", Vec::new(), false),
        with_handshake("a chunk of no stream", vec![0xc7, 1, 2, 3], true),
        with_handshake("a chunk size of 0", chunk_size(0), true),
        with_handshake("a chunk size of 1", chunk_size(1), true),
        with_handshake("a chunk size of 2^31", chunk_size(1 << 31), true),
        with_handshake("a chunk size of 2^32 - 1", chunk_size(u32::MAX), true),
        with_handshake("16 MiB announced", message(3, 20, 0xff_ffff, &[2]), true),
        with_handshake(
            "16 MiB of a picture",
            message(6, 9, 0xff_ffff, &[0x17]),
            true,
        ),
        with_handshake("deep arrays", in_small_chunks(20, &nested(10_000)), true),
        with_handshake(
            "a list of 2^32 - 1",
            whole(
                3,
                20,
                &[text("connect"), number(1.0), vec![10, 255, 255, 255, 255]].concat(),
            ),
            true,
        ),
        with_handshake(
            "a text past the end",
            whole(
                3,
                20,
                &[text("connect"), number(1.0), vec![2, 255, 255, b'x']].concat(),
            ),
            true,
        ),
        with_handshake("a command without a name", whole(3, 20, &[5, 5, 5]), true),
    ]
}

fn bad_dialogues() -> Vec<Attack> {
    vec![
        with_handshake("publish before connect", publish(b"live_x"), true),
        with_handshake(
            "an unknown key",
            [connect(), publish(b"live_x")].concat(),
            true,
        ),
        with_handshake("an empty key", [connect(), publish(b"")].concat(), true),
        with_handshake(
            "a key of no text",
            [connect(), publish(&[0, 0xff, 0xfe])].concat(),
            true,
        ),
        with_handshake(
            "a picture before publish",
            [connect(), whole(6, 9, &[0x17, 0, 0, 0, 0])].concat(),
            false,
        ),
        with_handshake("an abort of nothing", whole(2, 2, &[0, 0, 0, 99]), false),
        with_handshake(
            "unknown messages",
            whole(4, 99, &[1; 100]).repeat(50),
            false,
        ),
    ]
}

/// Sends it; waits for the server to close where it should.
async fn play(to: SocketAddr, attack: &Attack) {
    let mut socket = TcpStream::connect(to).await.unwrap();
    if attack.has_handshake {
        shake_hands(&mut socket).await;
    }
    // A server that has closed already takes no more, which is what is wanted.
    drop(socket.write_all(&attack.bytes).await);
    if attack.is_closed {
        drop(socket.shutdown().await);
        let mut rest = Vec::new();
        let closed = socket.read_to_end(&mut rest);
        drop(soon(attack.name, closed).await);
    }
}

async fn shake_hands(socket: &mut TcpStream) {
    let hello = [&[3][..], &[7; HANDSHAKE_BYTES]].concat();
    socket.write_all(&hello).await.unwrap();
    let mut answer = vec![0; 1 + 2 * HANDSHAKE_BYTES];
    soon("S0, S1 and S2", socket.read_exact(&mut answer))
        .await
        .unwrap();
    socket.write_all(&[7; HANDSHAKE_BYTES]).await.unwrap();
}

/// xorshift: the same seed, the same bytes.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    });
    next.take(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_to_the_rtmp_port_a_show_goes_on_and_memory_comes_back() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(&server, &room);
    show.run_to(120);
    let port = server.running().bound().rtmp;
    let playlist = format!("/hls/{room}/index.m3u8");
    assert_eq!(server.get(&playlist).await.status, 200);
    let idle = server.app().tasks.running();
    let before = resident_kib();
    for round in 0..ROUNDS {
        for attack in attacks() {
            let counted = rejections(&server);
            play(port, &attack).await;
            quiet_as(&server, &idle, attack.name).await;
            let is_counted = rejections(&server) > counted;
            assert!(
                is_counted || !attack.is_closed,
                "{} was not counted",
                attack.name
            );
        }
        noise_and_half_open(port).await;
        quiet_as(&server, &idle, "half-open connections").await;
        show.run_to(240 + round * 60);
        assert_eq!(server.get(&playlist).await.status, 200, "the show goes on");
        eprintln!("round {round}: {} KiB", resident_kib());
    }
    memory_is_back(before + GROWTH_KIB_MAX).await;
}

/// Peers that send noise, and many at once that stop in the middle of their handshake.
async fn noise_and_half_open(port: SocketAddr) {
    for seed in 0..RANDOM_PEERS {
        let attack = Attack {
            name: "noise",
            has_handshake: seed % 2 == 0,
            bytes: noise(seed, 20_000),
            is_closed: true,
        };
        play(port, &attack).await;
    }
    let mut open = Vec::new();
    for n in 0..HALF_OPEN {
        let mut socket = TcpStream::connect(port).await.unwrap();
        drop(socket.write_all(&vec![3; n % 1_500]).await);
        open.push(socket);
    }
}
