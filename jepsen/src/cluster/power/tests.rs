//! What a loss of power may take: by hand, over many dice, and with what a real process has told.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IoSlice, Write};

use super::super::disk::Word;
use super::super::disk::format::{Kind, NOT_KEPT, PLACE_BYTES_MAX, Place, Record};
use super::super::disk::tests::{Watched, folder_under_shim};
use super::journal::{BadJournal, PIECES_MAX};
use super::*;

const DIRECTORY: FileId = FileId { device: 1, inode: 1 };
const SEEDS: std::ops::Range<u64> = 0..400;

fn id(inode: u64) -> FileId {
    FileId { device: 1, inode }
}

/// A record and what stands behind it.
type Told = (Record, Vec<u8>);
/// All that may be lost, in words.
type Lost<'a> = &'a [&'a str];

fn told(kind: Kind, inode: u64, at: u64) -> Told {
    (Record::new(kind, id(inode), at), Vec::new())
}

fn synced(inode: u64, at: u64) -> Told {
    told(Kind::Synced, inode, at)
}

fn failed(inode: u64, at: u64) -> Told {
    told(Kind::SyncFailed, inode, at)
}

fn over(inode: u64, at: u64, old: &[u8]) -> Told {
    (Record::new(Kind::Overwritten, id(inode), at), old.to_vec())
}

fn cut(inode: u64, at: u64, kept: u64) -> Told {
    (Record { kept, ..Record::new(Kind::Truncated, id(inode), at) }, Vec::new())
}

fn named(kind: Kind, inode: u64, names: &[&str], kept: u64) -> Told {
    let mut places = Vec::new();
    for name in names {
        let mut place = [0; PLACE_BYTES_MAX];
        let bytes = Place { directory: DIRECTORY, name: name.as_bytes() }.encode(&mut place);
        places.extend(&place[..bytes]);
    }
    (Record { kept, ..Record::new(kind, id(inode), 0) }, places)
}

fn made(inode: u64, name: &str) -> Told {
    named(Kind::Created, inode, &[name], 0)
}

fn removed(inode: u64, name: &str, kept: u64) -> Told {
    named(Kind::Removed, inode, &[name], kept)
}

fn moved(inode: u64, from: &str, to: &str, kept: u64) -> Told {
    named(Kind::Renamed, inode, &[from, to], kept)
}

fn directory_synced(inode: u64) -> Told {
    told(Kind::DirectorySynced, inode, 0)
}

/// A journal's bytes.
fn journal(records: &[Told]) -> Vec<u8> {
    let mut journal = Vec::new();
    for (record, more) in records {
        journal.extend(Record { bytes: more.len() as u64, ..*record }.encode());
        journal.extend(more);
    }
    journal
}

fn read(records: &[Told]) -> Synced {
    Synced::read(&journal(records)).expect("records")
}

/// A disk with these files, each a name, a number and a length, and these kept ones, each two numbers and a length.
fn disk(files: &[(&str, u64, u64)], kept: &[(u64, u64, u64)]) -> Disk {
    let found = |path: PathBuf, inode, bytes| Found { path, file: id(inode), bytes };
    Disk {
        directories: BTreeMap::from([(DIRECTORY, PathBuf::from("d"))]),
        files: files.iter().map(|&(name, inode, bytes)| found(Path::new("d").join(name), inode, bytes)).collect(),
        kept: kept.iter().map(|&(number, inode, bytes)| (number, found("kept".into(), inode, bytes))).collect(),
    }
}

/// All that is lost with many seeds.
fn losses(records: &[Told], disk: &Disk, names: Names) -> BTreeSet<String> {
    let synced = read(records);
    let plans = SEEDS.map(|seed| plan(&synced, disk.clone(), names, &mut Dice::new(seed)));
    plans.map(|changes| changes.iter().map(said).collect::<Vec<_>>().join(", ")).collect()
}

fn said(change: &Change) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match change {
        Change::Gone { path, bytes } => format!("{} gone {bytes}", name(path)),
        Change::Moved { from, to } => format!("{} to {}", name(from), name(to)),
        Change::Back { path, .. } => format!("{} back", name(path)),
        Change::Uncut { to, .. } => format!("uncut to {to}"),
        Change::Cut { from, to, .. } => format!("cut {from} to {to}"),
        Change::Undone { piece, .. } => format!("{:?} at {}", String::from_utf8_lossy(&piece.bytes), piece.at),
        Change::Zeroed { from, to, .. } => format!("zeroed {from} to {to}"),
    }
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn of_a_file_only_what_was_not_synced_may_be_lost() {
    let durable = [made(2, "f"), directory_synced(1), synced(2, 12), synced(2, 10)];
    let uncut = [synced(2, 10), cut(2, 4, 7)];
    let overwritten = [over(2, 0, b"xx"), synced(2, 6), over(2, 0, b"ab"), over(2, 4, b"efg")];
    let cases: [(&[Told], u64, Lost<'_>); 8] = [
        (&durable, 15, &["", "cut 15 to 12", "cut 15 to 13", "cut 15 to 14"]),
        (&durable, 12, &[""]),
        // Nobody has told of it.
        (&[], 2, &["", "cut 2 to 0", "cut 2 to 1"]),
        (&[synced(2, 12), cut(2, 4, NOT_KEPT)], 6, &["", "cut 6 to 4", "cut 6 to 5"]),
        (&uncut, 5, &["", "cut 5 to 4", "uncut to 10", "uncut to 11", "uncut to 12"]),
        // The first cut is the one that may be undone: the kept file 8 is not there.
        (&[uncut[0].clone(), uncut[1].clone(), cut(2, 3, 8)], 3, &["", "uncut to 10", "uncut to 11", "uncut to 12"]),
        (&[uncut[0].clone(), uncut[1].clone(), synced(2, 5)], 5, &[""]),
        // Of the second piece one byte was not synced.
        (&overwritten, 6, &["", "\"e\" at 4", "\"ef\" at 4", "\"ef\" at 4, \"a\" at 0", "\"ef\" at 4, \"ab\" at 0"]),
    ];
    for (records, bytes, expected) in cases {
        let disk = disk(&[("f", 2, bytes)], &[(7, 70, 12)]);
        assert_eq!(losses(records, &disk, Names::BySyncOfDirectory), set(expected), "{records:?}");
    }
}

#[test]
fn what_a_failed_sync_has_dropped_is_lost_whatever_comes_later() {
    let dropped = [synced(2, 4), failed(2, 8)];
    let over_and_failed = [synced(2, 4), over(2, 0, b"ab"), failed(2, 4)];
    let zeroes = [
        "cut 8 to 4",
        "cut 8 to 5, zeroed 4 to 5",
        "cut 8 to 6, zeroed 4 to 6",
        "cut 8 to 7, zeroed 4 to 7",
        "zeroed 4 to 8",
    ];
    let cases: [(&[Told], &[Told], u64, Lost<'_>); 9] = [
        (&dropped, &[], 8, &zeroes),
        (&dropped, &[synced(2, 10)], 10, &["zeroed 4 to 8"]),
        (&dropped, &[failed(2, 9), synced(2, 10)], 10, &["zeroed 4 to 9"]),
        (&dropped, &[synced(2, 10), failed(2, 12), synced(2, 12)], 12, &["zeroed 4 to 8, zeroed 10 to 12"]),
        (&dropped, &[cut(2, 6, NOT_KEPT), synced(2, 6)], 6, &["zeroed 4 to 6"]),
        // It was written again, and that was synced.
        (&dropped, &[over(2, 4, b"abcd"), synced(2, 8)], 8, &[""]),
        (&over_and_failed, &[], 4, &["\"ab\" at 0"]),
        (&over_and_failed, &[synced(2, 4)], 4, &["\"ab\" at 0"]),
        (&over_and_failed, &[over(2, 0, b"cd"), synced(2, 4)], 4, &[""]),
    ];
    for (records, later, bytes, expected) in cases {
        let (records, disk) = ([records, later].concat(), disk(&[("f", 2, bytes)], &[]));
        assert_eq!(losses(&records, &disk, Names::BySyncOfDirectory), set(expected), "{records:?}");
        let again = Synced::read(&read(&records).records()).expect("records");
        assert_eq!(again, read(&records), "written anew it says the same");
    }
}

/// What was told, which files are there and which were kept, and what may be lost: in general, and on btrfs.
struct Case<'a> {
    told: Vec<Told>,
    files: &'a [(&'a str, u64, u64)],
    kept: &'a [(u64, u64, u64)],
    lost: Lost<'a>,
    on_btrfs: Lost<'a>,
}

impl Case<'_> {
    fn check(&self) {
        let disk = disk(self.files, self.kept);
        assert_eq!(losses(&self.told, &disk, Names::BySyncOfDirectory), set(self.lost), "{:?}", self.told);
        assert_eq!(losses(&self.told, &disk, Names::BySyncOfFile), set(self.on_btrfs), "{:?}", self.told);
    }
}

#[test]
fn the_name_of_a_new_file_is_open_until_its_directory_is_synced() {
    let (made, synced, all) = (made(2, "f"), synced(2, 5), directory_synced(1));
    let other = directory_synced(9);
    for (told, files, lost) in [
        (vec![made.clone(), synced.clone()], &[("f", 2, 5)][..], &["", "f gone 5"][..]),
        (vec![all.clone(), made.clone(), synced.clone(), other], &[("f", 2, 5)][..], &["", "f gone 5"][..]),
        (vec![made.clone(), all, synced.clone()], &[("f", 2, 5)][..], &[""][..]),
        // It was removed, and the record of that was not written any more; or it could not be kept.
        (vec![made.clone(), synced.clone()], &[][..], &[""][..]),
        (vec![made, synced, removed(2, "f", NOT_KEPT)], &[][..], &[""][..]),
    ] {
        Case { told, files, kept: &[], lost, on_btrfs: &[""] }.check();
    }
}

#[test]
fn a_file_that_was_removed_may_be_back() {
    let told = |more: Vec<Told>| [vec![synced(2, 5), removed(2, "f", 1)], more].concat();
    let kept = &[(1, 2, 5)];
    for (told, files, lost) in [
        (told(vec![]), &[][..], &["", "f back"][..]),
        (told(vec![directory_synced(1)]), &[][..], &[""][..]),
        // Another one has the name.
        (told(vec![made(4, "f"), synced(4, 3)]), &[("f", 4, 3)][..], &["", "f gone 3", "f gone 3, f back"][..]),
    ] {
        let on_btrfs: &[&str] = if files.is_empty() { lost } else { &[""] };
        Case { told, files, kept, lost, on_btrfs }.check();
    }
}

#[test]
fn a_file_that_was_renamed_may_have_its_old_name() {
    let told = |more: Vec<Told>| [vec![synced(2, 5), made(3, "new"), synced(3, 7)], more].concat();
    let (moved, not_kept) = (moved(3, "new", "f", 1), moved(3, "new", "f", NOT_KEPT));
    let undone = &["", "f to new, f back", "f to new, f back, new gone 7"][..];
    for (told, lost, on_btrfs) in [
        (told(vec![moved.clone()]), undone, &["", "f to new, f back"][..]),
        (told(vec![moved.clone(), synced(3, 7)]), undone, &[""][..]),
        (told(vec![directory_synced(1), moved.clone()]), &undone[..2], &undone[..2]),
        (told(vec![moved, directory_synced(1)]), &[""][..], &[""][..]),
        (told(vec![not_kept]), &[""][..], &[""][..]),
    ] {
        Case { told, files: &[("f", 3, 7)], kept: &[(1, 2, 5)], lost, on_btrfs }.check();
    }
}

#[test]
fn names_that_have_nothing_to_do_with_each_other_are_lost_each_by_itself() {
    let told = vec![made(2, "a"), made(3, "b"), synced(2, 2), synced(3, 2)];
    let lost = &["", "a gone 2", "b gone 2", "b gone 2, a gone 2"];
    Case { told, files: &[("a", 2, 2), ("b", 3, 2)], kept: &[], lost, on_btrfs: &[""] }.check();
}

#[test]
fn with_a_new_directory_all_that_is_in_it_is_gone() {
    let told = [made(9, "db"), directory_synced(9), synced(2, 5), synced(3, 4)];
    let mut disk = disk(&[("db/f", 2, 5), ("db/g", 3, 4), ("dbx", 4, 0)], &[]);
    disk.directories.insert(id(9), "d/db".into());
    assert_eq!(losses(&told, &disk, Names::BySyncOfDirectory), set(&["", "db gone 9"]));
}

#[test]
fn a_record_that_is_torn_is_none_and_what_is_no_record_is_an_error() {
    let whole = journal(&[synced(2, 6), over(2, 0, b"ab")]);
    let first = Synced::read(&whole[..Record::BYTES]).expect("a record");
    for end in Record::BYTES..whole.len() {
        assert_eq!(Synced::read(&whole[..end]), Ok(first.clone()), "{end} bytes");
    }
    let mut bad = whole.clone();
    bad[Record::BYTES + 7] ^= 1;
    assert_eq!(Synced::read(&bad), Err(BadJournal { at: Record::BYTES }));
    let without_place = journal(&[synced(2, 6), told(Kind::Created, 3, 0)]);
    assert_eq!(Synced::read(&without_place), Err(BadJournal { at: Record::BYTES }));
}

#[test]
fn a_journal_written_anew_says_the_same() {
    let synced = read(&[
        made(2, "a"),
        synced(2, 10),
        directory_synced(1),
        made(3, "b"),
        over(2, 8, b"ab"),
        over(2, 2, b"cd"),
        synced(4, 7),
        moved(4, "old", "c", 3),
        synced(5, 9),
        cut(5, 2, 4),
        removed(6, "e", 5),
    ]);
    let again = Synced::read(&synced.records()).expect("records");
    assert_eq!((again.records(), again.kept()), (synced.records(), BTreeSet::from([3, 4, 5])));
    let files = [("a", 2, 20), ("b", 3, 20), ("c", 4, 20), ("d", 5, 2)];
    let disk = disk(&files, &[(3, 30, 1), (4, 40, 9), (5, 6, 8)]);
    for seed in SEEDS {
        let plan = |synced| plan(synced, disk.clone(), Names::BySyncOfDirectory, &mut Dice::new(seed));
        assert_eq!(plan(&synced), plan(&again));
    }
}

#[test]
fn only_so_many_pieces_are_remembered() {
    let mut records = vec![synced(2, 8)];
    records.extend((0..2 * PIECES_MAX as u64).map(|at| over(2, at % 8, b"a")));
    assert_eq!(read(&records).files[&id(2)].pieces.len(), PIECES_MAX);
    records.push(failed(2, 8));
    records.extend((0..PIECES_MAX as u64).map(|at| over(2, at % 8, b"a")));
    assert_eq!(read(&records).files[&id(2)].doomed.len(), 0, "all was written again");
    records.push(failed(2, 8));
    assert_eq!(read(&records).files[&id(2)].doomed.len(), PIECES_MAX);
}

#[test]
fn diaries_do_not_count() {
    let cut = |name: &str| Change::Cut { path: PathBuf::from(name), from: 10, to: 4 };
    let undone = Change::Undone { path: "n1/mark".into(), piece: Piece { at: 0, bytes: vec![1, 2] } };
    let moved = |from: &str, to: &str| Change::Moved { from: from.into(), to: to.into() };
    let changes = [
        moved("n1/db/LOG.old.17", "n1/db/LOG"),
        moved("n1/db/CURRENT", "n1/db/000013.dbtmp"),
        cut("n1/db/LOG"),
        cut("n1/db/LOG.old.17"),
        cut("n1/db/000012.log"),
        cut("n1/mark"),
        undone,
    ];
    assert_eq!(Loss::of(&changes), Loss { files: 2, bytes: 14, names: 1 });
}

/// What a process does to the files of a directory, that is `plan`'s to take from.
fn work(folder: &Path) {
    let at = |name: &str| folder.join(name);
    let write = |name: &str, bytes: &[u8]| {
        let file = File::create(at(name)).expect("made");
        file.write_all_at(bytes, 0).expect("written");
        file
    };
    for name in ["kept", "cut", "new name", "removed", "replaced", "emptied"] {
        write(name, b"0123456789").sync_data().expect("synced");
    }
    fs::rename(at("new name"), at("renamed")).expect("renamed");
    let mut gathered = File::create(at("gathered")).expect("made");
    File::open(folder).and_then(|folder| folder.sync_all()).expect("synced");
    let cut = OpenOptions::new().write(true).open(at("cut")).expect("it is there");
    cut.write_all_at(b"abcdef", 10).expect("written");
    cut.write_all_at(b"XY", 2).expect("written");
    write("open", b"0123456789").sync_data().expect("synced");
    write("never", b"0123456789");
    assert_eq!(gathered.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"c")]).expect("written"), 3);
    assert_eq!(fs::copy(at("kept"), at("copied")).expect("copied"), 10);
    fs::remove_file(at("removed")).expect("removed");
    write("fresh", b"01234").sync_data().expect("synced");
    fs::rename(at("fresh"), at("replaced")).expect("renamed");
    write("emptied", b"ab");
}

#[test]
fn what_a_process_has_told_is_what_may_be_lost() {
    if let Some(folder) = folder_under_shim() {
        return work(&folder);
    }
    let watched = Watched::new();
    watched.run("cluster::power::tests::what_a_process_has_told_is_what_may_be_lost");
    assert!(watched.sidecar.unmodelled().expect("counted").is_empty());
    let (synced, disk) =
        (watched.sidecar.synced().expect("records"), watched.sidecar.disk(&watched.data).expect("files"));
    let mut seen = BTreeSet::new();
    for seed in SEEDS {
        let changes = plan(&synced, disk.clone(), Names::BySyncOfDirectory, &mut Dice::new(seed));
        let name = |change: &Change| change.path().file_name().map(|name| name.to_string_lossy().into_owned());
        seen.extend(changes.iter().map(|change| format!("{}: {}", name(change).unwrap_or_default(), said(change))));
    }
    let mut expected = set(&[
        "cut: \"23\" at 2",
        "cut: \"2\" at 2",
        "open: open gone 10",
        "never: never gone 10",
        "copied: copied gone 10",
        "removed: removed back",
        "replaced: replaced to fresh",
        "replaced: replaced back",
        "fresh: fresh gone 5",
        "emptied: uncut to 10",
    ]);
    expected.extend((10..16).map(|to| format!("cut: cut 16 to {to}")));
    expected.extend((0..10).map(|to| format!("never: cut 10 to {to}")));
    expected.extend((0..10).map(|to| format!("copied: cut 10 to {to}")));
    expected.extend((0..3).map(|to| format!("gathered: cut 3 to {to}")));
    expected.extend((0..2).map(|to| format!("emptied: cut 2 to {to}")));
    assert_eq!(seen, expected);
}

/// Writes behind what is there, and syncs.
fn append(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(folder.join("f"))?;
    file.write_all(bytes).expect("written");
    file.sync_data()
}

#[test]
fn a_sync_that_succeeds_later_does_not_mend_one_that_failed() {
    const TEST: &str = "cluster::power::tests::a_sync_that_succeeds_later_does_not_mend_one_that_failed";
    if let Some(folder) = folder_under_shim() {
        let is_first = !folder.join("f").exists();
        let done = append(&folder, if is_first { b"01234" } else { b"abcde" });
        return assert_eq!(done.is_err(), is_first);
    }
    let watched = Watched::new();
    watched.sidecar.set(Word::SyncErrno, libc::EIO as u64).expect("told");
    watched.run(TEST);
    watched.sidecar.set(Word::SyncErrno, 0).expect("told");
    watched.sidecar.rewrite(&watched.sidecar.synced().expect("records")).expect("written anew");
    watched.run(TEST);
    let path = watched.data.join("f");
    assert_eq!(fs::read(&path).expect("it is there"), b"01234abcde", "it can be read all the while");
    let (synced, disk) =
        (watched.sidecar.synced().expect("records"), watched.sidecar.disk(&watched.data).expect("files"));
    let mut plans = SEEDS.map(|seed| plan(&synced, disk.clone(), Names::BySyncOfDirectory, &mut Dice::new(seed)));
    let kept = plans.find(|changes| !matches!(changes[..], [Change::Gone { .. }])).expect("its name may stay");
    apply(&kept).expect("done");
    assert_eq!(fs::read(&path).expect("it is there"), b"\x00\x00\x00\x00\x00abcde");
}

#[test]
fn what_is_left_is_what_was_planned_and_counts_as_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["a", "b", "c", "d", "kept e", "kept f", "f", "zeroed"] {
        fs::write(folder.path().join(name), "0123456789").expect("written");
    }
    fs::write(folder.path().join("f"), "x").expect("written");
    fs::create_dir_all(folder.path().join("g/h")).expect("made");
    let path = |name: &str| folder.path().join(name);
    let changes = [
        Change::Gone { path: path("a"), bytes: 10 },
        Change::Gone { path: path("g"), bytes: 0 },
        Change::Moved { from: path("d"), to: path("moved d") },
        Change::Back { kept: path("kept e"), path: path("e") },
        Change::Cut { path: path("b"), from: 10, to: 6 },
        Change::Undone { path: path("b"), piece: Piece { at: 1, bytes: b"xyz".to_vec() } },
        Change::Uncut { path: path("f"), kept: path("kept f"), to: 7, lost: 1 },
        Change::Zeroed { path: path("zeroed"), from: 3, to: 5 },
    ];
    apply(&changes).expect("done");
    fs::remove_file(path("kept f")).expect("it was copied");
    let left = find(folder.path()).expect("files");
    let name = |found: &Found| found.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let text = |found: &Found| fs::read_to_string(&found.path).expect("text");
    let said: Vec<String> =
        left.iter().map(|found| format!("{}: {}", name(found).unwrap_or_default(), text(found))).collect();
    let whole = "0123456789";
    let expected =
        ["b: 0xyz45", &format!("c: {whole}"), &format!("e: {whole}"), "f: 0123456", &format!("moved d: {whole}")];
    assert_eq!(said, [&expected[..], &["zeroed: 012\x00\x0056789"]].concat());
    assert!(!path("g").exists());
    let disk = Disk::read(folder.path(), tempfile::tempdir().expect("a folder").path()).expect("files");
    let nothing = plan(&Synced::all(&left), disk, Names::BySyncOfDirectory, &mut Dice::new(7));
    assert_eq!((nothing, Loss::of(&changes)), (vec![], Loss { files: 5, bytes: 20, names: 2 }));
}
