//! The client's calls about identities and policies.

use moat_types::{EnclaveName, KeyName};

use super::{Client, ListOptions};
use crate::error::Error;
use crate::transport::Repeat;
use crate::wire::{self, Listing};
use crate::{Identity, Privilege};

/// Where identities and policies live on the wire: an enclave, or above all of them.
fn scope_path(enclave: Option<&EnclaveName>) -> String {
    enclave.map_or_else(|| "/v1".into(), |enclave| format!("/v1/enclaves/{enclave}"))
}

impl Client {
    /// Makes an identity known in an enclave, or above all enclaves.
    ///
    /// # Errors
    /// [`Error`]; `Code::IdentityExists` if it is known anywhere.
    pub async fn create_identity(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
        privilege: Privilege,
        policy: Option<&KeyName>,
    ) -> Result<wire::IdentityInfo, Error> {
        let body = wire::CreateIdentity {
            identity,
            privilege: Some(privilege),
            policy: policy.map(ToString::to_string),
            service_account: false,
            tags: std::collections::BTreeMap::new(),
        };
        self.create_identity_with(enclave, &body).await
    }

    /// Makes an identity known as it is described.
    ///
    /// # Errors
    /// [`Error`]; `Code::IdentityExists` if it is known anywhere.
    pub async fn create_identity_with(
        &self,
        enclave: Option<&EnclaveName>,
        new: &wire::CreateIdentity,
    ) -> Result<wire::IdentityInfo, Error> {
        let path = format!("{}/identities", scope_path(enclave));
        self.change(&path, new, Repeat::Never).await
    }

    /// What we are in an enclave, or above all enclaves.
    ///
    /// # Errors
    /// [`Error`]; `Code::IdentityNotFound` if we are not known there.
    pub async fn own_identity(
        &self,
        enclave: Option<&EnclaveName>,
    ) -> Result<wire::IdentityInfo, Error> {
        self.read(&format!("{}/identities/self", scope_path(enclave)))
            .await
    }

    /// Forgets an identity with its service accounts.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_identity(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
    ) -> Result<(), Error> {
        let path = format!("{}/identities/{identity}", scope_path(enclave));
        self.delete::<wire::Nothing>(&path).await.map(drop)
    }

    /// Asks what decides whether an identity may do something.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check_policy(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
        body: &wire::CheckPolicy,
    ) -> Result<wire::Decision, Error> {
        let path = format!("{}/identities/{identity}/check", scope_path(enclave));
        self.change(&path, body, Repeat::Safe).await
    }

    /// Deletes a policy: one that no identity has, or any with `force`.
    ///
    /// # Errors
    /// [`Error`]; `Code::PolicyInUse` if identities have it and nothing is forced.
    pub async fn delete_policy(
        &self,
        enclave: Option<&EnclaveName>,
        name: &KeyName,
        force: bool,
    ) -> Result<(), Error> {
        let query = if force { "?force=true" } else { "" };
        let path = format!("{}/policies/{name}{query}", scope_path(enclave));
        self.delete::<wire::Nothing>(&path).await.map(drop)
    }

    /// Describes an identity.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identity(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
    ) -> Result<wire::IdentityInfo, Error> {
        self.read(&format!("{}/identities/{identity}", scope_path(enclave)))
            .await
    }

    /// Lists identities.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identities(
        &self,
        enclave: Option<&EnclaveName>,
        options: &ListOptions,
    ) -> Result<Listing<wire::IdentityInfo>, Error> {
        self.list(&format!("{}/identities", scope_path(enclave)), options)
            .await
    }

    /// Gives a user a policy in place of the one it has; none takes it away.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn assign_policy(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
        policy: Option<&KeyName>,
    ) -> Result<wire::IdentityInfo, Error> {
        let path = format!("{}/identities/{identity}/policy", scope_path(enclave));
        let policy = policy.map(ToString::to_string);
        self.put(&path, &wire::AssignPolicy { policy }).await
    }

    /// Writes a policy, in place of one of the same name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_policy(
        &self,
        enclave: Option<&EnclaveName>,
        name: &KeyName,
        policy: &wire::PolicyDocument,
    ) -> Result<wire::PolicyInfo, Error> {
        let path = format!("{}/policies/{name}", scope_path(enclave));
        self.put(&path, policy).await
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn policy(
        &self,
        enclave: Option<&EnclaveName>,
        name: &KeyName,
    ) -> Result<wire::PolicyInfo, Error> {
        self.read(&format!("{}/policies/{name}", scope_path(enclave)))
            .await
    }

    /// Lists policies, without their rules.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn policies(
        &self,
        enclave: Option<&EnclaveName>,
        options: &ListOptions,
    ) -> Result<Listing<wire::PolicyInfo>, Error> {
        self.list(&format!("{}/policies", scope_path(enclave)), options)
            .await
    }
}
