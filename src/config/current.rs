//! The configuration in force, and what of another reading may take its place.

use std::sync::{Arc, PoisonError, RwLock};

use super::Config;

/// Keys, and sections with their dot, that count as soon as they are read again. The others belong
/// to what is made once: sockets, the database, files.
const RELOADABLE: [&str; 16] = [
    "accounts.",
    "merchants.",
    "convert.",
    "flv.",
    "http.cors_origins",
    "http.tls_cert",
    "http.tls_key",
    "http.trusted_proxies",
    "ladder",
    "limits.",
    "log.level",
    "publish.",
    "shutdown.",
    "webrtc.ice_servers",
    "webrtc.public_addrs",
    "webrtc.public_port",
];

/// The configuration in force. Whoever needs two keys that belong together reads it once.
#[derive(Debug)]
pub struct Current(RwLock<Arc<Config>>);

impl Current {
    pub fn new(config: Config) -> Self {
        Self(RwLock::new(Arc::new(config)))
    }

    pub fn get(&self) -> Arc<Config> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    pub fn replace(&self, config: Config) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(config);
    }
}

impl Config {
    /// This configuration with what may change while running as `newer` has it; and the other keys
    /// that differ, which need a restart.
    pub fn reloaded(&self, newer: &Self) -> (Self, Vec<String>) {
        let is_taken = |key: &str| {
            // With the certificate a listener comes or goes.
            let is_tls = key.starts_with("http.tls_");
            let is_switched = self.http.tls.is_some() != newer.http.tls.is_some();
            is_reloadable(key) && !(is_tls && is_switched)
        };
        let mut next = self.clone();
        if is_taken("http.tls_cert") {
            next.http.tls.clone_from(&newer.http.tls);
        }
        next.http.cors_origins.clone_from(&newer.http.cors_origins);
        next.http
            .trusted_proxies
            .clone_from(&newer.http.trusted_proxies);
        next.webrtc
            .public_addrs
            .clone_from(&newer.webrtc.public_addrs);
        next.webrtc.public_port = newer.webrtc.public_port;
        next.webrtc
            .ice_servers
            .clone_from(&newer.webrtc.ice_servers);
        next.log.level.clone_from(&newer.log.level);
        next.convert = newer.convert.clone();
        next.ladder.clone_from(&newer.ladder);
        next.publish = newer.publish.clone();
        next.flv = newer.flv.clone();
        next.accounts = newer.accounts.clone();
        next.merchants = newer.merchants.clone();
        next.limits = newer.limits.clone();
        next.shutdown = newer.shutdown.clone();
        next.values.take(&newer.values, is_taken);
        let left = next.values.changed(&newer.values);
        (next, left)
    }
}

fn is_reloadable(key: &str) -> bool {
    RELOADABLE
        .iter()
        .any(|known| *known == key || (known.ends_with('.') && key.starts_with(known)))
}
