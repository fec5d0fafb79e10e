//! `txn`, from stdin
//!
//! Plain output is as etcdctl's: `SUCCESS` or `FAILURE`, and behind an empty line what came of each operation.

use serde_json::{Value, json};
use trefoil_client::{OpReply, TxnReply};

use super::connect;
use crate::args::Global;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Output};
use crate::{input, txn};

/// Carries out a transaction. Exits 1 when its compares do not hold, whatever the else branch did.
pub async fn run(global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    let senseless = |why: String| Failure::Usage(format!("the transaction makes no sense: {why}"));
    let text = String::from_utf8(input::read("the transaction")?).map_err(|error| senseless(error.to_string()))?;
    let txn = txn::parse(&text).map_err(senseless)?;
    let reply = connect(global).await?.txn(txn).await?;
    match output.format {
        Format::Plain | Format::Table => plain(&reply, output)?,
        Format::Json => output.json(&json(&reply))?,
    }
    Ok(Exit::when(reply.succeeded))
}

fn plain(reply: &TxnReply, output: &mut Output) -> Result<(), Failure> {
    output.line(word(reply.succeeded))?;
    replies(&reply.replies, output)
}

fn word(succeeded: bool) -> &'static [u8] {
    if succeeded { b"SUCCESS" } else { b"FAILURE" }
}

fn replies(replies: &[OpReply], output: &mut Output) -> Result<(), Failure> {
    for reply in replies {
        output.line(b"")?;
        self::reply(reply, output)?;
    }
    Ok(())
}

fn reply(reply: &OpReply, output: &mut Output) -> Result<(), Failure> {
    match reply {
        OpReply::Range { pairs, .. } => {
            for pair in pairs {
                for bytes in [&pair.key, &pair.value] {
                    output.data(bytes)?;
                    output.line(b"")?;
                }
            }
        }
        OpReply::Put { .. } => output.line(b"OK")?,
        OpReply::Delete { deleted, .. } => output.line(deleted.to_string().as_bytes())?,
        OpReply::Txn { succeeded, replies } => {
            output.line(word(*succeeded))?;
            self::replies(replies, output)?;
        }
    }
    Ok(())
}

fn json(reply: &TxnReply) -> Value {
    let replies: Vec<Value> = reply.replies.iter().map(reply_json).collect();
    json!({ "succeeded": reply.succeeded, "revision": reply.header.revision.0, "replies": replies })
}

fn reply_json(reply: &OpReply) -> Value {
    match reply {
        OpReply::Range { pairs, more, count } => {
            let pairs: Vec<Value> = pairs.iter().map(output::pair_json).collect();
            json!({ "get": { "pairs": pairs, "more": more, "count": count } })
        }
        OpReply::Put { previous } => json!({ "put": { "previous": previous.as_ref().map(output::pair_json) } }),
        OpReply::Delete { deleted, previous } => {
            let previous: Vec<Value> = previous.iter().map(output::pair_json).collect();
            json!({ "delete": { "deleted": deleted, "previous": previous } })
        }
        OpReply::Txn { succeeded, replies } => {
            let replies: Vec<Value> = replies.iter().map(reply_json).collect();
            json!({ "txn": { "succeeded": succeeded, "replies": replies } })
        }
    }
}
