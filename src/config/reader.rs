//! Reads keys one by one, so that every error of a start is told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use figment::providers::{Format, Toml};
use figment::value::Value;
use figment::{Figment, Metadata};
use serde::de::DeserializeOwned;

use super::{ConfigError, DEFAULTS};

/// The value of every key as it was set. Some are secrets: they show nothing of themselves.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Values(BTreeMap<String, Value>);

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

impl Values {
    /// The keys whose values differ.
    pub(super) fn changed(&self, other: &Self) -> Vec<String> {
        let Self(ours) = self;
        let differs = |key: &&String| ours.get(*key) != other.0.get(*key);
        ours.keys().filter(differs).cloned().collect()
    }

    /// Takes the values of these keys from another reading.
    pub(super) fn take(&mut self, other: &Self, is_wanted: impl Fn(&str) -> bool) {
        for (key, value) in &mut self.0 {
            if let Some(newer) = other.0.get(key).filter(|_| is_wanted(key)) {
                *value = newer.clone();
            }
        }
    }
}

/// Collects what is wrong while it hands out values.
#[derive(Debug)]
pub(super) struct Reader {
    figment: Figment,
    defaults: Figment,
    read: BTreeSet<&'static str>,
    lines: Vec<String>,
}

impl Reader {
    pub(super) fn new(figment: Figment, lines: Vec<String>) -> Self {
        Self {
            figment,
            defaults: Figment::from(Toml::string(DEFAULTS)),
            read: BTreeSet::new(),
            lines,
        }
    }

    /// The value of a key; its default when the one that is set is refused.
    pub(super) fn value<T: DeserializeOwned>(&mut self, key: &'static str, allowed: &str) -> T {
        self.read.insert(key);
        if let Ok(value) = self.figment.extract_inner(key) {
            return value;
        }
        self.refuse(key, allowed);
        self.default_of(key)
    }

    /// A text that is not empty. A number is taken as the text it was written as.
    pub(super) fn text(&mut self, key: &'static str, allowed: &str) -> String {
        self.read.insert(key);
        let text = match self.figment.find_value(key) {
            Ok(Value::String(_, text)) => text,
            Ok(Value::Num(_, _) | Value::Bool(_, _)) => {
                self.figment.extract_inner_lossy(key).unwrap_or_default()
            }
            _ => String::new(),
        };
        if !text.trim().is_empty() {
            return text;
        }
        self.refuse(key, allowed);
        self.default_of(key)
    }

    /// A whole number inside bounds.
    pub(super) fn number<T>(&mut self, key: &'static str, allowed: RangeInclusive<T>) -> T
    where
        T: DeserializeOwned + PartialOrd + Display,
    {
        self.read.insert(key);
        match self.figment.extract_inner::<T>(key) {
            Ok(value) if allowed.contains(&value) => value,
            _ => {
                let range = format!("a whole number, {} to {}", allowed.start(), allowed.end());
                self.refuse(key, &range);
                self.default_of(key)
            }
        }
    }

    pub(super) fn count(&mut self, key: &'static str, allowed: RangeInclusive<usize>) -> usize {
        self.number(key, allowed)
    }

    pub(super) fn seconds(&mut self, key: &'static str, allowed: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(key, allowed))
    }

    pub(super) fn millis(&mut self, key: &'static str, allowed: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(key, allowed))
    }

    /// An address and port, or none for an empty text.
    pub(super) fn address_or_none(
        &mut self,
        key: &'static str,
        allowed: &str,
    ) -> Option<SocketAddr> {
        let text: String = self.value(key, allowed);
        if text.is_empty() {
            return None;
        }
        let addr = text.parse().ok();
        if addr.is_none() {
            self.refuse(key, allowed);
        }
        addr
    }

    /// Web origins: `*`, or scheme, host and port without a path.
    pub(super) fn origins(&mut self, key: &'static str) -> Vec<String> {
        let allowed = "a list of origins, for example [\"https://shop.example\"], or [\"*\"]";
        let origins: Vec<String> = self.value(key, allowed);
        let is_origin = |origin: &String| {
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            let is_host =
                |h: &str| !h.is_empty() && h.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
            origin == "*" || host.is_some_and(is_host)
        };
        if origins.iter().all(is_origin) {
            return origins;
        }
        self.refuse(key, allowed);
        self.default_of(key)
    }

    /// A list of texts, each of which `parse` must take.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let texts: Vec<String> = self.value(key, allowed);
        let parsed: Option<Vec<T>> = texts.iter().map(|text| parse(text)).collect();
        parsed.unwrap_or_else(|| {
            self.refuse(key, allowed);
            Vec::new()
        })
    }

    /// Says that the value of a key will not do.
    pub(super) fn refuse(&mut self, key: &str, allowed: &str) {
        let value = match self.figment.find_value(key) {
            // They may hold a password.
            Ok(_) if matches!(key, "db.url" | "webrtc.ice_servers") => "the given text".into(),
            Ok(value) => shown(&value),
            Err(_missing) => "no value".into(),
        };
        let source = self.source(key);
        let line = format!("{key} = {value}{source}: must be {allowed}");
        self.lines.push(line);
    }

    /// Refuses keys nobody reads; the values of the others.
    pub(super) fn finish(mut self) -> Result<Values, ConfigError> {
        for key in self.unknown_keys() {
            let source = self.source(&key);
            let nearest = self
                .read
                .iter()
                .min_by_key(|known| distance(known, &key))
                .filter(|known| distance(known, &key) <= 3)
                .map_or_else(String::new, |known| format!("; did you mean {known}?"));
            let line = format!("{key}{source}: there is no such key{nearest}");
            self.lines.push(line);
        }
        if self.lines.is_empty() {
            Ok(Values(self.leaves().unwrap_or_default()))
        } else {
            Err(ConfigError { lines: self.lines })
        }
    }

    #[cfg(test)]
    pub(super) fn keys_read(&self) -> &BTreeSet<&'static str> {
        &self.read
    }

    #[cfg(test)]
    pub(super) fn keys_set(&self) -> BTreeSet<String> {
        self.leaves().unwrap_or_default().into_keys().collect()
    }

    fn unknown_keys(&mut self) -> Vec<String> {
        match self.leaves() {
            Ok(leaves) => leaves
                .into_keys()
                .filter(|key| !self.read.contains(key.as_str()))
                .collect(),
            Err(err) => {
                // A file that is not TOML: its text says where.
                self.lines = vec![err.to_string().replace('\n', " ")];
                Vec::new()
            }
        }
    }

    fn leaves(&self) -> Result<BTreeMap<String, Value>, Box<figment::Error>> {
        let root: Value = self.figment.extract().map_err(Box::new)?;
        let mut leaves = BTreeMap::new();
        collect(&root, "", &mut leaves);
        Ok(leaves)
    }

    fn default_of<T: DeserializeOwned>(&self, key: &str) -> T {
        self.defaults
            .extract_inner(key)
            .expect("the embedded defaults hold every key with a good value")
    }

    /// ` (set by ...)`, nothing for a default.
    fn source(&self, key: &str) -> String {
        let Some(Metadata { name, source, .. }) = self.figment.find_metadata(key) else {
            return String::new();
        };
        if name.contains("environment") {
            let variable = key.to_uppercase().replace('.', "__");
            return format!(" (LAMPLIGHT_{variable})");
        }
        match source {
            Some(figment::Source::File(path)) => format!(" ({})", path.display()),
            _ if name.contains("TOML") => String::new(),
            _ => " (--set)".into(),
        }
    }
}

fn collect(value: &Value, path: &str, leaves: &mut BTreeMap<String, Value>) {
    let Value::Dict(_, dict) = value else {
        leaves.insert(path.into(), value.clone());
        return;
    };
    for (key, value) in dict {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        collect(value, &path, leaves);
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{c:?}"),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(_, num) => num
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| num.to_u128().map(|n| n.to_string()))
            .or_else(|| num.to_f64().map(|n| n.to_string()))
            .unwrap_or_else(|| "a number".into()),
        Value::Empty(_, _) => "nothing".into(),
        Value::Dict(_, _) => "a table".into(),
        Value::Array(_, items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
    }
}

/// How many letters to change, add or drop to make one text the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(other.bytes()) {
            let change = diagonal + usize::from(a != b);
            diagonal = *cell;
            *cell = change.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
