//! The program `kvctl`: reads its arguments, runs one command, exits with its code.

use std::process::ExitCode;

use clap::Parser;
use trefoil_kvctl::args::Args;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(said) => return trefoil_kvctl::told(&said).into(),
    };
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(trefoil_kvctl::run(args)).into(),
        Err(error) => {
            trefoil_kvctl::output::say(format_args!("cannot start: {error}"));
            trefoil_kvctl::exit::Exit::Failed.into()
        }
    }
}
