//! The shim under real processes: this test program starts itself again with it.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;

use super::*;

/// Names the folder a test is to work in when it runs under the shim.
const FOLDER: &str = "TREFOIL_SHIM_TEST";

/// The folder to work in, when this is the process under the shim.
pub(in crate::cluster) fn folder_under_shim() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// A data directory and its sidecar.
pub(in crate::cluster) struct Watched {
    pub(in crate::cluster) data: PathBuf,
    pub(in crate::cluster) sidecar: Sidecar,
    _folder: tempfile::TempDir,
}

impl Watched {
    pub(in crate::cluster) fn new() -> Watched {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("it is there");
        let (data, sidecar) = (path.join("data"), Sidecar::create(path.join("sidecar")).expect("made"));
        fs::create_dir(&data).expect("made");
        Watched { data, sidecar, _folder: folder }
    }

    /// Runs the test of this name again, under the shim; it must succeed.
    pub(in crate::cluster) fn run(&self, test: &str) {
        let shim = Shim::find(None).expect("the workspace is built");
        let mut command = Command::new(env::current_exe().expect("this program's path"));
        command.args(["--exact", test, "--nocapture"]).envs(self.sidecar.environment(&shim, &self.data));
        let output = command.env(FOLDER, &self.data).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

#[test]
fn the_shim_loads_into_a_program_or_that_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().canonicalize().expect("it is there");
    let shim = Shim::find(None).expect("the workspace is built");
    shim.loads_into(Path::new("/bin/sh"), &path.join("probe")).expect("a shell is linked dynamically");
    let no_library = path.join("no_library.so");
    fs::write(&no_library, "text").expect("written");
    let shim = Shim::find(Some(&no_library)).expect("a file");
    let error = shim.loads_into(Path::new("/bin/sh"), &path.join("probe")).expect_err("it is no library");
    assert!(error.to_string().contains("does not load into /bin/sh"), "{error}");
    assert!(!path.join("probe").exists());
    assert!(Shim::find(Some(&path.join("none.so"))).is_err());
}

#[test]
fn syncs_fail_when_they_are_told_to() {
    if let Some(folder) = folder_under_shim() {
        let mut file = File::create(folder.join("f")).expect("made");
        file.write_all(b"abc").expect("written");
        let (of_file, of_data) = (file.sync_all().expect_err("told to"), file.sync_data().expect_err("told to"));
        assert_eq!((of_file.raw_os_error(), of_data.raw_os_error()), (Some(libc::EIO), Some(libc::EIO)));
        // SAFETY: these calls touch no memory.
        let (asked, of_range) = unsafe {
            let fd = file.as_raw_fd();
            (libc::sync_file_range(fd, 0, 0, 0), libc::sync_file_range(fd, 0, 0, libc::SYNC_FILE_RANGE_WRITE))
        };
        assert_eq!((asked, of_range), (0, -1), "without flags nothing is to be synced");
        assert!(File::open(&folder).and_then(|folder| folder.sync_all()).is_err());
        let elsewhere = folder.parent().expect("it is in one").join("elsewhere");
        return File::create(elsewhere).and_then(|file| file.sync_all()).expect("not of the directory");
    }
    let watched = Watched::new();
    watched.sidecar.set(Word::SyncErrno, libc::EIO as u64).expect("told");
    watched.run("cluster::disk::tests::syncs_fail_when_they_are_told_to");
    assert_eq!(watched.sidecar.word(Word::SyncsFailed).expect("said"), 4);
    let synced = watched.sidecar.synced().expect("records");
    let files = super::super::power::find(&watched.data).expect("files");
    assert_ne!(synced, Synced::all(&files), "nothing counts as synced");
}

/// Files without which a node goes on.
const DIARIES: [&str; 4] = ["LOG", "LOG.old.17", "OPTIONS-000007", "000007.dbtmp"];
/// And files that matter.
const DATA: [&str; 5] = ["000007.log", "000008.sst", "MANIFEST-000009", "mark", "mark.new"];

#[test]
fn a_full_disk_takes_what_fits_and_no_more() {
    if let Some(folder) = folder_under_shim() {
        let mut file = File::create(folder.join("f")).expect("made");
        assert_eq!(file.write(&[7; 60]).expect("there is room"), 60);
        let (none, some) = ([], [7; 30]);
        let pieces = [&none[..], &some[..], &some[..]].map(io::IoSlice::new);
        assert_eq!(file.write_vectored(&pieces).expect("there is some room"), 30, "one piece, which fits");
        assert_eq!(file.write(&[7; 60]).expect("there is some room"), 10);
        let full = |result: io::Result<usize>| result.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSPC));
        assert!(full(file.write(&[7; 60])) && full(file.write_at(&[7; 60], 100)));
        for name in DIARIES.iter().chain(&DATA) {
            let mut file = File::create(folder.join(name)).expect("it takes no space");
            assert!(full(file.write(&[7; 60])), "{name}");
        }
        assert_eq!(file.write_at(&[8; 100], 0).expect("it does not grow"), 100);
        let elsewhere = folder.parent().expect("it is in one").join("elsewhere");
        return fs::write(elsewhere, [7; 60]).expect("not of the directory");
    }
    let watched = Watched::new();
    watched.sidecar.set(Word::SpaceLeft, 100).expect("told");
    watched.sidecar.set(Word::SpaceLimited, 1).expect("told");
    watched.run("cluster::disk::tests::a_full_disk_takes_what_fits_and_no_more");
    let words = [Word::WritesRefused, Word::DataRefused, Word::SpaceLeft];
    let said = words.map(|word| watched.sidecar.word(word).expect("said"));
    assert_eq!(said, [2 + DIARIES.len() as u64 + DATA.len() as u64, DATA.len() as u64, 0]);
}

/// What a process does in a folder.
type Strange = fn(&Path);

/// What is not in the model.
static UNMODELLED: [(Unmodelled, Strange); Unmodelled::COUNT] = [
    (Unmodelled::SyncedWrite, |folder| {
        let mut how = OpenOptions::new();
        how.write(true).create_new(true).custom_flags(libc::O_DSYNC).open(folder.join("synced")).expect("made");
    }),
    (Unmodelled::SharedMapping, |folder| {
        let mut how = OpenOptions::new();
        let file = how.read(true).write(true).create_new(true).open(folder.join("mapped")).expect("made");
        let (fd, access) = (file.as_raw_fd(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a fresh mapping, which nobody looks at.
        unsafe { libc::mmap(ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, 0) };
    }),
    // SAFETY: it touches no memory. There is no such descriptor, and nothing to be synced.
    (Unmodelled::SyncOfAll, |_| assert_eq!(unsafe { libc::syncfs(-1) }, -1)),
    (Unmodelled::Transfer, |folder| {
        fs::write(folder.join("from"), "text").expect("written");
        let (from, to) = (File::open(folder.join("from")), File::create(folder.join("to")));
        let (from, to) = (from.expect("it is there"), to.expect("made"));
        // SAFETY: it touches no memory: no offset is given.
        assert_eq!(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), ptr::null_mut(), 4) }, 4);
    }),
    (Unmodelled::Rearrangement, |folder| {
        fs::write(folder.join("holes"), [7; 8192]).expect("written");
        let file = File::options().write(true).open(folder.join("holes")).expect("it is there");
        let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: these calls touch no memory. Behind the end there is nothing that could change.
        unsafe {
            libc::fallocate(file.as_raw_fd(), hole, 8192, 4096);
            libc::fallocate(file.as_raw_fd(), hole, 0, 4096);
        }
    }),
    (Unmodelled::Link, |folder| {
        File::create(folder.join("linked")).expect("made");
        fs::hard_link(folder.join("linked"), folder.join("link")).expect("made");
    }),
    (Unmodelled::MovedDirectory, |folder| {
        fs::create_dir(folder.join("old")).expect("made");
        fs::rename(folder.join("old"), folder.join("new")).expect("renamed");
    }),
    (Unmodelled::Stream, |folder| {
        let path = CString::new(folder.join("stream").as_os_str().as_bytes()).expect("it has no zero");
        // SAFETY: both texts end in a zero; the stream is closed once.
        unsafe {
            let stream = libc::fopen(path.as_ptr(), c"w".as_ptr());
            assert!(!stream.is_null());
            libc::fclose(stream);
        }
    }),
    (Unmodelled::RawCall, |folder| {
        let file = File::create(folder.join("raw")).expect("made");
        // SAFETY: the bytes are there.
        assert_eq!(unsafe { libc::syscall(libc::SYS_write, file.as_raw_fd(), c"text".as_ptr(), 4_usize) }, 4);
    }),
];

#[test]
fn what_the_model_does_not_know_is_counted() {
    if let Some(folder) = folder_under_shim() {
        return UNMODELLED.iter().for_each(|(_, strange)| strange(&folder));
    }
    let watched = Watched::new();
    watched.run("cluster::disk::tests::what_the_model_does_not_know_is_counted");
    let counted = watched.sidecar.unmodelled().expect("said");
    assert_eq!(counted, UNMODELLED.map(|(what, _)| (what, 1)));
}

#[test]
fn what_is_done_elsewhere_is_not_counted() {
    if let Some(folder) = folder_under_shim() {
        let elsewhere = folder.with_extension("elsewhere");
        fs::create_dir(&elsewhere).expect("made");
        let of_files = UNMODELLED.iter().filter(|(what, _)| *what != Unmodelled::SyncOfAll);
        return of_files.for_each(|(_, strange)| strange(&elsewhere));
    }
    let watched = Watched::new();
    watched.run("cluster::disk::tests::what_is_done_elsewhere_is_not_counted");
    assert_eq!(watched.sidecar.unmodelled().expect("said"), Vec::new());
    assert_eq!(watched.sidecar.word(Word::Kept).expect("said"), 0, "nor kept");
}
