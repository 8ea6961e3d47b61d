//! Connections: how many, how each is set up, and what their errors mean.

use std::time::Duration;

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use rustls::ClientConfig;
use tokio_postgres::error::SqlState;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::retry::Failure;
use super::url::DatabaseUrl;
use crate::Error;

/// Connections of one process. A server commonly takes 100 of all its clients; several nodes must
/// fit.
const CONNECTIONS_MAX: usize = 16;
/// How long an operation waits for a connection before it is refused.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// No statement of ours takes longer unless the server is in trouble; it gives up by itself then.
const STATEMENT_SECONDS_MAX: u32 = 30;

/// What each new connection is told. Synchronous commit is what makes an acknowledged commit
/// durable; a server whose default is weaker is overruled, a stronger one is left alone. Index
/// scans are asked for because a sequential scan makes every writer conflict with it.
const SET_UP: &str = "SET default_transaction_isolation = 'serializable'";

pub(super) struct Sessions {
    pool: Pool,
    place: String,
}

impl Sessions {
    pub(super) fn open(url: &DatabaseUrl, tls: Option<ClientConfig>) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Unreachable {
            place: url.place().to_owned(),
            reason,
        };
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let config = url.config.clone();
        let manager = match (url.uses_tls(), tls) {
            (false, _) => Manager::from_config(config, NoTls, recycling),
            (true, Some(tls)) => {
                Manager::from_config(config, MakeRustlsConnect::new(tls), recycling)
            }
            (true, None) => return Err(unusable("no trusted CA was given".into())),
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS_MAX)
            .wait_timeout(Some(CONNECTION_WAIT))
            .create_timeout(Some(CONNECTION_WAIT))
            .runtime(Runtime::Tokio1)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(async move { set_up(client).await })
            }))
            .build()
            .map_err(|e| unusable(e.to_string()))?;
        Ok(Self {
            pool,
            place: url.place().to_owned(),
        })
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) async fn connection(&self) -> Result<Object, Failure> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) => Failure::before_commit(&e, &self.place),
            PoolError::PostCreateHook(HookError::Backend(e)) => {
                Failure::before_commit(&e, &self.place)
            }
            PoolError::PostCreateHook(HookError::Message(reason)) => {
                Failure::Final(Error::Unreachable {
                    place: self.place.clone(),
                    reason: reason.into_owned(),
                })
            }
            other => Failure::Final(Error::Unreachable {
                place: self.place.clone(),
                reason: format!("no connection: {other}"),
            }),
        })
    }
}

type SetUp = Result<(), HookError>;

async fn set_up(client: &tokio_postgres::Client) -> SetUp {
    client
        .batch_execute(SET_UP)
        .await
        .map_err(HookError::Backend)?;
    // These three are a matter of speed or of limits; a server that does not know one is as good.
    for optional in [
        format!("SET statement_timeout = '{STATEMENT_SECONDS_MAX}s'"),
        "SET enable_seqscan = off".to_owned(),
        "SET enable_bitmapscan = off".to_owned(),
    ] {
        tolerate_refusal(client.batch_execute(&optional).await)?;
    }
    if shown(client, "fsync").await?.as_deref() == Some("off") {
        return Err(HookError::message(
            "the server runs with fsync = off, so a power cut would lose acknowledged changes; set fsync = on",
        ));
    }
    if shown(client, "synchronous_commit").await?.as_deref() == Some("off") {
        client
            .batch_execute("SET synchronous_commit = on")
            .await
            .map_err(HookError::Backend)?;
    }
    Ok(())
}

/// The value of a server setting; `None` if the server does not know it.
async fn shown(
    client: &tokio_postgres::Client,
    setting: &str,
) -> Result<Option<String>, HookError> {
    match client.simple_query(&format!("SHOW {setting}")).await {
        Ok(messages) => Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })),
        Err(e) if e.as_db_error().is_some() => Ok(None),
        Err(e) => Err(HookError::Backend(e)),
    }
}

fn tolerate_refusal(result: Result<(), tokio_postgres::Error>) -> SetUp {
    match result {
        Err(e) if e.as_db_error().is_none() => Err(HookError::Backend(e)),
        _ => Ok(()),
    }
}

/// What an error of the server means to the caller.
pub(super) fn meaning(error: &tokio_postgres::Error, place: &str) -> Error {
    let Some(db) = error.as_db_error() else {
        return Error::Unreachable {
            place: place.to_owned(),
            reason: chain(error),
        };
    };
    match *db.code() {
        SqlState::DISK_FULL => Error::NoSpace,
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => {
            Error::Corrupt(db.message().to_owned())
        }
        _ => Error::Unreachable {
            place: place.to_owned(),
            // The server's message alone: its detail may repeat values.
            reason: format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        },
    }
}

/// An error with its causes, which say more than itself.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
