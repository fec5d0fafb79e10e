use super::*;
use crate::edn::Form;
use crate::history::{Event, FaultPhase, What, pair};
use crate::workload::append::{self, List, Step};
use crate::workload::register::{self, Register};
use crate::workload::set;

const S: u64 = 1_000_000_000;

fn event<C, R>(time: u64, what: What<C, R>) -> Event<C, R> {
    Event { time: Nanos(time), what }
}

fn invoke<C, R>(time: u64, process: u64, call: C) -> Event<C, R> {
    event(time, What::Invoke { process: Process(process), call })
}

fn ok<C, R>(time: u64, process: u64, reply: R) -> Event<C, R> {
    event(time, What::Ok { process: Process(process), reply })
}

fn fail<C, R>(time: u64, process: u64, why: &str) -> Event<C, R> {
    event(time, What::Fail { process: Process(process), why: why.into() })
}

fn info<C, R>(time: u64, process: u64, why: &str) -> Event<C, R> {
    event(time, What::Info { process: Process(process), why: why.into() })
}

fn fault<C, R>(time: u64, phase: FaultPhase, detail: &str) -> Event<C, R> {
    event(time, What::Fault { name: "kill".into(), phase, detail: detail.into() })
}

/// A report on a history and the verdicts on it.
fn run<C: Form>(history: &[Event<C, C::Reply>], verdicts: Vec<Verdict>) -> Run {
    let Recorded { operations, faults, lasted } = recorded(history, |_, _| "call");
    Run {
        workload: "hand-made".into(),
        seed: 7,
        began: Wall(0),
        lasted,
        facts: vec![("nodes".into(), "5".into())],
        command: ["jepsen", "test", "--seed", "7", "--out", "my store"].map(str::to_owned).into(),
        valid: crate::checker::worst(&verdicts),
        verdicts,
        gates: vec![Gate { name: "kill in force".into(), wanted: 1, seen: 0 }],
        operations,
        faults,
        files: vec!["n1.1.log".into(), "odd name?.log".into()],
    }
}

/// A history in which all outcomes and all phases of a fault are.
fn full() -> Vec<Event<set::Call, set::Reply>> {
    use set::{Call, Reply, SetId};
    let set = SetId(0);
    vec![
        invoke(S, 0, Call::Add { set, element: 1 }),
        ok(S + 2_000_000, 0, Reply::Add),
        fault(2 * S, FaultPhase::Injected, "n1"),
        invoke(2 * S + 1, 1, Call::Read { set }),
        fault(5 * S / 2, FaultPhase::InForce, "n1: gone"),
        fail(3 * S, 1, "refused"),
        invoke(3 * S, 2, Call::Add { set, element: 2 }),
        fault(4 * S, FaultPhase::Healed, "n1"),
        info(5 * S, 2, "timeout"),
        fault(6 * S, FaultPhase::Unsupported, "no router"),
        fault(7 * S, FaultPhase::Injected, "n2"),
        invoke(10 * S, 0, Call::Read { set }),
    ]
}

/// A register that forgot a write, and what its checkers say.
fn forgetful() -> Run {
    use register::{Call, Reply};
    let register = Register(3);
    let history = [
        invoke(0, 9, Call::Read { register: Register(8) }),
        ok(5_000_000, 9, Reply::Read { value: None, at: 1 }),
        invoke(10_000_000, 0, Call::Write { register, value: 1 }),
        ok(20_000_000, 0, Reply::Write { revision: 2 }),
        invoke(30_000_000, 1, Call::Read { register }),
        ok(40_000_000, 1, Reply::Read { value: None, at: 2 }),
    ];
    let operations = pair(&history);
    let verdicts =
        vec![crate::checker::revision::check(&operations), crate::checker::wgl::registers(&operations, 1000)];
    run(&history, verdicts)
}

/// Two transactions that each missed what the other did, and what the checker says.
fn skewed() -> Run {
    let step = |list, value| Step::Append { list: List(list), value };
    let look = |list| Step::Read { list: List(list) };
    let call = |steps: Vec<Step>| append::Call { steps };
    let said = |read| append::Reply { read };
    let history = [
        invoke(0, 0, call(vec![look(1), step(2, 1)])),
        invoke(1, 1, call(vec![look(2), step(1, 1)])),
        ok(S, 0, said(vec![Some(vec![]), None])),
        ok(S, 1, said(vec![Some(vec![]), None])),
        invoke(2 * S, 0, call(vec![look(1), look(2)])),
        ok(3 * S, 0, said(vec![Some(vec![1]), Some(vec![1])])),
    ];
    let verdicts = vec![crate::checker::list_append::check(&pair(&history))];
    run(&history, verdicts)
}

fn empty() -> Run {
    run::<set::Call>(&[], Vec::new())
}

/// Whether every tag is closed, in order; which fragments are linked to and which are there.
fn parsed(page: &str) -> (BTreeSet<String>, Vec<String>) {
    let (mut open, mut links, mut ids) = (Vec::new(), BTreeSet::new(), Vec::new());
    let page = page.strip_prefix("<!DOCTYPE html>\n").expect("it says what it is");
    for piece in page.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag ends");
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes what is not open");
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap_or_default());
        }
        let value = |name: &str| tag.split_once(name).and_then(|(_, rest)| rest.split('"').next()).map(str::to_owned);
        links.extend(value(" href=\"#"));
        ids.extend(value(" id=\""));
    }
    assert_eq!(open, [""; 0], "not closed");
    (links, ids)
}

#[test]
fn every_tag_is_closed_and_every_link_leads_somewhere() {
    let full = run(&full(), vec![Verdict::unknown("coverage", "nothing happened")]);
    for run in [full, forgetful(), skewed(), empty()] {
        let page = run.html();
        let (links, ids) = parsed(&page);
        let there: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(there.len(), ids.len(), "an id stands twice: {ids:?}");
        let missing: Vec<&String> = links.difference(&there).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(!page.contains("http:") && !page.contains("https:"), "it needs something from elsewhere");
    }
}

#[test]
fn the_verdict_and_its_models_come_first() {
    let page = empty().html();
    assert!(page.contains("<h1>Unknown</h1>\n<p>Nobody has judged this run.</p>"));
    assert!(page.contains("No operation has ended.") && page.contains("There is no operation."));
    let valid = Run { valid: Valid::True, verdicts: vec![Verdict::valid("bank (sum)")], ..empty() }.html();
    let (head, _) = valid.split_once("<section").expect("there are sections");
    assert!(head.contains("<h1>Valid</h1>\n<p>Checked, and nothing found against it: bank (sum).</p>"));
    let wrong = forgetful().html();
    assert!(wrong.contains("<h1>Invalid</h1>\n<p>Found wrong: linearizable registers (revisions);"));
}

#[test]
fn what_was_recorded_is_text() {
    let evil = "<script>alert('&')</script>\u{1b}\"";
    let mut run = run(&full(), vec![Verdict::invalid(evil, vec![evil.into(), format!("  {evil}")])]);
    (run.workload, run.facts, run.command) = (evil.into(), vec![(evil.into(), evil.into())], vec![evil.into()]);
    run.gates = vec![Gate { name: evil.into(), wanted: 1, seen: 1 }];
    run.files = vec![evil.into(), "javascript:alert(1)".into()];
    for operation in &mut run.operations {
        (operation.asked, operation.came, operation.kind) = (evil.into(), evil.into(), evil);
    }
    for fault in &mut run.faults {
        (fault.name, fault.detail) = (evil.into(), evil.into());
    }
    run.faults[0].force = Force::Seen { at: Nanos(S), what: evil.into() };
    run.faults[1].force = Force::Unsupported { why: evil.into() };
    run.faults[2].force = Force::Unseen { why: evil.into() };
    let page = run.html();
    parsed(&page);
    assert!(!page.contains("<script") && !page.contains('\u{1b}') && !page.contains("\"javascript:"));
    assert!(page.contains("&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;\u{fffd}&quot;"));
    assert!(page.contains("href=\"./javascript%3Aalert%281%29\""));
}

#[test]
fn a_fault_shades_the_plots_from_when_it_was_seen() {
    // Of ten seconds: injected at 2, seen at 2.5, healed at 4; 96 units a second from 64 on.
    let page = run(&full(), Vec::new()).html();
    let shade = "<rect class=\"shade seen\" x=\"304.0\" y=\"12.0\" width=\"144.0\"";
    assert_eq!(page.matches(shade).count(), 2, "one in each plot");
    assert_eq!(page.matches("<rect class=\"shade unseen\" x=\"736.0\" y=\"12.0\" width=\"288.0\"").count(), 2);
    let lane = "<rect class=\"bar injected\" x=\"256.0\" y=\"16.0\" width=\"192.0\" height=\"10.0\"><title>kill n1, \
                from 2.000 s to 4.000 s; seen at work at 2.500 s: n1: gone</title></rect>";
    assert!(page.contains(lane));
    assert!(page.contains("<rect class=\"bar in-force\" x=\"304.0\" y=\"16.0\" width=\"144.0\""));
    assert!(page.contains("<rect class=\"bar unsupported\" x=\"640.0\" y=\"16.0\" width=\"1.0\""));
    let quiet = Run { faults: Vec::new(), ..run(&full(), Vec::new()) }.html();
    assert!(!quiet.contains("<rect") && quiet.contains("There was no fault."));
}

#[test]
fn faults_go_from_injection_to_healing() {
    let seen = |what: &str| Force::Seen { at: Nanos(5 * S / 2), what: what.into() };
    let faults = recorded(&full(), |_, _| "call").faults;
    let told: Vec<_> = faults.iter().map(|f| (f.detail.as_str(), f.injected.0, f.force.clone(), f.healed)).collect();
    assert_eq!(
        told,
        [
            ("n1", 2 * S, seen("n1: gone"), Some(Nanos(4 * S))),
            ("no router", 6 * S, Force::Unsupported { why: "no router".into() }, Some(Nanos(6 * S))),
            ("n2", 7 * S, Force::Unseen { why: "nobody looked".into() }, None),
        ]
    );
}

#[test]
fn a_fault_that_stays_is_one() {
    use FaultPhase::{Healed, InForce, Injected, Unsupported};
    let cases: [(&[FaultPhase], usize, Option<u64>, bool); 5] = [
        (&[Injected, InForce, Injected, Healed], 1, Some(3), true),
        (&[Injected, Unsupported, Healed], 1, Some(2), false),
        (&[Healed], 0, None, false),
        (&[InForce, Healed], 1, Some(1), true),
        (&[Injected, InForce, Healed, Injected], 2, Some(2), true),
    ];
    for (phases, count, healed, seen) in cases {
        let history: Vec<Event<set::Call, set::Reply>> =
            (0..).zip(phases).map(|(time, phase)| fault(time, *phase, "n1")).collect();
        let faults = recorded(&history, |_, _| "call").faults;
        assert_eq!(faults.len(), count, "{phases:?}");
        assert_eq!(faults.first().and_then(|fault| fault.healed), healed.map(Nanos), "{phases:?}");
        let in_force = faults.first().is_some_and(|fault| matches!(fault.force, Force::Seen { .. }));
        assert_eq!(in_force, seen, "{phases:?}");
    }
}

#[test]
fn outcomes_have_marks_of_their_own() {
    let page = run(&full(), Vec::new()).html();
    // 2 ms at second 1; almost 1 s at second 2; 2 s at second 3: decades from 1 ms to 10 s.
    assert!(page.contains("<path class=\"mark ok\" d=\"M160 297h.01\"/>"), "{page}");
    assert!(page.contains("<path class=\"mark fail\" d=\"M254 87l4 4m0-4l-4 4\"/>"));
    assert!(page.contains("<path class=\"mark info\" d=\"M352 62l3.5 6h-7z\"/>"));
    assert!(page.contains("1 without a completion are not shown."));
    for outcome in ["ok", "fail", "info"] {
        assert_eq!(page.matches(&format!("<path class=\"line {outcome}\"")).count(), 2, "{outcome}: legend and plot");
    }
}

#[test]
fn gates_say_what_was_wanted_and_what_was_seen() {
    let gate = |name: &str, wanted, seen| Gate { name: name.into(), wanted, seen };
    let gates = vec![gate("add succeeded", 20, 2000), gate("kill in force", 1, 0)];
    let page = Run { gates, ..run(&full(), Vec::new()) }.html();
    for (name, class, word, wanted, seen) in
        [("add succeeded", "true", "✓ met", "20", "2\u{202f}000"), ("kill in force", "unknown", "✗ not met", "1", "0")]
    {
        let row = format!(
            "<tr><td>{name}</td><td><span class=\"word {class}\">{word}</span></td><td class=\"number\">{wanted}</td>\
             <td class=\"number\">{seen}</td></tr>"
        );
        assert!(page.contains(&row), "{row}");
    }
}

#[test]
fn an_answer_that_nothing_was_done_counts_apart() {
    let kind = |_: &set::Call, reply: Option<&set::Reply>| if reply.is_some() { "answered" } else { "call" };
    let kinds: Vec<&str> = recorded(&full(), kind).operations.iter().map(|operation| operation.kind).collect();
    assert_eq!(kinds, ["answered", "call", "call", "call"]);
}

#[test]
fn operations_are_counted() {
    let row = "<tr><td>call</td><td class=\"number\">1</td><td class=\"number\">1</td><td class=\"number\">2</td>\
               <td class=\"number\">4</td><td class=\"number\">2.00 ms</td>";
    assert!(run(&full(), Vec::new()).html().contains(row));
}

#[test]
fn a_counter_example_leads_to_its_operations() {
    for (run, events) in [(forgetful(), [2, 4]), (skewed(), [0, 1])] {
        assert_eq!(run.valid, Valid::False, "{:?}", run.verdicts);
        let marks = Marks::of(&run);
        assert_eq!(marks.marked().iter().copied().collect::<Vec<_>>(), events, "{:?}", run.verdicts);
        let page = run.html();
        for event in events {
            assert!(page.contains(&format!("<a href=\"#e{event}\">")), "{event}");
            assert!(page.contains(&format!("<div id=\"e{event}\" class=\"op ok marked\"")), "{event}");
        }
    }
    // Of registers only the one it is about is shown; of transactions the neighbours too.
    assert!(!forgetful().html().contains("id=\"e0\"") && skewed().html().contains("id=\"e4\" class=\"op ok\""));
    assert!(skewed().html().contains("<dt>G2-item</dt><dd>Write skew"), "{:?}", skewed().verdicts);
}

#[test]
fn what_only_looks_like_a_name_is_text() {
    let run = forgetful();
    let marks = Marks::of(&run);
    let found = |line: &str| marks.find(line).into_iter().map(|mark| (mark.at, mark.index)).collect::<Vec<_>>();
    assert_eq!(found("T2 before event 4 (p1)"), [(0..2, 2), (16..17, 4)]);
    assert_eq!(found("p1 read r3: unknown [30.000000 ms to no end]"), [(0..2, 4)]);
    assert_eq!(found("  p1 read r3: nothing [30.000000 ms to 40.000000 ms]"), [(2..4, 4)]);
    for line in
        ["", "T", "T99", "event 3", "event", "xT2", "p1 read [30.000001 ms to 3]", "p1 [99999999999999999999.0 ms to "]
    {
        assert!(found(line).is_empty(), "{line}");
    }
}

#[test]
fn a_long_timeline_shows_its_beginning() {
    use set::{Call, Reply, SetId};
    let set = SetId(0);
    let one = |number: u64| {
        let (time, process) = (number * 10, number % 3);
        [invoke(time, process, Call::Add { set, element: number }), ok(time + 5, process, Reply::Add)]
    };
    let history: Vec<Event<Call, Reply>> = (0..1000).flat_map(one).collect();
    let page = run(&history, Vec::new()).html();
    assert!(page.contains("The first 240 of 1\u{202f}000 operations."));
    assert_eq!(page.matches("class=\"op ok\"").count(), 240);
    assert!(page.contains("style=\"--lanes:3\""));
}

#[test]
fn links_are_of_what_a_person_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["history.jsonl", "results.json", "n1.1.log", "history.edn", "report.html", "core"] {
        std::fs::write(folder.path().join(name), "").expect("written");
    }
    for name in ["n1", "independent"] {
        std::fs::create_dir(folder.path().join(name)).expect("made");
    }
    let names = links(folder.path()).expect("it is there");
    assert_eq!(names, ["history.edn", "history.jsonl", "independent/", "n1.1.log", "results.json"]);
}
