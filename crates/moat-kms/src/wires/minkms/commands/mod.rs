//! What each command does: read its message, call the core, write the answer.
//!
//! | commands | where | frames of a request |
//! | --- | --- | --- |
//! | CLUSTER:*, ENCLAVE:* | the system, whatever the path says | one; ENCLAVE:STATUS many |
//! | KEY:* | an enclave | one; STATUS, ENCRYPT, DECRYPT, GENERATE, MAC many |
//! | POLICY:*, IDENTITY:* | an enclave or the system | one; POLICY:GET, POLICY:STATUS, IDENTITY:STATUS many |
//!
//! Many are up to [`frame::FRAMES_MAX`], all of the same command, and all or nothing: if one fails,
//! the whole answer is its error. Of a change only the status counts, so it is answered with an
//! empty message.

mod access;
mod keys;
mod system;

use moat_meta::MetaStore;
use moat_types::EnclaveName;

use super::error::{NO_ENCLAVE, Refusal};
use super::frame::{self, Frame};
use super::proto::Writer;
use super::request::{self, Message};
use crate::core::{Caller, Core, ListQuery};
use crate::policy::Command;
use crate::rows::Scope;
use crate::wires::Front;

/// The command that a body begins with, if it is one.
pub(super) fn command_of_body(body: &[u8]) -> Option<Command> {
    let code = body.first_chunk::<2>()?;
    command_of(u16::from_be_bytes(*code))
}

/// Does what a body says and gives the body of the answer.
pub(super) async fn run<M: MetaStore>(
    front: &Front<M>,
    caller: &Caller,
    scope: &Scope,
    body: &[u8],
) -> Result<Writer, Refusal> {
    let frames = frame::parse(body)?;
    let code = frames[0].code;
    let command = command_of(code)
        .ok_or_else(|| Refusal::bad_request(format!("there is no command {code}")))?;
    check_batch(command, &frames)?;
    let batch = Batch {
        front,
        core: &front.core,
        caller,
        scope,
        command,
        frames: &frames,
    };
    batch.run().await
}

/// The command of a code on this wire; those from 1,000 on are our own and not spoken here.
fn command_of(code: u16) -> Option<Command> {
    const OURS: u16 = 1000;
    if code >= OURS {
        return None;
    }
    Command::from_code(u32::from(code))
}

fn check_batch(command: Command, frames: &[Frame<'_>]) -> Result<(), Refusal> {
    let batches = matches!(
        command,
        Command::EnclaveStatus
            | Command::KeyStatus
            | Command::KeyEncrypt
            | Command::KeyDecrypt
            | Command::KeyGenerate
            | Command::KeyMac
            | Command::PolicyGet
            | Command::PolicyStatus
            | Command::IdentityStatus
    );
    if frames.len() > 1 && !batches {
        return Err(Refusal::bad_request(format!(
            "{command} must be the only command of its request"
        )));
    }
    if frames.iter().any(|frame| frame.code != frames[0].code) {
        return Err(Refusal::bad_request(
            "all commands of a request must be the same",
        ));
    }
    Ok(())
}

/// The commands of one request; at least one, all the same.
struct Batch<'a, M> {
    front: &'a Front<M>,
    core: &'a Core<M>,
    caller: &'a Caller,
    scope: &'a Scope,
    command: Command,
    frames: &'a [Frame<'a>],
}

type Answer = Result<Writer, Refusal>;

impl<M: MetaStore> Batch<'_, M> {
    async fn run(&self) -> Answer {
        match self.command {
            Command::ClusterStatus => self.cluster_status().await,
            Command::ClusterAddNode
            | Command::ClusterRemoveNode
            | Command::ClusterEdit
            | Command::ClusterAddHsm
            | Command::ClusterRemoveHsm => self.cluster_change().await,
            Command::EnclaveCreate => self.create_enclave().await,
            Command::EnclaveDelete => self.delete_enclave().await,
            Command::EnclaveStatus => self.enclave_status().await,
            Command::EnclaveList => self.list_enclaves().await,
            Command::KeyCreate => self.create_key().await,
            Command::KeyDelete => self.delete_key().await,
            Command::KeyImport => self.import_key().await,
            Command::KeyStatus => self.key_status().await,
            Command::KeyEncrypt => self.encrypt().await,
            Command::KeyDecrypt => self.decrypt().await,
            Command::KeyGenerate => self.generate().await,
            Command::KeyMac => self.mac().await,
            Command::KeyList => self.list_keys().await,
            Command::PolicyCreate => self.create_policy().await,
            Command::PolicyDelete => self.delete_policy().await,
            Command::PolicyAssign => self.assign_policy().await,
            Command::PolicyGet => self.policy().await,
            Command::PolicyStatus => self.policy_status().await,
            Command::PolicyList => self.list_policies().await,
            Command::IdentityCreate => self.create_identity().await,
            Command::IdentityDelete => self.delete_identity().await,
            Command::IdentityStatus => self.identity_status().await,
            Command::IdentityList => self.list_identities().await,
            other => Err(Refusal::bad_request(format!(
                "{other} is not served on this protocol"
            ))),
        }
    }

    /// The message of a command that stands alone.
    fn only<'f, T: Message<'f>>(&'f self) -> Result<T, Refusal> {
        Ok(T::parse(self.frames[0].message)?)
    }

    /// The messages of all commands.
    fn all<'f, T: Message<'f>>(&'f self) -> Result<Vec<T>, Refusal> {
        let messages = self.frames.iter().map(|frame| T::parse(frame.message));
        Ok(messages.collect::<Result<_, _>>()?)
    }

    fn list_query(&self) -> Result<ListQuery, Refusal> {
        let request: request::List<'_> = self.only()?;
        Ok(ListQuery {
            prefix: request.prefix.to_owned(),
            from: request.continue_at.to_owned(),
            limit: request.limit as usize,
        })
    }

    /// The enclave of commands that need one.
    fn enclave(&self) -> Result<&EnclaveName, Refusal> {
        match self.scope {
            Scope::Enclave(name) => Ok(name),
            Scope::System => Err(NO_ENCLAVE.into()),
        }
    }

    /// Appends one answer.
    fn push(&self, out: &mut Writer, write: impl FnOnce(&mut Writer)) {
        frame::push(out, self.command as u16, write);
    }

    /// The answer to a single command.
    fn answer(&self, write: impl FnOnce(&mut Writer)) -> Answer {
        let mut out = Writer::default();
        self.push(&mut out, write);
        Ok(out)
    }

    /// The answer to a change.
    fn done(&self) -> Answer {
        self.answer(|_| {})
    }
}

fn bad_name(e: moat_types::NameError) -> Refusal {
    Refusal::bad_request(e.to_string())
}
