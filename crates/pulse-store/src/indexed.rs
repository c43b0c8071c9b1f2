//! Transactions whose statements find rows by an index.

use sqlx::{Postgres, Transaction};

use crate::connection::Store;
use crate::error::StoreError;

impl Store {
    /// A transaction without scans and sorts of tables. PostgreSQL expects that a random text is in every range of pages,
    /// because it does not know how selective a Bloom filter is, and would prefer to read the whole history. And before it
    /// has statistics of a table that grew quickly, it would sort the table to find the next rows by id.
    pub(crate) async fn indexed_transaction(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let names: &[&str] = &["enable_seqscan", "enable_sort"];
        sqlx::query!("SELECT set_config(name, 'off', true) FROM unnest($1::text[]) AS name", names as &[&str])
            .fetch_all(&mut *transaction)
            .await?;
        Ok(transaction)
    }
}
