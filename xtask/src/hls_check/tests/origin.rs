//! The show over HTTP/1.1, by hand: every header and every byte can be made wrong.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fault::Fault;
use super::show::{END, PARTS, RENDITIONS, Show};

/// Parts there are when the first player comes.
const BEGIN: u64 = 62;
const HEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Origin {
    port: u16,
    /// Its connections end with it.
    _served: JoinSet<()>,
}

#[derive(Clone, Debug)]
struct Server {
    show: Show,
    edge: Arc<AtomicU64>,
}

/// An answer before it is written.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    is_hint: bool,
}

struct Request {
    path: String,
    query: Vec<(String, String)>,
    range: Option<String>,
    takes_gzip: bool,
}

impl Origin {
    pub(super) async fn start(fault: Option<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Server {
            show: Show { fault },
            edge: Arc::new(AtomicU64::new(BEGIN)),
        };
        let mut served = JoinSet::new();
        served.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(async move { server.serve(stream).await });
            }
        });
        Self {
            port,
            _served: served,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/index.m3u8", self.port)
    }
}

impl Server {
    fn is(&self, fault: Fault) -> bool {
        self.show.is(fault)
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut waiting = Vec::new();
        while let Some(request) = read(&mut stream, &mut waiting).await {
            let reply = self.answer(&request).await;
            if self.write(&mut stream, reply).await.is_err() {
                return;
            }
        }
    }

    async fn write(&self, stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Said\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", reply.body.len()));
        if reply.is_hint && self.is(Fault::HintEarly) {
            let (early, rest) = reply.body.split_at(reply.body.len() / 2);
            stream.write_all(&[head.as_bytes(), early].concat()).await?;
            tokio::time::sleep(Duration::from_millis(150)).await;
            return stream.write_all(rest).await;
        }
        let all = [head.as_bytes(), &reply.body].concat();
        stream.write_all(&all).await
    }

    async fn answer(&self, request: &Request) -> Reply {
        let mut names = request.path.trim_start_matches('/').split('/');
        let (of, name) = (names.next().unwrap_or(""), names.next());
        let of = RENDITIONS.iter().find(|&&known| known == of);
        let mut reply = match (of, name) {
            (None, None) => self.playlist_reply(self.show.multivariant(), "no-store", request),
            (Some(of), Some("live.m3u8")) => self.playlist(of, request).await,
            (Some(of), Some(name)) => self.media(of, name, request).await,
            _ => self.refused(404),
        };
        if !self.is(Fault::CorsMissing) {
            let value = "*".to_owned();
            reply.headers.push(("access-control-allow-origin", value));
            let value = "Content-Length, ETag".to_owned();
            reply.headers.push(("access-control-expose-headers", value));
        }
        if self.is(Fault::Cookie) {
            reply.headers.push(("set-cookie", "a=b".to_owned()));
        }
        reply
    }

    fn refused(&self, status: u16) -> Reply {
        let age = if self.is(Fault::CacheError) { 60 } else { 1 };
        Reply {
            status,
            headers: vec![("cache-control", format!("public, max-age={age}"))],
            body: Vec::new(),
            is_hint: false,
        }
    }

    /// Lets the show go on until there is a part.
    async fn reach(&self, part: u64) {
        tokio::task::yield_now().await;
        self.edge.fetch_max((part + 1).min(END), Ordering::SeqCst);
    }

    async fn playlist(&self, of: &str, request: &Request) -> Reply {
        let edge = self.edge.load(Ordering::SeqCst);
        let all = |name: &str| {
            let same = request.query.iter().filter(move |(key, _)| key == name);
            same.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        let (msn, part) = (all("_HLS_msn"), all("_HLS_part"));
        let number = |text: &&str| text.parse::<u64>().ok();
        let is_alone = msn.is_empty() && !part.is_empty() && !self.is(Fault::DirectiveTaken);
        let is_far = msn.iter().filter_map(number).any(|m| m > edge / PARTS + 2);
        let is_odd = msn.len() > 1 || msn.iter().chain(&part).any(|text| number(text).is_none());
        if is_alone || ((is_far || is_odd) && !self.is(Fault::FarTaken)) {
            return self.refused(400);
        }
        let wanted = msn.first().and_then(number).filter(|_| !is_far);
        if let Some(msn) = wanted {
            if self.is(Fault::ReloadRefused) {
                return self.refused(500);
            }
            let part = part.first().and_then(number).unwrap_or(PARTS - 1);
            let is_early = self.is(Fault::ReloadEarly) && edge > BEGIN + 9;
            if !is_early {
                self.reach(msn * PARTS + part).await;
            }
        }
        let edge = self.edge.load(Ordering::SeqCst);
        let skip = all("_HLS_skip").first().copied();
        let mut text = self.show.playlist(of, edge, skip);
        if self.is(Fault::EndGoesOn) && edge == END && wanted.is_none() {
            text.push_str("#EXT-X-DATERANGE:ID=\"late\",START-DATE=\"2023-11-14T22:13:20Z\"\n");
        }
        let age = if wanted.is_some() { 6 } else { 1 };
        let age = match self.show.fault {
            Some(Fault::CachePlain | Fault::CacheHeld) => 7,
            Some(Fault::CacheHeldNever) => 1,
            _ => age,
        };
        self.playlist_reply(text, &format!("public, max-age={age}"), request)
    }

    fn playlist_reply(&self, text: String, cache: &str, request: &Request) -> Reply {
        let kind = match self.show.fault {
            Some(Fault::TypePlaylist) => "text/plain",
            _ => "application/vnd.apple.mpegurl",
        };
        let mut headers = vec![
            ("cache-control", cache.to_owned()),
            ("content-type", kind.to_owned()),
        ];
        if !self.is(Fault::VaryMissing) {
            headers.push(("vary", "Accept-Encoding".to_owned()));
        }
        let mut body = text.into_bytes();
        if request.takes_gzip && !self.is(Fault::GzipMissing) {
            headers.push(("content-encoding", "gzip".to_owned()));
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&body).expect("a Vec takes every write");
            body = gzip.finish().expect("a Vec takes every write");
            if self.is(Fault::GzipInvalid) && self.edge.load(Ordering::SeqCst) > BEGIN + 9 {
                body.truncate(body.len() / 2);
            }
        }
        Reply {
            status: 200,
            headers,
            body,
            is_hint: false,
        }
    }

    async fn media(&self, of: &str, name: &str, request: &Request) -> Reply {
        let number = |prefix: &str| {
            let name = name.strip_prefix(prefix)?.split('.').next()?;
            name.parse::<u64>().ok()
        };
        let edge = self.edge.load(Ordering::SeqCst);
        let mut is_hint = false;
        let body = if number("init").is_some() {
            Some(super::fragment::init(of == "aac"))
        } else if let Some(msn) = number("s") {
            self.show.segment(of, msn).filter(|_| msn < edge / PARTS)
        } else if let Some(n) = number("p") {
            is_hint = n == edge && edge < END;
            if is_hint {
                self.reach(n).await;
            }
            self.show
                .part(of, n)
                .filter(|_| n < edge + u64::from(is_hint))
        } else {
            self.is(Fault::UnknownFound).then(|| vec![0; 64])
        };
        let Some(mut body) = body.filter(|_| !(is_hint && self.is(Fault::HintRefused))) else {
            return self.refused(404);
        };
        if is_hint && self.is(Fault::HintDiffers) {
            body.push(0);
        }
        let mut reply = self.ranged(body, request);
        reply.is_hint = is_hint;
        let is_sound = (of == "aac") != self.is(Fault::TypeMedia);
        let kind = if is_sound { "audio/mp4" } else { "video/mp4" };
        reply.headers.push(("content-type", kind.to_owned()));
        if !self.is(Fault::CacheMedia) {
            let cache = "public, max-age=31536000, immutable".to_owned();
            reply.headers.push(("cache-control", cache));
        }
        if !self.is(Fault::EtagMissing) {
            reply.headers.push(("etag", format!("\"{of}-{name}\"")));
        }
        reply
    }

    fn ranged(&self, body: Vec<u8>, request: &Request) -> Reply {
        let mut reply = Reply {
            status: 200,
            headers: Vec::new(),
            body,
            is_hint: false,
        };
        let range = request
            .range
            .as_deref()
            .filter(|_| !self.is(Fault::RangeIgnored));
        let Some((from, to)) = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) else {
            return reply;
        };
        let length = reply.body.len();
        let from: usize = from.parse().unwrap_or(0);
        if from >= length {
            reply.status = if self.is(Fault::RangeBad) { 200 } else { 416 };
            return reply;
        }
        let to = to.parse().unwrap_or(length - 1).min(length - 1);
        reply.body = reply.body[from..=to].to_vec();
        reply.status = 206;
        let says = format!("bytes {from}-{to}/{length}");
        reply.headers.push(("content-range", says));
        reply
    }
}

/// The next request of a connection; None at its end.
async fn read(stream: &mut TcpStream, waiting: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = waiting.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut some = [0; 2_048];
        let read = stream.read(&mut some).await.ok().filter(|&n| n > 0)?;
        waiting.extend_from_slice(&some[..read]);
        if waiting.len() > HEAD_BYTES_MAX {
            return None;
        }
    };
    let head = String::from_utf8(waiting.drain(..end).collect()).ok()?;
    let mut lines = head.lines();
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    Some(Request {
        path: path.to_owned(),
        query: query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        range: header("range").map(str::to_owned),
        takes_gzip: header("accept-encoding").is_some_and(|v| v.contains("gzip")),
    })
}
