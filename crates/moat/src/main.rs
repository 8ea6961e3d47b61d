//! The moat binary. Each command is a module; this file only chooses one.

mod cli;
mod clock_check;
mod config;
mod credentials;
mod doctor;
mod endpoint;
mod files;
mod first_start;
mod folder;
mod keyring;
mod kms;
mod kms_access;
mod lock;
mod logs;
mod pki;
mod print;
mod process;
mod running;
mod servers;
mod up;
mod welcome;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use cli::{Cli, Command, KmsCommand};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            print::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    if let Command::Pki(args) = command {
        return pki::run(args).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Runtime::new().context("the runtime can't be started")?;
    runtime.block_on(async {
        match command {
            Command::Up(args) => up::up(args).await,
            Command::Store(args) => up::store_server(args).await,
            Command::Proxy(args) => up::proxy_server(args).await,
            Command::Kms(args) => match args.command {
                KmsCommand::Server(args) => up::kms_server(args).await,
                KmsCommand::Status(args) => kms::status(args).await,
                KmsCommand::Key(command) => kms::key(command).await,
                KmsCommand::Audit(command) => kms::audit(command).await,
                KmsCommand::Identity(command) => kms::identity(command).await,
                KmsCommand::Policy(command) => kms_access::policy(command).await,
                KmsCommand::Enclave(command) => kms_access::enclave(command).await,
            },
            Command::Doctor(args) => doctor::run(args).await,
            Command::Pki(_) => unreachable!("handled without a runtime"),
        }
    })
}
