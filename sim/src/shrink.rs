//! Shrinking: which of a red seed's planned faults it takes, and how long, to stay red.
//!
//! Faults are named by their places in the seed's plan, which is made for the seed's own length whatever a run leaves out
//! of it; so a place always means the same fault. Time is shortened by bisection, then faults are left out by ddmin
//! (Zeller and Hildebrandt 2002), then time is shortened again. Pure: whoever calls says whether a run is still red.
//!
//! Invariants:
//!
//! * The result was red when it was tried, or is the whole run.
//! * At most the given number of runs are tried.
//!
//! Left out: fewer nodes and a lighter load, with which every later choice of the seed would be another.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::str::FromStr;

use crate::faults::Planned;
use crate::parameters::Parameters;

/// To what time is shortened.
const STEP_MS: u64 = 1_000;
/// How an empty set is written.
const NONE: &str = "none";

/// Places in a seed's plan of faults, from 0 on; written `3,7` or `none`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub BTreeSet<usize>);

impl FromStr for Places {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Places, Self::Err> {
        match text {
            NONE => Ok(Places::default()),
            _ => text.split(',').map(str::parse).collect::<Result<_, _>>().map(Places),
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(if places.is_empty() { NONE.to_owned() } else { places.join(",") }.as_str())
    }
}

/// What is left of a seed's run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// All when `None`.
    pub only_faults: Option<Places>,
    /// As long as the seed says when `None`.
    pub safety_ms: Option<u64>,
}

impl Narrowing {
    /// What of a plan is left.
    pub fn planned(&self, planned: Vec<Planned>) -> Vec<Planned> {
        let kept = |place: usize| self.only_faults.as_ref().is_none_or(|only| only.0.contains(&place));
        planned.into_iter().enumerate().filter(|(place, _)| kept(*place)).map(|(_, planned)| planned).collect()
    }

    /// The run with its length.
    pub fn parameters(&self, of_seed: Parameters) -> Parameters {
        Parameters { safety_ms: self.safety_ms.unwrap_or(of_seed.safety_ms), ..of_seed }
    }

    /// As the command line has it.
    pub fn arguments(&self) -> Vec<String> {
        let only = self.only_faults.iter().flat_map(|only| ["--only-faults".to_owned(), only.to_string()]);
        only.chain(self.safety_ms.iter().flat_map(|ms| ["--safety-ms".to_owned(), ms.to_string()])).collect()
    }
}

/// Makes a red run with so many planned faults smaller. Gives what is left, and how many runs were tried.
///
/// # Errors
/// A run could not be tried.
pub fn shrink(
    faults: usize,
    safety_ms: u64,
    runs_max: usize,
    is_red: impl FnMut(&Narrowing) -> io::Result<bool>,
) -> io::Result<(Narrowing, usize)> {
    let smallest = Narrowing { only_faults: Some(Places((0..faults).collect())), safety_ms: Some(safety_ms) };
    let mut search = Search { smallest, tried: 0, runs_max, is_red };
    search.shorten()?;
    search.leave_out()?;
    search.shorten()?;
    Ok((search.smallest, search.tried))
}

struct Search<F> {
    smallest: Narrowing,
    tried: usize,
    runs_max: usize,
    is_red: F,
}

impl<F: FnMut(&Narrowing) -> io::Result<bool>> Search<F> {
    /// Whether this one is red too; if so it is the smallest one now. When no run is left to try, it is not.
    fn takes(&mut self, smaller: Narrowing) -> io::Result<bool> {
        if self.tried == self.runs_max {
            return Ok(false);
        }
        self.tried += 1;
        let red = (self.is_red)(&smaller)?;
        if red {
            self.smallest = smaller;
        }
        Ok(red)
    }

    /// By bisection, in whole steps.
    fn shorten(&mut self) -> io::Result<()> {
        let safety_ms = self.smallest.safety_ms.unwrap_or(0);
        let (mut green, mut red) = (0, safety_ms.div_ceil(STEP_MS));
        while red - green > 1 {
            let middle = green.midpoint(red);
            let shorter = Narrowing { safety_ms: Some(middle * STEP_MS), ..self.smallest.clone() };
            match self.takes(shorter)? {
                true => red = middle,
                false => green = middle,
            }
        }
        Ok(())
    }

    /// By ddmin: without a part of the faults, in ever smaller parts.
    fn leave_out(&mut self) -> io::Result<()> {
        if self.takes(self.with(Vec::new()))? {
            return Ok(());
        }
        let mut parts = 2;
        loop {
            let places = self.places();
            if places.len() < 2 || self.tried == self.runs_max {
                return Ok(());
            }
            let part = places.len().div_ceil(parts);
            match self.without_one_part(&places, part)? {
                true => parts = (parts - 1).max(2),
                false if part == 1 => return Ok(()),
                false => parts = (parts * 2).min(places.len()),
            }
        }
    }

    fn without_one_part(&mut self, places: &[usize], part: usize) -> io::Result<bool> {
        // The last ones first: they are the likeliest to come after what went wrong.
        for left_out in places.chunks(part).rev() {
            let rest = places.iter().copied().filter(|place| !left_out.contains(place)).collect();
            if self.takes(self.with(rest))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn with(&self, places: Vec<usize>) -> Narrowing {
        Narrowing { only_faults: Some(Places(places.into_iter().collect())), ..self.smallest.clone() }
    }

    fn places(&self) -> Vec<usize> {
        self.smallest.only_faults.iter().flat_map(|only| only.0.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(list: &[usize]) -> BTreeSet<usize> {
        list.iter().copied().collect()
    }

    /// Shrinks 20 faults in 30 s, of which it takes these and so long.
    fn shrunk(needed: &[usize], needed_ms: u64, runs_max: usize) -> (BTreeSet<usize>, u64, usize) {
        let needed = places(needed);
        let is_red = |run: &Narrowing| {
            let only = run.only_faults.as_ref().expect("shrinking names faults");
            Ok(needed.is_subset(&only.0) && run.safety_ms.expect("and a length") >= needed_ms)
        };
        let (smallest, tried) = shrink(20, 30_000, runs_max, is_red).expect("nothing to fail");
        (smallest.only_faults.expect("named").0, smallest.safety_ms.expect("named"), tried)
    }

    #[test]
    fn what_it_takes_is_left() {
        for (needed, needed_ms, expected_ms) in
            [(&[3, 7][..], 7_500, 8_000), (&[], 1, 1_000), (&[19], 30_000, 30_000), (&[0, 1, 2], 29_000, 29_000)]
        {
            let (left, left_ms, tried) = shrunk(needed, needed_ms, 200);
            assert_eq!((left, left_ms), (places(needed), expected_ms), "{needed:?}");
            assert!(tried < 100, "{tried} runs");
        }
    }

    #[test]
    fn runs_are_bounded_and_what_is_left_is_red() {
        for runs_max in 0..40 {
            let (left, left_ms, tried) = shrunk(&[2, 11, 17], 9_000, runs_max);
            assert!(tried <= runs_max && left_ms >= 9_000 && places(&[2, 11, 17]).is_subset(&left), "{runs_max}");
        }
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for (text, list) in [("none", &[][..]), ("3", &[3]), ("3,7", &[3, 7])] {
            let read: Places = text.parse().expect("places");
            assert_eq!((read.to_string().as_str(), read), (text, Places(places(list))));
        }
        assert!(["", "3,", "x"].iter().all(|text| text.parse::<Places>().is_err()));
    }
}
