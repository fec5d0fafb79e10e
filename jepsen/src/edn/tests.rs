use super::*;
use crate::history::Nanos;
use crate::workload::append::{self, List, Step};
use crate::workload::bank::{self, Account, Held};
use crate::workload::counter;
use crate::workload::register::{self, Register, Versioned};
use crate::workload::set;

/// A history, one event a nanosecond.
fn history<C: Form>(events: Vec<What<C, C::Reply>>) -> Vec<Event<C, C::Reply>> {
    events.into_iter().zip(1..).map(|(what, time)| Event { time: Nanos(time), what }).collect()
}

fn invoke<C, R>(process: u64, call: C) -> What<C, R> {
    What::Invoke { process: Process(process), call }
}

fn ok<C, R>(process: u64, reply: R) -> What<C, R> {
    What::Ok { process: Process(process), reply }
}

fn fail<C, R>(process: u64, why: &str) -> What<C, R> {
    What::Fail { process: Process(process), why: why.into() }
}

fn info<C, R>(process: u64, why: &str) -> What<C, R> {
    What::Info { process: Process(process), why: why.into() }
}

fn fault<C, R>(name: &str, phase: FaultPhase, detail: &str) -> What<C, R> {
    What::Fault { name: name.into(), phase, detail: detail.into() }
}

/// Names and texts of a history's files.
fn written<C: Form>(history: &[Event<C, C::Reply>]) -> Vec<(String, String)> {
    let text = |file: File<'_, C>| {
        let mut bytes = Vec::new();
        file.write(&mut bytes).expect("memory takes it");
        (file.name, String::from_utf8(bytes).expect("text"))
    };
    files(history).into_iter().map(text).collect()
}

/// The one file of a history without independent objects, its lines.
fn lines<C: Form>(events: Vec<What<C, C::Reply>>) -> Vec<String> {
    let files = written(&history(events));
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["history.edn"]);
    files[0].1.lines().map(str::to_owned).collect()
}

#[test]
fn transactions_are_elles() {
    let append = |list, value| Step::Append { list: List(list), value };
    let read = |list| Step::Read { list: List(list) };
    let call = append::Call { steps: vec![append(5, 17), read(6), read(7)] };
    let said = append::Reply { read: vec![None, Some(vec![1, 4]), Some(vec![])] };
    let unfit = append::Reply { read: vec![] };
    let lines = lines(vec![
        invoke(0, call.clone()),
        fault("kill-all", FaultPhase::InForce, "n1 \"down\""),
        ok(0, said),
        invoke(1, call.clone()),
        fail(1, "refused"),
        invoke(2, call.clone()),
        info(2, "timeout"),
        invoke(0, call),
        ok(0, unfit),
    ]);
    let asked = ":f :txn, :value [[:append 5 17] [:r 6 nil] [:r 7 nil]]";
    assert_eq!(
        lines,
        [
            format!("{{:index 0, :time 1, :type :invoke, :process 0, {asked}}}"),
            "{:index 1, :time 2, :type :info, :process :nemesis, :f :kill-all, :value nil, :phase :in-force, \
             :detail \"n1 \\\"down\\\"\"}"
                .to_owned(),
            "{:index 2, :time 3, :type :ok, :process 0, :f :txn, :value [[:append 5 17] [:r 6 [1 4]] [:r 7 []]]}"
                .to_owned(),
            format!("{{:index 3, :time 4, :type :invoke, :process 1, {asked}}}"),
            format!("{{:index 4, :time 5, :type :fail, :process 1, {asked}, :error \"refused\"}}"),
            format!("{{:index 5, :time 6, :type :invoke, :process 2, {asked}}}"),
            format!("{{:index 6, :time 7, :type :info, :process 2, {asked}, :error \"timeout\"}}"),
            format!("{{:index 7, :time 8, :type :invoke, :process 0, {asked}}}"),
            format!("{{:index 8, :time 9, :type :info, :process 0, {asked}, :error \"the reply does not fit\"}}"),
        ]
    );
}

#[test]
fn each_register_has_a_file_with_bare_values() {
    use register::{Call, Reply};
    let (three, four) = (Register(3), Register(4));
    let seen = Versioned { value: 1, revision: 9, version: 1 };
    let history = history(vec![
        invoke(0, Call::Write { register: three, value: 1 }),
        invoke(1, Call::Read { register: four }),
        ok(1, Reply::Read { value: None, at: 8 }),
        ok(0, Reply::Write { revision: 9 }),
        fault("pause", FaultPhase::Injected, "n2"),
        invoke(0, Call::Cas { register: three, from: 1, to: 2 }),
        info(0, "timeout"),
        invoke(1, Call::Cas { register: three, from: 7, to: 8 }),
        ok(1, Reply::Cas { swapped: false, revision: 9 }),
        invoke(1, Call::Read { register: three }),
        ok(1, Reply::Read { value: Some(seen), at: 9 }),
        invoke(1, Call::Cas { register: three, from: 1, to: 3 }),
        ok(1, Reply::Cas { swapped: true, revision: 10 }),
    ]);
    let three = "\
{:index 0, :time 1, :type :invoke, :process 0, :f :write, :value 1}
{:index 1, :time 4, :type :ok, :process 0, :f :write, :value 1, :event 3}
{:index 2, :time 6, :type :invoke, :process 0, :f :cas, :value [1 2], :event 5}
{:index 3, :time 7, :type :info, :process 0, :f :cas, :value [1 2], :error \"timeout\", :event 6}
{:index 4, :time 8, :type :invoke, :process 1, :f :cas, :value [7 8], :event 7}
{:index 5, :time 9, :type :fail, :process 1, :f :cas, :value [7 8], :error \"not swapped\", :event 8}
{:index 6, :time 10, :type :invoke, :process 1, :f :read, :value nil, :event 9}
{:index 7, :time 11, :type :ok, :process 1, :f :read, :value 1, :event 10}
{:index 8, :time 12, :type :invoke, :process 1, :f :cas, :value [1 3], :event 11}
{:index 9, :time 13, :type :ok, :process 1, :f :cas, :value [1 3], :event 12}
";
    let four = "\
{:index 0, :time 2, :type :invoke, :process 1, :f :read, :value nil, :event 1}
{:index 1, :time 3, :type :ok, :process 1, :f :read, :value nil, :event 2}
";
    let files = [("independent/history-k3.edn", three), ("independent/history-k4.edn", four)];
    assert_eq!(written(&history), files.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn each_set_has_a_file_and_keeps_what_stands_there_twice() {
    use set::{Call, Reply, SetId};
    let set = SetId(0);
    let history = history(vec![
        invoke(0, Call::Add { set, element: 7 }),
        ok(0, Reply::Add),
        invoke(1, Call::Read { set }),
        ok(1, Reply::Read { elements: vec![7, 7] }),
        invoke(0, Call::Read { set: SetId(1) }),
        ok(0, Reply::Read { elements: vec![] }),
    ]);
    let first = "{:index 0, :time 1, :type :invoke, :process 0, :f :add, :value 7}\n\
        {:index 1, :time 2, :type :ok, :process 0, :f :add, :value 7}\n\
        {:index 2, :time 3, :type :invoke, :process 1, :f :read, :value nil}\n\
        {:index 3, :time 4, :type :ok, :process 1, :f :read, :value [7 7]}\n";
    let second = "{:index 0, :time 5, :type :invoke, :process 0, :f :read, :value nil, :event 4}\n\
        {:index 1, :time 6, :type :ok, :process 0, :f :read, :value [], :event 5}\n";
    let files = [("independent/history-k0.edn", first), ("independent/history-k1.edn", second)];
    assert_eq!(written(&history), files.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn a_transfer_that_was_not_done_has_failed() {
    use bank::{Call, Reply};
    let transfer = Call::Transfer { id: 9, from: Account(0), to: Account(1), amount: 5 };
    let held = |balance| Held { balance, by: 9, revision: 4, version: 1 };
    let transferred = |done| Reply::Transfer { done, from: held(5), to: held(0), revision: 4 };
    let lines = lines(vec![
        invoke(0, transfer.clone()),
        ok(0, transferred(true)),
        invoke(0, transfer),
        ok(0, transferred(false)),
        invoke(0, Call::Read),
        ok(0, Reply::Read { accounts: vec![Some(held(5)), None, Some(held(-1))], at: 4 }),
    ]);
    let asked = ":process 0, :f :transfer, :value {:from 0, :to 1, :amount 5}";
    assert_eq!(
        lines,
        [
            format!("{{:index 0, :time 1, :type :invoke, {asked}}}"),
            format!("{{:index 1, :time 2, :type :ok, {asked}}}"),
            format!("{{:index 2, :time 3, :type :invoke, {asked}}}"),
            format!("{{:index 3, :time 4, :type :fail, {asked}, :error \"not done\"}}"),
            "{:index 4, :time 5, :type :invoke, :process 0, :f :read, :value nil}".to_owned(),
            "{:index 5, :time 6, :type :ok, :process 0, :f :read, :value {0 5, 1 nil, 2 -1}}".to_owned(),
        ]
    );
}

#[test]
fn counters_tell_what_was_added() {
    use counter::{Call, Reply};
    let lines = lines(vec![
        invoke(0, Call::Increment { by: 2 }),
        ok(0, Reply::Increment { value: 8 }),
        fault("pause", FaultPhase::Healed, "n2"),
        invoke(0, Call::Read),
        ok(0, Reply::Read { value: 8 }),
    ]);
    assert_eq!(
        lines,
        [
            "{:index 0, :time 1, :type :invoke, :process 0, :f :add, :value 2}",
            "{:index 1, :time 2, :type :ok, :process 0, :f :add, :value 2}",
            "{:index 2, :time 3, :type :info, :process :nemesis, :f :pause, :value nil, :phase :healed, \
             :detail \"n2\"}",
            "{:index 3, :time 4, :type :invoke, :process 0, :f :read, :value nil}",
            "{:index 4, :time 5, :type :ok, :process 0, :f :read, :value 8}",
        ]
    );
}

#[test]
fn values_are_written_as_edn_reads_them() {
    let cases = [
        (Value::Nil, "nil"),
        (Value::from(u64::MAX), "18446744073709551615"),
        (Value::keyword("disk full/2"), ":disk-full-2"),
        (Value::Text("a\"b\\c\nd\te\r\u{1b}é".into()), "\"a\\\"b\\\\c\\nd\\te\\r\\u001bé\""),
        (Value::Vector(vec![]), "[]"),
        (Value::Map(vec![]), "{}"),
    ];
    for (value, text) in cases {
        assert_eq!(value.to_string(), text);
    }
}

#[test]
fn files_are_put_into_the_runs_folder() {
    use register::{Call, Reply};
    let folder = tempfile::tempdir().expect("a folder");
    let call = Call::Read { register: Register(2) };
    save(folder.path(), &history(vec![invoke(0, call), ok(0, Reply::Read { value: None, at: 1 })])).expect("written");
    let text = fs::read_to_string(folder.path().join("independent/history-k2.edn")).expect("it is there");
    assert_eq!(text.lines().count(), 2);
    save::<set::Call>(folder.path(), &[]).expect("written");
    assert!(!folder.path().join("history.edn").exists());
}
