//! Line 5: a damaged file. The node serves the right data, or refuses and names what is wrong; it never opens with
//! less than it acknowledged, and a refusal changes nothing.
//!
//! All three directories are put back before each case: the others would refuse a node that came from a copy.
//!
//! Left out: damage after a flush, a compaction and an ingest beside the live log, which the store's tests do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::files::{Damage, Sum, regular_files, sums};
use crate::load::{Load, fill};
use crate::process::Start;
use crate::scenario::{Scenario, beside_others};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a damaged node is given to become ready or to end.
const SETTLED_MAX: Duration = Duration::from_secs(15);
/// Files of the short form.
const SHORT_FILES: usize = 6;
/// The node whose files are damaged.
const VICTIM: usize = 2;

/// How the node ended before its files were damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Terminated,
    /// Its live write-ahead log holds what it acknowledged last.
    Killed,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_after_kill() {
    let scenario = Scenario::begin("cluster_5::damage_after_kill");
    damage_each_file(scenario, Ending::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_after_clean_stop() {
    let scenario = Scenario::begin("cluster_5::damage_after_clean_stop");
    if scenario.full {
        damage_each_file(scenario, Ending::Terminated).await;
    } else {
        println!("only in the full form");
    }
}

async fn damage_each_file(scenario: Scenario, ending: Ending) {
    let _turn = beside_others().await;
    let mut cluster = Cluster::form(3, &[]).await;
    load_and_end(&mut cluster, ending).await;
    let pristine = cluster.folder("pristine");
    cluster.copy_directories(&pristine);
    let mut files = damageable(&cluster.nodes[VICTIM].dir);
    if !scenario.full {
        files.truncate(SHORT_FILES);
    }
    let (mut served, mut refused, mut breaches) = (0, 0, Vec::new());
    for file in &files {
        for damage in [Damage::Flip, Damage::Cut] {
            let case = Case { file, damage, ending };
            match case.run(&mut cluster, &pristine).await {
                Verdict::Served => served += 1,
                Verdict::Refused => refused += 1,
                Verdict::Breach(what) => breaches.push(format!("{}: {what}", case.text())),
            }
        }
    }
    println!("{ending:?}: {} files damaged twice, {served} times served, {refused} times refused", files.len());
    let text = breaches.join("\n");
    assert!(breaches.is_empty(), "expected right data, or a refusal that names the file and changes nothing:\n{text}");
}

async fn load_and_end(cluster: &mut Cluster, ending: Ending) {
    let client = cluster.client().await;
    fill(&client, "filled/", 300, 1000, 10).await;
    // A clean stop in between leaves table files beside the live log.
    cluster.terminate(VICTIM).await;
    cluster.start(VICTIM).await;
    let load = Load::start(&client, "loaded");
    load.more(300, PATIENCE).await;
    match ending {
        Ending::Killed => cluster.kill(VICTIM).await,
        Ending::Terminated => {
            cluster.terminate(VICTIM).await;
        }
    }
    drop(load);
    cluster.terminate_all().await;
}

/// The files worth damaging: those that matter most first.
fn damageable(directory: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = regular_files(directory)
        .into_iter()
        .filter(|(name, path)| !is_free_to_change(name) && std::fs::metadata(path).is_ok_and(|file| file.len() > 0))
        .map(|(name, _)| name)
        .collect();
    files.sort_by_key(|name| (rank(name), std::cmp::Reverse(name.clone())));
    files
}

fn rank(name: &[u8]) -> u8 {
    let name = String::from_utf8_lossy(name);
    match name.as_ref() {
        "mark" => 0,
        name if name.ends_with(".log") => 1,
        name if name.ends_with("CURRENT") => 2,
        name if name.contains("MANIFEST") => 3,
        name if name.ends_with(".sst") => 4,
        _ => 5,
    }
}

/// The lock, and RocksDB's diary: what a refused start may write.
fn is_free_to_change(name: &[u8]) -> bool {
    let name = String::from_utf8_lossy(name);
    let file = name.rsplit('/').next().unwrap_or_default();
    file == "lock" || file == "LOCK" || file.starts_with("LOG")
}

/// The log file that was being written at the end.
fn live_log(directory: &Path) -> Option<Vec<u8>> {
    damageable(directory).into_iter().find(|name| name.ends_with(b".log"))
}

/// One file, damaged in one way.
struct Case<'a> {
    file: &'a [u8],
    damage: Damage,
    ending: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Served,
    /// It exited or stayed out, and named what is wrong.
    Refused,
    /// Neither; the text says what happened instead.
    Breach(String),
}

impl Case<'_> {
    fn text(&self) -> String {
        format!("{:?} of {} after {:?}", self.damage, String::from_utf8_lossy(self.file), self.ending)
    }

    async fn run(&self, cluster: &mut Cluster, pristine: &Path) -> Verdict {
        cluster.kill_all().await;
        cluster.put_back_directories(pristine);
        let directory = cluster.nodes[VICTIM].dir.clone();
        let acknowledged_is_damaged =
            self.ending == Ending::Killed && live_log(&directory).is_some_and(|log| log == self.file);
        self.damage.inflict(&self.path(&directory));
        let before = judged_sums(&directory);
        for node in 0..3 {
            cluster.launch(node);
        }
        let start = cluster.nodes[VICTIM].running().outcome(SETTLED_MAX).await;
        let verdict = match self.judge(start, cluster, &before).await {
            Verdict::Served if acknowledged_is_damaged => {
                Verdict::Breach("it was served, although acknowledged data is gone".to_owned())
            }
            verdict => verdict,
        };
        println!("{}: {verdict:?}", self.text());
        verdict
    }

    fn path(&self, directory: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        directory.join(std::ffi::OsStr::from_bytes(self.file))
    }

    async fn judge(&self, start: Start, cluster: &mut Cluster, before: &BTreeMap<Vec<u8>, Sum>) -> Verdict {
        let directory = cluster.nodes[VICTIM].dir.clone();
        let ended = match start {
            Start::Ready => match self.compare(cluster).await {
                Compared::Equal => return Verdict::Served,
                Compared::Different(what) => return Verdict::Breach(what),
                Compared::Ended(status) => Some(status),
            },
            Start::Exited(status) => Some(status),
            Start::StaysOut => None,
        };
        let log = cluster.nodes[VICTIM].running().log();
        let end = cluster.nodes[VICTIM].running().log_end();
        let folder = directory.to_str().expect("a plain path");
        let file = String::from_utf8_lossy(self.file);
        let changed = differences(before, &judged_sums(&directory));
        if ended.is_some_and(|status| status.success()) {
            Verdict::Breach(format!("it exited with 0:\n{end}"))
        } else if matches!(start, Start::Exited(_)) && !changed.is_empty() {
            Verdict::Breach(format!("it refused and changed {}:\n{end}", changed.join(", ")))
        } else if !log.contains(folder) && !log.contains(file.as_ref()) {
            Verdict::Breach(format!("it refused without naming {file} or {folder}:\n{end}"))
        } else {
            Verdict::Refused
        }
    }

    /// Compares what a node that became ready holds with the others. It may find the damage only then.
    async fn compare(&self, cluster: &mut Cluster) -> Compared {
        for node in (0..3).filter(|node| *node != VICTIM) {
            cluster.ready(node).await;
        }
        let verified = cluster.verify().await;
        match (cluster.nodes[VICTIM].running().exited(), verified.code) {
            (Some(status), _) => Compared::Ended(status),
            (None, Some(0)) => Compared::Equal,
            (None, code) => {
                let said = String::from_utf8_lossy(&verified.stdout);
                Compared::Different(format!(
                    "it stayed up, and verify exited with {code:?}:\n{said}{}",
                    verified.stderr
                ))
            }
        }
    }
}

/// What comparing a damaged node's content with the others' found.
enum Compared {
    Equal,
    /// It is up, and its content is not the others', or cannot be read.
    Different(String),
    /// The node ended over it.
    Ended(ExitStatus),
}

/// Names of the files that are not the same on both sides.
fn differences(before: &BTreeMap<Vec<u8>, Sum>, after: &BTreeMap<Vec<u8>, Sum>) -> Vec<String> {
    let names: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
    let differ = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    differ.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn judged_sums(directory: &Path) -> BTreeMap<Vec<u8>, Sum> {
    sums(directory).into_iter().filter(|(name, _)| !is_free_to_change(name)).collect()
}
