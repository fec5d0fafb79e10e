//! A red seed made smaller, run by run in processes of their own.

use std::io;

use trefoil_jepsen::checker::Valid;
use trefoil_sim::shrink::{Narrowing, shrink};

use super::arguments::Args;
use super::{GREEN, RED, child};

/// Who finds a run red that ends before it can report: an assertion, or a process that does not end.
const BROKE_OFF: &str = "the run broke off";

/// Leaves out what the checker does not need that came first in the seed's report.
///
/// # Errors
/// A run could not be started.
pub fn run(seed: u64, args: &Args) -> io::Result<u8> {
    let runtime = child::runtime()?;
    let red_by = |narrowing: &Narrowing| runtime.block_on(red_by(seed, args, narrowing));
    let Some(checker) = red_by(&Narrowing::default())?.into_iter().next() else {
        println!("seed {seed} is not red: there is nothing to shrink");
        return Ok(GREEN);
    };
    let parameters = args.parameters(seed);
    let planned = trefoil_sim::planned(&parameters);
    println!("seed {seed}: red by {checker}, {} faults planned in {} ms", planned.len(), parameters.safety_ms);
    let (smallest, tried) =
        shrink(planned.len(), parameters.safety_ms, args.runs, |narrowing| Ok(red_by(narrowing)?.contains(&checker)))?;
    for (place, left) in planned.iter().enumerate() {
        if smallest.only_faults.as_ref().is_none_or(|only| only.0.contains(&place)) {
            println!("{place:>5}: {} from {} to {} ms: {:?}", left.kind, left.from_ms, left.to_ms, left.effect);
        }
    }
    let words = [args.passed_on(), smallest.arguments()].concat().join(" ");
    println!("smallest after {tried} runs: sim --seed {seed} {words}");
    println!("a line for sim/seeds.txt:");
    println!("--seed {seed} {words}    # red by {checker}");
    Ok(RED)
}

/// Who finds the seed red when it is so narrowed: checkers, or nobody when it is not.
async fn red_by(seed: u64, args: &Args, narrowing: &Narrowing) -> io::Result<Vec<String>> {
    let output = child::run(seed, args, narrowing).await?;
    let Some(report) = output.as_ref().and_then(child::report) else {
        return Ok(vec![BROKE_OFF.into()]);
    };
    let red = report.verdicts.into_iter().filter(|verdict| verdict.valid == Valid::False);
    Ok(red.map(|verdict| verdict.checker).collect())
}
