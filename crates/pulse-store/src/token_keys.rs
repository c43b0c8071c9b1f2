//! The keys that tokens are verified with. Each change leaves one row in the audit log, however many processes see it.

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;

/// A key of tokens, without anything secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// Algorithm and `kid`.
    pub name: String,
    /// Different for different keys.
    pub fingerprint: String,
}

impl Store {
    /// Notes the keys that a process verifies tokens with. Those that no process had before leave a row `key.add` in the
    /// audit log, and those that none has noted for 2 min a row `key.remove`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn note_token_keys(&self, keys: &[TokenKey], act: &Act) -> Result<(), StoreError> {
        let fingerprints: Vec<&str> = keys.iter().map(|key| key.fingerprint.as_str()).collect();
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        // On a connection that is open anyway. One process writes `seen_at` for all that have the same keys.
        sqlx::query!(
            "WITH added AS (
                 INSERT INTO token_keys (fingerprint, name)
                 SELECT * FROM unnest($1::text[], $2::text[]) AS used (fingerprint, name) ORDER BY fingerprint
                 ON CONFLICT DO NOTHING RETURNING fingerprint, name
             ), audited AS (
                 INSERT INTO audit_log (act, actor, via, reason, action, target, count)
                 SELECT $3, $4, $5, $6, 'key.add', name || ' ' || fingerprint, 1 FROM added
             )
             UPDATE token_keys SET seen_at = now()
             WHERE fingerprint = ANY ($1) AND seen_at < now() - interval '20 s'",
            &fingerprints as &[&str],
            &names as &[&str],
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(&self.probes)
        .await?;
        sqlx::query!(
            "WITH removed AS (
                 DELETE FROM token_keys WHERE seen_at < now() - interval '2 min' AND fingerprint <> ALL ($1)
                 RETURNING fingerprint, name
             )
             INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $2, $3, $4, $5, 'key.remove', name || ' ' || fingerprint, 1 FROM removed",
            &fingerprints as &[&str],
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(&self.probes)
        .await?;
        Ok(())
    }
}
