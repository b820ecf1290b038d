//! That every seed passes, and that none was forgotten.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::TARGETS;

fn entries(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn names(paths: &[PathBuf]) -> BTreeSet<&str> {
    paths
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap())
        .collect()
}

#[test]
fn every_target_has_its_file_and_its_seeds() {
    let table: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&entries("fuzz_targets")), table);
    assert_eq!(names(&entries("seeds")), table);
}

#[test]
fn every_seed_passes() {
    for (name, target) in TARGETS {
        let seeds = entries(&format!("seeds/{name}"));
        assert!(seeds.len() >= 2, "{name} has no seeds to begin with");
        for seed in seeds {
            println!("{}", seed.display());
            target(&std::fs::read(&seed).unwrap());
        }
    }
}
