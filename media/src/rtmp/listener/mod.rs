//! The tokio driver of RTMP: sockets in, samples into the hub; frames out to viewers ([`play`]).
//!
//! Invariants
//! - A connection's future ends within its timeouts, whatever the peer does, and frees all it held.
//! - Reading stops while there is something to decide or write: TCP pushes back.
//! - Neither stream key nor token appears in a log line.
//!
//! Not here: the decision who may publish or play; it goes out as a request.

mod play;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::play::{Asking, Playing};
use super::chunk::{Message, kind};
use super::gate::{Gate, Pass};
use super::session::{CloseReason, Session, SessionEvent};
use crate::broadcast::{About, Broadcasts, EndReason, Publisher};
use crate::doctor::Code;
use crate::flv::{Demuxer, FlvError};
use crate::frame::Kind;
use crate::meter::Meter;
use crate::request::{
    DECISION_TIMEOUT, Decision, Protocol, PublishRequest, Refusal, RefusalCode, Requests,
};

/// What is read at once from a publisher, and from whoever is none yet: those who never become one
/// are many, and cost little.
const READ_BYTES_MAX: usize = 64 << 10;
const TALK_BYTES_MAX: usize = 4 << 10;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A listener that cannot accept says so at most this often.
const ACCEPT_WARN_EVERY: Duration = Duration::from_secs(60);
/// After the last message, what the peer still sends is read and thrown away: input unread at the
/// close makes the kernel send a reset, which overtakes that message.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 4 << 20;
/// Of what the kernel holds for a viewer; Linux doubles what it is asked for.
const SEND_BUFFER_BYTES: usize = 512 << 10;

/// What a listener must know.
#[derive(Clone, Copy, Debug)]
pub struct ListenerConfig {
    /// Bits per second a publisher may send.
    pub bitrate_bps_max: u64,
}

/// An RTMP port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    config: ListenerConfig,
    gate: Gate,
    hub: Arc<Broadcasts>,
    requests: Requests,
    warned: Mutex<Option<Instant>>,
}

impl Listener {
    /// Opens the port. What connections ask goes to `requests`.
    ///
    /// # Errors
    /// The port is taken or may not be opened.
    pub async fn bind(
        addr: SocketAddr,
        config: ListenerConfig,
        hub: Arc<Broadcasts>,
        requests: Requests,
    ) -> io::Result<Self> {
        let socket = TcpListener::bind(addr).await?;
        Ok(Self {
            socket,
            config,
            gate: Gate::default(),
            hub,
            requests,
            warned: Mutex::default(),
        })
    }

    /// Opens another port to the same end: what an address may do counts on both together.
    ///
    /// # Errors
    /// The port is taken or may not be opened.
    pub async fn beside(&self, addr: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(addr).await?,
            config: self.config,
            gate: self.gate.clone(),
            hub: Arc::clone(&self.hub),
            requests: self.requests.clone(),
            warned: Mutex::default(),
        })
    }

    /// The address it really has.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The next connection that may come in; run it. Cancel-safe.
    pub async fn accept(&self) -> Connection {
        loop {
            let (socket, peer) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(err) => {
                    // Out of file descriptors, most likely: those that run must go on.
                    self.warn_of_accept(Instant::now(), &err);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match self.gate.enter(Instant::now(), peer.ip().to_canonical()) {
                Ok(pass) => {
                    drop(socket.set_nodelay(true));
                    let buffers = SockRef::from(&socket);
                    drop(buffers.set_send_buffer_size(SEND_BUFFER_BYTES / 2));
                    return Connection {
                        socket,
                        peer,
                        pass,
                        session: Session::new(Instant::now()),
                        demuxer: Demuxer::new(),
                        meter: Meter::new(Instant::now(), self.config.bitrate_bps_max),
                        hub: Arc::clone(&self.hub),
                        requests: self.requests.clone(),
                        state: State::Talking,
                    };
                }
                Err(turned) => self.hub.stats().reject("rtmp", turned.reason()),
            }
        }
    }

    /// Says that no connection can be accepted, once a minute; true when it said so.
    fn warn_of_accept(&self, now: Instant, err: &io::Error) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| now.saturating_duration_since(at) < ACCEPT_WARN_EVERY) {
            return false;
        }
        *warned = Some(now);
        warn!(
            error = err as &dyn std::error::Error,
            "no connection can be accepted now"
        );
        true
    }
}

enum State {
    /// Before the request to publish.
    Talking,
    /// Waiting for the decision until the time given.
    Deciding(oneshot::Receiver<Decision>, Instant),
    /// Publishing.
    Live(Publisher),
    /// Waiting for what a player asked for, or playing.
    Asking(Box<Asking>),
    Playing(Box<Playing>),
    /// The peer said that it stops: it hangs up by itself.
    Left,
    /// Output is written, then the socket is closed.
    Done,
}

/// One accepted connection.
pub struct Connection<S = TcpStream> {
    socket: S,
    peer: SocketAddr,
    pass: Pass,
    session: Session,
    demuxer: Demuxer,
    meter: Meter,
    hub: Arc<Broadcasts>,
    requests: Requests,
    state: State,
}

impl<S> std::fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Connection<TcpStream> {
    /// Takes the place of the listener's [`ListenerConfig`], for a server that changed its mind.
    pub const fn set_config(&mut self, config: ListenerConfig) {
        self.meter.limit_bps = config.bitrate_bps_max;
    }

    /// The same over a stream made of its socket, for example TLS. Making it takes of the time that
    /// the handshake of RTMP has; `None` when nothing came of it.
    pub async fn over<S, F>(self, make: impl FnOnce(TcpStream) -> F) -> Option<Connection<S>>
    where
        F: Future<Output = io::Result<S>>,
    {
        let made = tokio::select! {
            biased;
            made = make(self.socket) => made.map_err(|_broken| CloseReason::Handshake),
            () = due(self.session.deadline()) => Err(CloseReason::TimeoutHandshake),
        };
        let socket = match made {
            Ok(socket) => socket,
            Err(reason) => {
                debug!(reason = reason.reason(), "connection closed");
                self.hub.stats().reject("rtmp", reason.reason());
                return None;
            }
        };
        Some(Connection {
            socket,
            peer: self.peer,
            pass: self.pass,
            session: self.session,
            demuxer: self.demuxer,
            meter: self.meter,
            hub: self.hub,
            requests: self.requests,
            state: self.state,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Serves the connection to its end, or until `cancel`.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.serve(&cancel).await;
        self.say_goodbye(&cancel).await;
    }

    async fn serve(&mut self, cancel: &CancellationToken) {
        let mut buffer = BytesMut::new();
        loop {
            self.act();
            if !self.flush().await || matches!(self.state, State::Left | State::Done) {
                break;
            }
            let is_reading = !matches!(self.state, State::Deciding(..) | State::Asking(_));
            let most = if matches!(self.state, State::Live(_)) {
                READ_BYTES_MAX
            } else {
                TALK_BYTES_MAX
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => self.stop(),
                news = news(&mut self.state) => match news {
                    News::Decided(decision) => self.decide(decision),
                    News::Ended(reason) => self.end(reason),
                    News::Play(news) => if !self.play_news(news, cancel).await { break; },
                },
                () = due(self.session.deadline()) => self.session.tick(Instant::now()),
                read = read(&mut self.socket, &mut buffer, most), if is_reading => match read {
                    Ok(0) | Err(_) => {
                        self.session.hang_up();
                        self.act();
                        break;
                    }
                    Ok(_) => self.receive(&mut buffer),
                },
            }
        }
    }

    fn receive(&mut self, buffer: &mut BytesMut) {
        let now = Instant::now();
        let is_over = self.meter.add(now, buffer.len());
        self.session.receive(now, buffer);
        buffer.clear();
        if is_over && matches!(self.state, State::Live(_)) {
            let sentence = Code::BitrateHigh.sentence(0.0, self.meter.limit_bps / 1_000);
            let sentence = format!("The bitrate is too high. {sentence}");
            self.turn_away(RefusalCode::Unsupported, sentence, "bitrate");
        }
    }

    /// Does what the session asks for.
    fn act(&mut self) {
        while let Some(event) = self.session.poll() {
            match event {
                SessionEvent::PublishRequested {
                    app,
                    tc_url,
                    stream_name,
                } => {
                    self.ask(app, tc_url, stream_name);
                }
                SessionEvent::PlayRequested { app, name, query } => {
                    self.ask_to_play(app, name, query);
                }
                SessionEvent::Paused(is_paused) => self.pause(is_paused),
                SessionEvent::Media(message) => self.media(message),
                SessionEvent::Encoder(name) => {
                    if let State::Live(publisher) = &mut self.state {
                        publisher.name_encoder(Instant::now(), &name);
                    }
                }
                SessionEvent::Finished => {
                    self.finish(EndReason::Finished);
                    self.state = State::Left;
                }
                SessionEvent::Closed(reason) => self.closed(reason),
            }
        }
    }

    fn ask(&mut self, app: String, tc_url: String, stream_name: String) {
        let (reply, decision) = oneshot::channel();
        let request = PublishRequest {
            protocol: Protocol::Rtmp,
            app,
            tc_url,
            stream_name,
            peer: self.peer,
            reply,
        };
        if self.requests.publish.try_send(request).is_err() {
            let refusal = try_again();
            self.refuse(&refusal, refusal.code.reason());
            return;
        }
        self.state = State::Deciding(decision, Instant::now() + DECISION_TIMEOUT);
    }

    fn decide(&mut self, decision: Decision) {
        let now = Instant::now();
        match decision {
            Decision::Accept(mut publisher) => {
                publisher.introduce(
                    now,
                    About {
                        protocol: Protocol::Rtmp,
                        bitrate_bps_max: self.meter.limit_bps,
                    },
                );
                info!(broadcast.id = %publisher.broadcast().key(), "publisher accepted");
                self.hub
                    .stats()
                    .add_two("publish_sessions_total", ["rtmp", "accepted"], 1);
                self.session.accept(now);
                self.pass.accepted(now);
                self.state = State::Live(publisher);
            }
            Decision::Reject(refusal) => {
                let labels = ["rtmp", refusal.code.reason()];
                self.hub
                    .stats()
                    .add_two("publish_sessions_total", labels, 1);
                self.state = State::Talking;
                self.refuse(&refusal, refusal.code.reason());
            }
        }
    }

    fn media(&mut self, message: Message) {
        let State::Live(publisher) = &mut self.state else {
            return;
        };
        let now = Instant::now();
        let kind = if message.type_id == kind::VIDEO {
            Kind::Video
        } else {
            Kind::Audio
        };
        let fault = match self
            .demuxer
            .push(now, kind, message.timestamp, message.payload)
        {
            Ok(units) => {
                if units.has_others {
                    self.hub.stats().reject("rtmp", "multitrack");
                    publisher.found(now, Code::Multitrack);
                }
                let changed = units.track.map(|track| publisher.set_track(now, track));
                if let Some(Err(_codec)) = changed {
                    self.finish(EndReason::CodecChanged);
                    return;
                }
                if let Some(sample) = units.sample {
                    publisher.write(now, sample);
                }
                return;
            }
            Err(fault) => fault,
        };
        if !fault.is_fatal() {
            let stats = self.hub.stats();
            stats.reject("rtmp", fault.reason());
            stats.add_two("ingest_frames_dropped_total", ["rtmp", fault.reason()], 1);
            return;
        }
        let code = match fault {
            FlvError::Broken => RefusalCode::TryAgain,
            _ => RefusalCode::Unsupported,
        };
        self.turn_away(code, sentence(&fault), fault.reason());
    }

    /// Ends a publisher with a sentence it can show. What it sent behind the fault is ignored.
    fn turn_away(&mut self, code: RefusalCode, sentence: String, reason: &'static str) {
        warn!(reason, "publisher turned away");
        self.refuse(&Refusal { code, sentence }, reason);
        // Viewers stay for as long as after a broken connection: the setting is soon mended.
        self.finish(EndReason::Lost);
    }

    /// Says no, and holds it against the peer: counted once, here.
    fn refuse(&mut self, refusal: &Refusal, reason: &'static str) {
        self.hub.stats().reject("rtmp", reason);
        self.pass.refused(Instant::now());
        self.session.refuse(refusal);
    }

    fn closed(&mut self, reason: CloseReason) {
        let word = reason.reason();
        let end = match reason {
            // Who refused has counted and told it.
            CloseReason::Refused(_) => EndReason::Lost,
            CloseReason::Handshake => {
                // Port scans and health checks: nothing for a person to look at.
                debug!(reason = word, "connection closed");
                self.hub.stats().reject("rtmp", word);
                EndReason::Lost
            }
            _ => {
                if reason == CloseReason::Dialogue {
                    self.pass.refused(Instant::now());
                }
                warn!(reason = word, "connection closed");
                self.hub.stats().reject("rtmp", word);
                EndReason::Lost
            }
        };
        self.finish(end);
    }

    /// The server ended the broadcast, or a newer connection with this key took it over.
    fn end(&mut self, reason: EndReason) {
        let sentence = if reason == EndReason::Replaced {
            "This stream was replaced by a newer connection with the same stream key. Stop one of \
             the two encoders."
        } else {
            "The server ended this broadcast."
        };
        info!(reason = reason.reason(), "publishing ended by the server");
        self.session.refuse(&Refusal {
            code: RefusalCode::NotAllowed,
            sentence: sentence.to_owned(),
        });
    }

    fn stop(&mut self) {
        let sentence = "The server is stopping. Start again in a moment.".to_owned();
        self.session.refuse(&Refusal {
            code: RefusalCode::TryAgain,
            sentence,
        });
        self.finish(EndReason::Shutdown);
    }

    fn finish(&mut self, reason: EndReason) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Live(publisher) => {
                info!(broadcast.id = %publisher.broadcast().key(), reason = reason.reason(),
                    "publisher gone");
                publisher.finish(reason);
            }
            State::Playing(playing) => playing.end(reason),
            _ => {}
        }
    }

    /// Writes what the session has to say; `false` when the peer does not take it.
    async fn flush(&mut self) -> bool {
        let output = self.session.take_output();
        if output.is_empty() {
            return true;
        }
        let written = timeout(WRITE_TIMEOUT, self.socket.write_all(&output)).await;
        matches!(written, Ok(Ok(())))
    }

    async fn say_goodbye(mut self, cancel: &CancellationToken) {
        if matches!(self.state, State::Left) {
            // GStreamer takes a server that closes first, between its last commands, for a broken
            // connection, and ends with an error what it ended in good order.
            self.linger(cancel).await;
        }
        self.finish(EndReason::Lost);
        let unknown = u64::from(self.session.ignored());
        if unknown > 0 {
            let stats = self.hub.stats();
            stats.add("unknown_commands_total", "rtmp", unknown);
        }
        if !matches!(
            timeout(WRITE_TIMEOUT, self.socket.shutdown()).await,
            Ok(Ok(()))
        ) {
            return;
        }
        self.linger(cancel).await;
    }

    /// Gives the peer a while to hang up.
    async fn linger(&mut self, cancel: &CancellationToken) {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            _ = timeout(LINGER, discard(&mut self.socket)) => {}
        }
    }
}

/// Reads to the end of what the peer sends, at most [`LINGER_BYTES_MAX`].
async fn discard(socket: &mut (impl AsyncRead + Unpin)) {
    let mut buffer = BytesMut::new();
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        match read(socket, &mut buffer, TALK_BYTES_MAX).await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
        buffer.clear();
    }
}

enum News {
    Decided(Decision),
    Ended(EndReason),
    Play(play::News),
}

/// What the server says next: its decision, a refusal when that does not come in time, or the end
/// of the broadcast.
async fn news(state: &mut State) -> News {
    match state {
        State::Deciding(decision, until) => {
            let decision = match tokio::time::timeout_at(*until, decision).await {
                Ok(Ok(decision)) => decision,
                _ => Decision::Reject(try_again()),
            };
            News::Decided(decision)
        }
        State::Live(publisher) => News::Ended(publisher.ended().await),
        State::Asking(asking) => News::Play(asking.news().await),
        State::Playing(playing) => News::Play(playing.news().await),
        State::Talking | State::Left | State::Done => std::future::pending().await,
    }
}

async fn due(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Reads what is there, but no more than this.
async fn read(
    socket: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    most: usize,
) -> io::Result<usize> {
    buffer.reserve(most);
    let mut limited = bytes::BufMut::limit(buffer, most);
    socket.read_buf(&mut limited).await
}

fn try_again() -> Refusal {
    let sentence = "The server is busy. Try again in a few seconds.".to_owned();
    Refusal {
        code: RefusalCode::TryAgain,
        sentence,
    }
}

fn sentence(fault: &FlvError) -> String {
    match fault {
        FlvError::Codec(name) => format!(
            "{name} is not taken. In OBS: Settings, Output, Streaming: choose an H.264 video \
             encoder and AAC audio."
        ),
        FlvError::PictureTooLarge(width, height) => format!(
            "The picture of {width}x{height} is too large. In OBS: Settings, Video, Output \
             (Scaled) Resolution: at most 7680x4320."
        ),
        FlvError::FrameRate(rate) => format!(
            "{rate} frames a second are too many. In OBS: Settings, Video, Common FPS Values: at \
             most 120."
        ),
        _ => "The stream is damaged. Start it again; if this repeats, update the encoder.".into(),
    }
}

#[cfg(test)]
mod tests;
