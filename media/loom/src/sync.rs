//! Loom's primitives under the names that the core uses.

pub(crate) use std::sync::PoisonError;

pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
pub(crate) use loom::sync::{Mutex, MutexGuard};
