//! Asking before something that cannot be taken back.
//!
//! Only a person at a terminal is asked; a script says `--yes`.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::exit::Failure;

/// Returns when `yes` was said, beforehand or now.
///
/// # Errors
/// `Usage` when there is nobody to ask, `Local` when the answer is no.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::Usage(format!("{question} Say --yes: there is no terminal to ask at")));
    }
    match ask(question) {
        Ok(answer) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        Ok(_) => Err(Failure::Local("not done".to_owned())),
        Err(error) => Err(Failure::Local(format!("cannot ask: {error}"))),
    }
}

fn ask(question: &str) -> io::Result<String> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer)
}
