//! What is prepared before writers wait: statements for later, and changes of rights that nobody sees before their commit.

use std::time::Duration;

use anyhow::Result;
use sqlx::{PgConnection, query_scalar};

use crate::database::execute;
use crate::moving::shape::Stamp;
use crate::moving::{Database, fence, marker, sequences, slot};

/// How long changed rights may wait for the lock, besides the pause. Only who changes the same rights waits for them.
const UNSEEN: Duration = Duration::from_secs(10);
/// How long the stream may take to read the changes of rights. If it takes longer, writers wait for that.
const READ: Duration = Duration::from_millis(500);

/// What step 3 prepares as statements, because each round trip of the later steps is one that writers wait for.
#[derive(Default)]
pub(super) struct Ready {
    /// They revoke the rights on the side that the tables leave.
    pub revokes: Vec<String>,
    /// They grant the rights on the other side.
    pub grants: Vec<String>,
    /// They raise the epochs there.
    pub epochs: Vec<String>,
    /// It reads the sequences, if there are any.
    pub reading: Option<String>,
    /// The stamp of the tables' definitions, which have been compared after it.
    pub stamp: Stamp,
}

/// The sessions beside the one that locks the tables.
pub(super) struct Sessions {
    /// On the side that the tables leave.
    pub beside: PgConnection,
    /// On the other side. Its transaction opens that side.
    opening: PgConnection,
    /// The server's process of that session.
    pub opener: i32,
    /// The sequences as they were set on the other side.
    pub sequences: Vec<sequences::Sequence>,
    owner_name: String,
    way_back: String,
    closes: String,
    opens: String,
}

impl Sessions {
    /// Opens them, and sets the sequences on the other side: most will not change until the lock.
    pub async fn open(
        from: &mut Database,
        to: &mut Database,
        owner_name: &str,
        ready: &Ready,
        (way_back, limit): (String, Duration),
    ) -> Result<Self> {
        let (mut beside, mut opening) = (from.connect().await?, to.connect().await?);
        let opener = query_scalar(PROCESS).fetch_one(&mut opening).await?;
        let sequences = sequences::set_ahead(&mut beside, &mut to.connection, ready.reading.as_deref()).await?;
        // The statement is known to the session by the time that writers wait for it.
        ready.stamp.stands(&mut beside).await?;
        let begin = format!(
            "begin; set local idle_in_transaction_session_timeout = {}",
            limit.saturating_add(UNSEEN).as_millis().min(i32::MAX.unsigned_abs().into())
        );
        Ok(Self {
            beside,
            opening,
            opener,
            sequences,
            owner_name: owner_name.to_owned(),
            way_back,
            closes: format!("{begin}; {}; {}", fence::close(owner_name), ready.revokes.join("; ")),
            opens: format!("{begin}; {}; {}; {}", fence::open(owner_name), ready.epochs.join("; "), ready.grants.join("; ")),
        })
    }

    /// Begins the transaction that closes the side that the tables leave, and the one that opens the other side. Such a
    /// change takes no lock on the tables, and holds for nobody until its commit. To change the rights of many tables takes
    /// longer than all that writers wait for.
    pub async fn change_rights(&mut self, from: &mut PgConnection, to: &mut PgConnection) -> Result<(), sqlx::Error> {
        let (closed, opened) =
            tokio::join!(execute(from, self.closes.clone()), execute(&mut self.opening, self.opens.clone()));
        closed?;
        opened?;
        // Less WAL is left to read under the lock, for the slot and for the stream.
        let flushed = slot::flush(to, "").await?;
        slot::advance(to, &self.way_back, &flushed).await?;
        let token = marker::set(&mut self.beside, &self.owner_name).await?;
        marker::wait(to, &self.owner_name, token, READ).await.map(drop)
    }

    /// Takes back what opens the other side. A new attempt begins it again.
    pub async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        execute(&mut self.opening, "rollback").await
    }

    /// Opens the other side.
    pub async fn open_other_side(&mut self) -> Result<(), sqlx::Error> {
        execute(&mut self.opening, "commit").await
    }
}

/// The server's process of a session.
pub(super) const PROCESS: &str = "select pg_backend_pid()";
