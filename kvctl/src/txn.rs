//! Reading a transaction from stdin: etcdctl's three blocks, or JSON when it begins with `{`.

mod json;
mod text;

use trefoil_client::Txn;

/// Reads a transaction.
///
/// # Errors
/// A sentence that names the line or field that makes no sense.
pub fn parse(input: &str) -> Result<Txn, String> {
    if input.trim_start().starts_with('{') { json::parse(input) } else { text::parse(input) }
}
