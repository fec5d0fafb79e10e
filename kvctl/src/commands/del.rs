//! `del KEY`, `del --prefix PREFIX`, `del KEY --before END`

use serde_json::json;
use trefoil_client::{Client, DeleteReply, KeyRange, Revision};

use super::connect;
use crate::args::{Condition, Del, Global};
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output, Sheet, say};
use crate::question::confirm;
use crate::visible;

/// Removes keys. A single key that is not there, or a condition that does not hold, exits 1; many keys are asked
/// about first.
pub async fn run(args: Del, global: &Global, output: &mut Output) -> Result<Exit, Failure> {
    match args.range.to_delete()? {
        KeyRange::Key(key) => {
            let reply = one(&connect(global).await?, key, args.condition).await?;
            print(&reply, output)?;
            // With --if-absent the answer is that the key is not there.
            Ok(Exit::when(reply.carried_out && (reply.deleted == 1 || args.condition.if_absent)))
        }
        range @ (KeyRange::Prefix(_) | KeyRange::Between(_, _) | KeyRange::From(_)) => {
            if args.condition.is_set() {
                return Err(Failure::Usage("--if-absent and --if-revision are for a single key".to_owned()));
            }
            confirm(&question(&range), args.yes)?;
            let reply = connect(global).await?.delete_range(range).await?;
            print(&reply, output)?;
            Ok(Exit::Ok)
        }
    }
}

async fn one(client: &Client, key: bytes::Bytes, condition: Condition) -> Result<DeleteReply, Failure> {
    let mut delete = client.delete(key);
    if condition.if_absent {
        delete = delete.if_absent();
    } else if let Some(revision) = condition.if_revision {
        delete = delete.if_revision(Revision(revision));
    }
    Ok(delete.await?)
}

fn question(range: &KeyRange) -> String {
    let shown = visible::line;
    match range {
        KeyRange::Prefix(prefix) if prefix.is_empty() => "Remove ALL keys of the keyspace?".to_owned(),
        KeyRange::Prefix(prefix) => format!("Remove all keys that begin with '{}'?", shown(prefix)),
        KeyRange::Between(from, before) => {
            format!("Remove all keys from '{}' up to before '{}'?", shown(from), shown(before))
        }
        KeyRange::From(from) => format!("Remove all keys from '{}' on?", shown(from)),
        KeyRange::Key(key) => format!("Remove '{}'?", shown(key)),
    }
}

fn print(reply: &DeleteReply, output: &mut Output) -> Result<(), Failure> {
    let revision = reply.header.revision.0;
    match output.format {
        Format::Plain => {
            output.line(reply.deleted.to_string().as_bytes())?;
            if !reply.carried_out {
                say("the condition does not hold; nothing was removed");
            }
        }
        Format::Table => {
            let mut sheet = Sheet::new(&["carried_out", "deleted", "revision"]);
            sheet.push(vec![reply.carried_out.into(), reply.deleted.into(), revision.into()]);
            output.sheet(&sheet)?;
        }
        Format::Json => {
            let found = json!({
                "carried_out": reply.carried_out, "deleted": reply.deleted, "revision": revision
            });
            output.json(&found)?;
        }
    }
    Ok(())
}
