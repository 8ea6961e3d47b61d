//! Commands on the cluster and on enclaves: all in the system, above every enclave.

use http::StatusCode;
use moat_meta::MetaStore;
use moat_types::EnclaveName;

use super::super::error::{NO_ENCLAVE, Refusal};
use super::super::proto::Writer;
use super::super::{reply, request};
use super::{Answer, Batch, bad_name};
use crate::rows::Scope;

impl<M: MetaStore> Batch<'_, M> {
    pub(super) async fn cluster_status(&self) -> Answer {
        self.permit_cluster().await?;
        self.answer(|out| {
            reply::cluster_status(out, &self.front.info, self.front.started.elapsed())
        })
    }

    /// What changes a cluster of the original. Here nodes share a database, and the HSM key is a
    /// matter of the configuration.
    pub(super) async fn cluster_change(&self) -> Answer {
        self.permit_cluster().await?;
        let what = format!(
            "{} is not served: nodes and HSM keys are named in this server's configuration",
            self.command
        );
        Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, what))
    }

    async fn permit_cluster(&self) -> Result<(), Refusal> {
        let (scope, node) = (Scope::System, &self.front.info.host);
        self.core
            .permit(self.caller, &scope, self.command, node)
            .await?;
        Ok(())
    }

    pub(super) async fn create_enclave(&self) -> Answer {
        let request: request::Named<'_> = self.only()?;
        let name = EnclaveName::parse(request.name).map_err(bad_name)?;
        self.core.create_enclave(self.caller, &name).await?;
        self.done()
    }

    pub(super) async fn delete_enclave(&self) -> Answer {
        let request: request::Named<'_> = self.only()?;
        let name = enclave_name(request.name)?;
        self.core.delete_enclave(self.caller, &name).await?;
        self.done()
    }

    pub(super) async fn enclave_status(&self) -> Answer {
        let mut out = Writer::default();
        for request in self.all::<request::Named<'_>>()? {
            let name = enclave_name(request.name)?;
            let info = self.core.enclave_info(self.caller, &name).await?;
            self.push(&mut out, |out| reply::enclave(out, &info));
        }
        Ok(out)
    }

    pub(super) async fn list_enclaves(&self) -> Answer {
        let query = self.list_query()?;
        let page = self.core.list_enclaves(self.caller, &query).await?;
        self.answer(|out| {
            reply::page(out, &page.items, page.next.as_deref(), reply::enclave);
        })
    }
}

/// A name that no enclave can have is one of an enclave that does not exist.
fn enclave_name(text: &str) -> Result<EnclaveName, Refusal> {
    EnclaveName::parse(text).map_err(|_| NO_ENCLAVE.into())
}
