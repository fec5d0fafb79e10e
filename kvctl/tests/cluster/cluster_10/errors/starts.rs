//! The table "kvd: start and end": each message of each row is provoked from a `kvd` process, which must end with the
//! row's code and say that and nothing else of its end.
//!
//! [`ROWS`] is the table, with what provokes each message beside it; `starts/stage.rs` plays it. Directories are copies
//! of some that killed nodes left, with one thing done to them (`starts/spoil.rs`).
//!
//! Left out: that a refused start leaves the directory as it was, which is `bad_start.rs`'s, and a sync that fails,
//! which is `cluster_3.rs`'s: here it is a write.

mod spoil;
mod stage;

use std::path::Path;

use self::spoil::{
    CURRENT, FOUNDING, REPLICA, VOTE, cut_log, damage_table, put_first_manifest_back, put_folder, put_pipe, put_zeroes,
    remember_longer_manifest, spoil_row,
};
use self::stage::Stage;
use crate::bad_start::{delete, delete_path, foreign_mark, manifest, newer_family, newer_format, write};
use crate::errors_table::rows;
use crate::files::remove;
use crate::refusal::{NOT_STARTED, USAGE};
use crate::scenario::{Scenario, beside_others};

const STOPPED: i32 = 0;
const BROKEN: i32 = 70;
const DISK_FAILED: i32 = 74;

const NO_SPACE: &str = "cannot write to stdout: No space left on device (os error 28)";

/// Exit code, condition, and each message with what provokes it.
type Row = (i32, &'static str, &'static [(&'static str, Scene)]);

/// What is done to a directory.
pub type Spoil = fn(&Path);

/// What makes a `kvd` end.
pub enum Scene {
    /// It is started with this flag, too.
    Flag(&'static str),
    /// It is started with this value of this flag.
    Value(&'static str, &'static str),
    /// It is started with a file of settings that holds this, or that is not there.
    Settings(Option<&'static str>),
    /// It is started with this flag, too, and its stdout is a disk that is full.
    FullStdout(&'static str),
    /// Somebody else listens at the address of this flag.
    PortInUse(&'static str),
    /// It is to listen at one address for clients and nodes.
    OneAddress,
    /// It is started as `kvd dev` with so many nodes, on the directories of a cluster of two.
    Dev(&'static str),
    /// Another process uses the directory.
    DirectoryInUse,
    /// It is started under this name on the directory of a cluster of one.
    Renamed(&'static str),
    /// It is started on such a directory, to which this was done.
    Spoiled(Past, Spoil),
    /// As before, and told to accept the loss of acknowledged writes.
    Accepting(Past, Spoil),
    /// As before without that; once it serves, it is to write to the key whose row was spoiled.
    Asked(Past, Spoil),
    /// It is started on a directory of this past; once it serves, this is done to the directory.
    Meanwhile(Past, Spoil),
    /// It serves, and is to write a larger file than it may.
    FileTooLarge,
    /// It can start no thread: its runtime panics.
    NoThreads,
    /// It serves, and is sent this signal.
    Signal(i32),
}

/// Where a directory comes from.
#[derive(Clone, Copy)]
pub enum Past {
    /// A cluster of one; killed in its first start, so that all is in the write-ahead log.
    First,
    /// The same one; killed in its second start, which began a new log and left the first one's content in tables.
    Second,
    /// A cluster of two.
    Pair,
}

const ROWS: &[Row] = &[
    (
        STOPPED,
        "stopped by SIGTERM or SIGINT; `--print-config`, `--check-config`, `--help`, `--version`",
        &[
            ("", Scene::Signal(libc::SIGTERM)),
            ("", Scene::Signal(libc::SIGINT)),
            ("", Scene::Flag("--print-config")),
            ("", Scene::Flag("--check-config")),
            ("", Scene::Flag("--help")),
            ("", Scene::Flag("--version")),
        ],
    ),
    (
        USAGE,
        "an unknown flag, a value that does not parse",
        &[
            ("error: unexpected argument '--nope' found", Scene::Flag("--nope")),
            ("error: invalid value 'heavy' for '--weight <WEIGHT>': …", Scene::Value("--weight", "heavy")),
        ],
    ),
    (
        USAGE,
        "an address that is none",
        &[
            ("--listen-client: 'foo' is not host:port", Scene::Value("--listen-client", "foo")),
            (
                "--listen-client: '127.0.0.1:0' has port 0, which nobody can dial",
                Scene::Value("--listen-client", "127.0.0.1:0"),
            ),
        ],
    ),
    (
        USAGE,
        "an address that others cannot dial",
        &[
            (
                "--advertise-client: is needed, because 0.0.0.0:2379 is no address others can dial",
                Scene::Value("--listen-client", "0.0.0.0:2379"),
            ),
            (
                "--advertise-peer: 0.0.0.0:2380 is no address others can dial",
                Scene::Value("--advertise-peer", "0.0.0.0:2380"),
            ),
        ],
    ),
    (
        USAGE,
        "one address for both ports",
        &[("--listen-peer: is at one address with --listen-client, 127.0.0.1:2379", Scene::OneAddress)],
    ),
    (
        USAGE,
        "a name that cannot be one",
        &[
            ("--name: 'a,b' must not be empty nor contain ',', '=' or '/'", Scene::Value("--name", "a,b")),
            (r"--name: 'a\nb' has control characters", Scene::Value("--name", "a\nb")),
        ],
    ),
    (
        USAGE,
        "a list of nodes that cannot hold",
        &[
            ("--initial-cluster: does not name this node, n1", Scene::Value("--initial-cluster", "n7=127.0.0.1:2380")),
            (
                "--initial-cluster: names a node twice",
                Scene::Value("--initial-cluster", "n1=127.0.0.1:2380,n1=127.0.0.1:2381"),
            ),
            (
                "--initial-cluster: n1 and n2 are at one address, 127.0.0.1:2380",
                Scene::Value("--initial-cluster", "n1=127.0.0.1:2380,n2=127.0.0.1:2380"),
            ),
            ("--initial-cluster: 'n1' is not name=host:port", Scene::Value("--initial-cluster", "n1")),
        ],
    ),
    (
        USAGE,
        "a number below or above its bounds",
        &[
            ("--key-bytes-max: must be at least 64, not 0", Scene::Value("--key-bytes-max", "0")),
            ("--log-entries-kept: must be at least 16, not 1", Scene::Value("--log-entries-kept", "1")),
            (
                "--message-bytes-max: must be at most 16777216, not 16777217",
                Scene::Value("--message-bytes-max", "16777217"),
            ),
        ],
    ),
    (
        USAGE,
        "a log level that is none",
        &[("--log-level: 'loud' is not error, warn, info, debug or trace", Scene::Value("--log-level", "loud"))],
    ),
    (
        NOT_STARTED,
        "the file of `--config` cannot be read",
        &[("--config FILE: No such file or directory (os error 2)", Scene::Settings(None))],
    ),
    (
        USAGE,
        "it is no TOML of these settings",
        &[
            ("--config FILE: line 1: unknown field …", Scene::Settings(Some("colour = 'red'\n"))),
            ("--config FILE: line 2: invalid type: …", Scene::Settings(Some("zone = 'z'\nweight = 'heavy'\n"))),
            ("--config FILE: has more than 1048576 bytes, the limit", Scene::Value("--config", "/dev/zero")),
        ],
    ),
    (
        NOT_STARTED,
        "what was asked for cannot be written to stdout",
        &[
            (NO_SPACE, Scene::FullStdout("--print-config")),
            (NO_SPACE, Scene::FullStdout("--help")),
            (NO_SPACE, Scene::FullStdout("--version")),
        ],
    ),
    (
        NOT_STARTED,
        "a port in use",
        &[
            (
                "--listen-client 127.0.0.1:2379: Address already in use (os error 98)",
                Scene::PortInUse("--listen-client"),
            ),
            ("--listen-peer 127.0.0.1:2380: Address already in use (os error 98)", Scene::PortInUse("--listen-peer")),
        ],
    ),
    (NOT_STARTED, "the directory is in use", &[("DIR: another process is using it", Scene::DirectoryInUse)]),
    (
        NOT_STARTED,
        "the directory is another node's: a node keeps the name it was founded by",
        &[("DIR: this is the directory of n1, not of n9; start it with --name n1", Scene::Renamed("n9"))],
    ),
    (
        NOT_STARTED,
        "the directory was made by a test build that has a bug on purpose",
        &[(
            "DIR: a build with a planted bug made this directory; nothing in it can be trusted",
            Scene::Spoiled(Past::First, |directory| write(directory, "planted", b"")),
        )],
    ),
    (
        NOT_STARTED,
        "the directory cannot be made, read or written: what the system says",
        &[
            ("DIR: File exists (os error 17)", Scene::Value("--data-dir", "/dev/null")),
            ("DIR: Not a directory (os error 20)", Scene::Value("--data-dir", "/dev/null/inside")),
            (
                "DIR/lock: Is a directory (os error 21)",
                Scene::Spoiled(Past::First, |directory| put_folder(directory, "lock")),
            ),
            (
                "DIR/mark: Is a directory (os error 21)",
                Scene::Spoiled(Past::First, |directory| put_folder(directory, "mark")),
            ),
            (
                "DIR/db: i/o: IO error: No such file or directory: …",
                Scene::Spoiled(Past::First, |directory| delete_path(&manifest(directory))),
            ),
        ],
    ),
    (
        NOT_STARTED,
        "a file of the directory is a pipe or a device",
        &[
            ("DIR/lock: is not a regular file", Scene::Spoiled(Past::First, |directory| put_pipe(directory, "lock"))),
            ("DIR/mark: is not a regular file", Scene::Spoiled(Past::First, |directory| put_pipe(directory, "mark"))),
            ("DIR/mark: is not a regular file", Scene::Spoiled(Past::First, |directory| put_zeroes(directory, "mark"))),
        ],
    ),
    (
        NOT_STARTED,
        "`kvd dev` with another number of nodes than its directory has",
        &[
            ("DIR: holds 2 nodes, not 3; start it with --nodes 2", Scene::Dev("3")),
            ("DIR: holds 2 nodes, not 3; start it with --nodes 2", Scene::Dev("1")),
        ],
    ),
    (
        NOT_STARTED,
        "RocksDB finds its files damaged",
        &[
            ("DIR/db: corrupt: … DIR/db/000018.sst …", Scene::Spoiled(Past::Second, damage_table)),
            (
                "DIR/db: corrupt: DIR/db: CURRENT is missing",
                Scene::Spoiled(Past::First, |directory| delete(directory, "db/CURRENT")),
            ),
        ],
    ),
    (
        NOT_STARTED,
        "a newer data format",
        &[
            ("DIR/db: data format 2 is newer than this version's 1", Scene::Spoiled(Past::First, newer_format)),
            ("DIR/db: corrupt: column family '…' is of a newer data format", Scene::Spoiled(Past::First, newer_family)),
        ],
    ),
    (
        NOT_STARTED,
        "the mark",
        &[
            (
                "DIR/mark: the mark is missing beside a database",
                Scene::Spoiled(Past::First, |directory| delete(directory, "mark")),
            ),
            (
                "DIR/mark: the mark has 9 bytes instead of 96",
                Scene::Spoiled(Past::First, |directory| write(directory, "mark", b"no marks!")),
            ),
            (
                "DIR/mark: neither slot of the mark is readable",
                Scene::Spoiled(Past::First, |directory| write(directory, "mark", &[0; 96])),
            ),
            ("DIR/mark: the mark belongs to another directory", Scene::Spoiled(Past::Pair, foreign_mark)),
        ],
    ),
    (
        NOT_STARTED,
        "the database is gone beside its mark",
        &[(
            "DIR/db: the database is missing beside its mark",
            Scene::Spoiled(Past::First, |directory| remove(&directory.join("db"))),
        )],
    ),
    (
        NOT_STARTED,
        "the manifest is shorter than it was, or an older one",
        &[
            (
                "DIR/db/MANIFEST-000005: has 300 bytes, but had 512: its end is missing, and with it the names of tables",
                Scene::Spoiled(Past::Second, remember_longer_manifest),
            ),
            (
                "DIR/db/CURRENT: names manifest 5, but a later one, 9, was in use",
                Scene::Spoiled(Past::Second, put_first_manifest_back),
            ),
        ],
    ),
    (
        NOT_STARTED,
        "behind the mark",
        &[(
            "DIR/db: 16 acknowledged batches are missing at the end of the write-ahead log (found 19, mark 35). Restore \
             a backup; or, in a cluster, replace this node (kvctl node replace); or, in a cluster of one, start with \
             --accept-loss-of-acknowledged-writes",
            Scene::Spoiled(Past::First, cut_log),
        )],
    ),
    (
        NOT_STARTED,
        "the same, with that flag, in a larger cluster",
        &[(
            "DIR/db: --accept-loss-of-acknowledged-writes is only for a cluster of one; …",
            Scene::Accepting(Past::Pair, cut_log),
        )],
    ),
    (
        NOT_STARTED,
        "a record of the node's own is malformed; by then the start is counted",
        &[
            ("DIR: malformed founding record", Scene::Spoiled(Past::First, |directory| spoil_row(directory, FOUNDING))),
            (
                "DIR: corrupt: malformed replica record",
                Scene::Spoiled(Past::First, |directory| spoil_row(directory, REPLICA)),
            ),
        ],
    ),
    (BROKEN, "an invariant was broken (a bug)", &[("stopping at once: panicked at …", Scene::NoThreads)]),
    (
        DISK_FAILED,
        "a write or sync of the write-ahead log failed",
        &[("stopping at once: write-ahead log: …", Scene::FileTooLarge)],
    ),
    (
        DISK_FAILED,
        "the disk failed elsewhere: in the background, or at RocksDB's list of its files",
        &[("stopping at once: i/o: …", Scene::Meanwhile(Past::First, |directory| put_folder(directory, "db/CURRENT")))],
    ),
    (
        DISK_FAILED,
        "a replica stopped, or stored data cannot be read, while running",
        &[
            (
                "stopping at once: replica r1: corrupt: …",
                Scene::Spoiled(Past::First, |directory| spoil_row(directory, VOTE)),
            ),
            (
                "stopping at once: r4 of partition 1/0 stopped: …",
                Scene::Asked(Past::First, |directory| spoil_row(directory, CURRENT)),
            ),
        ],
    ),
];

#[test]
fn the_table_is_as_these_tests_have_it() {
    let tested =
        ROWS.iter().map(|(code, condition, messages)| vec![code.to_string(), (*condition).to_owned(), cell(messages)]);
    let tested: Vec<Vec<String>> = tested.collect();
    assert_eq!(rows("kvd: start and end"), tested, "expected docs/errors.md (left) to say what is tested here");
}

/// The messages as the table shows them; one that several scenes provoke stands there once.
fn cell(messages: &[(&str, Scene)]) -> String {
    let messages = messages.iter().map(|(message, _)| *message).filter(|message| !message.is_empty());
    let mut shown: Vec<String> = messages.map(|message| format!("`{message}`")).collect();
    shown.dedup();
    shown.join(", ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message() {
    Scenario::begin("cluster_10::errors::starts::each_message");
    let _turn = beside_others().await;
    let mut stage = Stage::set().await;
    let mut scenes = 0;
    for (code, condition, messages) in ROWS {
        for (message, scene) in *messages {
            stage.play(scene).await.expect(*code, condition, message);
            scenes += 1;
        }
    }
    println!("{} rows: {scenes} ends as documented", ROWS.len());
}
