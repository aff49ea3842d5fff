//! Lamplight: live media in, live media out, and around it what is needed to sell live.
//!
//! Reading order: [`config`], [`clock`], `ids`, `money`; [`db`] and [`tasks`]; [`events`]; [`app`],
//! the handles of one server; `http`, the wire; then the modules, each with the same inner shape
//! (`model`, `store`, `service`, `routes`, `jobs`); [`serve`], which starts and stops it all.
//!
//! Invariants
//! - Arrows point down only: a module never imports its own row or a higher one; news travels up
//!   as events.
//! - A change and the event that tells it commit in one transaction.
//! - Only `tasks` spawns, only `config` reads the environment, only `broadcasts` and `serve` touch
//!   the media core.

/// Gives back what a burst of connections needed; the one of glibc keeps it. How is set where it is
/// built: `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub mod clock;
pub mod config;
pub mod ids;
pub mod money;

pub mod db;
pub mod tasks;

pub mod events;

pub mod app;

mod http;

mod accounts;

mod catalog;
mod creators;
mod ledger;

mod broadcasts;
mod payments;

mod rooms;

mod orders;

mod live;

mod router;
pub mod serve;
