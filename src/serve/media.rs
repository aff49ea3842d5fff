//! The media listeners, and who answers their questions.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use lamplight_media::request::{DECISIONS_WAITING_MAX, PlayRequest, PublishRequest, Requests};
use lamplight_media::rtmp::listener::{Listener, ListenerConfig};
use lamplight_media::webrtc::{Port, PortConfig};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::StartError;
use crate::app::App;
use crate::broadcasts;

/// Opens the RTMP ports and serves them; returns their addresses.
pub(super) async fn start_rtmp(
    app: &App,
    tls: Option<TlsAcceptor>,
) -> Result<(SocketAddr, Option<SocketAddr>), StartError> {
    let config = app.config();
    let rtmp = &config.rtmp;
    let (publish, publishers) = mpsc::channel(DECISIONS_WAITING_MAX);
    let (play, players) = mpsc::channel(DECISIONS_WAITING_MAX);
    let requests = Requests { publish, play };
    let plain = Listener::bind(rtmp.listen, terms(app), Arc::clone(&app.media), requests).await;
    let failed = cannot_listen("rtmp.listen", rtmp.listen);
    let plain = plain.map_err(&failed)?;
    let bound = plain.local_addr().map_err(failed)?;
    let secured = match rtmp.tls_listen.zip(tls) {
        Some((addr, tls)) => {
            let failed = cannot_listen("rtmp.tls_listen", addr);
            let listener = plain.beside(addr).await.map_err(&failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            app.tasks
                .spawn_until_stop("rtmps.accept", accept_tls(app.clone(), listener, tls));
            Some(bound)
        }
        None => None,
    };
    app.tasks
        .spawn_until_stop("broadcasts.decide", decide(app.clone(), publishers));
    app.tasks
        .spawn_until_stop("broadcasts.decide_play", decide_play(app.clone(), players));
    app.tasks
        .spawn_until_stop("rtmp.accept", accept(app.clone(), plain));
    Ok((bound, secured))
}

/// What holds for a publisher that comes now.
fn terms(app: &App) -> ListenerConfig {
    ListenerConfig {
        bitrate_bps_max: app.config().publish.bitrate_bps_max,
    }
}

fn cannot_listen(key: &'static str, addr: SocketAddr) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Listen { key, addr, source }
}

/// Opens the UDP port of all WebRTC media and reads it; returns its address.
pub(super) fn start_webrtc(app: &App) -> Result<SocketAddr, StartError> {
    let config = app.config();
    let webrtc = &config.webrtc;
    let (key, addr) = ("webrtc.udp", webrtc.udp);
    let config = PortConfig {
        listen: addr,
        public_addrs: webrtc.public_addrs.clone(),
        public_port: Some(webrtc.public_port).filter(|port| *port != 0),
        payload_bytes_max: webrtc.payload_bytes_max,
    };
    let bound = Port::bind(config, Arc::clone(&app.media));
    let port = bound.map_err(|source| StartError::Listen { key, addr, source })?;
    let bound = port.local_addr();
    broadcasts::use_port(app, Arc::clone(&port));
    app.tasks
        .spawn("webrtc.port", port.run(app.tasks.cancel_token()));
    Ok(bound)
}

async fn accept(app: App, listener: Listener) {
    loop {
        let mut connection = listener.accept().await;
        connection.set_config(terms(&app));
        let cancel = app.tasks.cancel_token();
        app.tasks.spawn("rtmp.connection", connection.run(cancel));
    }
}

async fn accept_tls(app: App, listener: Listener, tls: TlsAcceptor) {
    loop {
        let mut connection = listener.accept().await;
        connection.set_config(terms(&app));
        let (cancel, tls) = (app.tasks.cancel_token(), tls.clone());
        app.tasks.spawn("rtmps.connection", async move {
            // The handshake has no words for its peer: it may be dropped anywhere.
            let secured = tokio::select! {
                secured = connection.over(|socket| tls.accept(socket)) => secured,
                () = cancel.cancelled() => None,
            };
            if let Some(connection) = secured {
                // Boxed: with what TLS keeps of its own it is large.
                Box::pin(connection.run(cancel)).await;
            }
        });
    }
}

/// One after the other: a question waits at most for those before it, and its listener gives up
/// after five seconds.
async fn decide(app: App, mut waiting: mpsc::Receiver<PublishRequest>) {
    while let Some(request) = waiting.recv().await {
        broadcasts::decide(&app, request).await;
    }
}

/// The same for players.
async fn decide_play(app: App, mut waiting: mpsc::Receiver<PlayRequest>) {
    while let Some(request) = waiting.recv().await {
        broadcasts::decide_play(&app, request).await;
    }
}
