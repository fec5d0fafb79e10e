//! A disk that runs full: puts are refused in time and in so many words, all else goes on, and nothing that was
//! acknowledged is lost.

mod given_back;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;
use trefoil_proto::v1;
use trefoil_proto::v1::kv_client::KvClient;
use trefoil_proto::v1::op::Op;

use crate::cluster::Cluster;
use crate::errors_table::{Case, Ledger};
use crate::files::regular_files;
use crate::process::finish;
use crate::raw::{self, bounded};
use crate::scenario::{Scenario, beside_others};
use crate::wait::until;

pub const FLOOR: Case = Case::new(
    "less disk space than `--free-space-floor-bytes`",
    "EXHAUSTED",
    "free disk space is exhausted: the limit is 268435456; try again later",
);

const FLAG: &str = "--free-space-floor-bytes";
/// More than any disk has.
const ALWAYS_FULL: &str = "9000000000000000000";
/// A file system in memory, and how much of it is to stay free. Above the floor there is room for a write-ahead log,
/// which RocksDB gives 18 MiB at once, and for what is written between two looks at the disk; below it there is room
/// for every family's memtable (16 MiB each) and for tables written before old ones are removed.
const SMALL_DISK: &str = "size=256m";
const SMALL_FLOOR: &str = "134217728";
const SMALL_FLOOR_BYTES: u64 = 128 << 20;
/// Values of a size that fills it within seconds, in puts that do not outrun the next look at it.
const VALUE_BYTES: usize = 8 << 10;
/// More puts than the disk can hold.
const PUTS_MAX: u64 = 100_000;
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// A full node gives its log back down to this, once a second: if it is full then, it is full of what lives.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// How long it may take a node that refuses puts to give its log back, and to take puts again if that was enough.
const SETTLED_MAX: Duration = Duration::from_secs(60);
const RUN_MAX: Duration = Duration::from_secs(20);
/// What the alarm says.
const ALARM: &str = "puts are refused";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_floor_only_puts_are_refused() {
    Scenario::begin("disk_space::below_the_floor_only_puts_are_refused");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open([FLOOR]);
    let mut cluster = Cluster::form(1, &[]).await;
    let client = cluster.client().await;
    for key in ["kept", "gone", "gone/1", "gone/2"] {
        client.put(key, "v").await.unwrap_or_else(|error| panic!("expected a put to work: {error}"));
    }
    expect_alarm(&cluster, false).await;
    cluster.terminate(0).await;
    cluster.launch_with(0, &[FLAG, ALWAYS_FULL]);
    cluster.ready(0).await;
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[0].client).await);
    for (what, status) in refused_puts(&mut kv).await {
        println!("{what}:");
        ledger.check(FLOOR, &status);
    }
    let client = cluster.client().await;
    let found = client.get("kept").await.unwrap_or_else(|error| panic!("expected a get to work: {error}"));
    assert_eq!(found.pair().map(|pair| pair.version), Some(1), "expected the key as it was");
    let deleted = client.delete("gone").await.unwrap_or_else(|error| panic!("expected a delete to work: {error}"));
    assert_eq!(deleted.deleted, 1, "expected the delete to be carried out");
    let delete = v1::DeleteOp { range: Some(prefix("gone/")), previous: false };
    let read = v1::RangeOp { range: Some(prefix("kept")), ..v1::RangeOp::default() };
    let txn = branches(vec![Op::Delete(delete), Op::Range(read)], Vec::new());
    let done = kv.txn(bounded(txn, ATTEMPT_MAX)).await;
    let done = done.unwrap_or_else(|status| panic!("expected a transaction without puts to work: {status:?}"));
    assert_eq!(done.into_inner().replies.len(), 2, "expected both operations to be carried out");
    expect_alarm(&cluster, true).await;

    cluster.terminate(0).await;
    cluster.start(0).await;
    let client = cluster.client().await;
    client.put("kept", "again").await.unwrap_or_else(|error| panic!("expected a put with room to work: {error}"));
    expect_alarm(&cluster, false).await;
    ledger.close();
}

/// How puts fail, alone and within transactions, whichever branch holds them.
async fn refused_puts(kv: &mut KvClient<Channel>) -> Vec<(&'static str, Status)> {
    let put = || Op::Put(v1::PutOp { key: "never".into(), value: "v".into(), ..v1::PutOp::default() });
    let read = || Op::Range(v1::RangeOp { range: Some(prefix("kept")), ..v1::RangeOp::default() });
    let nested = |op| -> Vec<Op> { branches(vec![read()], vec![op]).txn.map(Op::Txn).into_iter().collect() };
    let alone = kv.put(bounded(raw::put("never", "v"), ATTEMPT_MAX)).await.map(drop);
    let mut answers = vec![("a put", alone)];
    for (what, txn) in [
        ("a put if the compares hold", branches(vec![read(), put()], vec![read()])),
        ("a put if they do not", branches(vec![read()], vec![put()])),
        ("a put of a nested transaction that will not run it", branches(nested(put()), Vec::new())),
    ] {
        answers.push((what, kv.txn(bounded(txn, ATTEMPT_MAX)).await.map(drop)));
    }
    let refused = |(what, answer): (&'static str, Result<(), Status>)| match answer {
        Ok(()) => panic!("{what}: expected it to be refused without disk space"),
        Err(status) => (what, status),
    };
    answers.into_iter().map(refused).collect()
}

fn prefix(key: &'static str) -> v1::KeyRange {
    v1::KeyRange { key: key.into(), end: Some(v1::key_range::End::Prefix(true)) }
}

/// A transaction without compares: it takes the first branch.
fn branches(success: Vec<Op>, failure: Vec<Op>) -> v1::TxnRequest {
    let ops = |ops: Vec<Op>| ops.into_iter().map(|op| v1::Op { op: Some(op) }).collect();
    let txn = v1::Txn { compares: Vec::new(), success: ops(success), failure: ops(failure) };
    v1::TxnRequest { txn: Some(txn), ..v1::TxnRequest::default() }
}

/// Whether `kvctl cluster status` shows the alarm.
async fn expect_alarm(cluster: &Cluster, raised: bool) {
    let shown = finish(cluster.kvctl(&["cluster", "status"]), RUN_MAX).await;
    shown.expect_code("kvctl cluster status", &[0]);
    let said = String::from_utf8_lossy(&shown.stdout).into_owned() + &shown.stderr;
    let alarm = said.lines().any(|line| line.contains("ALARM n1") && line.contains(ALARM));
    assert_eq!(alarm, raised, "expected an alarm about the disk: {raised}; kvctl cluster status says:\n{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_runs_full() {
    let scenario = Scenario::begin("disk_space::a_disk_that_runs_full");
    let _turn = beside_others().await;
    let mut ledger = Ledger::open([FLOOR]);
    let mut cluster = Cluster::plan(1, &[FLAG, SMALL_FLOOR]).await;
    // Declared behind the cluster, so that it is unmounted before the directory is removed.
    let mounted = match Mounted::at(&cluster.nodes[0].dir) {
        Ok(mounted) => mounted,
        Err(why) => {
            println!("skipped: a file system in memory cannot be mounted here: {why}");
            return;
        }
    };
    cluster.start_all().await;
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[0].client).await);
    let (acked, status) = fill_up(&cluster, &mounted, &mut kv, scenario).await;
    let free = mounted.free_bytes();
    println!("{acked} puts of {VALUE_BYTES} bytes were acknowledged, then {free} bytes were free");
    ledger.check(FLOOR, &status);
    expect_values(&mut kv, scenario, 0..acked).await;
    let deleted = acked / 4;
    for number in 0..deleted {
        let delete = v1::DeleteRequest { range: Some(key(number)), ..v1::DeleteRequest::default() };
        let answer = kv.delete(bounded(delete, ATTEMPT_MAX)).await;
        let answer = answer.unwrap_or_else(|status| panic!("expected deletes to go on: {status:?}")).into_inner();
        assert_eq!(answer.deleted, 1, "expected the delete of put {number} to be carried out");
    }
    let process = cluster.nodes[0].running();
    let (exited, end) = (process.exited(), process.log_end());
    assert_eq!(exited, None, "expected the node to be alive; its log ends:\n{end}");
    let status = cluster.terminate(0).await;
    assert!(status.success(), "expected a clean stop with little disk space, got {status}");
    cluster.start(0).await;
    let mut kv = KvClient::new(raw::connected(&cluster.nodes[0].client).await);
    expect_values(&mut kv, scenario, deleted..acked).await;
    println!("all are there after a restart, but for the {deleted} that were deleted");
    ledger.close();
}

/// Puts until the disk is full of what lives. How many were acknowledged, and how the first one failed that was not.
async fn fill_up(
    cluster: &Cluster,
    mounted: &Mounted,
    kv: &mut KvClient<Channel>,
    scenario: Scenario,
) -> (u64, Status) {
    let what = "a refused put to be taken once the log is given back, or the disk to be full without it";
    for number in 0..PUTS_MAX {
        let attempt = async || match put(kv, scenario, number).await {
            Ok(()) => Some(None),
            Err(status) => is_full(cluster, mounted).await.then_some(Some(status)),
        };
        if let Some(status) = until(what, SETTLED_MAX, attempt).await {
            return (number, status);
        }
    }
    panic!("expected puts to be refused once little of {SMALL_DISK} is free");
}

/// Whether little is free, also without the log, and the node says so.
async fn is_full(cluster: &Cluster, mounted: &Mounted) -> bool {
    let given_back = log_bytes(&mounted.at) < LOG_BYTES_MAX;
    let status = cluster.status(0).await;
    let alarm = status.is_some_and(|status| status.alarms.iter().any(|alarm| alarm.contains(ALARM)));
    given_back && alarm && mounted.free_bytes() < SMALL_FLOOR_BYTES
}

/// Bytes of the write-ahead log; a file that went meanwhile counts nothing.
fn log_bytes(directory: &Path) -> u64 {
    let files = regular_files(directory).into_values();
    let logs = files.filter(|file| file.extension().is_some_and(|end| end == "log"));
    logs.map(|file| fs::metadata(file).map_or(0, |found| found.len())).sum()
}

async fn put(kv: &mut KvClient<Channel>, scenario: Scenario, number: u64) -> Result<(), Status> {
    kv.put(bounded(raw::put(key(number).key, value(scenario, number)), ATTEMPT_MAX)).await.map(drop)
}

/// What was put is there.
async fn expect_values(kv: &mut KvClient<Channel>, scenario: Scenario, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let get = v1::GetRequest { key: key(number).key, ..v1::GetRequest::default() };
        let answer = kv.get(bounded(get, ATTEMPT_MAX)).await;
        let answer = answer.unwrap_or_else(|status| panic!("expected gets to work: {status:?}")).into_inner();
        let found = answer.values.first().map(|pair| &pair.value[..]);
        assert!(
            found == Some(&value(scenario, number)[..]),
            "expected acknowledged put {number} to be there as it was"
        );
    }
}

fn key(number: u64) -> v1::KeyRange {
    v1::KeyRange { key: format!("full/{number:08}").into(), end: None }
}

/// A value that does not compress, and that the number tells again.
fn value(scenario: Scenario, number: u64) -> Vec<u8> {
    let mut dice = Scenario { seed: scenario.seed.wrapping_add(number), ..scenario }.dice();
    let words = std::iter::repeat_with(|| dice.roll().to_be_bytes());
    words.take(VALUE_BYTES / 8).flatten().collect()
}

/// A small file system in memory; it goes with its handle, also when a test panics.
#[derive(Debug)]
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// Makes the directory and mounts it there.
    fn at(directory: &Path) -> std::io::Result<Mounted> {
        fs::create_dir_all(directory)?;
        let target = path(directory);
        let options = CString::new(SMALL_DISK).expect("no zero byte");
        // SAFETY: all pointers are to terminated strings that live until the call returns.
        let result =
            unsafe { libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast()) };
        match result {
            0 => Ok(Mounted { at: directory.to_owned() }),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    fn free_bytes(&self) -> u64 {
        let target = path(&self.at);
        // SAFETY: statvfs is plain data for which all zeroes are valid, and `target` is a terminated string.
        let (result, stats) = unsafe {
            let mut stats: libc::statvfs = std::mem::zeroed();
            (libc::statvfs(target.as_ptr(), &raw mut stats), stats)
        };
        assert_eq!(result, 0, "expected to learn how much of {:?} is free", self.at);
        stats.f_bavail * stats.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let target = path(&self.at);
        // SAFETY: a terminated string. Detached, it goes once the last file in it is closed.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without a zero byte")
}
