//! Configuration: defaults, then a file, then the environment, then arguments.
//!
//! Invariants
//! - A key nobody reads and a value nobody can use stop the start, one line each, all at once.
//! - `config/default.toml` holds exactly the keys read here.
//! - Read again while running it changes as a whole or not at all ([`Current`]).

mod current;
mod ladder;
mod reader;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use time::UtcOffset;

pub use self::current::Current;
pub use self::ladder::Rung;
use self::reader::{Reader, Values};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub http: Http,
    pub rtmp: Rtmp,
    pub webrtc: Webrtc,
    pub hls: Hls,
    pub flv: Flv,
    pub record: Record,
    pub convert: Convert,
    /// The renditions below the source.
    pub ladder: Vec<Rung>,
    pub publish: Publish,
    pub limits: Limits,
    pub accounts: Accounts,
    pub merchants: Merchants,
    pub ledger: Ledger,
    pub db: Db,
    pub log: Log,
    pub shutdown: Shutdown,
    /// What was set, by key: tells what another reading changed.
    values: Values,
}

#[derive(Clone, Debug)]
pub struct Http {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub tls_listen: SocketAddr,
    /// Both files or neither: TLS is on or off.
    pub tls: Option<TlsFiles>,
    pub cors_origins: Vec<String>,
    pub trusted_proxies: Vec<IpAddr>,
}

/// PEM files of the certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug)]
pub struct Rtmp {
    pub listen: SocketAddr,
    pub tls_listen: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
pub struct Webrtc {
    pub udp: SocketAddr,
    pub public_addrs: Vec<IpAddr>,
    pub public_port: u16,
    pub payload_bytes_max: usize,
    pub ice_servers: Vec<IceServer>,
}

/// A STUN or TURN server that players are told of.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    /// For example `turn:turn.example:3478?transport=udp`.
    pub url: String,
    /// User name and credential, which a TURN server wants.
    pub user: Option<(String, String)>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl IceServer {
    /// Reads `stun:HOST`, or `turn:HOST USER CREDENTIAL`.
    fn parse(text: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_graphic() && !b"\"\\<>,;".contains(&b);
        if !text.bytes().all(|b| is_plain(b) || b == b' ') {
            return None;
        }
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let (url, user) = match words.as_slice() {
            [url] if url.starts_with("stun:") => (url, None),
            [url, user, credential] if url.starts_with("turn:") => {
                (url, Some(((*user).to_owned(), (*credential).to_owned())))
            }
            _ => return None,
        };
        let url = (*url).to_owned();
        (url.len() > "stun:".len()).then_some(Self { url, user })
    }
}

#[derive(Clone, Debug)]
pub struct Hls {
    pub target_duration: Duration,
    pub segment_target: Duration,
    pub part_target: Duration,
    pub window: Duration,
    pub dvr: Duration,
    pub gap_after: Duration,
    pub silent_audio: bool,
    pub sessions: bool,
}

#[derive(Clone, Debug)]
pub struct Flv {
    pub merge: Duration,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub enabled: bool,
    /// None: in the data directory.
    pub dir: Option<PathBuf>,
    /// None: a directory.
    pub store: Option<S3Store>,
}

/// A bucket of a store that speaks S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Store {
    pub bucket: String,
    /// Before the keys in it; without slashes at its ends.
    pub prefix: String,
    /// None: that of AWS in the region.
    pub endpoint: Option<String>,
    pub region: String,
    pub credentials_file: PathBuf,
}

impl S3Store {
    /// As it stands in the configuration.
    pub fn name(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }

    /// Bucket and prefix of `s3://BUCKET[/PREFIX]`.
    fn parse(text: &str) -> Option<(String, String)> {
        let rest = text.strip_prefix("s3://")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let is_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        let is_piece = |piece: &str| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
            !piece.is_empty() && !piece.starts_with('.') && piece.bytes().all(is_plain)
        };
        let is_good = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(is_label)
            && (prefix.is_empty() || prefix.split('/').all(is_piece));
        is_good.then(|| (bucket.to_owned(), prefix.to_owned()))
    }
}

#[derive(Clone, Debug)]
pub struct Ledger {
    /// Where days begin and end.
    pub utc_offset: UtcOffset,
    /// None: day closes are not signed.
    pub signing_key_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Convert {
    pub encoder: String,
    pub encoder_fallback: Vec<String>,
    /// 0: two for each core.
    pub encoders_max: usize,
    pub gop: Duration,
    pub linger: Duration,
    pub clean_height_max: u32,
}

#[derive(Clone, Debug)]
pub struct Publish {
    pub bitrate_bps_max: u64,
    pub takeover: Takeover,
    pub grace: Duration,
    pub stop_grace: Duration,
}

/// Who stays when a second encoder comes with the same key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Takeover {
    #[default]
    Newest,
    Refuse,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub broadcasts_max: usize,
    pub room_viewers_max: usize,
    pub whep_max: usize,
    /// 0: no limit.
    pub egress_bps_max: u64,
    /// 0: no limit.
    pub memory_bytes_max: u64,
}

#[derive(Clone, Debug)]
pub struct Accounts {
    /// Whether everyone may register.
    pub open: bool,
}

#[derive(Clone, Debug)]
pub struct Merchants {
    /// Whether everyone may open a shop.
    pub open: bool,
}

#[derive(Clone)]
pub struct Db {
    /// May hold a password: never logged.
    pub url: String,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug)]
pub struct Shutdown {
    pub drain: Duration,
}

/// Where values come from besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `section.key=value` that stand in for the defaults.
    pub presets: Vec<String>,
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Whether `LAMPLIGHT_*` variables count.
    pub environment: bool,
    /// `section.key=value`, the last one wins.
    pub settings: Vec<String>,
}

/// All that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines.join("\n"))]
pub struct ConfigError {
    /// One sentence each: key, value, where it was set, what is allowed.
    pub lines: Vec<String>,
}

impl Config {
    /// Reads all sources and checks every value.
    ///
    /// # Errors
    /// [`ConfigError`] lists everything that must be changed.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Toml::string(DEFAULTS));
        let mut lines = Vec::new();
        figment = set(figment, &sources.presets, &mut lines);
        if let Some(path) = &sources.file {
            if !path.is_file() {
                lines.push(format!("config file {} cannot be read", path.display()));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        if sources.environment {
            figment = figment.merge(environment());
        }
        figment = set(figment, &sources.settings, &mut lines);
        let mut reader = Reader::new(figment, lines);
        let mut config = Self::read(&mut reader);
        config.check_together(&mut reader);
        config.values = reader.finish()?;
        Ok(config)
    }

    fn read(reader: &mut Reader) -> Self {
        Self {
            data_dir: PathBuf::from(reader.text("data_dir", "a path")),
            http: Http::read(reader),
            rtmp: Rtmp {
                listen: reader.value("rtmp.listen", ADDRESS),
                tls_listen: reader.address_or_none("rtmp.tls_listen", ADDRESS),
            },
            webrtc: Webrtc::read(reader),
            hls: Hls::read(reader),
            flv: Flv {
                merge: reader.millis("flv.merge_ms", 0..=350),
            },
            record: Record::read(reader),
            convert: Convert::read(reader),
            ladder: ladder::read(reader),
            publish: Publish::read(reader),
            limits: Limits {
                broadcasts_max: reader.count("limits.broadcasts_max", 1..=10_000),
                room_viewers_max: reader.count("limits.room_viewers_max", 1..=1_000_000),
                whep_max: reader.count("limits.whep_max", 1..=100_000),
                egress_bps_max: reader.number("limits.egress_bps_max", 0..=1_000_000_000_000),
                memory_bytes_max: reader
                    .number("limits.memory_bytes_max", 0..=1_000_000_000_000_000),
            },
            accounts: Accounts {
                open: reader.value("accounts.open", "true or false"),
            },
            merchants: Merchants {
                open: reader.value("merchants.open", "true or false"),
            },
            ledger: Ledger::read(reader),
            db: Db {
                url: reader.value("db.url", "a URL, or \"\" for SQLite in data_dir"),
            },
            log: Log {
                level: reader.text("log.level", LEVELS),
                format: reader.value("log.format", "text or json"),
            },
            shutdown: Shutdown {
                drain: reader.seconds("shutdown.drain_s", 0..=12),
            },
            values: Values::default(),
        }
    }

    /// Rules over several keys.
    fn check_together(&self, reader: &mut Reader) {
        let hls = &self.hls;
        let part_ms = hls.part_target.as_millis();
        if !hls.segment_target.as_millis().is_multiple_of(part_ms) {
            reader.refuse(
                "hls.segment_ms_target",
                "a whole number of hls.part_ms_target",
            );
        }
        if hls.segment_target > hls.target_duration {
            reader.refuse("hls.segment_ms_target", "at most hls.target_duration_s");
        }
        if hls.window < hls.target_duration * 6 {
            reader.refuse("hls.window_s", "at least 6 times hls.target_duration_s");
        }
        if !hls.dvr.is_zero() && hls.dvr < hls.window {
            reader.refuse("hls.dvr_s", "0, or at least hls.window_s");
        }
        if self.rtmp.tls_listen.is_some() && self.http.tls.is_none() {
            reader.refuse("rtmp.tls_listen", "\"\" while http.tls_cert is not set");
        }
        let has_scheme = ["sqlite://", "postgres://", "postgresql://"]
            .iter()
            .any(|scheme| self.db.url.starts_with(scheme));
        if !self.db.url.is_empty() && !has_scheme {
            reader.refuse("db.url", "a URL that starts with postgres:// or sqlite://");
        }
        let level = tracing_subscriber::EnvFilter::builder().parse(&self.log.level);
        if level.is_err() {
            reader.refuse("log.level", LEVELS);
        }
    }
}

const LEVELS: &str = "error, warn, info, debug, trace or a filter";
const ADDRESS: &str = "an address and port, for example 0.0.0.0:8080 or [::]:8080";
const ICE_SERVERS: &str =
    "a list of stun:HOST or \"turn:HOST USER CREDENTIAL\", for example [\"stun:stun.example\"]";
const ADDRESSES: &str = "a list of IP addresses, for example [\"203.0.113.7\"]";

impl Http {
    fn read(reader: &mut Reader) -> Self {
        Self {
            listen: reader.value("http.listen", ADDRESS),
            admin_listen: reader.value("http.admin_listen", ADDRESS),
            tls_listen: reader.value("http.tls_listen", ADDRESS),
            tls: TlsFiles::read(reader),
            cors_origins: reader.origins("http.cors_origins"),
            trusted_proxies: reader.value("http.trusted_proxies", ADDRESSES),
        }
    }
}

impl TlsFiles {
    fn read(reader: &mut Reader) -> Option<Self> {
        let path = "the path of a PEM file, or \"\" for no TLS";
        let cert: String = reader.value("http.tls_cert", path);
        let key: String = reader.value("http.tls_key", path);
        match (cert.is_empty(), key.is_empty()) {
            (true, true) => return None,
            (false, false) => {}
            (true, false) => reader.refuse("http.tls_cert", "set, since http.tls_key is"),
            (false, true) => reader.refuse("http.tls_key", "set, since http.tls_cert is"),
        }
        let (cert, key) = (PathBuf::from(cert), PathBuf::from(key));
        Some(Self { cert, key })
    }
}

impl Webrtc {
    fn read(reader: &mut Reader) -> Self {
        Self {
            udp: reader.value("webrtc.udp", ADDRESS),
            public_addrs: reader.value("webrtc.public_addrs", ADDRESSES),
            public_port: reader.value("webrtc.public_port", "a port, 0 to 65535"),
            payload_bytes_max: reader.count("webrtc.payload_bytes_max", 500..=1_200),
            ice_servers: reader.list("webrtc.ice_servers", ICE_SERVERS, IceServer::parse),
        }
    }
}

impl Publish {
    fn read(reader: &mut Reader) -> Self {
        Self {
            bitrate_bps_max: reader.number("publish.bitrate_bps_max", 100_000..=500_000_000),
            takeover: reader.value("publish.takeover", "newest or refuse"),
            grace: reader.seconds("publish.grace_s", 0..=600),
            stop_grace: reader.seconds("publish.stop_grace_s", 0..=600),
        }
    }
}

impl Hls {
    fn read(reader: &mut Reader) -> Self {
        Self {
            target_duration: reader.seconds("hls.target_duration_s", 1..=10),
            segment_target: reader.millis("hls.segment_ms_target", 200..=10_000),
            part_target: reader.millis("hls.part_ms_target", 200..=1_000),
            window: reader.seconds("hls.window_s", 6..=120),
            dvr: reader.seconds("hls.dvr_s", 0..=21_600),
            gap_after: reader.millis("hls.gap_after_ms", 500..=10_000),
            silent_audio: reader.value("hls.silent_audio", "true or false"),
            sessions: reader.value("hls.sessions", "true or false"),
        }
    }
}

/// Encoders of H.264 that can be named.
pub const ENCODER_NAMES: [&str; 5] = [
    "libx264",
    "h264_nvenc",
    "h264_vaapi",
    "h264_qsv",
    "libopenh264",
];
const ENCODERS: &str = "libx264, h264_nvenc, h264_vaapi, h264_qsv or libopenh264";
const ENCODER_LIST: &str = "a list of libx264, h264_nvenc, h264_vaapi, h264_qsv, libopenh264";

fn encoder(name: &str) -> Option<String> {
    ENCODER_NAMES.contains(&name).then(|| name.to_owned())
}

fn read_encoder(reader: &mut Reader) -> String {
    let name = reader.text("convert.encoder", ENCODERS);
    if encoder(&name).is_none() {
        reader.refuse("convert.encoder", ENCODERS);
    }
    name
}

impl Record {
    fn read(reader: &mut Reader) -> Self {
        let dir: String = reader.value("record.dir", "a path, or \"\" for recordings in data_dir");
        Self {
            enabled: reader.value("record.enabled", "true or false"),
            dir: (!dir.is_empty()).then(|| PathBuf::from(dir)),
            store: Self::read_store(reader),
        }
    }

    fn read_store(reader: &mut Reader) -> Option<S3Store> {
        const STORE: &str = "\"\" for a directory, or s3://BUCKET or s3://BUCKET/PREFIX";
        const FILE: &str = "the path of a file with the id of an access key on its first line and \
                            its secret on the second, once record.store is set";
        let name: String = reader.value("record.store", STORE);
        let endpoint: String = reader.value("record.s3_endpoint", "an address, or \"\" for AWS");
        let region = reader.text("record.s3_region", "the name of a region");
        let file: String = reader.value("record.s3_credentials_file", FILE);
        if name.is_empty() {
            return None;
        }
        let Some((bucket, prefix)) = S3Store::parse(&name) else {
            reader.refuse("record.store", STORE);
            return None;
        };
        if cfg!(not(feature = "s3")) {
            reader.refuse(
                "record.store",
                "\"\": this binary was built without the feature s3",
            );
        }
        if file.is_empty() {
            reader.refuse("record.s3_credentials_file", FILE);
        }
        Some(S3Store {
            bucket,
            prefix,
            endpoint: (!endpoint.is_empty()).then_some(endpoint),
            region,
            credentials_file: PathBuf::from(file),
        })
    }
}

impl Convert {
    /// The encoders of H.264 in the order in which they are tried.
    pub fn encoders(&self) -> impl Iterator<Item = &str> {
        let all = std::iter::once(&self.encoder).chain(&self.encoder_fallback);
        all.map(String::as_str)
    }

    fn read(reader: &mut Reader) -> Self {
        Self {
            encoder: read_encoder(reader),
            encoder_fallback: reader.list("convert.encoder_fallback", ENCODER_LIST, encoder),
            encoders_max: reader.count("convert.encoders_max", 0..=1_000),
            gop: reader.millis("convert.gop_ms", 500..=10_000),
            linger: reader.seconds("convert.linger_s", 0..=600),
            clean_height_max: reader.number("convert.clean_height_max", 144..=4_320),
        }
    }
}

impl Ledger {
    fn read(reader: &mut Reader) -> Self {
        let minutes: i32 = reader.number("ledger.utc_offset_min", -720..=840);
        let file: String = reader.value("ledger.signing_key_file", "a path, or \"\" for none");
        Self {
            utc_offset: UtcOffset::from_whole_seconds(minutes * 60).unwrap_or(UtcOffset::UTC),
            signing_key_file: (!file.is_empty()).then(|| PathBuf::from(file)),
        }
    }
}

/// Merges `section.key=value`.
fn set(mut figment: Figment, settings: &[String], lines: &mut Vec<String>) -> Figment {
    for setting in settings {
        let Some((key, value)) = setting.split_once('=') else {
            lines.push(format!("--set {setting}: write it as SECTION.KEY=VALUE"));
            continue;
        };
        let Ok(value) = value.parse::<figment::value::Value>();
        figment = figment.merge(Serialized::default(key.trim(), value));
    }
    figment
}

/// `LAMPLIGHT_SECTION__KEY`; those of the test harness are not settings.
fn environment() -> Env {
    Env::prefixed("LAMPLIGHT_")
        .filter(|key| !key.starts_with("TEST_"))
        .split("__")
}
