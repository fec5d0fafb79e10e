//! Datagrams between namespaces: which come through, as the kernels at both ends count them.
//!
//! A shell in each namespace sends. In each round every node sends one datagram to one other node, another one each time,
//! so that what comes to a node is known to be from whom. Nobody listens where they go: the receiving kernel counts what
//! came for nobody, the sending one what it was given. Nodes speak TCP only, so what is counted is ours.
//!
//! Each direction is told apart by this: an attempt to connect needs both.
//!
//! It blocks: a tenth of a second for each round in which something should not pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use trefoil_world::clock;

use super::{Line, Measured, Metered};

/// Where nobody listens ("discard").
const PORT: u16 = 9;
/// How long nothing must come on a cut line: between two namespaces it takes far less than a millisecond.
const SILENT: Duration = Duration::from_millis(100);
/// How long a round waits for what should pass. The first packet over a link that was idle waits for its neighbour's name.
const ROUND_MAX: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(2);

/// Where datagrams are sent from, and to.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) namespace: String,
    pub(super) address: Ipv4Addr,
}

/// What passes between nodes, of which these lines are said to be cut: for others it waits longer.
///
/// # Errors
/// There is no shell in a namespace, or its kernel was not heard.
pub(super) fn measure(ends: &[End], cut: &BTreeSet<Line>) -> anyhow::Result<Measured> {
    let senders = ends.iter().map(|end| Sender::start(&end.namespace)).collect::<anyhow::Result<Vec<Sender>>>()?;
    let mut measured = BTreeMap::new();
    for step in 1..ends.len() {
        measured.extend(round(&senders, ends, step, cut)?);
    }
    Ok(Measured(measured))
}

/// Every node sends to the one `step` places behind it.
fn round(
    senders: &[Sender],
    ends: &[End],
    step: usize,
    cut: &BTreeSet<Line>,
) -> anyhow::Result<BTreeMap<Line, Metered>> {
    let lines: Vec<Line> = (0..ends.len()).map(|from| Line { from, to: (from + step) % ends.len() }).collect();
    let before = counts(senders)?;
    for line in &lines {
        senders[line.from].send(ends[line.to].address)?;
    }
    let began = clock::now();
    loop {
        let now = counts(senders)?;
        let metered = |&line: &Line| {
            let offered = now[line.from].sent.saturating_sub(before[line.from].sent);
            (line, Metered { offered, passed: now[line.to].came.saturating_sub(before[line.to].came) })
        };
        let seen: BTreeMap<Line, Metered> = lines.iter().map(metered).collect();
        if is_over(&seen, cut, began.elapsed()) {
            return Ok(seen);
        }
        thread::sleep(POLL);
    }
}

/// Whether a round that has gone on for so long is to wait for nothing more.
fn is_over(seen: &BTreeMap<Line, Metered>, cut: &BTreeSet<Line>, waited: Duration) -> bool {
    let there = |(line, metered): (&Line, &Metered)| metered.offered > 0 && (metered.passed > 0 || cut.contains(line));
    let quiet = waited >= SILENT || !seen.keys().any(|line| cut.contains(line));
    waited >= ROUND_MAX || (quiet && seen.iter().all(there))
}

fn counts(senders: &[Sender]) -> anyhow::Result<Vec<Counts>> {
    senders.iter().map(Sender::counts).collect()
}

/// What the kernel has counted in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    sent: u64,
    /// For nobody.
    came: u64,
}

impl Counts {
    /// From the kernel's table: for each protocol a line of names and a line of numbers.
    fn read(table: &str) -> Option<Counts> {
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, numbers) = (lines.next()?, lines.next()?);
        let count = |name: &str| {
            let mut columns = names.split_whitespace().zip(numbers.split_whitespace());
            columns.find(|(known, _)| *known == name).and_then(|(_, number)| number.parse::<u64>().ok())
        };
        Some(Counts { sent: count("OutDatagrams")?, came: count("NoPorts")? })
    }
}

/// A shell in a namespace, ended when dropped.
#[derive(Debug)]
struct Sender {
    namespace: String,
    shell: Child,
    words: ChildStdin,
}

impl Sender {
    fn start(namespace: &str) -> anyhow::Result<Sender> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "bash"]).stderr(Stdio::null());
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut shell = spawned.context("cannot run a shell in a namespace (ip and bash are needed)")?;
        let words = shell.stdin.take().expect("a pipe was asked for");
        let answers = shell.stdout.take().expect("a pipe was asked for");
        let sender = Sender { namespace: namespace.to_owned(), shell, words };
        // As long as it has not answered it may not be in its namespace yet.
        sender.say("echo here")?;
        let mut answer = String::new();
        BufReader::new(answers).read_line(&mut answer).with_context(|| format!("a shell in {namespace}"))?;
        ensure!(answer.trim() == "here", "there is no shell in {namespace}");
        Ok(sender)
    }

    /// Has it send a datagram, some time soon.
    fn send(&self, to: Ipv4Addr) -> anyhow::Result<()> {
        self.say(&format!("echo >/dev/udp/{to}/{PORT}"))
    }

    fn say(&self, line: &str) -> anyhow::Result<()> {
        writeln!(&self.words, "{line}").with_context(|| format!("the shell in {} has ended", self.namespace))
    }

    /// As the kernel shows it to this process.
    fn counts(&self) -> anyhow::Result<Counts> {
        let path = format!("/proc/{}/net/snmp", self.shell.id());
        let table = fs::read_to_string(&path).with_context(|| path.clone())?;
        Counts::read(&table).with_context(|| format!("{path} does not count datagrams"))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        Tcp: RtoAlgorithm RtoMin RtoMax\n\
        Tcp: 1 200 120000\n\
        Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\n\
        Udp: 3 14 0 15 0\n\
        UdpLite: InDatagrams NoPorts InErrors OutDatagrams\n\
        UdpLite: 0 9 0 9\n";

    #[test]
    fn datagrams_that_nobody_wanted_are_counted() {
        assert_eq!(Counts::read(TABLE), Some(Counts { sent: 15, came: 14 }));
        for other in ["", "Udp: NoPorts\n", "Udp: NoPorts OutDatagrams\nUdp: 1\n", "Udp: A B\nUdp: 1 2\n"] {
            assert_eq!(Counts::read(other), None, "{other}");
        }
    }

    #[test]
    fn a_round_waits_for_what_should_pass_and_a_while_for_what_should_not() {
        let (there, back) = (Line { from: 0, to: 1 }, Line { from: 1, to: 0 });
        let seen = |passed: [u64; 2]| {
            let [one, other] = passed.map(|passed| Metered { offered: 1, passed });
            BTreeMap::from([(there, one), (back, other)])
        };
        let (now, cut) = (Duration::from_millis(1), BTreeSet::from([there]));
        // What has passed there and back, whether the way there is cut, for how long, and whether that is all.
        let cases = [
            ([1, 1], false, now, true),
            ([0, 1], false, now, false),
            ([0, 1], false, SILENT, false),
            ([0, 1], false, ROUND_MAX, true),
            ([0, 1], true, now, false),
            ([0, 1], true, SILENT, true),
            ([0, 0], true, SILENT, false),
            ([0, 0], true, ROUND_MAX, true),
        ];
        for (passed, is_cut, waited, over) in cases {
            let cut = if is_cut { cut.clone() } else { BTreeSet::new() };
            assert_eq!(is_over(&seen(passed), &cut, waited), over, "{passed:?}, cut: {is_cut}, {waited:?}");
        }
        let unsent = BTreeMap::from([(there, Metered::default())]);
        assert!(!is_over(&unsent, &cut, SILENT), "a datagram that was not sent yet proves nothing");
    }
}
