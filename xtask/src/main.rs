//! Project automation that needs more than a line of shell. Depends on no member, so that it
//! builds in seconds and works while the members do not.

mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask tidy\n\n  tidy   checks the layers, the workspace manifest, the lock file and the sources' manners";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => report(tidy::run()),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn report(outcome: anyhow::Result<Vec<String>>) -> ExitCode {
    match outcome {
        Ok(problems) if problems.is_empty() => {
            println!("tidy: nothing to complain about");
            ExitCode::SUCCESS
        }
        Ok(problems) => {
            for problem in &problems {
                eprintln!("tidy: {problem}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tidy could not look: {error:#}");
            ExitCode::FAILURE
        }
    }
}
