//! `cargo xtask openapi`: writes `docs/openapi.json` from the code. A test of the server fails
//! while the two differ; this is how they are made equal.

use anyhow::Context;

use crate::command;

pub(crate) fn run() -> anyhow::Result<()> {
    let text = command::read(
        "cargo",
        &["run", "--quiet", "--bin", "lamplight", "--", "openapi"],
    )?;
    serde_json::from_str::<serde_json::Value>(&text)
        .context("`lamplight openapi` printed something else")?;
    let path = command::root().join("docs/openapi.json");
    std::fs::write(&path, text + "\n")?;
    eprintln!("xtask: wrote {}", path.display());
    Ok(())
}
