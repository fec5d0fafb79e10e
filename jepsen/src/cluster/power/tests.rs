//! What a loss of power may take: by hand, over many dice, and with what a real process has told.

use std::collections::BTreeSet;
use std::fs::File;

use super::super::disk::tests::{Watched, folder_under_shim};
use super::*;

const DIRECTORY: FileId = FileId { device: 1, inode: 1 };
const SEEDS: std::ops::Range<u64> = 0..400;

fn id(inode: u64) -> FileId {
    FileId { device: 1, inode }
}

/// A journal's bytes.
fn journal(records: &[(Kind, FileId, u64, &[u8])]) -> Vec<u8> {
    let mut journal = Vec::new();
    for &(kind, file, at, old) in records {
        journal.extend(Record { kind, file, at, bytes: old.len() as u64 }.encode());
        journal.extend(old);
    }
    journal
}

fn found(name: &str, inode: u64, bytes: u64) -> Found {
    Found { path: PathBuf::from(name), file: id(inode), directory: DIRECTORY, bytes }
}

/// All that is lost with many seeds, for one file.
fn losses(records: &[(Kind, FileId, u64, &[u8])], file: &Found, names: Names) -> BTreeSet<String> {
    let synced = Synced::read(&journal(records)).expect("records");
    let files = std::slice::from_ref(file);
    let plans = SEEDS.map(|seed| plan(&synced, files, names, &mut Dice::new(seed)));
    plans.map(|changes| changes.iter().map(said).collect::<Vec<_>>().join(", ")).collect()
}

fn said(change: &Change) -> String {
    match change {
        Change::Gone { bytes, .. } => format!("gone {bytes}"),
        Change::Cut { from, to, .. } => format!("cut {from} to {to}"),
        Change::Undone { piece, .. } => format!("{:?} at {}", String::from_utf8_lossy(&piece.bytes), piece.at),
    }
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn of_a_file_that_was_synced_only_what_came_behind_may_be_lost() {
    let records: &[(Kind, FileId, u64, &[u8])] = &[
        (Kind::Created, id(2), 0, b""),
        (Kind::DirectorySynced, DIRECTORY, 0, b""),
        (Kind::Synced, id(2), 12, b""),
        (Kind::Synced, id(2), 10, b""),
    ];
    let lost = losses(records, &found("f", 2, 15), Names::BySyncOfDirectory);
    assert_eq!(lost, set(&["", "cut 15 to 12", "cut 15 to 13", "cut 15 to 14"]));
    assert_eq!(losses(records, &found("f", 2, 12), Names::BySyncOfDirectory), set(&[""]));
}

#[test]
fn a_file_that_was_cut_is_synced_only_that_far() {
    let records: &[(Kind, FileId, u64, &[u8])] = &[(Kind::Synced, id(2), 12, b""), (Kind::Truncated, id(2), 4, b"")];
    let lost = losses(records, &found("f", 2, 6), Names::BySyncOfDirectory);
    assert_eq!(lost, set(&["", "cut 6 to 4", "cut 6 to 5"]));
}

#[test]
fn a_file_nobody_has_told_of_was_never_synced() {
    let lost = losses(&[], &found("LOG", 9, 2), Names::BySyncOfDirectory);
    assert_eq!(lost, set(&["", "cut 2 to 0", "cut 2 to 1"]));
}

#[test]
fn a_name_is_durable_once_its_directory_was_synced_or_it_was_renamed() {
    let made: (Kind, FileId, u64, &[u8]) = (Kind::Created, id(2), 0, b"");
    let synced: (Kind, FileId, u64, &[u8]) = (Kind::Synced, id(2), 5, b"");
    let directory: (Kind, FileId, u64, &[u8]) = (Kind::DirectorySynced, DIRECTORY, 0, b"");
    let renamed: (Kind, FileId, u64, &[u8]) = (Kind::Renamed, id(2), 0, b"");
    let other: (Kind, FileId, u64, &[u8]) = (Kind::DirectorySynced, id(3), 0, b"");
    let file = found("f", 2, 5);
    for (records, names, lost) in [
        (vec![made, synced], Names::BySyncOfDirectory, set(&["", "gone 5"])),
        (vec![directory, made, synced, other], Names::BySyncOfDirectory, set(&["", "gone 5"])),
        (vec![made, synced], Names::BySyncOfFile, set(&[""])),
        (vec![made, directory, synced], Names::BySyncOfDirectory, set(&[""])),
        (vec![made, synced, renamed], Names::BySyncOfDirectory, set(&[""])),
    ] {
        assert_eq!(losses(&records, &file, names), lost, "{records:?}");
    }
}

#[test]
fn what_was_written_over_comes_back_from_the_newest_on() {
    let records: &[(Kind, FileId, u64, &[u8])] = &[
        (Kind::Overwritten, id(2), 0, b"xx"),
        (Kind::Synced, id(2), 6, b""),
        (Kind::Overwritten, id(2), 0, b"ab"),
        (Kind::Overwritten, id(2), 4, b"efg"),
    ];
    let lost = losses(records, &found("mark", 2, 6), Names::BySyncOfDirectory);
    let expected = ["", "\"e\" at 4", "\"ef\" at 4", "\"ef\" at 4, \"a\" at 0", "\"ef\" at 4, \"ab\" at 0"];
    assert_eq!(lost, set(&expected), "of the second piece one byte was not synced");
}

#[test]
fn a_record_that_is_torn_is_none_and_what_is_no_record_is_an_error() {
    let whole = journal(&[(Kind::Synced, id(2), 6, b""), (Kind::Overwritten, id(2), 0, b"ab")]);
    let first = Synced::read(&whole[..Record::BYTES]).expect("a record");
    for end in Record::BYTES..whole.len() {
        assert_eq!(Synced::read(&whole[..end]), Ok(first.clone()), "{end} bytes");
    }
    let mut bad = whole.clone();
    bad[Record::BYTES + 7] ^= 1;
    assert_eq!(Synced::read(&bad), Err(BadJournal { at: Record::BYTES }));
}

#[test]
fn a_journal_written_anew_says_the_same() {
    let records = journal(&[
        (Kind::Created, id(2), 0, b""),
        (Kind::Synced, id(2), 10, b""),
        (Kind::DirectorySynced, DIRECTORY, 0, b""),
        (Kind::Created, id(3), 0, b""),
        (Kind::Overwritten, id(2), 8, b"ab"),
        (Kind::Overwritten, id(2), 2, b"cd"),
        (Kind::Synced, id(4), 7, b""),
        (Kind::Renamed, id(4), 0, b""),
    ]);
    let synced = Synced::read(&records).expect("records");
    let again = Synced::read(&synced.records()).expect("records");
    assert_eq!(again.records(), synced.records());
    let files = [found("a", 2, 20), found("b", 3, 20), found("c", 4, 20)];
    for seed in SEEDS {
        let plan = |synced| plan(synced, &files, Names::BySyncOfDirectory, &mut Dice::new(seed));
        assert_eq!(plan(&synced), plan(&again));
    }
}

#[test]
fn only_so_many_pieces_are_remembered() {
    let mut records: Vec<(Kind, FileId, u64, &[u8])> = vec![(Kind::Synced, id(2), 8, b"")];
    records.extend((0..2 * PIECES_MAX as u64).map(|at| (Kind::Overwritten, id(2), at % 8, &b"a"[..])));
    let synced = Synced::read(&journal(&records)).expect("records");
    assert_eq!(synced.files[&id(2)].pieces.len(), PIECES_MAX);
}

#[test]
fn diaries_do_not_count() {
    let cut = |name: &str| Change::Cut { path: PathBuf::from(name), from: 10, to: 4 };
    let undone = Change::Undone { path: "n1/mark".into(), piece: Piece { at: 0, bytes: vec![1, 2] } };
    let changes = [cut("n1/db/LOG"), cut("n1/db/LOG.old.17"), cut("n1/db/000012.log"), cut("n1/mark"), undone];
    assert_eq!(Loss::of(&changes), Loss { files: 2, bytes: 14 });
}

/// What a process does to the files of a directory, that is `plan`'s to take from.
fn work(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        let file = File::create(folder.join(name)).expect("made");
        file.write_all_at(bytes, 0).expect("written");
        file
    };
    write("kept", b"0123456789").sync_all().expect("synced");
    write("cut", b"0123456789").sync_data().expect("synced");
    write("new name", b"0123456789").sync_data().expect("synced");
    fs::rename(folder.join("new name"), folder.join("renamed")).expect("renamed");
    File::open(folder).and_then(|folder| folder.sync_all()).expect("synced");
    let cut = OpenOptions::new().write(true).open(folder.join("cut")).expect("it is there");
    cut.write_all_at(b"abcdef", 10).expect("written");
    cut.write_all_at(b"XY", 2).expect("written");
    write("open", b"0123456789").sync_data().expect("synced");
    write("never", b"0123456789");
}

#[test]
fn what_a_process_has_told_is_what_may_be_lost() {
    if let Some(folder) = folder_under_shim() {
        return work(&folder);
    }
    let watched = Watched::new();
    watched.run("cluster::power::tests::what_a_process_has_told_is_what_may_be_lost");
    let (synced, files) = (watched.sidecar.synced().expect("records"), find(&watched.data).expect("files"));
    let mut seen = BTreeSet::new();
    for seed in SEEDS {
        let changes = plan(&synced, &files, Names::BySyncOfDirectory, &mut Dice::new(seed));
        let name = |change: &Change| change.lost().0.file_name().map(|name| name.to_string_lossy().into_owned());
        seen.extend(changes.iter().map(|change| format!("{}: {}", name(change).unwrap_or_default(), said(change))));
    }
    let mut expected = set(&["cut: \"23\" at 2", "cut: \"2\" at 2", "open: gone 10", "never: gone 10"]);
    expected.extend((10..16).map(|to| format!("cut: cut 16 to {to}")));
    expected.extend((0..10).map(|to| format!("never: cut 10 to {to}")));
    assert_eq!(seen, expected);
}

#[test]
fn what_is_left_is_what_was_planned_and_counts_as_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a", "b", "c"] {
        fs::write(folder.path().join(name), "0123456789").expect("written");
    }
    let path = |name: &str| folder.path().join(name);
    let changes = [
        Change::Gone { path: path("a"), bytes: 10 },
        Change::Cut { path: path("b"), from: 10, to: 6 },
        Change::Undone { path: path("b"), piece: Piece { at: 1, bytes: b"xyz".to_vec() } },
    ];
    apply(&changes).expect("done");
    let left = find(folder.path()).expect("files");
    let said: Vec<(u64, String)> =
        left.iter().map(|found| (found.bytes, fs::read_to_string(&found.path).expect("text"))).collect();
    assert_eq!(said, [(6, "0xyz45".to_owned()), (10, "0123456789".to_owned())]);
    let nothing = plan(&Synced::all(&left), &left, Names::BySyncOfDirectory, &mut Dice::new(7));
    assert_eq!((nothing, Loss::of(&changes)), (vec![], Loss { files: 2, bytes: 17 }));
}
