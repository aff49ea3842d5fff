//! Viewers over HTTP-FLV that read too slowly (spec media.md 7, 8.5): one is let go, one loses
//! pictures, and whoever watches beside them notices nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, interval, sleep, timeout};

use crate::flv::{VIDEO, tags};
use crate::http_flv::{Keeper, assert_forward, pictures};
use crate::publisher::{Publisher, Take};
use crate::server::Server;

const RECEIVE_BYTES: u32 = 4 * 1024;
/// The kernel holds no more of a stream (media.md 8.5).
const KERNEL_BYTES: u64 = 512 * 1024;
/// Until nothing more fits, and then 15 s.
const LET_GO_MAX: Duration = Duration::from_secs(60);
/// A third of what the show has.
const SLOW_BYTES_PER_S: usize = 70_000;
const SLOW_FOR: Duration = Duration::from_secs(40);

/// Asks for the show with little room to receive it. HTTP/1.0 knows no chunks: what follows the
/// head is the stream.
async fn ask(server: &Server) -> TcpStream {
    let host = server.urls.http.strip_prefix("http://").unwrap();
    let addr: SocketAddr = host.parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    let path = format!("/flv/{}.flv", server.urls.room);
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Bytes that the server's kernel holds for a viewer: its row of /proc/net/tcp.
fn queued(viewer: &TcpStream) -> Option<u64> {
    let hex = |addr: SocketAddr| format!("0100007F:{:04X}", addr.port());
    let local = hex(viewer.peer_addr().ok()?);
    let remote = hex(viewer.local_addr().ok()?);
    let rows = std::fs::read_to_string("/proc/net/tcp").unwrap();
    rows.lines().find_map(|row| {
        let words: Vec<&str> = row.split_whitespace().collect();
        let is_it = words.get(1) == Some(&local.as_str()) && words.get(2) == Some(&remote.as_str());
        let (to_send, _received) = words.get(4).filter(|_| is_it)?.split_once(':')?;
        u64::from_str_radix(to_send, 16).ok()
    })
}

#[tokio::test]
async fn who_reads_a_byte_a_second_is_let_go_and_the_others_go_on() {
    let server = Server::start("one_byte_a_second").await;
    let publisher = Publisher::start_as(&server, server.publish_url(), Take::FIRST);
    server.on_air().await;
    let mut keeper = Keeper::start(&server, "beside.flv");
    let mut stream = ask(&server).await;
    let (asked, mut most) = (Instant::now(), 0);
    let hostile = async {
        let mut second = interval(Duration::from_secs(1));
        let mut byte = [0];
        loop {
            second.tick().await;
            most = most.max(queued(&stream).unwrap_or(0));
            if server.times_logged(&["viewer left", "too_slow"]) > 0 {
                return;
            }
            stream
                .read_exact(&mut byte)
                .await
                .expect("it is served still");
        }
    };
    timeout(LET_GO_MAX, hostile).await.expect("it is let go");
    let took = asked.elapsed();
    eprintln!("let go after {took:?}; the kernel held {most} bytes at most");
    assert!(took >= Duration::from_secs(15), "{took:?}");
    assert!((1..=KERNEL_BYTES).contains(&most), "{most} bytes");
    // Closed, and not only sent nothing: no row of it is left that could send.
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection stands still");
    keeper.assert_watches();
    let watched = keeper.tags();
    let stamps = pictures(&watched);
    let longest = stamps.windows(2).map(|two| two[1] - two[0]).max();
    assert!(
        longest <= Some(34),
        "a picture was left out: {longest:?} ms"
    );
    let spanned = Duration::from_millis((stamps[stamps.len() - 1] - stamps[0]).unsigned_abs());
    assert!(
        spanned + Duration::from_secs(2) > took,
        "{spanned:?} of {took:?}"
    );
    assert_eq!(server.times_logged(&["viewer left"]), 1);
    publisher.stop().await;
}

#[tokio::test]
async fn who_reads_a_third_of_the_show_is_sent_whole_pictures_from_keyframe_to_keyframe() {
    let server = Server::start("slow_reader").await;
    let take = Take {
        gop: 60,
        ..Take::FIRST
    };
    let publisher = Publisher::start_as(&server, server.publish_url(), take);
    server.on_air().await;
    let mut stream = ask(&server).await;
    let asked = Instant::now();
    let mut got = Vec::new();
    let mut buffer = vec![0; SLOW_BYTES_PER_S / 10];
    while asked.elapsed() < SLOW_FOR {
        sleep(Duration::from_millis(100)).await;
        stream
            .read_exact(&mut buffer)
            .await
            .expect("it is served still");
        got.extend_from_slice(&buffer);
    }
    assert_eq!(server.times_logged(&["viewer left"]), 0);
    let body = got.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let tags = tags(&bytes::Bytes::from(got).slice(body..));
    assert_forward(&tags);
    let media: Vec<_> = tags
        .iter()
        .filter(|tag| tag.kind == VIDEO && tag.is_media())
        .collect();
    let jumps: Vec<_> = media
        .windows(2)
        .filter(|two| two[1].stamp_ms - two[0].stamp_ms > 34)
        .collect();
    eprintln!("{} pictures, {} jumps", media.len(), jumps.len());
    assert!(!jumps.is_empty(), "nothing was passed over");
    assert!(jumps.iter().all(|two| two[1].is_key()), "not to a keyframe");
    publisher.stop().await;
}
