//! The table of the native API: what can be asked, by which method and path, what it takes and
//! gives. Routing, the limits of bodies and the OpenAPI document are read from it; a path that
//! does not stand here knows no method.

use crate::policy::Command;

/// A method. Of our own, because those of the `http` crate can't be put together in a constant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// One operation of the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) method: Verb,
    /// The path, with parameters in braces.
    pub(crate) path: &'static str,
    /// Its name in generated clients.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// What a policy must allow; none if anyone may ask.
    pub(crate) command: Option<Command>,
    /// Parameters of the query.
    pub(crate) query: &'static [&'static str],
    /// The schema of the body.
    pub(crate) request: Option<&'static str>,
    /// The largest body.
    pub(crate) body_bytes_max: usize,
    /// The status of success.
    pub(crate) status: u16,
    /// The schema of the answer; none if it is not JSON or says nothing.
    pub(crate) answer: Option<&'static str>,
}

/// Bodies that hold some names and a wrapped key.
const SMALL_BODY: usize = 64 << 10;
/// Bodies with a plaintext of up to 1 MiB and its context, in base64.
const SECRET_BODY: usize = 2 << 20;
/// A policy with as many patterns as one may have.
const POLICY_BODY: usize = 1 << 20;
/// As many items as a batch may have, each with a data key and a context of some hundred bytes.
const BATCH_BODY: usize = 4 << 20;

/// As many keys as a report may have, each with a name of 80 characters and three numbers.
const REPORT_BODY: usize = 2 << 20;

const LIST: &[&str] = &["prefix", "from", "limit"];

const fn get(
    path: &'static str,
    id: &'static str,
    command: Option<Command>,
    answer: Option<&'static str>,
    summary: &'static str,
) -> Operation {
    Operation {
        method: Verb::Get,
        path,
        id,
        summary,
        command,
        query: &[],
        request: None,
        body_bytes_max: 0,
        status: 200,
        answer,
    }
}

const fn list(
    path: &'static str,
    id: &'static str,
    command: Command,
    answer: &'static str,
    summary: &'static str,
) -> Operation {
    Operation {
        query: LIST,
        ..get(path, id, Some(command), Some(answer), summary)
    }
}

const fn post(
    path: &'static str,
    id: &'static str,
    command: Command,
    request: &'static str,
    answer: &'static str,
    summary: &'static str,
) -> Operation {
    Operation {
        method: Verb::Post,
        request: Some(request),
        body_bytes_max: SMALL_BODY,
        ..get(path, id, Some(command), Some(answer), summary)
    }
}

impl Operation {
    const fn creates(self) -> Self {
        Self {
            status: 201,
            ..self
        }
    }

    const fn puts(self) -> Self {
        Self {
            method: Verb::Put,
            ..self
        }
    }

    const fn deletes(self) -> Self {
        Self {
            method: Verb::Delete,
            ..self
        }
    }

    const fn takes(self, body_bytes_max: usize) -> Self {
        Self {
            body_bytes_max,
            ..self
        }
    }

    const fn asks(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }
}

/// The operations of a path.
pub(crate) fn of_path(path: &str) -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().filter(move |one| one.path == path)
}

/// Every operation. In the order of the document.
#[rustfmt::skip]
pub(crate) static OPERATIONS: &[Operation] = &[
    get("/version", "version", None, Some("Version"), "Says which release answers"),
    get("/v1/openapi.json", "openapi", None, Some("Document"), "Gives this document"),
    get("/v1/health/live", "live", None, None, "Answers while the process runs"),
    get("/v1/health/ready", "ready", None, None, "Answers 200 while operations can succeed; with `write`, also those that change something")
        .asks(&["write"]),
    get("/metrics", "metrics", Some(Command::MetricsRead), None, "Gives metrics in Prometheus' text format"),
    get("/v1/audit", "readAudit", Some(Command::AuditRead), Some("Audit"), "Reads the audit: its newest lines, or those after a number")
        .asks(&["limit", "key", "identity", "operation", "enclave", "after", "wait_seconds"]),
    // The keys that seal the state, and backups of it.
    get("/v1/hsm", "hsmStatus", Some(Command::HsmStatus), Some("HsmStatus"), "Describes the keys that seal the state, and tries them"),
    post("/v1/hsm/rotate", "rotateHsm", Command::HsmRotate, "RotateHsm", "HsmRotation", "Seals the state under another key while everything goes on"),
    get("/v1/backup", "backup", Some(Command::SystemBackup), None, "Gives an encrypted backup of the state, which is of one moment"),
    // Enclaves.
    list("/v1/enclaves", "listEnclaves", Command::EnclaveList, "EnclaveListing", "Lists enclaves"),
    post("/v1/enclaves", "createEnclave", Command::EnclaveCreate, "CreateEnclave", "EnclaveInfo", "Makes an enclave").creates(),
    get("/v1/enclaves/{enclave}", "enclave", Some(Command::EnclaveStatus), Some("EnclaveInfo"), "Describes an enclave"),
    get("/v1/enclaves/{enclave}", "deleteEnclave", Some(Command::EnclaveDelete), Some("Nothing"), "Deletes an enclave with all that is in it, now and for good").deletes(),
    // Keys.
    list("/v1/enclaves/{enclave}/keys", "listKeys", Command::KeyList, "KeyListing", "Lists keys"),
    post("/v1/enclaves/{enclave}/keys", "createKey", Command::KeyCreate, "CreateKey", "KeyInfo", "Makes a key").creates(),
    get("/v1/enclaves/{enclave}/keys/{key}", "key", Some(Command::KeyStatus), Some("KeyInfo"), "Describes a key"),
    get("/v1/enclaves/{enclave}/keys/{key}", "deleteKey", Some(Command::KeyDelete), Some("KeyInfo"), "Begins the deletion of a key, or deletes it now if its grace period is 0")
        .deletes().asks(&["grace_seconds"]),
    post("/v1/enclaves/{enclave}/keys/{key}/import", "importKey", Command::KeyImport, "ImportKey", "KeyInfo", "Takes in a key from elsewhere").creates(),
    post("/v1/enclaves/{enclave}/keys/{key}/export", "exportKey", Command::KeyExport, "Nothing", "ExportedKey", "Reads the material of a key that was made exportable"),
    post("/v1/enclaves/{enclave}/keys/{key}/enable", "enableKey", Command::KeyEnable, "Nothing", "KeyInfo", "Lets a disabled key be used again"),
    post("/v1/enclaves/{enclave}/keys/{key}/disable", "disableKey", Command::KeyDisable, "Nothing", "KeyInfo", "Stops a key from being used"),
    post("/v1/enclaves/{enclave}/keys/{key}/restore", "restoreKey", Command::KeyRestore, "Nothing", "KeyInfo", "Takes back the deletion of a key"),
    post("/v1/enclaves/{enclave}/keys/{key}/rotation", "setKeyRotation", Command::KeyUpdate, "SetRotation", "KeyInfo", "Decides how often a key gets a new version by itself").puts(),
    get("/v1/enclaves/{enclave}/keys/{key}/versions", "keyVersions", Some(Command::KeyListVersions), Some("KeyVersionListing"), "Lists the versions of a key"),
    post("/v1/enclaves/{enclave}/keys/{key}/versions", "rotateKey", Command::KeyCreate, "Nothing", "KeyInfo", "Gives a key a new version").creates(),
    get("/v1/enclaves/{enclave}/keys/{key}/versions/{version}", "deleteKeyVersion", Some(Command::KeyDelete), Some("KeyInfo"), "Destroys one version of a key, now and for good").deletes(),
    // What keys are used for.
    post("/v1/enclaves/{enclave}/keys/{key}/generate", "generateDataKey", Command::KeyGenerate, "GenerateDataKey", "DataKey", "Makes a data key"),
    post("/v1/enclaves/{enclave}/keys/{key}/encrypt", "encrypt", Command::KeyEncrypt, "Encrypt", "Ciphertext", "Encrypts a small secret").takes(SECRET_BODY),
    post("/v1/enclaves/{enclave}/keys/{key}/decrypt", "decrypt", Command::KeyDecrypt, "Decrypt", "Plaintext", "Decrypts").takes(SECRET_BODY),
    post("/v1/enclaves/{enclave}/keys/{key}/mac", "mac", Command::KeyMac, "Mac", "MacCode", "Makes a message authentication code").takes(SECRET_BODY),
    post("/v1/enclaves/{enclave}/keys/{key}/mac/verify", "verifyMac", Command::KeyVerifyMac, "VerifyMac", "MacVerified", "Checks a message authentication code").takes(SECRET_BODY),
    post("/v1/enclaves/{enclave}/keys/{key}/epochs/generate", "generateEpoch", Command::EpochGenerate, "GenerateEpoch", "EpochLease", "Makes an epoch key and leases it"),
    post("/v1/enclaves/{enclave}/keys/{key}/epochs/open", "openEpoch", Command::EpochOpen, "OpenEpoch", "EpochLease", "Leases the epoch key of a wrapped form"),
    post("/v1/enclaves/{enclave}/keys/{key}/epochs/rewrap", "rewrapEpoch", Command::EpochRewrap, "OpenEpoch", "RewrappedEpoch", "Wraps an epoch key under the latest version, without releasing it"),
    post("/v1/enclaves/{enclave}/bulk/generate", "generateDataKeys", Command::KeyGenerate, "GenerateBatch", "DataKeyBatchAnswer", "Makes several data keys").takes(BATCH_BODY),
    post("/v1/enclaves/{enclave}/bulk/encrypt", "encryptAll", Command::KeyEncrypt, "EncryptBatch", "CiphertextBatchAnswer", "Encrypts several small secrets").takes(BATCH_BODY),
    post("/v1/enclaves/{enclave}/bulk/decrypt", "decryptAll", Command::KeyDecrypt, "DecryptBatch", "PlaintextBatchAnswer", "Decrypts several ciphertexts").takes(BATCH_BODY),
    post("/v1/enclaves/{enclave}/bulk/mac", "macAll", Command::KeyMac, "MacBatch", "MacCodeBatchAnswer", "Makes several message authentication codes").takes(BATCH_BODY),
    post("/v1/enclaves/{enclave}/lakes/{lake}", "reportLake", Command::EpochOpen, "LakeReport", "Nothing", "Tells what keys guard in a lake, as its store counted").puts().takes(REPORT_BODY),
    // Identities and policies of an enclave.
    list("/v1/enclaves/{enclave}/identities", "listIdentities", Command::IdentityList, "IdentityListing", "Lists identities"),
    post("/v1/enclaves/{enclave}/identities", "createIdentity", Command::IdentityCreate, "CreateIdentity", "IdentityInfo", "Makes an identity known").creates(),
    get("/v1/enclaves/{enclave}/identities/self", "ownIdentity", None, Some("IdentityInfo"), "Says what the caller is"),
    get("/v1/enclaves/{enclave}/identities/{identity}", "identity", Some(Command::IdentityStatus), Some("IdentityInfo"), "Describes an identity"),
    get("/v1/enclaves/{enclave}/identities/{identity}", "deleteIdentity", Some(Command::IdentityDelete), Some("Nothing"), "Forgets an identity with its service accounts").deletes(),
    post("/v1/enclaves/{enclave}/identities/{identity}/policy", "assignPolicy", Command::PolicyAssign, "AssignPolicy", "IdentityInfo", "Gives an identity a policy in place of the one it has").puts(),
    post("/v1/enclaves/{enclave}/identities/{identity}/check", "checkPolicy", Command::PolicyCheck, "CheckPolicy", "Decision", "Says what decides whether an identity may do something"),
    list("/v1/enclaves/{enclave}/policies", "listPolicies", Command::PolicyList, "PolicyListing", "Lists policies"),
    get("/v1/enclaves/{enclave}/policies/{policy}", "policy", Some(Command::PolicyGet), Some("PolicyInfo"), "Reads a policy"),
    post("/v1/enclaves/{enclave}/policies/{policy}", "setPolicy", Command::PolicyCreate, "PolicyDocument", "PolicyInfo", "Writes a policy").puts().takes(POLICY_BODY),
    get("/v1/enclaves/{enclave}/policies/{policy}", "deletePolicy", Some(Command::PolicyDelete), Some("Nothing"), "Deletes a policy that no identity has, or any with `force`").deletes().asks(&["force"]),
    // The same above all enclaves.
    list("/v1/identities", "listSystemIdentities", Command::IdentityList, "IdentityListing", "Lists identities of the system"),
    post("/v1/identities", "createSystemIdentity", Command::IdentityCreate, "CreateIdentity", "IdentityInfo", "Makes an identity known in the system").creates(),
    get("/v1/identities/self", "ownSystemIdentity", None, Some("IdentityInfo"), "Says what the caller is in the system"),
    get("/v1/identities/{identity}", "systemIdentity", Some(Command::IdentityStatus), Some("IdentityInfo"), "Describes an identity of the system"),
    get("/v1/identities/{identity}", "deleteSystemIdentity", Some(Command::IdentityDelete), Some("Nothing"), "Forgets an identity of the system").deletes(),
    post("/v1/identities/{identity}/policy", "assignSystemPolicy", Command::PolicyAssign, "AssignPolicy", "IdentityInfo", "Gives an identity of the system a policy").puts(),
    post("/v1/identities/{identity}/check", "checkSystemPolicy", Command::PolicyCheck, "CheckPolicy", "Decision", "Says what decides whether an identity may do something in the system"),
    list("/v1/policies", "listSystemPolicies", Command::PolicyList, "PolicyListing", "Lists policies of the system"),
    get("/v1/policies/{policy}", "systemPolicy", Some(Command::PolicyGet), Some("PolicyInfo"), "Reads a policy of the system"),
    post("/v1/policies/{policy}", "setSystemPolicy", Command::PolicyCreate, "PolicyDocument", "PolicyInfo", "Writes a policy of the system").puts().takes(POLICY_BODY),
    get("/v1/policies/{policy}", "deleteSystemPolicy", Some(Command::PolicyDelete), Some("Nothing"), "Deletes a policy of the system that no identity has, or any with `force`").deletes().asks(&["force"]),
];
