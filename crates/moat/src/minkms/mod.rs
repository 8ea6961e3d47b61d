//! The program by the name `minkms`: command lines that set-up scripts for MinKMS hold, as they
//! stand. They work on our key manager over its native API.
//!
//! What such a script finds done already is no failure: the message says `already exists`, and the
//! exit code is 0, so that the script can be run again.

mod cli;
mod commands;
mod server;
mod yaml;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use cli::{Cli, Command};

use crate::print;

/// The name that chooses this.
const NAME: &str = "minkms";

/// Whether the program was called by that name.
pub(crate) fn is_called(program: Option<&OsStr>) -> bool {
    program.map(Path::new).and_then(Path::file_stem) == Some(OsStr::new(NAME))
}

/// Runs the command line to its end.
pub(crate) fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprint(&print::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    if cli.soft_hsm {
        return commands::soft_hsm();
    }
    let command = cli
        .command
        .context("name a command, or give --soft-hsm to draw an HSM key; see --help")?;
    let runtime = tokio::runtime::Runtime::new().context("the runtime can't be started")?;
    runtime.block_on(async {
        match command {
            Command::Server(args) => server::run(args).await,
            other => commands::run(other).await,
        }
    })
}

/// A line for people, on standard error.
fn eprint(text: &str) {
    use std::io::Write as _;
    // Nothing is left to do if even this can't be written.
    let _ = writeln!(std::io::stderr().lock(), "{NAME}: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_whatever_its_folder() {
        for (program, called) in [
            ("minkms", true),
            ("/usr/local/bin/minkms", true),
            ("./minkms", true),
            ("moat", false),
            ("/opt/minkms/moat", false),
            ("", false),
        ] {
            assert_eq!(is_called(Some(OsStr::new(program))), called, "{program}");
        }
        assert!(!is_called(None));
    }
}
