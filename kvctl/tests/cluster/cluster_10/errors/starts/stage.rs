//! The stage: the clusters that the scenes of the table are played with, and how a `kvd` ended.

use std::fs;
use std::path::Path;
use std::process::Command;

use trefoil_proto::v1;
use trefoil_world::net;

use super::super::{ATTEMPT_MAX, PATIENCE};
use super::spoil::{FIRST, KEY};
use super::{Past, Scene, Spoil};
use crate::bad_start::text;
use crate::cluster::{Cluster, free_address};
use crate::errors_table::says;
use crate::files::replace_with_copy;
use crate::process::{self, Finished, Kvd, finish, kvd_program};
use crate::raw::{self, bounded};
use crate::refusal::{NOT_STARTED, USAGE, with};
use crate::streams::redirected;
use crate::wait::within;

/// How the line begins that says why it ended: its own, and the one of the parser of flags.
const OWN: &str = "kvd: ";
const PARSER: &str = "error: ";

const ACCEPT: &str = "--accept-loss-of-acknowledged-writes";
/// More than an address space holds: no thread gets such a stack.
const STACK_BYTES: &str = "1125899906842624";
/// More than any file of a small database has, less than [`LARGE`].
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A value about as large as one may be.
const LARGE: usize = 1_500_000;

/// The copy of a directory as its second start left it.
const SECOND: &str = "second";
const KEYS: usize = 20;

/// What the scenes are played with. No node runs between two of them.
pub struct Stage {
    /// Never started.
    fresh: Cluster,
    alone: Cluster,
    pair: Cluster,
}

impl Stage {
    pub async fn set() -> Stage {
        let (fresh, mut alone, mut pair) =
            tokio::join!(Cluster::plan(1, &[]), Cluster::form(1, &[]), Cluster::form(2, &[]));
        tokio::join!(put_keys(&alone), put_keys(&pair));
        for cluster in [&mut alone, &mut pair] {
            cluster.kill_all().await;
            replace_with_copy(&cluster.nodes[0].dir, &cluster.folder(FIRST));
        }
        alone.start(0).await;
        alone.kill(0).await;
        replace_with_copy(&alone.nodes[0].dir, &alone.folder(SECOND));
        Stage { fresh, alone, pair }
    }

    /// Plays one to its end.
    pub async fn play(&mut self, scene: &Scene) -> Ended {
        let fresh = self.fresh.args(0);
        match *scene {
            Scene::Flag(flag) => Ended::of(plus(fresh, &[flag])).await,
            Scene::Value(flag, value) => Ended::of(valued(fresh, flag, value)).await,
            Scene::Settings(content) => {
                let file = self.settings(content);
                Ended::of(plus(fresh, &["--config", file.as_str()])).await
            }
            Scene::FullStdout(flag) => {
                let args = plus(fresh, &[flag]);
                let finished = finish(redirected(&kvd(&args), ">/dev/full"), PATIENCE).await;
                Ended { args, finished }
            }
            Scene::PortInUse(flag) => {
                let other = net::listen("127.0.0.1:0").await.expect("a listener of the test's own");
                Ended::of(valued(fresh, flag, &other.address().to_string())).await
            }
            Scene::OneAddress => {
                let client = self.fresh.nodes[0].client.clone();
                Ended::of(valued(fresh, "--listen-peer", &client)).await
            }
            Scene::Dev(nodes) => {
                self.spoil(Past::Pair, untouched);
                let root = self.pair.nodes[0].dir.parent().map(text).unwrap_or_default();
                let args = ["dev", "--nodes", nodes, "--data-dir", &root];
                Ended::of(Vec::from(args.map(str::to_owned))).await
            }
            Scene::DirectoryInUse => self.directory_in_use().await,
            Scene::Renamed(name) => Ended::of(self.renamed(name)).await,
            Scene::Spoiled(past, spoil) => Ended::of(self.spoil(past, spoil)).await,
            Scene::Accepting(past, spoil) => Ended::of(plus(self.spoil(past, spoil), &[ACCEPT])).await,
            Scene::Asked(past, spoil) => self.asked(self.spoil(past, spoil), |_| {}, raw::put(KEY, "again")).await,
            Scene::Meanwhile(past, spoil) => {
                let directory = self.alone.nodes[0].dir.clone();
                self.running(past, |_| spoil(&directory)).await
            }
            Scene::FileTooLarge => {
                let args = self.spoil(Past::First, untouched);
                self.asked(args, limit_files, raw::put("large", vec![b'v'; LARGE])).await
            }
            Scene::NoThreads => {
                let mut command = kvd(&fresh);
                command.env("RUST_MIN_STACK", STACK_BYTES);
                Ended { finished: finish(command, PATIENCE).await, args: fresh }
            }
            Scene::Signal(signal) => self.running(Past::First, |process| process.signal(signal)).await,
        }
    }

    /// Puts a directory of this past in place and spoils it. What its node is started with.
    fn spoil(&self, past: Past, spoil: Spoil) -> Vec<String> {
        let (cluster, copy) = match past {
            Past::First => (&self.alone, FIRST),
            Past::Second => (&self.alone, SECOND),
            Past::Pair => (&self.pair, FIRST),
        };
        let directory = &cluster.nodes[0].dir;
        replace_with_copy(&cluster.folder(copy), directory);
        spoil(directory);
        cluster.args(0)
    }

    /// A file of settings.
    fn settings(&self, content: Option<&str>) -> String {
        let Some(content) = content else { return text(&self.fresh.folder("nowhere.toml")) };
        let file = self.fresh.folder("settings.toml");
        fs::write(&file, content).expect("a file of settings");
        text(&file)
    }

    /// Puts a directory of the node that was alone in place. What another one is started with on it.
    fn renamed(&self, name: &str) -> Vec<String> {
        let args = with(&self.spoil(Past::First, untouched), "--name", name);
        with(&args, "--initial-cluster", &format!("{name}={}", self.alone.nodes[0].peer))
    }

    async fn directory_in_use(&mut self) -> Ended {
        let mut args = self.spoil(Past::First, untouched);
        self.alone.start(0).await;
        for flag in ["--listen-client", "--listen-peer"] {
            args = with(&args, flag, &free_address().await);
        }
        let ended = Ended::of(args).await;
        self.alone.kill(0).await;
        ended
    }

    /// The node that was alone is asked for this put until it ends.
    async fn asked(&self, args: Vec<String>, limit: fn(&mut Command), put: v1::PutRequest) -> Ended {
        let address = &self.alone.nodes[0].client;
        let mut command = kvd(&args);
        limit(&mut command);
        let asks = within(2 * PATIENCE, async || {
            if let Some(mut kv) = raw::kv(address).await {
                // It may refuse while it does not serve yet, and not answer when it ends.
                let _ = kv.put(bounded(put.clone(), ATTEMPT_MAX)).await;
            }
            None::<()>
        });
        let finished = tokio::select! {
            finished = finish(command, PATIENCE) => finished,
            _ = asks => panic!("expected an end of {args:?} over a put"),
        };
        Ended { args, finished }
    }

    /// Starts the node that was alone on a directory of this past, and ends it by doing this once it serves.
    async fn running(&mut self, past: Past, end: impl FnOnce(&mut Kvd)) -> Ended {
        let args = self.spoil(past, untouched);
        self.alone.start(0).await;
        end(self.alone.nodes[0].running());
        let process = self.alone.nodes[0].running();
        let code = process.exit(PATIENCE).await.code();
        let finished = Finished { code, stdout: Vec::new(), stderr: process.log() };
        self.alone.nodes[0].process = None;
        Ended { args, finished }
    }
}

/// So many that the last third of a log holds some of them.
async fn put_keys(cluster: &Cluster) {
    let client = cluster.client().await;
    let others = (1..KEYS).map(|number| format!("key/{number}"));
    for key in [KEY.to_owned()].into_iter().chain(others) {
        let put = client.put(key, "v").await;
        put.unwrap_or_else(|error| panic!("expected a put to be taken: {error}"));
    }
}

/// A `kvd` that has ended.
pub struct Ended {
    /// What it was started with.
    args: Vec<String>,
    finished: Finished,
}

impl Ended {
    /// How it ends by itself.
    async fn of(args: Vec<String>) -> Ended {
        let finished = finish(kvd(&args), PATIENCE).await;
        Ended { args, finished }
    }

    /// It ended with this code and this message.
    pub fn expect(&self, code: i32, condition: &str, message: &str) {
        let Finished { code: found, stderr, .. } = &self.finished;
        assert_eq!(*found, Some(code), "{condition}: expected this exit code (right); it said:\n{stderr}");
        let ends = |line: &&str| line.starts_with(OWN) || line.starts_with(PARSER);
        let lines: Vec<&str> = stderr.lines().filter(ends).collect();
        if message.is_empty() {
            assert!(lines.is_empty(), "{condition}: expected nothing to be said of its end, got {lines:?}");
            return;
        }
        let [line] = lines[..] else { panic!("{condition}: expected one line that says why, got:\n{stderr}") };
        println!("{condition}: {code}, {line}");
        let documented = message.replace("DIR", self.value("--data-dir")).replace("FILE", self.value("--config"));
        let why = line.strip_prefix(OWN).unwrap_or(line);
        assert!(says(&documented, why), "{condition}: expected '{documented}', got '{why}'");
        let refused = line.starts_with(OWN) && [NOT_STARTED, USAGE].contains(&code);
        assert!(!refused || stderr.lines().count() == 1, "{condition}: expected no other line, got:\n{stderr}");
    }

    /// The value of a flag, if it was given.
    fn value(&self, flag: &str) -> &str {
        let place = self.args.iter().position(|arg| arg == flag);
        place.and_then(|place| self.args.get(place + 1)).map_or("", String::as_str)
    }
}

fn kvd(args: &[String]) -> Command {
    let mut command = Command::new(kvd_program());
    command.args(args);
    command
}

fn plus(mut args: Vec<String>, more: &[&str]) -> Vec<String> {
    args.extend(more.iter().map(|&arg| arg.to_owned()));
    args
}

/// `args` with this value of a flag, whether they have one or not.
fn valued(args: Vec<String>, flag: &str, value: &str) -> Vec<String> {
    if args.iter().any(|arg| arg == flag) { with(&args, flag, value) } else { plus(args, &[flag, value]) }
}

/// Writing beyond [`FILE_BYTES_MAX`] is an error to it, as on a disk that fails.
fn limit_files(command: &mut Command) {
    process::limit_files(command, FILE_BYTES_MAX);
}

fn untouched(_: &Path) {}
