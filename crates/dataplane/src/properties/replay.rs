//! Every file of the corpus, whole, cut and damaged, on the compiler that everybody has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;

use super::{TARGETS, bounded};

/// Files and bytes that the corpus may have: it is replayed in every test run.
const MOST_FILES: usize = 320;
const MOST_BYTES: usize = 128 * 1024;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// Files by name.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// What each target has to try, in the order of [`TARGETS`].
static CORPUS: LazyLock<[Files; TARGETS.len()]> =
    LazyLock::new(|| TARGETS.map(|(name, _)| read(name)));

fn read(name: &str) -> Files {
    let folder = fuzz().join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("a file that can be read");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn the_corpus_is_there_and_small_enough_to_be_replayed() {
    for ((name, _), files) in TARGETS.iter().zip(&*CORPUS) {
        assert!(files.len() >= 40, "{name}: {} files", files.len());
    }
    let files: usize = CORPUS.iter().map(Vec::len).sum();
    assert!(files <= MOST_FILES, "{files} files");
    let each = CORPUS.iter().flatten();
    let bytes: usize = each.map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
}

#[test]
fn every_property_has_a_target_and_a_corpus_and_no_other_has() {
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(fuzz().join(folder)).expect("a folder");
        let stem = |path: PathBuf| {
            path.file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
        };
        entries
            .filter_map(|entry| stem(entry.ok()?.path()))
            .collect()
    };
    let known = TARGETS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names("corpus"), known);
    assert_eq!(names("fuzz_targets"), known);
}

#[test]
fn every_file_of_the_corpus_keeps_its_property() {
    for ((_, property), files) in TARGETS.iter().zip(&*CORPUS) {
        for (path, bytes) in files {
            println!("{}", path.display()); // shown if it fails
            property(bytes);
        }
    }
}

#[test]
fn a_file_that_is_cut_or_damaged_at_any_byte_keeps_its_property() {
    for ((_, property), files) in TARGETS.iter().zip(&*CORPUS) {
        for (path, bytes) in files {
            println!("{}", path.display());
            let mut bytes = bytes.clone();
            // What is long is tried at some places; the others are tried at all.
            let step = bytes.len() / 64 + 1;
            for at in (0..bytes.len()).step_by(step) {
                property(&bytes[..at]);
                property(&bytes[at..]);
                for other in [b'\r', b'9', b'-', b'|', 0, bytes[at] ^ 0x20] {
                    let kept = std::mem::replace(&mut bytes[at], other);
                    property(&bytes);
                    bytes[at] = kept;
                }
            }
        }
    }
}

proptest! {
    /// Pieces of the corpus in another order: what fuzzing does, without its memory of what was new.
    #[test]
    fn files_that_are_joined_keep_their_property(
        target in 0..TARGETS.len(),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..5),
    ) {
        let ((_, property), files) = (TARGETS[target], &CORPUS[target]);
        let mut joined = Vec::new();
        for (file, end) in picks {
            let (_, bytes) = &files[file.index(files.len())];
            joined.extend_from_slice(&bytes[..end.index(bytes.len() + 1)]);
        }
        property(&joined);
    }
}

#[test]
fn memory_that_is_taken_is_seen() {
    assert_eq!(bounded(100, || vec![0_u8; 100]).len(), 100);
    let more = std::panic::catch_unwind(|| bounded(99, || vec![0_u8; 100]));
    assert!(more.is_err(), "a bound that holds nothing");
}
