//! Passwords: which are good enough, and how they are kept.
//!
//! Invariants
//! - A password is shown by nothing: not by `Debug`, not by an error.
//! - Hashing takes one thread for each core at most; what waits for one is bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use caseless::Caseless;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use super::model::Handle;
use crate::app::App;

const CHARS: std::ops::RangeInclusive<usize> = 10..=128;
/// Bytes of a text that may be a password: four for each character.
const BYTES_MAX: usize = 512;
/// Passwords that guessers try first and that are long enough to be taken, folded, one a line.
const COMMON: &str = include_str!("common_passwords.txt");
/// Memory (KiB), passes and lanes of argon2id.
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// How a hash of today begins.
const TODAY: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
/// What an unknown handle is compared with: it costs what a known one costs.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGlzIGhlcmU\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// Hashes that wait for a thread.
const WAITING_MAX: usize = 64;
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What somebody typed as a password, in one normal form.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Weakness {
    #[error("a password has 10 to 128 characters")]
    Length,
    #[error("this password is one of those tried first; take another")]
    Common,
    #[error("the password holds the handle; take another")]
    HoldsHandle,
}

/// Why nothing was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wait for their password to be checked")]
pub(crate) struct HashersBusy;

impl HashersBusy {
    pub(crate) const RETRY_AFTER: Duration = TRY_AGAIN;
}

impl Password {
    pub(crate) fn new(text: &str) -> Self {
        // What is longer is no password anyway; it is told apart from every one that is.
        let text = if text.len() > BYTES_MAX { "" } else { text };
        Self(text.nfc().collect())
    }

    /// Whether it is good enough for the owner of this handle.
    pub(crate) fn check(&self, handle: &Handle) -> Result<(), Weakness> {
        if !CHARS.contains(&self.0.chars().count()) {
            return Err(Weakness::Length);
        }
        let folded: String = self.0.nfkc().default_case_fold().nfkc().collect();
        if COMMON.lines().any(|common| common == folded) {
            return Err(Weakness::Common);
        }
        if folded.contains(handle.as_str()) {
            return Err(Weakness::HoldsHandle);
        }
        Ok(())
    }

    /// The text itself.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// Its hash, as a PHC string.
    pub(crate) async fn hash(&self, app: &App) -> Result<String, HashersBusy> {
        let password = self.clone();
        run(app, move || {
            let hash: PasswordHash = argon2()
                .hash_password(password.0.as_bytes())
                .expect("the system gives random bytes and the cost is within bounds");
            hash.to_string()
        })
        .await
    }

    /// Whether this is what was hashed; without a hash nobody's, at the same cost.
    pub(crate) async fn is(&self, app: &App, phc: Option<String>) -> Result<bool, HashersBusy> {
        let password = self.clone();
        run(app, move || {
            let is_known = phc.is_some();
            let phc = phc.as_deref().unwrap_or(NOBODY);
            let is_same = PasswordHash::new(phc).is_ok_and(|hash| {
                argon2()
                    .verify_password(password.0.as_bytes(), &hash)
                    .is_ok()
            });
            is_known && is_same
        })
        .await
    }
}

/// Whether a hash was made at a lower cost than today's.
pub(super) fn is_outdated(phc: &str) -> bool {
    !phc.starts_with(TODAY)
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Of another form it is refused without being shown.
impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(from) {
            Ok(serde_json::Value::String(text)) => Ok(Self::new(&text)),
            _ => Err(D::Error::custom("a password is a text")),
        }
    }
}

fn argon2() -> Argon2<'static> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).expect("the cost is within bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The threads that hash.
#[derive(Debug)]
struct Hashers {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Hashers {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            free: Arc::new(Semaphore::new(cores)),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// A place in the queue, given back when dropped.
struct Waiting(Arc<Hashers>);

impl Waiting {
    fn enter(hashers: &Arc<Hashers>) -> Result<Self, HashersBusy> {
        let place = Self(Arc::clone(hashers));
        let before = hashers.waiting.fetch_add(1, Ordering::AcqRel);
        if before < WAITING_MAX {
            Ok(place)
        } else {
            Err(HashersBusy)
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs one piece of hashing on a thread for such work.
async fn run<T: Send + 'static>(
    app: &App,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, HashersBusy> {
    let hashers: Arc<Hashers> = app.parts.part();
    let free = Arc::clone(&hashers.free);
    let permit = match Arc::clone(&free).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            let _place = Waiting::enter(&hashers)?;
            free.acquire_owned().await.expect("it is never closed")
        }
    };
    // The thread keeps its permit when the caller goes away: the work goes on.
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    Ok(done.await.expect("hashing does not panic"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Fixture;

    #[test]
    fn weak_passwords_are_told_by_what_is_weak() {
        let handle = Handle::parse("Anna").unwrap();
        let check = |text: &str| Password::new(text).check(&handle);
        let long = "ä".repeat(128);
        for good in [
            "a quiet heron",
            "0123456789ab!",
            &long,
            "十个汉字就足够长了吧",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let longer = "a".repeat(129);
        for bad in [
            "",
            "ninechars",
            &longer,
            &"a".repeat(600),
            "é".repeat(9).as_str(),
        ] {
            assert_eq!(check(bad), Err(Weakness::Length), "{bad}");
        }
        // Ten letters with their accents apart are ten characters.
        assert_eq!(check(&"e\u{301}".repeat(9)), Err(Weakness::Length));
        for bad in [
            "password123",
            "PassWord123",
            "1234567890",
            "ｐａｓｓｗｏｒｄ１２３",
        ] {
            assert_eq!(check(bad), Err(Weakness::Common), "{bad}");
        }
        for bad in ["xxANNAxxxxxx", "1234567anna"] {
            assert_eq!(check(bad), Err(Weakness::HoldsHandle), "{bad}");
        }
    }

    #[test]
    fn the_list_of_common_passwords_holds_what_could_match() {
        let all: Vec<&str> = COMMON.lines().collect();
        assert!(all.len() >= 200);
        let folded = |text: &&str| text.chars().all(|c| c.is_ascii() && !c.is_uppercase());
        assert!(all.iter().all(|it| folded(it) && CHARS.contains(&it.len())));
        let set: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(set.len(), all.len());
    }

    #[tokio::test]
    async fn a_password_is_known_again_however_it_was_composed() {
        let it = Fixture::new().await;
        let password = Password::new("caf\u{e9} au lait");
        let phc = password.hash(&it.app).await.unwrap();
        assert!(phc.starts_with(TODAY) && !is_outdated(&phc), "{phc}");
        let apart = Password::new("cafe\u{301} au lait");
        assert_eq!(apart.is(&it.app, Some(phc.clone())).await, Ok(true));
        let other = Password::new("cafe au lait");
        assert_eq!(other.is(&it.app, Some(phc)).await, Ok(false));
        assert_eq!(format!("{password:?}"), "Password(..)");
    }

    #[tokio::test]
    async fn nobody_has_the_dummy_hash_for_a_password() {
        let it = Fixture::new().await;
        assert!(PasswordHash::new(NOBODY).is_ok());
        let guess = Password::new("nobody is here");
        assert_eq!(guess.is(&it.app, None).await, Ok(false));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn more_than_sixty_four_waiting_are_refused() {
        let it = Fixture::new().await;
        let hashers: Arc<Hashers> = it.app.parts.part();
        let places: Vec<_> = (0..WAITING_MAX)
            .map(|_| Waiting::enter(&hashers).unwrap())
            .collect();
        assert!(Waiting::enter(&hashers).is_err());
        let all = u32::try_from(hashers.free.available_permits()).unwrap();
        let held = hashers.free.acquire_many(all).await.unwrap();
        let password = Password::new("a quiet heron");
        assert_eq!(password.hash(&it.app).await, Err(HashersBusy));
        drop((places, held));
        assert!(password.hash(&it.app).await.is_ok());
        assert_eq!(hashers.waiting.load(Ordering::Acquire), 0);
    }
}
