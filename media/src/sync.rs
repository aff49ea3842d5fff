//! The primitives of the ring: those of std; loom's where `media/loom` compiles its files.

pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
