//! Golden scripts: what a real etcd answered, against what the store answers, on every engine.
//!
//! The scripts are `store/testscripts/etcd/*.script`. `store/testscripts/record.py` describes their language and has
//! recorded their outputs. The runner plays a script on an empty store and writes it anew, each command with the
//! store's own answer; the two texts must be equal. It plays each script twice: once leaving history below the floor
//! where it is, and once scrubbing after each compaction, which no answer may show.
//!
//! `GOLDEN=NAME` in the environment plays only the scripts whose name contains NAME.
//!
//! Invariants:
//!
//! * A read goes the way reads go, past the log; everything else is applied, one command an entry.
//! * Each command finds what the one before it left in the engine, not in memory.
//!
//! Left out: the reply's header besides its revision, and how a request is spelled; both are the API's. What the API
//! refuses before there is a command (a value or lease both given and to be kept) is found here while reading a script.

use std::fs;
use std::iter::repeat_n;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use trefoil_causality::Revision;

use crate::apply::{Position, apply};
use crate::command::{
    Command, Compare, DeleteOp, Envelope, KeyRange, Op, Outcome, Pair, PutOp, RangeEnd, RangeOp, RangeReply, Refusal,
    Relation, Reply, Target, Txn,
};
use crate::engine::memory::MemoryEngine;
use crate::engine::{Durability, Engine, EngineError, successor};
use crate::key::StoreNumber;
use crate::mvcc::{self, Head, Invalid, Limits};
use crate::overlay::Overlay;

const STORE: StoreNumber = StoreNumber(1);
/// etcd's defaults; it has no limit on a key alone.
const LIMITS: Limits = Limits { key_bytes_max: 1 << 20, txn_ops_max: 128 };
const INDENT: &str = "  ";
/// How many changes one step of a scrub looks at: few, so that scripts need several steps.
const SCRUB_ROWS: usize = 2;

#[test]
fn memory() {
    play_all(|play| play(&MemoryEngine::new()));
}

#[cfg(feature = "rocksdb")]
#[test]
fn rocks() {
    use crate::engine::rocks::RocksEngine;

    play_all(|play| {
        let directory = tempfile::tempdir().expect("a directory for the engine");
        play(&RocksEngine::open(directory.path()).expect("the engine opens"));
    });
}

/// Plays every script, each on an engine of its own, and reports all that differ.
fn play_all(on_new_engine: impl Fn(&mut dyn FnMut(&dyn Engine))) {
    let scripts = scripts();
    assert!(!scripts.is_empty(), "no script to play");
    let mut report = String::new();
    for path in scripts {
        let recorded = fs::read_to_string(&path).expect("the script is readable");
        for scrubs in [false, true] {
            let mut played = String::new();
            on_new_engine(&mut |engine| played = Player { engine, scrubs, index: 0 }.play(&recorded));
            if played != recorded {
                report += &difference(&path, scrubs, &recorded, &played);
            }
        }
    }
    assert!(report.is_empty(), "answers differ from the recorded ones:\n{report}");
}

fn scripts() -> Vec<PathBuf> {
    let wanted = std::env::var("GOLDEN").unwrap_or_default();
    // Cargo starts tests in their package.
    let entries = fs::read_dir("testscripts/etcd").expect("the scripts are there");
    let paths = entries.map(|entry| entry.expect("the directory is readable").path());
    let mut scripts: Vec<PathBuf> = paths.filter(|path| name(path).contains(&wanted)).collect();
    scripts.sort();
    scripts
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The cases that differ, with the recorded lines marked `-` and the played ones `+`.
fn difference(path: &Path, scrubs: bool, recorded: &str, played: &str) -> String {
    let name = name(path);
    let how = if scrubs { " (with scrubs)" } else { "" };
    let mut report = format!("--- {name}.script, recorded\n+++ {name}.script, played{how}\n");
    for (was, is) in recorded.split("\n\n").zip(played.split("\n\n")) {
        if was != is {
            report += &changed_lines(was, is);
        }
    }
    report + &format!("repeat with: GOLDEN={name} cargo test --release -p trefoil-store golden::\n\n")
}

/// Both texts, with the lines they begin and end with alike shown once.
fn changed_lines(was: &str, is: &str) -> String {
    let (was, is): (Vec<&str>, Vec<&str>) = (was.lines().collect(), is.lines().collect());
    let head = was.iter().zip(&is).take_while(|(a, b)| a == b).count();
    let tails = was[head..].iter().rev().zip(is[head..].iter().rev());
    let tail = tails.take_while(|(a, b)| a == b).count();
    let marked = |mark: char, lines: &[&str]| lines.iter().map(|line| format!("{mark}{line}\n")).collect::<String>();
    marked(' ', &was[..head])
        + &marked('-', &was[head..was.len() - tail])
        + &marked('+', &is[head..is.len() - tail])
        + &marked(' ', &was[was.len() - tail..])
        + "\n"
}

/// Carries out the commands of one script.
struct Player<'e> {
    engine: &'e dyn Engine,
    /// Whether each compaction is followed by a scrub.
    scrubs: bool,
    /// The log index of the last command.
    index: u64,
}

impl Player<'_> {
    /// The script with each recorded output replaced by what the store answers.
    fn play(&mut self, script: &str) -> String {
        let mut lines = script.lines().peekable();
        let mut played = Vec::new();
        while let Some(line) = lines.next() {
            played.push(line.to_owned());
            let Some(command) = line.strip_prefix("> ") else { continue };
            let mut block = Vec::new();
            while let Some(inner) = lines.next_if(|next| next.starts_with(INDENT)) {
                block.push(inner);
            }
            while lines.next_if(|next| !next.is_empty()).is_some() {}
            played.extend(block.iter().map(|&inner| inner.to_owned()));
            played.extend(self.answer(command, &block));
        }
        played.join("\n") + "\n"
    }

    fn answer(&mut self, line: &str, block: &[&str]) -> Vec<String> {
        let mut reader = Reader::default();
        let command = reader.command(line, block);
        if let Some(word) = refused_early(&command, reader.fault) {
            return vec![format!("error: {word}")];
        }
        let outcome = self.run(command).expect("the engine works");
        match outcome.result {
            Ok(reply) => [vec![format!("rev={}", outcome.revision)], body(&reply)].concat(),
            Err(refusal) => vec![format!("error: {}", refusal_word(&refusal))],
        }
    }

    fn run(&mut self, command: Command) -> Result<Outcome, EngineError> {
        match command {
            Command::Op(Op::Range(op)) => self.read(&op),
            Command::Compact(floor) => {
                let outcome = self.apply(command)?;
                if self.scrubs && outcome.result.is_ok() {
                    self.scrub(floor)?;
                }
                Ok(outcome)
            }
            Command::Op(Op::Put(_) | Op::Delete(_) | Op::Txn(_)) | Command::OpenSession | Command::CloseSession(_) => {
                self.apply(command)
            }
        }
    }

    fn read(&self, op: &RangeOp) -> Result<Outcome, EngineError> {
        let state = self.engine.snapshot();
        let head = Head::load(&*state, STORE)?;
        let result = mvcc::range(&*state, STORE, &head, op, usize::MAX)?;
        Ok(Outcome { revision: head.revision, result: result.map(Reply::Range) })
    }

    fn apply(&mut self, command: Command) -> Result<Outcome, EngineError> {
        self.index += 1;
        let state = self.engine.snapshot();
        let mut head = Head::load(&*state, STORE)?;
        let mut view = Overlay::new(&*state);
        let at = Position { term: 1, index: self.index };
        let envelope =
            Envelope { at_ms: self.index, request: None, principal: "anonymous".into(), auth_revision: 0, command };
        let outcome = apply(&mut view, STORE, &mut head, at, 0, envelope)?;
        head.store(&mut view, STORE);
        self.engine.write(&view.into_batch(), Durability::NoSync)?;
        Ok(outcome)
    }

    fn scrub(&self, floor: Revision) -> Result<(), EngineError> {
        let mut from = Some(Revision::default());
        while let Some(begin) = from {
            let (batch, next) = mvcc::scrub(&*self.engine.snapshot(), STORE, floor, begin, SCRUB_ROWS)?;
            self.engine.write(&batch, Durability::NoSync)?;
            from = next;
        }
        Ok(())
    }
}

/// Reads commands, and notes what the API would refuse while it makes commands of requests.
#[derive(Default)]
struct Reader {
    /// An empty key was read: it is refused before what follows it.
    empty_key: bool,
    fault: Option<&'static str>,
}

impl Reader {
    fn command(&mut self, line: &str, block: &[&str]) -> Command {
        match line.strip_prefix("compact ") {
            Some(revision) => Command::Compact(Revision(number(revision))),
            None => Command::Op(self.op(line, block)),
        }
    }

    fn op(&mut self, line: &str, block: &[&str]) -> Op {
        match words(line)[..] {
            ["txn"] => Op::Txn(self.txn(block)),
            ["put", key, value, ref options @ ..] => Op::Put(self.put(key, value, &Options(options))),
            ["range", key, ref options @ ..] => Op::Range(self.range(key, &Options(options))),
            ["del", key, ref options @ ..] => {
                let options = Options(options);
                Op::Delete(DeleteOp { range: self.key_range(key, &options), previous: options.has("prev") })
            }
            _ => panic!("not a command: {line}"),
        }
    }

    fn put(&mut self, key: &str, value: &str, options: &Options) -> PutOp {
        let (key, value) = (self.key(key), unquoted(value));
        let lease = options.number("lease").unwrap_or(0);
        let (keeps_value, keeps_lease) = (options.has("ignore-value"), options.has("ignore-lease"));
        if keeps_value && !value.is_empty() {
            self.refuse("value-provided");
        }
        if keeps_lease && lease != 0 {
            self.refuse("lease-provided");
        }
        PutOp {
            key,
            value: (!keeps_value).then_some(value),
            lease: (!keeps_lease).then_some(lease),
            previous: options.has("prev"),
        }
    }

    /// etcd always counts, and takes 0 for no limit and for the newest revision.
    fn range(&mut self, key: &str, options: &Options) -> RangeOp {
        RangeOp {
            range: self.key_range(key, options),
            limit: options.number("limit").filter(|&limit| limit > 0),
            revision: options.number("rev").filter(|&revision| revision > 0).map(Revision),
            descending: options.has("desc"),
            keys_only: options.has("keys-only"),
            count: true,
            count_only: options.has("count-only"),
        }
    }

    fn txn(&mut self, block: &[&str]) -> Txn {
        let mut txn = Txn::default();
        let lines = block.iter().map(|line| line.strip_prefix(INDENT).expect("a block is indented"));
        let lines: Vec<&str> = lines.collect();
        for statement in lines.chunk_by(|_, next| next.starts_with(INDENT)) {
            let (times, line) = repetition(statement[0]);
            match line.split_once(' ') {
                Some(("if", rest)) => txn.compares.extend(repeat_n(self.compare(rest), times)),
                Some(("then", rest)) => txn.success.extend(repeat_n(self.op(rest, &statement[1..]), times)),
                Some(("else", rest)) => txn.failure.extend(repeat_n(self.op(rest, &statement[1..]), times)),
                Some(_) | None => panic!("not a step of a transaction: {line}"),
            }
        }
        txn
    }

    fn compare(&mut self, text: &str) -> Compare {
        let words = words(text);
        let [target, key, ref options @ .., relation, operand] = words[..] else { panic!("not a compare: {text}") };
        let target = match target {
            "version" => Target::Version(number(operand)),
            "create" => Target::CreateRevision(number(operand)),
            "mod" => Target::ModRevision(number(operand)),
            "value" => Target::Value(unquoted(operand)),
            "lease" => Target::Lease(number(operand)),
            _ => panic!("not a target: {text}"),
        };
        let relation = match relation {
            "=" => Relation::Equal,
            "!=" => Relation::NotEqual,
            ">" => Relation::Greater,
            "<" => Relation::Less,
            _ => panic!("not a relation: {text}"),
        };
        Compare { range: self.key_range(key, &Options(options)), relation, target }
    }

    fn key_range(&mut self, key: &str, options: &Options) -> KeyRange {
        let key = self.key(key);
        let end = match options.value("end") {
            None => RangeEnd::Single,
            Some("from") => RangeEnd::Last,
            Some("prefix") => successor(&key).map_or(RangeEnd::Last, |end| RangeEnd::Before(end.into())),
            Some(end) => range_end(unquoted(end)),
        };
        KeyRange { key, end }
    }

    fn key(&mut self, token: &str) -> Bytes {
        let key = unquoted(token);
        self.empty_key |= key.is_empty();
        key
    }

    /// The first fault counts.
    fn refuse(&mut self, word: &'static str) {
        if !self.empty_key {
            self.fault.get_or_insert(word);
        }
    }
}

/// etcd's spelling: an empty end is none, and a single zero byte is the end of all keys.
fn range_end(end: Bytes) -> RangeEnd {
    match end[..] {
        [] => RangeEnd::Single,
        [0] => RangeEnd::Last,
        _ => RangeEnd::Before(end),
    }
}

/// The words of a command after its key and value.
struct Options<'w>(&'w [&'w str]);

impl<'w> Options<'w> {
    fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    fn value(&self, name: &str) -> Option<&'w str> {
        self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value(name).map(number)
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

/// How often a statement stands in its transaction.
fn repetition(line: &str) -> (usize, &str) {
    let repeated = line.split_once("x ").and_then(|(times, rest)| Some((times.parse().ok()?, rest)));
    repeated.unwrap_or((1, line))
}

/// A space inside quotes does not end a word.
fn words(line: &str) -> Vec<&str> {
    let mut inside = false;
    let ends_word = |letter| {
        inside ^= letter == '"';
        letter == ' ' && !inside
    };
    line.split(ends_word).collect()
}

/// The bytes of a bare or quoted key or value.
fn unquoted(token: &str) -> Bytes {
    let Some(text) = token.strip_prefix('"') else { return Bytes::copy_from_slice(token.as_bytes()) };
    let mut parts = text.strip_suffix('"').expect("a closing quote").split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, plain) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(plain.as_bytes());
    }
    bytes.into()
}

/// The one way to write these bytes as a key or value.
fn quoted(bytes: &[u8]) -> String {
    let bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./-".contains(byte);
    let plain = |byte: u8| (byte == b' ' || byte.is_ascii_graphic()) && !b"\"\\".contains(&byte);
    if !bytes.is_empty() && bytes.iter().all(bare) {
        return bytes.iter().copied().map(char::from).collect();
    }
    let letter = |&byte: &u8| if plain(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") };
    format!("\"{}\"", bytes.iter().map(letter).collect::<String>())
}

/// Why the command would not be proposed. `fault` is what the API found while it made the command.
fn refused_early(command: &Command, fault: Option<&'static str>) -> Option<&'static str> {
    let op = match command {
        Command::Op(op) => op,
        Command::Compact(_) | Command::OpenSession | Command::CloseSession(_) => return None,
    };
    match mvcc::check(op, &LIMITS) {
        Ok(()) => fault,
        Err(Invalid::TooManyOps { .. }) => Some("too-many-ops"),
        Err(Invalid::NestedTooDeep { .. }) => Some("nested-too-deep"),
        Err(Invalid::KeyTooLong { .. }) => Some("key-too-long"),
        Err(Invalid::EmptyKey) => fault.or(Some("empty-key")),
        Err(Invalid::DuplicateKey { .. }) => fault.or(Some("duplicate-key")),
    }
}

fn refusal_word(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Compacted { .. } => "compacted",
        Refusal::FutureRevision { .. } => "future-revision",
        Refusal::KeyNotFound => "key-not-found",
        Refusal::LeaseNotFound { .. } => "lease-not-found",
        Refusal::OutcomeUnknown { .. } => "outcome-unknown",
        Refusal::TooManySessions { .. } => "too-many-sessions",
        Refusal::TooManyKeys { .. } => "too-many-keys",
        Refusal::AnswerTooLarge { .. } => "answer-too-large",
        Refusal::TooManyKeysRead { .. } => "too-many-keys-read",
    }
}

/// The lines of a reply after its revision.
fn body(reply: &Reply) -> Vec<String> {
    match reply {
        Reply::Range(range) => range_body(range),
        Reply::Put { previous } => previous.iter().map(previous_line).collect(),
        Reply::Delete { deleted, previous } => {
            let mut lines = vec![format!("deleted={deleted}")];
            lines.extend(previous.iter().map(previous_line));
            lines
        }
        Reply::Txn { succeeded, replies } => {
            let mut lines = vec![format!("succeeded={succeeded}")];
            for reply in replies {
                lines.push(format!("{INDENT}{}", reply_word(reply)));
                lines.extend(body(reply).iter().map(|line| format!("{INDENT}{INDENT}{line}")));
            }
            lines
        }
        Reply::Compacted | Reply::SessionOpened { .. } | Reply::SessionClosed => Vec::new(),
    }
}

fn reply_word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Range(_) => "range",
        Reply::Put { .. } => "put",
        Reply::Delete { .. } => "del",
        Reply::Txn { .. } => "txn",
        Reply::Compacted => "compact",
        Reply::SessionOpened { .. } => "session opened",
        Reply::SessionClosed => "session closed",
    }
}

fn range_body(range: &RangeReply) -> Vec<String> {
    let count = range.count.map_or_else(|| "none".to_owned(), |count| count.to_string());
    let mut lines = vec![format!("count={count} more={}", range.more)];
    lines.extend(range.pairs.iter().map(pair_line));
    lines
}

fn previous_line(pair: &Pair) -> String {
    format!("prev {}", pair_line(pair))
}

fn pair_line(pair: &Pair) -> String {
    let Pair { key, value, create_revision, mod_revision, version, lease } = pair;
    let (key, value) = (quoted(key), quoted(value));
    format!("{key}={value} create={create_revision} mod={mod_revision} version={version} lease={lease}")
}
