//! The server that is run: the one that `KVD_BIN` names, else the one that was built with these tests.

use std::env;
use std::path::{Path, PathBuf};

pub fn path() -> PathBuf {
    let given = env::var_os("KVD_BIN").map(PathBuf::from);
    given.unwrap_or_else(|| {
        let me = env::current_exe().expect("this test's path");
        me.parent().and_then(Path::parent).expect("a folder of programs above it").join("kvd")
    })
}
