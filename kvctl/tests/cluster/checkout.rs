//! Where the checkout is whose tests these are: asked of cargo at run time. What a test was built in may have moved since, or
//! share its target folder with another checkout, and cargo does not build it again for that.

use std::fs;
use std::path::PathBuf;

/// The checkout's folder. Without cargo it is the current one's parent, as if cargo had started this.
pub fn folder() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| ".".into(), PathBuf::from);
    package.join("..").canonicalize().expect("a checkout")
}

/// The text of a file of the checkout.
pub fn text(path: &str) -> String {
    let path = folder().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("expected to read {}: {error}", path.display()))
}
