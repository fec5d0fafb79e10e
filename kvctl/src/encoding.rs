//! Bytes as text: keys and values are any bytes, JSON and terminals want Unicode.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use trefoil_client::Context;

/// Bytes in JSON: text when they are UTF-8, else `{"base64": …}`.
pub fn to_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// Bytes as they are written in JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum JsonBytes {
    Text(String),
    Base64 { base64: String },
}

impl JsonBytes {
    /// The bytes meant.
    ///
    /// # Errors
    /// When the base64 is none.
    pub fn bytes(self) -> Result<Bytes, String> {
        match self {
            JsonBytes::Text(text) => Ok(text.into()),
            JsonBytes::Base64 { base64 } => match STANDARD.decode(&base64) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(format!("'{base64}' is not base64: {error}")),
            },
        }
    }
}

/// A context as the token that `--context` takes.
pub fn token(context: &Context) -> String {
    URL_SAFE_NO_PAD.encode(context.as_bytes())
}

/// The context behind a token.
///
/// # Errors
/// When it is none.
pub fn context(token: &str) -> Result<Context, String> {
    match URL_SAFE_NO_PAD.decode(token) {
        Ok(bytes) => Ok(Context::from_bytes(bytes)),
        Err(error) => Err(format!("not a context token: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(value: Value) -> Result<Bytes, String> {
        serde_json::from_value::<JsonBytes>(value).map_err(|error| error.to_string())?.bytes()
    }

    #[test]
    fn text_stays_text_and_the_rest_is_base64() {
        assert_eq!(to_json(b"plum\n"), json!("plum\n"));
        assert_eq!(to_json(b""), json!(""));
        assert_eq!(to_json(&[0xff, 0x00]), json!({ "base64": "/wA=" }));
    }

    #[test]
    fn every_byte_comes_back() {
        for bytes in [&b"plum"[..], b"", &[0xff, 0x00], &[0xc3, 0x28]] {
            assert_eq!(back(to_json(bytes)).as_deref(), Ok(bytes));
        }
        assert!(back(json!({ "base64": "?" })).is_err());
    }

    #[test]
    fn a_token_is_its_context() {
        let seen = Context::from_bytes(vec![0xff, 1, 2]);
        assert_eq!(context(&token(&seen)), Ok(seen));
        assert!(context("no token!").is_err());
    }
}
