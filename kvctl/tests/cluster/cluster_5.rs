//! Line 5: a damaged file. The node serves the right data, or refuses and names what is wrong; it never opens with
//! less than it acknowledged, and a refusal changes nothing.
//!
//! All three directories are put back before each case: the others would refuse a node that came from a copy.

mod history;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::files::{Damage, Sum, below, differences, live_log, regular_files, sums};
use crate::process::Start;
use crate::scenario::{Dice, Scenario, beside_others};

/// How long a damaged node is given to become ready or to end.
const SETTLED_MAX: Duration = Duration::from_secs(15);
/// Files of the short form.
const SHORT_FILES: usize = 6;
/// Tables of the short form beside the logs, after a long history.
const SHORT_TABLES: usize = 3;
/// The node whose files are damaged.
const VICTIM: usize = 2;

/// What the node went through before its files were damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// It was asked to stop.
    Stopped,
    /// It was killed: its live write-ahead log holds what it acknowledged last.
    Killed,
    /// It was killed, too, and while its live log was being written tables were merged, a snapshot came in, and the
    /// log family was flushed. Nothing ingests tables: a snapshot's rows are written like any others, only un-synced.
    Rewritten,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_after_kill() {
    let scenario = Scenario::begin("cluster_5::damage_after_kill");
    damage_each_file(scenario, Past::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_after_clean_stop() {
    let scenario = Scenario::begin("cluster_5::damage_after_clean_stop");
    if scenario.full {
        damage_each_file(scenario, Past::Stopped).await;
    } else {
        println!("only in the full form");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_after_flush_compaction_and_snapshot() {
    let scenario = Scenario::begin("cluster_5::damage_after_flush_compaction_and_snapshot");
    damage_each_file(scenario, Past::Rewritten).await;
}

async fn damage_each_file(scenario: Scenario, past: Past) {
    let _turn = beside_others().await;
    let mut cluster = history::live_through(past, scenario, VICTIM).await;
    let pristine = cluster.folder("pristine");
    cluster.copy_directories(&pristine);
    let mut files = damageable(&cluster.nodes[VICTIM].dir);
    if !scenario.full {
        files = sample(files, past, &mut scenario.dice());
    }
    let (mut served, mut refused, mut breaches) = (0, 0, Vec::new());
    for file in &files {
        for damage in [Damage::Flip, Damage::Cut] {
            let case = Case { file, damage, past };
            match case.run(&mut cluster, &pristine).await {
                Verdict::Served => served += 1,
                Verdict::Refused => refused += 1,
                Verdict::Breach(what) => breaches.push(format!("{}: {what}", case.text())),
            }
        }
    }
    println!("{past:?}: {} files damaged twice, {served} times served, {refused} times refused", files.len());
    let text = breaches.join("\n");
    assert!(breaches.is_empty(), "expected right data, or a refusal that names the file and changes nothing:\n{text}");
}

/// Some of the files: those that matter most, or after a long history all logs, the manifest and some of the tables.
fn sample(files: Vec<Vec<u8>>, past: Past, dice: &mut Dice) -> Vec<Vec<u8>> {
    if past != Past::Rewritten {
        return files.into_iter().take(SHORT_FILES).collect();
    }
    let is_log = |name: &[u8]| name.ends_with(b".log") || name.starts_with(b"db/MANIFEST-");
    let (mut chosen, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|name| is_log(name));
    let mut tables: Vec<_> = others.into_iter().filter(|name| name.ends_with(b".sst")).collect();
    for _ in 0..SHORT_TABLES.min(tables.len()) {
        let place = dice.below(tables.len() as u64) as usize;
        chosen.push(tables.swap_remove(place));
    }
    chosen
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

/// One file, damaged in one way.
struct Case<'a> {
    file: &'a [u8],
    damage: Damage,
    past: Past,
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
        format!("{:?} of {} after {:?}", self.damage, String::from_utf8_lossy(self.file), self.past)
    }

    async fn run(&self, cluster: &mut Cluster, pristine: &Path) -> Verdict {
        cluster.kill_all().await;
        cluster.put_back_directories(pristine);
        let directory = cluster.nodes[VICTIM].dir.clone();
        let acknowledged_is_damaged = self.past != Past::Stopped && live_log(&directory) == self.file;
        self.damage.inflict(&below(&directory, self.file));
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

fn judged_sums(directory: &Path) -> BTreeMap<Vec<u8>, Sum> {
    sums(directory).into_iter().filter(|(name, _)| !is_free_to_change(name)).collect()
}
