//! EDN values: those that histories need.

use std::fmt;

/// One value, written by its `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Nil,
    Number(i128),
    /// Without its colon. See [`Value::keyword`].
    Keyword(String),
    Text(String),
    Vector(Vec<Value>),
    /// In this order.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// What cannot be in a keyword becomes a hyphen.
    pub fn keyword(name: &str) -> Value {
        let fits = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        Value::Keyword(name.chars().map(fits).collect())
    }

    /// A vector of numbers.
    pub fn numbers(numbers: &[u64]) -> Value {
        Value::Vector(numbers.iter().map(|number| Value::from(*number)).collect())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Nil => f.write_str("nil"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Keyword(name) => write!(f, ":{name}"),
            Value::Text(text) => quoted(f, text),
            Value::Vector(values) => {
                f.write_str("[")?;
                for (place, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if place == 0 { "" } else { " " })?;
                }
                f.write_str("]")
            }
            Value::Map(fields) => {
                f.write_str("{")?;
                for (place, (key, value)) in fields.iter().enumerate() {
                    write!(f, "{}{key} {value}", if place == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            letter if letter.is_control() => write!(f, "\\u{:04x}", letter as u32)?,
            letter => write!(f, "{letter}")?,
        }
    }
    f.write_str("\"")
}
