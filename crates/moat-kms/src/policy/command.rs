//! The operations of the key manager, as policies and the audit name them.

use std::fmt;

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// An operation of the key manager, as policies and the audit name it. The codes are
        /// those of the MinKMS wire; ours begin at 1,000.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Command { $($(#[$doc])* $name = $code,)* }

        impl Command {
            /// Every command.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name, as in `KEY:CREATE`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

commands! {
    /// Add a node to a cluster.
    ClusterAddNode = 1, "CLUSTER:ADDNODE";
    /// Remove a node from a cluster.
    ClusterRemoveNode = 2, "CLUSTER:REMOVENODE";
    /// Describe the nodes of a cluster.
    ClusterStatus = 3, "CLUSTER:STATUS";
    /// Edit the list of nodes.
    ClusterEdit = 4, "CLUSTER:EDIT";
    /// Add an HSM key.
    ClusterAddHsm = 5, "CLUSTER:ADDHSM";
    /// Remove an HSM key.
    ClusterRemoveHsm = 6, "CLUSTER:REMOVEHSM";
    /// Make an enclave.
    EnclaveCreate = 101, "ENCLAVE:CREATE";
    /// Delete an enclave with all that is in it.
    EnclaveDelete = 102, "ENCLAVE:DELETE";
    /// Describe an enclave.
    EnclaveStatus = 103, "ENCLAVE:STATUS";
    /// List enclaves.
    EnclaveList = 104, "ENCLAVE:LIST";
    /// Make a key, or a new version of one.
    KeyCreate = 201, "KEY:CREATE";
    /// Delete a key or a version of one.
    KeyDelete = 202, "KEY:DELETE";
    /// Bring a key's material from elsewhere. Without a text form on the MinKMS wire.
    KeyImport = 203, "KEY:IMPORT";
    /// Describe a key.
    KeyStatus = 204, "KEY:STATUS";
    /// Encrypt under a key.
    KeyEncrypt = 205, "KEY:ENCRYPT";
    /// Decrypt under a key.
    KeyDecrypt = 206, "KEY:DECRYPT";
    /// Make a data key.
    KeyGenerate = 207, "KEY:GENERATE";
    /// List keys.
    KeyList = 208, "KEY:LIST";
    /// List the versions of a key.
    KeyListVersions = 209, "KEY:LISTVERSIONS";
    /// Make a message authentication code.
    KeyMac = 210, "KEY:MAC";
    /// Write a policy.
    PolicyCreate = 301, "POLICY:CREATE";
    /// Delete a policy.
    PolicyDelete = 302, "POLICY:DELETE";
    /// Give an identity a policy.
    PolicyAssign = 303, "POLICY:ASSIGN";
    /// Read a policy.
    PolicyGet = 304, "POLICY:GET";
    /// Describe a policy without its rules.
    PolicyStatus = 305, "POLICY:STATUS";
    /// List policies.
    PolicyList = 306, "POLICY:LIST";
    /// Make an identity known.
    IdentityCreate = 401, "IDENTITY:CREATE";
    /// Forget an identity.
    IdentityDelete = 402, "IDENTITY:DELETE";
    /// Describe an identity.
    IdentityStatus = 403, "IDENTITY:STATUS";
    /// List identities.
    IdentityList = 404, "IDENTITY:LIST";
    /// Let a disabled key be used again.
    KeyEnable = 1001, "KEY:ENABLE";
    /// Stop a key from being used.
    KeyDisable = 1002, "KEY:DISABLE";
    /// Make an epoch key and lease it.
    EpochGenerate = 1003, "EPOCH:GENERATE";
    /// Open a wrapped epoch key and lease it.
    EpochOpen = 1004, "EPOCH:OPEN";
    /// Read the audit.
    AuditRead = 1005, "AUDIT:READ";
    /// Read the metrics.
    MetricsRead = 1006, "METRICS:READ";
    /// Take back the deletion of a key within its grace period.
    KeyRestore = 1007, "KEY:RESTORE";
    /// Check a message authentication code.
    KeyVerifyMac = 1008, "KEY:VERIFYMAC";
    /// Read the material of a key that was made exportable.
    KeyExport = 1009, "KEY:EXPORT";
    /// Change how a key is rotated.
    KeyUpdate = 1010, "KEY:UPDATE";
    /// Ask what rule decides for an identity.
    PolicyCheck = 1011, "POLICY:CHECK";
    /// Read what a server says about itself.
    ServerStatus = 1012, "SERVER:STATUS";
    /// Read the server's log.
    LogRead = 1013, "LOG:READ";
    /// Take a backup of the state.
    SystemBackup = 1014, "SYSTEM:BACKUP";
    /// Put a backup in place of the state.
    SystemRestore = 1015, "SYSTEM:RESTORE";
    /// Describe the keys that seal the state.
    HsmStatus = 1016, "HSM:STATUS";
    /// Seal the state under another key.
    HsmRotate = 1017, "HSM:ROTATE";
    /// Wrap an epoch key under the latest version of its key, without releasing it.
    EpochRewrap = 1018, "EPOCH:REWRAP";
}

impl Command {
    /// Whether it changes the state.
    pub const fn changes(self) -> bool {
        matches!(
            self,
            Self::ClusterAddNode
                | Self::ClusterRemoveNode
                | Self::ClusterEdit
                | Self::ClusterAddHsm
                | Self::ClusterRemoveHsm
                | Self::EnclaveCreate
                | Self::EnclaveDelete
                | Self::KeyCreate
                | Self::KeyDelete
                | Self::KeyImport
                | Self::PolicyCreate
                | Self::PolicyDelete
                | Self::PolicyAssign
                | Self::IdentityCreate
                | Self::IdentityDelete
                | Self::KeyEnable
                | Self::KeyDisable
                | Self::KeyRestore
                | Self::KeyUpdate
                | Self::SystemRestore
                | Self::HsmRotate
        )
    }

    /// Parses a name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|command| command.as_str().eq_ignore_ascii_case(text))
    }

    /// The command of a code.
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|command| *command as u32 == code)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
