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
pub struct Leadership {
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
    /// Six cron fields, seconds first, UTC.
    pub cron: String,
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
    ) -> Result<Option<(Leadership, DateTime<Utc>)>, StoreError> {
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
        Ok(held.map(|held| (Leadership { name, holder: holder.to_owned(), term: held.term }, held.now)))
    }

    /// Gives the lease up, so that the next holder need not wait for its end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resign(&self, leadership: &Leadership) -> Result<(), StoreError> {
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

    /// Makes sure that each job has its row. A changed cron takes effect; the newest tick stays, unless it is in the
    /// future, because the clock was set back: then it counts as now, or the job would wait for the clock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn register_schedules(&self, jobs: &[(&str, &str)]) -> Result<(), StoreError> {
        let (names, crons): (Vec<&str>, Vec<&str>) = jobs.iter().copied().unzip();
        sqlx::query!(
            "INSERT INTO schedules AS known (name, cron) SELECT * FROM unnest($1::text[], $2::text[])
             ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, last_tick = LEAST(known.last_tick, clock_timestamp())
             WHERE known.cron <> excluded.cron OR known.last_tick > clock_timestamp()",
            &names as &[&str],
            &crons as &[&str],
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
        let schedules = sqlx::query_as!(Schedule, "SELECT name, cron, last_tick FROM schedules ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        Ok((schedules, self.now().await?))
    }

    /// Fires `tick` of a job, if nobody did and the leadership still holds: true for exactly one caller.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fire(&self, name: &str, tick: DateTime<Utc>, leadership: &Leadership) -> Result<bool, StoreError> {
        let fired = sqlx::query!(
            "UPDATE schedules SET last_tick = $2, fired_by = $4, term = $5
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
