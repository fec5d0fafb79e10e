//! `get KEY`

use serde_json::Value;
use trefoil_client::{Client, GetReply};

use super::tell_staleness;
use crate::args::Get;
use crate::encoding;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Output, Sheet};

/// Prints a key's value. Exits 1 when there is no such key.
pub async fn run(args: Get, client: &Client, output: &mut Output) -> Result<Exit, Failure> {
    let mut get = client.get(args.key).consistency(args.reading.consistency.into()).context(&args.reading.context());
    if let Some(revision) = args.reading.revision() {
        get = get.revision(revision);
    }
    let reply = get.await?;
    tell_staleness(reply.consistency);
    match output.format {
        Format::Plain => plain(&reply, args.raw, output)?,
        Format::Table => table(&reply, output)?,
        Format::Json => json(&reply, output)?,
    }
    Ok(Exit::when(!reply.values.is_empty()))
}

fn plain(reply: &GetReply, raw: bool, output: &mut Output) -> Result<(), Failure> {
    for pair in &reply.values {
        if raw { output.raw(&pair.value)? } else { output.text(&pair.value)? }
    }
    Ok(())
}

fn table(reply: &GetReply, output: &mut Output) -> Result<(), Failure> {
    let mut sheet = Sheet::new(output::PAIR);
    reply.values.iter().for_each(|pair| sheet.push(output::pair_row(pair)));
    Ok(output.sheet(&sheet)?)
}

fn json(reply: &GetReply, output: &mut Output) -> Result<(), Failure> {
    for pair in &reply.values {
        let mut object = output::pair_json(pair);
        object["context"] = Value::from(encoding::token(&reply.context));
        output.json(&object)?;
    }
    Ok(())
}
