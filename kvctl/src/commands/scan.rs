//! `scan [KEY]`, `scan --prefix PREFIX`
//!
//! Plain output is a pair per line, key and value with a tab between. Plain and JSON are printed as the pairs come; a
//! table has to see them all first.

use serde_json::json;
use trefoil_client::{Client, KeyValue};

use super::tell_staleness;
use crate::args::Scan;
use crate::encoding;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, Output, Sheet};

/// Prints the pairs of a range, or their count.
pub async fn run(args: Scan, client: &Client, output: &mut Output) -> Result<Exit, Failure> {
    let scan = build(&args, client)?;
    if args.count_only {
        let found = scan.await?;
        tell_staleness(found.consistency);
        count(found.count.unwrap_or_default(), output)?;
        return Ok(Exit::Ok);
    }
    match output.format {
        Format::Plain | Format::Json => {
            let mut pairs = scan.stream();
            while let Some(pair) = pairs.next().await? {
                line(&pair, args.keys_only, output)?;
            }
        }
        Format::Table => {
            let found = scan.await?;
            tell_staleness(found.consistency);
            let mut sheet = Sheet::new(output::PAIR);
            found.pairs.iter().for_each(|pair| sheet.push(output::pair_row(pair)));
            output.sheet(&sheet)?;
        }
    }
    Ok(Exit::Ok)
}

fn build(args: &Scan, client: &Client) -> Result<trefoil_client::Scan, Failure> {
    let reading = &args.reading;
    let mut scan = client.scan(args.range.to_scan()?).limit(args.limit).context(&reading.context());
    scan = scan.consistency(reading.consistency.into());
    if let Some(revision) = reading.revision() {
        scan = scan.revision(revision);
    }
    if args.reverse {
        scan = scan.reverse();
    }
    if args.keys_only {
        scan = scan.keys_only();
    }
    Ok(if args.count_only { scan.count_only() } else { scan })
}

fn line(pair: &KeyValue, keys_only: bool, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Json if keys_only => output.json(&json!({ "key": encoding::to_json(&pair.key) }))?,
        Format::Json => output.json(&output::pair_json(pair))?,
        Format::Plain | Format::Table => {
            output.data(&pair.key)?;
            if !keys_only {
                output.raw(b"\t")?;
                output.data(&pair.value)?;
            }
            output.line(b"")?;
        }
    }
    Ok(())
}

fn count(count: u64, output: &mut Output) -> Result<(), Failure> {
    match output.format {
        Format::Plain => output.line(count.to_string().as_bytes())?,
        Format::Table => {
            let mut sheet = Sheet::new(&["count"]);
            sheet.push(vec![count.into()]);
            output.sheet(&sheet)?;
        }
        Format::Json => output.json(&json!({ "count": count }))?,
    }
    Ok(())
}
