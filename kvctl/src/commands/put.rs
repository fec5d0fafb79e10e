//! `put KEY VALUE|-`

use bytes::Bytes;
use serde_json::json;
use trefoil_client::{Client, PutReply, Revision};

use crate::args::Put;
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output, Sheet, say};
use crate::{encoding, input};

/// Writes a key. Exits 1 when its condition does not hold.
pub async fn run(args: Put, client: &Client, output: &mut Output) -> Result<Exit, Failure> {
    let value = if &args.value[..] == b"-" { Bytes::from(input::read("the value")?) } else { args.value };
    let mut put = client.put(args.key, value);
    if args.condition.if_absent {
        put = put.if_absent();
    } else if let Some(revision) = args.condition.if_revision {
        put = put.if_revision(Revision(revision));
    }
    let reply = put.await?;
    print(&reply, output)?;
    Ok(Exit::when(reply.written))
}

fn print(reply: &PutReply, output: &mut Output) -> Result<(), Failure> {
    let revision = reply.header.revision.0;
    match output.format {
        Format::Plain if reply.written => output.line(format!("revision {revision}").as_bytes())?,
        Format::Plain => say("the condition does not hold; nothing was written"),
        Format::Table => {
            let mut sheet = Sheet::new(&["written", "revision"]);
            sheet.push(vec![reply.written.into(), revision.into()]);
            output.sheet(&sheet)?;
        }
        Format::Json => {
            let context = encoding::token(&reply.context);
            output.json(&json!({ "written": reply.written, "revision": revision, "context": context }))?;
        }
    }
    Ok(())
}
