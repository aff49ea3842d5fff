//! `cargo xtask loom`: the ring of the media core under every interleaving.
//!
//! `media/loom` compiles the ring's own files against loom's primitives; it is a workspace of its
//! own, since the product must not see them.

use crate::command;

pub(crate) fn run() -> anyhow::Result<()> {
    let mut cargo = command::command("cargo", &["test", "--test", "ring"]);
    cargo.current_dir(command::root().join("media/loom"));
    command::finish(&mut cargo)
}
