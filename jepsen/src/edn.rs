//! Histories as EDN, for Jepsen's own tools to judge: Elle's command line (`elle-cli`) and Knossos'.
//!
//! One map a line, as those tools read: `:index`, `:time` (ns), `:type`, `:process`, `:f`, `:value`, and what they
//! pass by (`:error`, `:event`, `:phase`, `:detail`). [`Form`] says how a workload's calls and replies look there.
//! Where one history is of many independent objects, each has a file of its own with bare values: Jepsen's tuples do
//! not survive a file.
//!
//! What their models want, and is kept here:
//!
//! * A `:fail` or `:info` carries the value of its invocation: in both nothing is known to have been read.
//! * What Jepsen calls failed is told as failed: a swap that found another value, a transfer that was not done.
//! * A fault is an `:info` of `:nemesis` without a value: some models (the counter) look at everybody's value.
//! * Sets are vectors: what stands there twice is not lost in writing it down.
//!
//! Left out: what Jepsen's models have no place for. Revisions and versions are in the JSON lines only, and so is
//! what a swap that found another value says about the register; so are stale reads. In the files of independent objects
//! there are no faults.

mod form;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub use form::{Answer, Asked, Form};
pub use value::Value;

use crate::history::{Event, FaultPhase, Process, What};

/// One file of EDN: of a whole history, or of one of its independent objects.
pub struct File<'a, C: Form> {
    /// Where it belongs in the run's folder.
    pub name: String,
    lines: Vec<Line<'a, C>>,
}

struct Line<'a, C: Form> {
    /// Its place in the history.
    number: usize,
    event: &'a Event<C, C::Reply>,
    /// What was asked; `None` for a fault.
    call: Option<&'a C>,
}

/// The files of a history.
///
/// # Panics
/// Something ends that was not begun: [`crate::history::pair`] refuses such a history too.
pub fn files<C: Form>(history: &[Event<C, C::Reply>]) -> Vec<File<'_, C>> {
    let mut parts: BTreeMap<Option<u64>, Vec<Line<'_, C>>> = BTreeMap::new();
    let mut under_way: BTreeMap<Process, &C> = BTreeMap::new();
    for (number, event) in history.iter().enumerate() {
        let call = match &event.what {
            What::Invoke { process, call } => {
                under_way.insert(*process, call);
                Some(call)
            }
            What::Ok { process, .. } | What::Fail { process, .. } | What::Info { process, .. } => {
                Some(under_way.remove(process).expect("what ends was begun"))
            }
            What::Fault { .. } => None,
        };
        if call.is_some_and(|call| !call.is_in_model()) {
            continue;
        }
        parts.entry(call.and_then(C::part)).or_default().push(Line { number, event, call });
    }
    if parts.keys().any(Option::is_some) {
        parts.remove(&None);
    }
    parts.into_iter().map(|(part, lines)| File { name: name(part), lines }).collect()
}

fn name(part: Option<u64>) -> String {
    match part {
        None => "history.edn".to_owned(),
        Some(part) => format!("independent/history-k{part}.edn"),
    }
}

/// Writes the files of a history into a run's folder, which is there.
///
/// # Errors
/// A file could not be written.
pub fn save<C: Form>(folder: &Path, history: &[Event<C, C::Reply>]) -> io::Result<()> {
    for file in files(history) {
        let path = folder.join(&file.name);
        fs::create_dir_all(path.parent().expect("it is joined to a folder"))?;
        file.write(&mut BufWriter::new(fs::File::create(path)?))?;
    }
    Ok(())
}

impl<C: Form> File<'_, C> {
    /// Writes its operations, one a line.
    ///
    /// # Errors
    /// Writing failed.
    pub fn write(&self, into: &mut dyn Write) -> io::Result<()> {
        for (index, line) in self.lines.iter().enumerate() {
            writeln!(into, "{}", Value::Map(line.fields(index)))?;
        }
        into.flush()
    }
}

impl<C: Form> Line<'_, C> {
    fn fields(&self, index: usize) -> Vec<(Value, Value)> {
        let mut fields =
            vec![field("index", Value::Number(index as i128)), field("time", Value::Number(self.event.time.0.into()))];
        match self.call {
            Some(call) => fields.extend(operation(call, &self.event.what)),
            None => fields.extend(fault(&self.event.what)),
        }
        if index != self.number {
            fields.push(field("event", Value::Number(self.number as i128)));
        }
        fields
    }
}

/// `:type`, `:process`, `:f`, `:value`, and what went wrong.
fn operation<C: Form>(call: &C, what: &What<C, C::Reply>) -> Vec<(Value, Value)> {
    let Asked { f, value } = call.asked();
    let (kind, process, value, error) = match what {
        What::Invoke { process, .. } => ("invoke", process, value, None),
        What::Ok { process, reply } => match call.answered(reply) {
            Answer::Ok(answer) => ("ok", process, answer, None),
            Answer::Fail(why) => ("fail", process, value, Some(why)),
            Answer::Unfit => ("info", process, value, Some("the reply does not fit")),
        },
        What::Fail { process, why } => ("fail", process, value, Some(why.as_str())),
        What::Info { process, why } => ("info", process, value, Some(why.as_str())),
        What::Fault { .. } => return Vec::new(),
    };
    let mut fields = vec![
        field("type", Value::keyword(kind)),
        field("process", Value::Number(process.0.into())),
        field("f", Value::keyword(f)),
        field("value", value),
    ];
    fields.extend(error.map(|why| field("error", Value::Text(why.to_owned()))));
    fields
}

fn fault<C, R>(what: &What<C, R>) -> Vec<(Value, Value)> {
    let What::Fault { name, phase, detail } = what else { return Vec::new() };
    let phase = match phase {
        FaultPhase::Injected => "injected",
        FaultPhase::InForce => "in-force",
        FaultPhase::Healed => "healed",
        FaultPhase::Unsupported => "unsupported",
    };
    vec![
        field("type", Value::keyword("info")),
        field("process", Value::keyword("nemesis")),
        field("f", Value::keyword(name)),
        field("value", Value::Nil),
        field("phase", Value::keyword(phase)),
        field("detail", Value::Text(detail.clone())),
    ]
}

fn field(name: &str, value: Value) -> (Value, Value) {
    (Value::keyword(name), value)
}
