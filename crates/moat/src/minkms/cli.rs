//! What can be typed after `minkms`. Flags may stand before or after names, as in the original.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Moat's key manager by the command lines of MinKMS
#[derive(Debug, Parser)]
#[command(name = "minkms", version, max_term_width = 100)]
pub(super) struct Cli {
    /// Draw a software HSM key and print it
    #[arg(long)]
    pub(super) soft_hsm: bool,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the key manager
    Server(ServerArgs),
    /// Say whether the key manager answers
    Stat {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Draw an API key, or print the identity of one
    Identity {
        /// The API key
        key: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an enclave
    #[command(visible_alias = "create-enclave")]
    AddEnclave {
        /// Its name
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List enclaves
    #[command(visible_aliases = ["ls-enclaves", "list-enclaves"])]
    LsEnclave {
        /// Only those whose names begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete an enclave with its keys and identities, for good
    RmEnclave {
        /// Its name
        name: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make identities known in an enclave
    #[command(visible_alias = "create-identity")]
    AddIdentity {
        /// What is to be known: h1:..., or a name for one whose API key is drawn; without any, a nameless one is drawn
        identities: Vec<String>,
        /// They may do everything in the enclave
        #[arg(long)]
        admin: bool,
        /// They have the caller's rights and are gone when it is
        #[arg(long, conflicts_with = "admin")]
        service: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the identities of an enclave
    #[command(visible_aliases = ["ls-identities", "list-identities"])]
    LsIdentity {
        /// Only those that begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Forget identities
    RmIdentity {
        /// The identities, or their names
        #[arg(required = true)]
        identities: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Make keys, or new versions of them
    #[command(visible_alias = "create-key")]
    AddKey {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        /// Add a version to keys that exist
        #[arg(long)]
        version: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the keys of an enclave
    #[command(visible_aliases = ["ls-keys", "list-keys"])]
    LsKey {
        /// Only those whose names begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Describe keys
    StatKey {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Write a policy, in place of one of the same name
    AddPolicy {
        /// Its name
        name: String,
        /// File with its rules as JSON
        file: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Give identities a policy
    AssignPolicy {
        /// The policy
        name: String,
        /// The identities, or their names
        #[arg(required = true)]
        identities: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// How the key manager is reached.
#[derive(Debug, Args)]
pub(super) struct ClientArgs {
    /// The API key
    #[arg(
        short,
        long,
        value_name = "KEY",
        env = "MINIO_KMS_API_KEY",
        hide_env_values = true
    )]
    pub(super) api_key: Option<String>,
    /// The key managers, separated by commas
    #[arg(
        long,
        value_name = "URL",
        env = "MINIO_KMS_SERVER",
        default_value = "https://localhost:7373"
    )]
    pub(super) server: String,
    /// The CA that their certificates must come from, besides those of the system [default: the CAs in ~/.minkms/certs/CAs]
    #[arg(long, value_name = "FILE", env = "MOAT_KMS_CA")]
    pub(super) ca: Option<PathBuf>,
    /// Do not verify the certificate of the key manager
    #[arg(short = 'k', long)]
    pub(super) insecure: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// How the key manager is reached, and which enclave it is about.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// The enclave
    #[arg(short, long, value_name = "NAME", env = "MINIO_KMS_ENCLAVE")]
    pub(super) enclave: Option<String>,
    #[command(flatten)]
    pub(super) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The data folder
    #[arg(value_name = "DIR", env = "MINIO_KMS_VOLUME")]
    pub(super) folder: PathBuf,
    /// MinKMS's configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where to listen; it wins over the file [default: 0.0.0.0:7373]
    #[arg(long, alias = "addr", value_name = "IP:PORT")]
    pub(super) address: Option<String>,
    /// A further name or address that the certificate vouches for, if it is made by the first start
    #[arg(long, value_name = "NAME")]
    pub(super) host: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_of_set_up_scripts_are_taken() {
        for line in [
            "--soft-hsm",
            "add-enclave -k -a k1:x aistor-deployment",
            "add-enclave aistor-objectstore -k",
            "add-identity -k -a k1:x --enclave aistor-deployment --admin aistor-identity",
            "add-identity -k --enclave store --admin",
            "create-key -k -a k1:x --enclave e spark-encryption-key",
            "add-key -k --version --enclave e key",
            "list-keys -k -a k1:x --enclave e",
            "ls-key -e e prefix",
            "stat-key -e e --json key",
            "stat -k",
            "server /data --config /etc/minkms/config.yaml",
            "server --config /etc/minkms/config.yaml /data",
            "server /data --address 127.0.0.1:7373",
            "identity k1:x --json",
            "add-policy readonly policy.json --enclave e",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("minkms").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {parsed:?}");
        }
    }
}
