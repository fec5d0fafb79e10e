//! A transaction in JSON.
//!
//! ```json
//! {"compares": [{"key": "k", "target": "mod", "relation": ">", "to": 0}],
//!  "then": [{"put": {"key": "k", "value": "v"}}, {"get": {"key": "k"}}],
//!  "else": [{"delete": {"key": "a/", "prefix": true}}, {"txn": {"then": []}}]}
//! ```
//!
//! Keys and values are text, or `{"base64": …}`. Targets are `version`, `create`, `mod`, `value`, `lease`; relations
//! `=`, `!=`, `>`, `<`. A range is `"prefix": true`, or `"before": END`. Unknown fields are errors: a misspelt
//! condition must not become none.

use serde::Deserialize;
use trefoil_client::{Compare, DeleteOp, KeyRange, Op, PutOp, RangeOp, Relation, Revision, Target, Txn};

use crate::encoding::JsonBytes;

pub(super) fn parse(input: &str) -> Result<Txn, String> {
    let txn: TxnJson = serde_json::from_str(input).map_err(|error| error.to_string())?;
    txn.read()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TxnJson {
    #[serde(default)]
    compares: Vec<CompareJson>,
    #[serde(default)]
    then: Vec<OpJson>,
    #[serde(default, rename = "else")]
    otherwise: Vec<OpJson>,
}

impl TxnJson {
    fn read(self) -> Result<Txn, String> {
        Ok(Txn {
            compares: self.compares.into_iter().map(CompareJson::read).collect::<Result<_, _>>()?,
            success: self.then.into_iter().map(OpJson::read).collect::<Result<_, _>>()?,
            failure: self.otherwise.into_iter().map(OpJson::read).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareJson {
    key: JsonBytes,
    #[serde(default)]
    prefix: bool,
    before: Option<JsonBytes>,
    target: TargetJson,
    relation: RelationJson,
    to: Operand,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TargetJson {
    Version,
    Create,
    Mod,
    Value,
    Lease,
}

#[derive(Clone, Copy, Deserialize)]
enum RelationJson {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = "<")]
    Less,
}

/// What a property is compared with.
#[derive(Deserialize)]
#[serde(untagged)]
enum Operand {
    Number(u64),
    Bytes(JsonBytes),
}

impl CompareJson {
    fn read(self) -> Result<Compare, String> {
        let range = range(self.key, self.prefix, self.before)?;
        let relation = match self.relation {
            RelationJson::Equal => Relation::Equal,
            RelationJson::NotEqual => Relation::NotEqual,
            RelationJson::Greater => Relation::Greater,
            RelationJson::Less => Relation::Less,
        };
        let target = match self.target {
            TargetJson::Version => Target::Version(self.to.number()?),
            TargetJson::Create => Target::CreateRevision(Revision(self.to.number()?)),
            TargetJson::Mod => Target::ModRevision(Revision(self.to.number()?)),
            TargetJson::Value => Target::Value(self.to.bytes()?),
            TargetJson::Lease => Target::Lease(self.to.number()?),
        };
        Ok(Compare::range(range, relation, target))
    }
}

impl Operand {
    fn number(self) -> Result<u64, String> {
        match self {
            Operand::Number(number) => Ok(number),
            Operand::Bytes(_) => Err("'to' must be a number for this target".to_owned()),
        }
    }

    fn bytes(self) -> Result<bytes::Bytes, String> {
        match self {
            Operand::Number(_) => Err("'to' must be text or {\"base64\": …} for the target 'value'".to_owned()),
            Operand::Bytes(bytes) => bytes.bytes(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OpJson {
    Put(PutJson),
    Get(GetJson),
    Delete(DeleteJson),
    Txn(TxnJson),
}

impl OpJson {
    fn read(self) -> Result<Op, String> {
        match self {
            OpJson::Put(put) => put.read(),
            OpJson::Get(get) => get.read(),
            OpJson::Delete(delete) => delete.read(),
            OpJson::Txn(txn) => txn.read().map(Op::Txn),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PutJson {
    key: JsonBytes,
    value: JsonBytes,
    #[serde(default)]
    lease: u64,
    #[serde(default)]
    previous: bool,
}

impl PutJson {
    fn read(self) -> Result<Op, String> {
        let put = PutOp::new(self.key.bytes()?, self.value.bytes()?);
        Ok(Op::Put(PutOp { lease: Some(self.lease), previous: self.previous, ..put }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetJson {
    key: JsonBytes,
    #[serde(default)]
    prefix: bool,
    before: Option<JsonBytes>,
    #[serde(default)]
    limit: u64,
    revision: Option<u64>,
    #[serde(default)]
    reverse: bool,
    #[serde(default)]
    keys_only: bool,
    #[serde(default)]
    count_only: bool,
}

impl GetJson {
    fn read(self) -> Result<Op, String> {
        Ok(Op::Range(RangeOp {
            limit: self.limit,
            revision: self.revision.map(Revision),
            reverse: self.reverse,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeOp::new(range(self.key, self.prefix, self.before)?)
        }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteJson {
    key: JsonBytes,
    #[serde(default)]
    prefix: bool,
    before: Option<JsonBytes>,
    #[serde(default)]
    previous: bool,
}

impl DeleteJson {
    fn read(self) -> Result<Op, String> {
        let range = range(self.key, self.prefix, self.before)?;
        Ok(Op::Delete(DeleteOp { range, previous: self.previous }))
    }
}

fn range(key: JsonBytes, prefix: bool, before: Option<JsonBytes>) -> Result<KeyRange, String> {
    let key = key.bytes()?;
    match (prefix, before) {
        (false, None) => Ok(KeyRange::Key(key)),
        (true, None) => Ok(KeyRange::Prefix(key)),
        (false, Some(before)) => Ok(KeyRange::Between(key, before.bytes()?)),
        (true, Some(_)) => Err("'prefix' and 'before' exclude each other".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts() {
        let read = parse(
            r#"{"compares": [{"key": "k", "target": "mod", "relation": ">", "to": 0},
                             {"key": "k", "target": "value", "relation": "!=", "to": {"base64": "/w=="}}],
                "then": [{"put": {"key": {"base64": "/w=="}, "value": "v", "previous": true}},
                         {"txn": {"then": [{"get": {"key": "k"}}]}}],
                "else": [{"delete": {"key": "a/", "prefix": true}}]}"#,
        );
        let put = PutOp { previous: true, ..PutOp::new(vec![0xff], "v") };
        let expected = Txn::new()
            .when(Compare::key("k", Relation::Greater, Target::ModRevision(Revision(0))))
            .when(Compare::key("k", Relation::NotEqual, Target::Value(vec![0xff].into())))
            .then(Op::Put(put))
            .then(Op::Txn(Txn::new().then(Op::get("k"))))
            .otherwise(Op::delete_range(KeyRange::prefix("a/")));
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for input in [
            "{",
            r#"{"if": []}"#,
            r#"{"then": [{"put": {"key": "k"}}]}"#,
            r#"{"then": [{"get": {"key": "k", "prefx": true}}]}"#,
            r#"{"then": [{"get": {"key": "k", "prefix": true, "before": "l"}}]}"#,
            r#"{"compares": [{"key": "k", "target": "mod", "relation": ">", "to": "1"}]}"#,
            r#"{"compares": [{"key": "k", "target": "mod", "relation": ">=", "to": 1}]}"#,
            r#"{"then": [{"put": {"key": {"base64": "?"}, "value": ""}}]}"#,
        ] {
            assert!(parse(input).is_err(), "{input}");
        }
    }
}
