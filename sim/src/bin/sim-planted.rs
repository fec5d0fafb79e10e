//! `sim` with a bug planted in it (`world/src/planted.rs`), which `--bug NAME` chooses; the run is the one that provokes
//! it.

#[path = "../main.rs"]
mod sim;

fn main() -> std::process::ExitCode {
    sim::main()
}
