//! The corpora of the fuzz targets, replayed: what once failed never fails again unseen.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lamplight_media::fuzzing::TARGETS;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn stems(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder is part of the repository");
    entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

#[test]
fn every_seed_of_every_corpus_holds_what_its_target_asserts() {
    for (name, target) in TARGETS {
        let folder = fuzz_folder().join("corpus").join(name);
        let mut seeds = 0;
        for entry in fs::read_dir(&folder).expect("a corpus for each target") {
            let path = entry.expect("a readable entry").path();
            let seed = fs::read(&path).expect("a readable seed");
            let held = std::panic::catch_unwind(|| target(&seed));
            assert!(held.is_ok(), "{} breaks its target", path.display());
            seeds += 1;
        }
        assert!(seeds >= 3, "{name} has {seeds} seeds");
    }
}

#[test]
fn targets_binaries_and_corpora_are_the_same_set() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(stems(&fuzz_folder().join("corpus")), targets, "corpora");
    assert_eq!(
        stems(&fuzz_folder().join("fuzz_targets")),
        targets,
        "binaries"
    );
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("a manifest");
    for name in targets {
        assert!(
            manifest.contains(&format!("\nname = \"{name}\"\n")),
            "{name}"
        );
    }
}
