//! Starts all parts in order, stops them in reverse.
//!
//! Order: certificate, data directory and keys, database and schema, relay, jobs, media listeners,
//! HTTP. The server is ready when every listener accepts.
//!
//! Invariants
//! - After the stop signal the process ends within 15 s, whatever hangs.
//! - What was acknowledged is committed: stopping loses nothing of it.

mod admin;
pub mod cli;
mod demo;
mod descriptors;
mod doctor;
mod http;
mod log;
mod media;
mod reload;
mod tls;
mod verify;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lamplight_media::broadcast::{Broadcasts, EndReason, Limits, encoders_max_default};
use lamplight_media::transcode::overload;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use self::tls::Tls;
pub use self::tls::TlsError;

use crate::app::{App, Bound, Handles, Parts, Phase, Secrets, SecretsError};
use crate::clock::Clock;
use crate::config::{Config, Current};
use crate::db::{self, Db};
use crate::events::{Bus, Relay};
use crate::tasks::Tasks;
use crate::{broadcasts, catalog, ledger, live, orders, rooms, router};

/// For connections to end by themselves after the drain.
const GOODBYE: Duration = Duration::from_secs(2);
/// For tasks to notice that they are cancelled.
const CANCEL: Duration = Duration::from_millis(800);
const IS_IDLE_EVERY: Duration = Duration::from_millis(100);
const SWEEP_EVERY: Duration = Duration::from_secs(15 * 60);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("making the data directory {0}")]
    DataDir(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Db(#[from] db::OpenError),
    #[cfg(feature = "s3")]
    #[error(transparent)]
    Store(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    SigningKey(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    OfferKeys(Box<dyn std::error::Error + Send + Sync>),
    #[error("bringing the schema up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("{key} = {addr}: cannot listen there; is another server running?")]
    Listen {
        key: &'static str,
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    app: App,
    bound: Bound,
    tls: Option<Tls>,
}

impl Server {
    /// Starts everything; returns when every listener accepts.
    ///
    /// # Errors
    /// [`StartError`] says what to change.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        crate::http::install_recorder();
        let tls = config.http.tls.as_ref().map(Tls::open).transpose()?;
        let app = open(config, clock).await?;
        #[cfg(feature = "s3")]
        broadcasts::open_store(&app).map_err(|err| StartError::Store(err.into()))?;
        ledger::open_signing_key(&app).map_err(|err| StartError::SigningKey(err.into()))?;
        rooms::open_offer_keys(&app).map_err(|err| StartError::OfferKeys(err.into()))?;
        start_jobs(&app);
        let config = app.config();
        let http = listen("http.listen", config.http.listen).await?;
        let admin = listen("http.admin_listen", config.http.admin_listen).await?;
        let https = match &tls {
            Some(tls) => {
                let listener = listen("http.tls_listen", config.http.tls_listen).await?;
                Some((listener, tls.http()?))
            }
            None => None,
        };
        let for_rtmp = tls.as_ref().map(Tls::rtmp).transpose()?;
        let (rtmp, rtmps) = media::start_rtmp(&app, for_rtmp).await?;
        let bound = Bound {
            http: address("http.listen", &http)?,
            https: https
                .as_ref()
                .map(|(listener, _)| address("http.tls_listen", listener))
                .transpose()?,
            admin: address("http.admin_listen", &admin)?,
            rtmp,
            rtmps,
            webrtc: media::start_webrtc(&app)?,
        };
        app.bound.set(bound).expect("a server is started once");
        let routes = router::routes(&app);
        if let Some((listener, tls)) = https {
            http::start_tls(&app, "https", listener, routes.clone(), tls);
        }
        http::start(&app, "http", http, routes);
        http::start(&app, "http.admin", admin, router::admin_routes(&app));
        app.phase.send_replace(Phase::Running);
        info!(http.addr = %bound.http, rtmp.addr = %bound.rtmp, "accepting");
        Ok(Self { app, bound, tls })
    }

    pub const fn app(&self) -> &App {
        &self.app
    }

    pub const fn bound(&self) -> Bound {
        self.bound
    }

    /// Serves on for at most `drain` while something is live, then stops everything. Returns the
    /// tasks that did not end, which is a fault.
    pub async fn stop(self, drain: Duration) -> BTreeMap<&'static str, usize> {
        let app = &self.app;
        app.phase.send_replace(Phase::Draining);
        app.media.drain();
        let is_idle = async {
            while !app.media.list().is_empty() {
                tokio::time::sleep(IS_IDLE_EVERY).await;
            }
        };
        // Time over is as good as idle.
        drop(timeout(drain, is_idle).await);
        app.phase.send_replace(Phase::Stopping);
        for broadcast in app.media.list() {
            broadcast.end(EndReason::Shutdown);
        }
        let said_goodbye = async {
            while app.tasks.running().contains_key(http::CONNECTION) {
                tokio::time::sleep(IS_IDLE_EVERY / 10).await;
            }
        };
        let recorded = broadcasts::recorded(app);
        let (said, kept) = tokio::join!(timeout(GOODBYE, said_goodbye), timeout(GOODBYE, recorded));
        drop(said);
        if kept.is_err() {
            warn!("the store is slow: recordings get their end at the next start");
        }
        let left = app.tasks.stop(CANCEL).await;
        for (name, count) in &left {
            warn!(task.name = name, task.count = count, "task did not end");
        }
        let relay = Relay::new(app.db.clone(), app.bus.clone());
        match timeout(CANCEL, relay.drain()).await {
            Ok(Ok(())) => {}
            _ => info!("events are left for the next start"),
        }
        drop(timeout(CANCEL, app.db.close()).await);
        left
    }
}

/// Opens what every command needs: data directory, keys, database with its schema.
pub(crate) async fn open(config: Config, clock: Clock) -> Result<App, StartError> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(|err| StartError::DataDir(dir.clone(), err))?;
    let secrets = Secrets::open(dir)?;
    let db = Db::open(&config.db.url, dir).await?;
    db.migrate().await?;
    let limits = media_limits(&config);
    Ok(App::new(Handles {
        clock,
        db,
        bus: Bus::default(),
        tasks: Tasks::new(),
        media: Broadcasts::new(limits),
        secrets,
        phase: watch::Sender::new(Phase::Starting),
        bound: OnceLock::new(),
        parts: Parts::default(),
        current: Current::new(config),
    }))
}

/// The bounds of the media core.
fn media_limits(config: &Config) -> Limits {
    Limits {
        broadcasts_max: config.limits.broadcasts_max,
        encoders_max: match config.convert.encoders_max {
            0 => encoders_max_default(),
            count => count,
        },
    }
}

fn start_jobs(app: &App) {
    let media = Arc::clone(&app.media);
    app.tasks.spawn_until_stop(
        "convert.overload",
        async move { overload::watch(&media).await },
    );
    let relay = Relay::new(app.db.clone(), app.bus.clone());
    app.tasks.spawn_until_stop("events.relay", relay.run());
    app.tasks
        .spawn_until_stop("broadcasts.news", broadcasts::news(app.clone()));
    let media = Arc::clone(&app.media);
    app.tasks
        .spawn_until_stop("broadcasts.watch", async move { media.watch().await });
    app.tasks
        .spawn_until_stop("broadcasts.usage", broadcasts::watch_usage(app.clone()));
    app.tasks
        .spawn_until_stop("record.recover", broadcasts::recover(app.clone()));
    app.tasks
        .spawn_until_stop("rooms.look_after", rooms::run(app.clone()));
    app.tasks
        .spawn_until_stop("rooms.follow_stock", rooms::follow_stock(app.clone()));
    app.tasks
        .spawn_until_stop("live.follow_stock", live::run(app.clone()));
    app.tasks
        .spawn("catalog.sequencer", catalog::run(app.clone()));
    app.tasks
        .spawn_until_stop("orders.expire", orders::run(app.clone()));
    app.tasks
        .spawn_until_stop("ledger.close_days", ledger::run(app.clone()));
    app.tasks
        .spawn_until_stop("http.sweep", sweep_answers(app.clone()));
}

async fn sweep_answers(app: App) {
    let mut at = Instant::now();
    loop {
        at += SWEEP_EVERY;
        tokio::time::sleep_until(at).await;
        if let Err(err) = crate::http::sweep(&app.db, app.clock.now()).await {
            warn!(
                error = &err as &dyn std::error::Error,
                "clearing old answers failed"
            );
        }
    }
}

async fn listen(key: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| StartError::Listen { key, addr, source })
}

fn address(key: &'static str, listener: &TcpListener) -> Result<SocketAddr, StartError> {
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    listener.local_addr().map_err(|source| StartError::Listen {
        key,
        addr: unspecified,
        source,
    })
}
