//! Who leads, and which tick of which job was fired.
//!
//! A lease has a term that grows with every change of holder. Firing a tick needs the current term, so a leader that
//! slept through the end of its lease fires nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::connection::Store;
use crate::error::StoreError;

/// A lease that is ours until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderLease {
    /// What is led.
    pub name: &'static str,
    /// Who leads.
    pub holder: String,
    /// Grows with every change of holder.
    pub term: i64,
}

/// A job that may be due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The job.
    pub name: String,
    /// The newest tick that was fired.
    pub last_tick: DateTime<Utc>,
}

impl Store {
    /// Takes the lease `name`, or renews it, for `ttl`, and reads PostgreSQL's time; `None` while somebody else holds it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lead(
        &self,
        name: &'static str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<(LeaderLease, DateTime<Utc>)>, StoreError> {
        let held = sqlx::query!(
            r#"INSERT INTO leases AS held (name, holder, term, expires_at)
             VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (name) DO UPDATE
             SET holder = excluded.holder, expires_at = excluded.expires_at,
                 term = held.term + CASE WHEN held.holder = excluded.holder THEN 0 ELSE 1 END
             WHERE held.holder = excluded.holder OR held.expires_at < clock_timestamp()
             RETURNING term, clock_timestamp() AS "now!""#,
            name,
            holder,
            ttl.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(held.map(|held| (LeaderLease { name, holder: holder.to_owned(), term: held.term }, held.now)))
    }

    /// Gives the lease up, so that the next holder need not wait for its end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resign(&self, leadership: &LeaderLease) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND holder = $2 AND term = $3",
            leadership.name,
            leadership.holder,
            leadership.term,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Adds a row for each job that has none. A last tick in the future, after the clock was set back, becomes now:
    /// otherwise the job would not run until the clock reaches it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn register_schedules(&self, jobs: &[&str]) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO schedules AS known (name) SELECT unnest($1::text[])
             ON CONFLICT (name) DO UPDATE SET last_tick = clock_timestamp() WHERE known.last_tick > clock_timestamp()",
            jobs as &[&str],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// All jobs, and PostgreSQL's time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn schedules(&self) -> Result<(Vec<Schedule>, DateTime<Utc>), StoreError> {
        let schedules = sqlx::query_as!(Schedule, "SELECT name, last_tick FROM schedules ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        Ok((schedules, self.now().await?))
    }

    /// Fires `tick` of a job, if nobody did and the leadership still holds: true for exactly one caller.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fire(&self, name: &str, tick: DateTime<Utc>, leadership: &LeaderLease) -> Result<bool, StoreError> {
        let fired = sqlx::query!(
            "UPDATE schedules SET last_tick = $2
             WHERE name = $1 AND last_tick < $2
               AND EXISTS (SELECT FROM leases WHERE leases.name = $3 AND holder = $4 AND leases.term = $5
                                                    AND expires_at > clock_timestamp())",
            name,
            tick,
            leadership.name,
            leadership.holder,
            leadership.term,
        )
        .execute(&self.pool)
        .await?;
        Ok(fired.rows_affected() == 1)
    }
}
