//! The shim under real processes: this test program starts itself again with it.

use std::io::{self, Write};

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
        assert!(File::open(&folder).and_then(|folder| folder.sync_all()).is_err());
        let elsewhere = folder.parent().expect("it is in one").join("elsewhere");
        return File::create(elsewhere).and_then(|file| file.sync_all()).expect("not of the directory");
    }
    let watched = Watched::new();
    watched.sidecar.set(Word::SyncErrno, libc::EIO as u64).expect("told");
    watched.run("cluster::disk::tests::syncs_fail_when_they_are_told_to");
    assert_eq!(watched.sidecar.word(Word::SyncsFailed).expect("said"), 3);
    let synced = watched.sidecar.synced().expect("records");
    let files = super::super::power::find(&watched.data).expect("files");
    assert_ne!(synced, Synced::all(&files), "nothing counts as synced");
}

#[test]
fn a_full_disk_takes_what_fits_and_no_more() {
    if let Some(folder) = folder_under_shim() {
        let mut file = File::create(folder.join("f")).expect("made");
        assert_eq!(file.write(&[7; 60]).expect("there is room"), 60);
        assert_eq!(file.write(&[7; 60]).expect("there is some room"), 40);
        let full = |result: io::Result<usize>| result.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSPC));
        assert!(full(file.write(&[7; 60])) && full(file.write_at(&[7; 60], 100)));
        assert_eq!(file.write_at(&[8; 100], 0).expect("it does not grow"), 100);
        let elsewhere = folder.parent().expect("it is in one").join("elsewhere");
        return fs::write(elsewhere, [7; 60]).expect("not of the directory");
    }
    let watched = Watched::new();
    watched.sidecar.set(Word::SpaceLeft, 100).expect("told");
    watched.sidecar.set(Word::SpaceLimited, 1).expect("told");
    watched.run("cluster::disk::tests::a_full_disk_takes_what_fits_and_no_more");
    let said = [Word::WritesRefused, Word::SpaceLeft].map(|word| watched.sidecar.word(word).expect("said"));
    assert_eq!(said, [2, 0]);
}
