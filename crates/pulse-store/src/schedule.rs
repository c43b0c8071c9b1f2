//! Leader election of schedulers, and the last run of each job.
//!
//! A lease has a term that grows with each change of holder. A run of a job needs the current term, so a leader that was
//! paused past the end of its lease runs nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::connection::Store;
use crate::error::StoreError;

/// A lease that this process holds until it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderLease {
    /// Name of the lease.
    pub name: &'static str,
    /// Name of the leader.
    pub holder: String,
    /// Grows with each change of holder.
    pub term: i64,
}

/// A job with its last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// Name of the job.
    pub name: String,
    /// Time at which the last run was due.
    pub last_run_at: DateTime<Utc>,
}

impl Store {
    /// Acquires or renews the lease `name` for `ttl`, and reads PostgreSQL's time; `None` while another holder has it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn acquire_lease(
        &self,
        name: &'static str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<(LeaderLease, DateTime<Utc>)>, StoreError> {
        let lease = sqlx::query!(
            r#"INSERT INTO leases AS current (name, holder, term, expires_at)
             VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
             ON CONFLICT (name) DO UPDATE
             SET holder = excluded.holder, expires_at = excluded.expires_at,
                 term = current.term + CASE WHEN current.holder = excluded.holder THEN 0 ELSE 1 END
             WHERE current.holder = excluded.holder OR current.expires_at < clock_timestamp()
             RETURNING term, clock_timestamp() AS "now!""#,
            name,
            holder,
            ttl.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(lease.map(|lease| (LeaderLease { name, holder: holder.to_owned(), term: lease.term }, lease.now)))
    }

    /// Releases the lease, so that the next holder does not wait for its end.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn release_lease(&self, lease: &LeaderLease) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND holder = $2 AND term = $3",
            lease.name,
            lease.holder,
            lease.term,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Adds a row for each job that has none. A last run in the future, after the clock was set back, becomes now:
    /// otherwise the job would not run until the clock reaches it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn register_jobs(&self, names: &[&str]) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO jobs AS known (name) SELECT unnest($1::text[])
             ON CONFLICT (name) DO UPDATE SET last_run_at = clock_timestamp()
             WHERE known.last_run_at > clock_timestamp()",
            names as &[&str],
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Returns all jobs by name, and PostgreSQL's time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn jobs(&self) -> Result<(Vec<JobRecord>, DateTime<Utc>), StoreError> {
        let jobs = sqlx::query_as!(JobRecord, "SELECT name, last_run_at FROM jobs ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        Ok((jobs, self.now().await?))
    }

    /// Records that a job runs at `run_at` and then at `next_run_at`; true for exactly one caller, and only while the
    /// lease is valid.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn start_job(
        &self,
        name: &str,
        run_at: DateTime<Utc>,
        next_run_at: DateTime<Utc>,
        lease: &LeaderLease,
    ) -> Result<bool, StoreError> {
        let started = sqlx::query!(
            "UPDATE jobs SET last_run_at = $2, next_run_at = $3
             WHERE name = $1 AND last_run_at < $2
               AND EXISTS (SELECT FROM leases WHERE leases.name = $4 AND holder = $5 AND leases.term = $6
                                                    AND expires_at > clock_timestamp())",
            name,
            run_at,
            next_run_at,
            lease.name,
            lease.holder,
            lease.term,
        )
        .execute(&self.pool)
        .await?;
        Ok(started.rows_affected() == 1)
    }

    /// Records how the run of a job at `run_at` ended, unless a later run has started.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn finish_job(
        &self,
        name: &str,
        run_at: DateTime<Utc>,
        duration: Duration,
        succeeded: bool,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE jobs SET last_duration_ms = $3, last_outcome = CASE WHEN $4 THEN 'succeeded' ELSE 'failed' END
             WHERE name = $1 AND last_run_at = $2",
            name,
            run_at,
            i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
            succeeded,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
    /// Time at which the last run of the job `publish_gauges` was due; `None` if the last run failed, or none was due in
    /// the last 10 s.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn gauges_published_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let at = sqlx::query_scalar!(
            "SELECT last_run_at FROM jobs WHERE name = 'publish_gauges' AND last_outcome = 'succeeded'
                                             AND last_run_at > clock_timestamp() - interval '10 s'"
        )
        .fetch_optional(&mut *self.probe_connection().await?)
        .await?;
        Ok(at)
    }
}
