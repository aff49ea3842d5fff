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

/// Not what a fuzzer finds, but every run of the tests tries it.
#[test]
fn seeds_with_bytes_changed_dropped_and_doubled_hold_it_too() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 33).unwrap() % below.max(1)
    };
    for (name, target) in TARGETS {
        let folder = fuzz_folder().join("corpus").join(name);
        // In order, so that every run tries the same.
        for stem in stems(&folder) {
            let seed = fs::read(folder.join(stem)).expect("a readable seed");
            for _ in 0..MUTATIONS {
                let mut bytes = seed.clone();
                for _ in 0..=draw(4) {
                    mutate(&mut bytes, &mut draw);
                }
                let held = std::panic::catch_unwind(|| target(&bytes));
                assert!(held.is_ok(), "{name} does not hold for {bytes:02x?}");
            }
        }
    }
}

/// Of each seed.
const MUTATIONS: usize = 100;

fn mutate(bytes: &mut Vec<u8>, draw: &mut impl FnMut(usize) -> usize) {
    let at = draw(bytes.len());
    match draw(5) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << draw(8),
        1 if !bytes.is_empty() => bytes[at] = [0, 0x7f, 0x80, 0xff][draw(4)],
        2 => bytes.truncate(at),
        3 => {
            let piece: Vec<u8> = bytes[at..].iter().take(draw(64)).copied().collect();
            let to = draw(bytes.len());
            bytes.splice(to..to, piece);
        }
        _ => drop(bytes.drain(at..bytes.len().min(at + draw(8)))),
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
