//! The moat binary. Each command is a module; this file only chooses one.

mod cli;
mod cli_kms;
mod clock_check;
mod config;
mod credentials;
mod doctor;
mod duration;
mod endpoint;
mod files;
mod first_start;
mod folder;
mod hsm_place;
mod key_file;
mod keyring;
mod kms;
mod kms_audit;
mod kms_backup;
mod kms_confirm;
mod kms_data;
mod kms_enclaves;
mod kms_hsm;
mod kms_identities;
mod kms_import;
mod kms_keys;
mod kms_policies;
mod kms_rewrap;
mod lock;
mod locked_memory;
mod logs;
mod minkms;
mod pairs;
mod pki;
mod print;
mod process;
mod proxy_top;
mod running;
mod servers;
mod sidekick;
mod systemd;
mod up;
mod welcome;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use cli::{Cli, Command, KmsCommand, ProxyCommand};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if minkms::is_called(arguments.first().map(std::ffi::OsString::as_os_str)) {
        return minkms::main();
    }
    let command = match sidekick::command_of(&arguments) {
        Some(args) => Command::Sidekick(Box::new(args)),
        None => Cli::parse_from(arguments).command,
    };
    match run(command) {
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
            Command::Up(args) => up::up(*args).await,
            Command::Store(args) => up::store_server(args).await,
            Command::Proxy(args) => match args.command {
                Some(ProxyCommand::Top(args)) => proxy_top::run(args).await,
                None => up::proxy_server(*args, Vec::new()).await,
            },
            Command::Gateway(args) => match args.command {
                Some(ProxyCommand::Top(args)) => proxy_top::run(args).await,
                None => up::gateway_server(*args).await,
            },
            Command::Sidekick(args) => up::sidekick_server(*args).await,
            Command::Kms(args) => match args.command {
                KmsCommand::Server(args) => up::kms_server(args).await,
                KmsCommand::Status(args) => kms::status(args).await,
                KmsCommand::Key(command) => kms_keys::key(command).await,
                KmsCommand::Audit(command) => kms_audit::audit(command).await,
                KmsCommand::Encrypt(args) => kms_data::encrypt(args).await,
                KmsCommand::Decrypt(args) => kms_data::decrypt(args).await,
                KmsCommand::Datakey(args) => kms_data::datakey(args).await,
                KmsCommand::Mac(args) => kms_data::mac(args).await,
                KmsCommand::Identity(command) => kms_identities::identity(command).await,
                KmsCommand::Policy(command) => kms_policies::policy(command).await,
                KmsCommand::Enclave(command) => kms_enclaves::enclave(command).await,
                KmsCommand::Hsm(command) => kms_hsm::run(command).await,
                KmsCommand::Backup(args) => kms_backup::backup(args).await,
                KmsCommand::Restore(args) => kms_backup::restore(args).await,
                KmsCommand::Rewrap(args) => kms_rewrap::run(args).await,
            },
            Command::Doctor(args) => doctor::run(args).await,
            Command::Pki(_) => unreachable!("handled without a runtime"),
        }
    })
}
