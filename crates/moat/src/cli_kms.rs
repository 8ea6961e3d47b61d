//! The command line of `moat kms`: keys, their use, identities and the audit.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use moat_types::EnclaveName;

use crate::cli::KmsClientArgs;
use crate::kms::Connection;

#[derive(Debug, Subcommand)]
pub(crate) enum KmsKeyCommand {
    /// Make a key
    Create(KmsKeyCreateArgs),
    /// Take in a key from elsewhere; what it encrypted there can be decrypted here
    Import(KmsKeyImportArgs),
    /// List the keys of the enclave
    List {
        /// Only keys whose name begins so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Show one key
    Info {
        /// Its name
        name: String,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// List the versions of a key
    Versions {
        /// Its name
        name: String,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Give a key a new version, now or from time to time
    Rotate(KmsKeyRotateArgs),
    /// Make everything encrypted under a key unreadable until it is enabled again
    Disable {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Make a disabled key usable again
    Enable {
        /// Its name
        name: String,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Delete a key, or destroy one version of it; within the grace period it can be restored
    Delete(KmsKeyDeleteArgs),
    /// Take back the deletion of a key, within its grace period
    Restore {
        /// Its name
        name: String,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Write the material of a key that was made exportable to a new file
    Export {
        /// Its name
        name: String,
        /// The file; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        client: KmsClientArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct KmsKeyCreateArgs {
    /// Its name
    pub(crate) name: String,
    /// What it is for: AES256, ChaCha20 or HMAC-SHA256
    #[arg(long, value_name = "NAME")]
    pub(crate) algorithm: Option<String>,
    /// Let its material be exported by those who may; can't be decided later
    #[arg(long)]
    pub(crate) exportable: bool,
    /// Give it a new version by itself each time this long has passed, such as 30d
    #[arg(long, value_name = "TIME")]
    pub(crate) rotate_every: Option<String>,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsKeyImportArgs {
    /// Its name [default: the one that the source tells]
    pub(crate) name: Option<String>,
    /// File with the 32 bytes in base64
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) material_file: Option<PathBuf>,
    /// File of a KES key store; its name is the key's
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) kes_file: Option<PathBuf>,
    /// File with NAME:BASE64, as MINIO_KMS_SECRET_KEY has it
    #[arg(long, value_name = "FILE", group = "source")]
    pub(crate) minio_secret_key_file: Option<PathBuf>,
    /// What it is for: AES256, ChaCha20 or HMAC-SHA256
    #[arg(long, value_name = "NAME", requires = "material_file")]
    pub(crate) algorithm: Option<String>,
    /// Let its material be exported by those who may
    #[arg(long)]
    pub(crate) exportable: bool,
    /// Add it as a new version of a key that is there already
    #[arg(long)]
    pub(crate) add_version: bool,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsKeyRotateArgs {
    /// Its name
    pub(crate) name: String,
    /// Not now, but each time this long has passed, such as 30d
    #[arg(long, value_name = "TIME", conflicts_with = "never")]
    pub(crate) every: Option<String>,
    /// Not by itself any more
    #[arg(long)]
    pub(crate) never: bool,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsKeyDeleteArgs {
    /// Its name
    pub(crate) name: String,
    /// How long it can be restored, such as 30d [default: 7d]
    #[arg(long, value_name = "TIME", conflicts_with = "now")]
    pub(crate) grace: Option<String>,
    /// At once and for good
    #[arg(long)]
    pub(crate) now: bool,
    /// Destroy only this version, at once and for good
    #[arg(long, value_name = "N", conflicts_with_all = ["grace", "now"])]
    pub(crate) version: Option<u32>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsEncryptArgs {
    /// The key
    pub(crate) name: String,
    /// What must be given again to decrypt
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) context: String,
    /// File to encrypt [default: standard input]
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsDecryptArgs {
    /// The key
    pub(crate) name: String,
    /// The ciphertext, in base64 [default: standard input]
    #[arg(conflicts_with = "input")]
    pub(crate) ciphertext: Option<String>,
    /// What was given to encrypt
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) context: String,
    /// File with the ciphertext, in base64
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// File to write to, readable for its owner alone [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsDatakeyArgs {
    /// The key that wraps it
    pub(crate) name: String,
    /// What must be given again to decrypt
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) context: String,
    /// Its length in bytes [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) length: Option<u32>,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsMacArgs {
    /// The key
    pub(crate) name: String,
    /// Check this code, in base64, instead of making one
    #[arg(long, value_name = "CODE")]
    pub(crate) verify: Option<String>,
    /// File with the message [default: standard input]
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: KmsClientArgs,
}

/// Which lines of the audit are meant.
#[derive(Debug, Args)]
pub(crate) struct AuditFilterArgs {
    /// Only lines about this key
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// Only lines of this identity, as MinKMS (h1:...) or KES (64 hex digits) writes it
    #[arg(long, value_name = "IDENTITY")]
    pub(crate) identity: Option<String>,
    /// Only lines of this operation, such as KEY:DECRYPT
    #[arg(long, value_name = "NAME")]
    pub(crate) operation: Option<String>,
    /// Only lines of this enclave
    #[arg(long, value_name = "NAME")]
    pub(crate) of_enclave: Option<String>,
    /// Only lines from this time on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KmsAuditCommand {
    /// Print the audit lines, oldest first
    Show {
        /// Only the last N lines
        #[arg(long, value_name = "N", default_value_t = 50)]
        last: usize,
        #[command(flatten)]
        filter: AuditFilterArgs,
        /// The data folder of the key manager [default: ./moat-data]
        #[arg(long, value_name = "DIR", env = "MOAT_DATA")]
        data: Option<PathBuf>,
        /// Print JSON, one line each
        #[arg(long)]
        json: bool,
    },
    /// Print audit lines as they come, until interrupted; asks the key manager, wherever it is
    Follow {
        #[command(flatten)]
        filter: AuditFilterArgs,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Write audit lines as JSON, one each, with hashes and signatures as they stand
    Export {
        #[command(flatten)]
        filter: AuditFilterArgs,
        /// Only lines behind this number: where the last export ended
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
        /// The file; it must not exist [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The data folder of the key manager [default: ./moat-data]
        #[arg(long, value_name = "DIR", env = "MOAT_DATA")]
        data: Option<PathBuf>,
    },
    /// Prove that no line was removed, changed, reordered or cut off
    Verify {
        /// The data folder of the key manager [default: ./moat-data]
        #[arg(long, value_name = "DIR", env = "MOAT_DATA")]
        data: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where identities and policies are: in the enclave, or above all of them.
#[derive(Debug, Args)]
pub(crate) struct KmsScopeArgs {
    #[command(flatten)]
    client: KmsClientArgs,
    /// Not in an enclave, but in the system above them: operators, and who reads metrics or logs
    #[arg(long)]
    pub(crate) system: bool,
}

impl KmsScopeArgs {
    /// The enclave, if it is about one.
    pub(crate) fn scope<'a>(&self, connection: &'a Connection) -> Option<&'a EnclaveName> {
        (!self.system).then_some(&connection.enclave)
    }
}

impl std::ops::Deref for KmsScopeArgs {
    type Target = KmsClientArgs;

    fn deref(&self) -> &KmsClientArgs {
        &self.client
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum KmsIdentityCommand {
    /// Draw a new API key and print it with its identity; nothing is registered
    New {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an identity known in the enclave; without one, draw an API key and print it
    Create {
        /// The identity, as MinKMS (h1:...) or KES (64 hex digits) writes it
        #[arg(conflicts_with = "certificate")]
        identity: Option<String>,
        /// The identity of this client certificate, PEM
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
        /// What it may do
        #[arg(long, value_name = "NAME", conflicts_with = "admin")]
        policy: Option<String>,
        /// It may do everything in the enclave, or with --system everything
        #[arg(long)]
        admin: bool,
        /// It is a service account of ours: with our rights, and gone when we are
        #[arg(long, conflicts_with_all = ["admin", "policy"])]
        service_account: bool,
        /// What to note about it; may be repeated
        #[arg(long, value_name = "NAME=VALUE")]
        tag: Vec<String>,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// List the identities of the enclave
    List {
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// Show one identity; without one, who we are
    Info {
        /// The identity, as MinKMS (h1:...) or KES (64 hex digits) writes it
        identity: Option<String>,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// Forget an identity, and its service accounts with it
    Delete {
        /// The identity
        identity: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KmsPolicyCommand {
    /// Write a policy, in place of one of the same name
    Create {
        /// Its name
        name: String,
        /// What is allowed: a KES path (/v1/key/generate/lake-*), or COMMAND=PATTERN (KEY:GENERATE=lake-*); may be repeated
        #[arg(long, value_name = "RULE")]
        allow: Vec<String>,
        /// What is refused whatever is allowed; may be repeated
        #[arg(long, value_name = "RULE")]
        deny: Vec<String>,
        /// File with the rules as JSON: {"allow": {COMMAND: [PATTERN]}, "deny": ...}
        #[arg(long, value_name = "FILE", conflicts_with_all = ["allow", "deny"])]
        file: Option<PathBuf>,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// Show the rules of a policy
    Get {
        /// Its name
        name: String,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// List the policies of the enclave
    List {
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// Delete a policy that no identity has
    Delete {
        /// Its name
        name: String,
        /// Also if identities have it; they may do nothing until they get another
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// Say which rule decides whether an identity may do something
    Check {
        /// The identity, as MinKMS (h1:...) or KES (64 hex digits) writes it
        identity: String,
        /// The command, such as KEY:GENERATE
        command: String,
        /// The name of the key, or of what else the command is about
        name: String,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
    /// Give an identity a policy in place of the one it has
    Assign {
        /// The policy
        name: String,
        /// The identity
        identity: String,
        #[command(flatten)]
        client: KmsScopeArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KmsEnclaveCommand {
    /// Make an enclave
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// List the enclaves
    List {
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Show one enclave
    Info {
        /// Its name
        name: String,
        #[command(flatten)]
        client: KmsClientArgs,
    },
    /// Delete an enclave with its keys, identities and policies, now and for good
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        client: KmsClientArgs,
    },
}
