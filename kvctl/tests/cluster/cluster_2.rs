//! Line 2: a real import. Tens of thousands of files go in while the leader is killed twice; what comes out is what
//! went in, each key written once.
//!
//! The short form takes a made-up tree; the full one takes /usr/share and /etc of this machine.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use trefoil_client::{Client, KeyRange};
use trefoil_world::task;

use crate::cluster::Cluster;
use crate::files::{Sum, regular_files, sum, sums};
use crate::process::{Finished, finish};
use crate::scenario::{Dice, Scenario, beside_others};
use crate::wait::until;

/// A file this much below the largest request is never refused.
const SURELY_FITS: u64 = (3 << 19) - (8 << 10);
/// A file of this size never fits.
const NEVER_FITS: u64 = 3 << 19;
/// The leader is killed once this percentage of the files is stored.
const KILLED_AT: [u64; 2] = [20, 60];
const SHORT_FILES: u64 = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_outlives_two_kills_of_the_leader() {
    let scenario = Scenario::begin("cluster_2::import_outlives_two_kills_of_the_leader");
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    let client = cluster.client().await;
    let sources = if scenario.full {
        vec![PathBuf::from("/usr/share"), PathBuf::from("/etc")]
    } else {
        let tree = cluster.folder("tree");
        make_tree(&tree, &mut scenario.dice());
        vec![tree]
    };
    let bound = Duration::from_secs(scenario.pick(3600, 120));
    let expected = source_files(&sources);
    let imports: Vec<Command> = sources.iter().map(|source| import(&cluster, source)).collect();
    let running = task::spawn(async move {
        let mut done = Vec::new();
        for import in imports {
            done.push(finish(import, bound).await);
        }
        done
    });
    for percent in KILLED_AT {
        let goal = expected.len() as u64 * percent / 100;
        let what = format!("{goal} of {} files stored", expected.len());
        let stored = until(&what, bound, async || stored(&client).await.filter(|stored| *stored >= goal)).await;
        let finished = running.is_finished();
        println!(
            "kill at {stored} of {} files, the import {}",
            expected.len(),
            if finished { "over" } else { "under way" }
        );
        assert!(!(scenario.full && finished), "expected the import to be under way at {percent} %");
        let leader = cluster.leader().await;
        cluster.kill(leader).await;
        cluster.start(leader).await;
    }
    let done = running.await.expect("imports that end");
    judge(&cluster, &client, &expected, &done).await;
}

fn import(cluster: &Cluster, source: &Path) -> Command {
    let mut command = cluster.kvctl(&["import"]);
    command.arg(source).arg("--prefix").arg(OsStr::from_bytes(&prefix(source)));
    command
}

/// The files of a source lie below this key.
fn prefix(source: &Path) -> Vec<u8> {
    let mut prefix = b"files".to_vec();
    prefix.extend_from_slice(source.as_os_str().as_bytes());
    prefix.push(b'/');
    prefix
}

/// Key and path of every file that is imported.
fn source_files(sources: &[PathBuf]) -> BTreeMap<Vec<u8>, PathBuf> {
    let of_source = |source: &PathBuf| {
        let prefix = prefix(source);
        let files = regular_files(source).into_iter();
        files.map(move |(name, path)| ([prefix.as_slice(), &name].concat(), path)).collect::<Vec<_>>()
    };
    sources.iter().flat_map(of_source).collect()
}

async fn stored(client: &Client) -> Option<u64> {
    client.scan(KeyRange::prefix("files/")).count_only().await.ok()?.count
}

async fn judge(cluster: &Cluster, client: &Client, expected: &BTreeMap<Vec<u8>, PathBuf>, done: &[Finished]) {
    let keys = keys_written_once(client).await;
    let refused = refused(expected, &keys);
    let said: String = done.iter().map(|import| import.stderr.as_str()).collect();
    for import in done {
        import.expect_code("kvctl import", if refused.is_empty() { &[0] } else { &[0, 3] });
    }
    for path in &refused {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        assert!(said.contains(name.as_ref()), "expected the import to name {path:?}, which it did not store:\n{said}");
    }
    let target = cluster.folder("exported");
    let mut export = cluster.kvctl(&["export", "files/"]);
    export.arg(&target);
    finish(export, Duration::from_secs(1800)).await.expect_code("kvctl export", &[0]);
    compare(expected, &refused, sums(&target));
    cluster.expect_equal_replicas().await;
    println!("{} files stored once each, {} refused by size, sums equal", keys.len(), refused.len());
}

/// All stored keys; each must have been written once.
async fn keys_written_once(client: &Client) -> Vec<Vec<u8>> {
    let mut pairs = client.scan(KeyRange::prefix("files/")).keys_only().stream();
    let mut keys = Vec::new();
    while let Some(pair) = pairs.next().await.unwrap_or_else(|error| panic!("expected to read all keys: {error}")) {
        assert_eq!(pair.version, 1, "expected {:?} to be written once", pair.key);
        keys.push(pair.key.to_vec());
    }
    keys
}

/// The files that were not stored, which must be too large to be.
fn refused(expected: &BTreeMap<Vec<u8>, PathBuf>, keys: &[Vec<u8>]) -> Vec<PathBuf> {
    let missing = expected.iter().filter(|(key, _)| keys.binary_search(*key).is_err());
    let missing: Vec<PathBuf> = missing.map(|(_, path)| path.clone()).collect();
    for path in &missing {
        let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
        assert!(size > SURELY_FITS, "expected {path:?} of {size} bytes to be stored: it is below the limit");
    }
    missing
}

/// What came out is what went in, but for the refused files.
fn compare(expected: &BTreeMap<Vec<u8>, PathBuf>, refused: &[PathBuf], mut came_out: BTreeMap<Vec<u8>, Sum>) {
    for (key, path) in expected.iter().filter(|(_, path)| !refused.contains(path)) {
        let name = key.strip_prefix(b"files/").expect("a key below the common prefix");
        let found = came_out.remove(name);
        assert_eq!(found, Some(sum(path)), "expected the export to hold {path:?} as it is");
    }
    assert!(came_out.is_empty(), "expected no file beyond those imported: {came_out:?}");
}

/// A tree with all that makes files awkward.
fn make_tree(root: &Path, dice: &mut Dice) {
    let odd: [&[u8]; 8] = [
        b"with space",
        b"with\nnewline",
        b"not-utf8-\xff\xfe",
        "gr\u{fc}n".as_bytes(),
        b"-dash",
        b"quote\"'`$",
        b"back\\slash",
        b"tab\tand\x01control",
    ];
    for number in 0..SHORT_FILES {
        let folder = root.join(format!("folder {}", number % 17)).join(OsStr::from_bytes(odd[(number % 8) as usize]));
        fs::create_dir_all(&folder).expect("a folder of the tree");
        let mut name = odd[(number / 8 % 8) as usize].to_vec();
        name.extend_from_slice(number.to_string().as_bytes());
        let content = if number % 10 == 0 { Vec::new() } else { dice.bytes(20_000) };
        fs::write(folder.join(OsStr::from_bytes(&name)), content).expect("a file of the tree");
    }
    fs::write(root.join("too-large"), vec![b'x'; NEVER_FITS as usize]).expect("a large file of the tree");
    std::os::unix::fs::symlink("too-large", root.join("link")).expect("a link of the tree");
}
