//! Reads what a scaler needs to know about the queues of many instances, in two round trips for each 10 instances: the
//! second one only if tasks wait.
//!
//! Strict: a figure that is missing, negative or not a number is a fault, never zero. Only a stream or a group that
//! does not exist yet counts as empty.

use std::collections::HashMap;

use pulse_tls::{CaBundle, ClientCertificate};
use redis::{ErrorKind, RedisError, RedisResult, Value};

use crate::connection::Connection;
use crate::depth::{Depth, Gauges};
use crate::error::QueueError;
use crate::fault::Fault;
use crate::hosts::Hosts;
use crate::keys::{Keys, STREAMS};
use crate::server::Server;
use crate::stream_snapshot::{StreamSnapshot, checked, parse};

/// Maximum number of instances in one round trip. Their answers fit into [`crate::bounded::MAX_ANSWER`] with 700 workers
/// each.
const CHUNK: usize = 10;

/// State of the queue of one instance. Figures count tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Depth of the queue, the sum of both streams.
    pub depth: Result<Depth, Fault>,
    /// Age of the oldest entry that is not delivered, in milliseconds by Redis' clock; `None` if there is none.
    pub oldest_undelivered_ms: Option<u64>,
    /// Gauges published by the scheduler, of any age; `None` if it never published any.
    pub gauges: Result<Option<Gauges>, Fault>,
    /// Name of each consumer, and the number of its tasks in flight, once for each stream.
    pub consumers: Vec<(String, u64)>,
}

/// Reads the queues of many instances, on one separate connection.
pub struct SnapshotReader {
    connection: Connection,
}

impl SnapshotReader {
    /// Creates a reader for the Redis at `url`, which trusts `ca` instead of the system's roots, and looks hosts up as `hosts`
    /// says. Of a Cluster it reads the node that has `instance`. The first read connects.
    ///
    /// # Errors
    /// [`QueueError::Config`] or [`QueueError::Tls`] if the URL or the CA cannot be used. An unreachable server is not
    /// an error here.
    pub fn new(
        url: &str,
        ca: Option<&CaBundle>,
        identity: Option<ClientCertificate>,
        hosts: Hosts,
        instance: &str,
    ) -> Result<Self, QueueError> {
        let server = Server::new(url, ca, identity, hosts)?;
        Ok(Self { connection: Connection::new(server, Keys::new(instance).tasks) })
    }

    /// Reads the queues of `instances`, each `<namespace>/<name>`; the snapshots have the same order. Takes at most 3 s
    /// for each of two round trips for 10 instances.
    ///
    /// # Errors
    /// [`QueueError`] if a round trip fails. What is wrong with one instance alone is a [`Fault`] in its snapshot.
    pub async fn read(&mut self, instances: &[String]) -> Result<Vec<Snapshot>, QueueError> {
        let mut snapshots = Vec::with_capacity(instances.len());
        for chunk in instances.chunks(CHUNK) {
            let keys: Vec<Keys> = chunk.iter().map(|instance| Keys::new(instance)).collect();
            let (now_ms, mut parts) = self.read_parts(&keys).await?;
            self.read_oldest(&keys, &mut parts).await?;
            snapshots.extend(parts.into_iter().map(|parts| parts.snapshot(now_ms)));
        }
        Ok(snapshots)
    }

    /// The first round trip. Also returns the time by Redis' clock.
    async fn read_parts(&mut self, keys: &[Keys]) -> Result<(i64, Vec<Parts>), QueueError> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors().cmd("TIME");
        for keys in keys {
            STREAMS.into_iter().for_each(|stream| StreamSnapshot::ask(&mut pipeline, keys.stream(stream)));
            pipeline.cmd("HGETALL").arg(&keys.gauges);
        }
        let mut answers = self.query(&pipeline).await?;
        let (seconds, micros): (i64, i64) = redis::from_redis_value(answers.next()??).map_err(RedisError::from)?;
        let parts = keys.iter().map(|_| Parts::new(&mut answers)).collect::<Result<_, _>>()?;
        Ok((seconds * 1000 + micros / 1000, parts))
    }

    /// The second round trip, for the streams with undelivered entries.
    async fn read_oldest(&mut self, keys: &[Keys], parts: &mut [Parts]) -> Result<(), QueueError> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        let mut asked = Vec::new();
        for (keys, parts) in keys.iter().zip(parts) {
            for (stream, found) in STREAMS.into_iter().zip(&mut parts.streams) {
                if let Ok(known) = found
                    && known.has_undelivered()
                {
                    known.ask_oldest(&mut pipeline, keys.stream(stream));
                    asked.push(found);
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let mut answers = self.query(&pipeline).await?;
        for found in asked {
            let answer = answers.next()?;
            *found = std::mem::replace(found, Err(Fault::WrongType)).and_then(|known| known.with_oldest(answer));
        }
        Ok(())
    }

    async fn query(&mut self, pipeline: &redis::Pipeline) -> Result<Answers, QueueError> {
        let answers: Vec<RedisResult<Value>> = self.connection.query_pipeline(pipeline).await?;
        match self.connection.redirection(&answers) {
            Some(error) => Err(error),
            None => Ok(Answers(answers.into_iter())),
        }
    }
}

/// The answers to a pipeline.
struct Answers(std::vec::IntoIter<RedisResult<Value>>);

impl Answers {
    fn next(&mut self) -> Result<RedisResult<Value>, QueueError> {
        self.0.next().ok_or_else(|| QueueError::Unavailable((ErrorKind::UnexpectedReturnType, "no answer").into()))
    }
}

/// What the first round trip found of one instance.
struct Parts {
    streams: [Result<StreamSnapshot, Fault>; STREAMS.len()],
    gauges: Result<Option<Gauges>, Fault>,
}

impl Parts {
    fn new(answers: &mut Answers) -> Result<Self, QueueError> {
        let mut stream =
            || Ok::<_, QueueError>(StreamSnapshot::new([answers.next()?, answers.next()?, answers.next()?]));
        let streams = [stream()?, stream()?];
        Ok(Self { streams, gauges: checked(answers.next()?).and_then(parse).and_then(parse_gauges) })
    }

    /// If one of the streams cannot be read, nothing is known of the queue.
    fn snapshot(self, redis_now_ms: i64) -> Snapshot {
        let gauges = self.gauges;
        let streams: Vec<StreamSnapshot> = match self.streams.into_iter().collect() {
            Ok(streams) => streams,
            Err(fault) => {
                return Snapshot { depth: Err(fault), oldest_undelivered_ms: None, gauges, consumers: Vec::new() };
            }
        };
        let sum = |figure: fn(&StreamSnapshot) -> u64| streams.iter().map(figure).fold(0, u64::saturating_add);
        let oldest = streams.iter().filter_map(|stream| stream.oldest_undelivered_at_ms).min();
        Snapshot {
            depth: Ok(Depth { length: sum(|it| it.length), in_flight: sum(|it| it.in_flight), redis_now_ms }),
            oldest_undelivered_ms: oldest.map(|at_ms| redis_now_ms.saturating_sub(at_ms).max(0).cast_unsigned()),
            gauges,
            consumers: streams.into_iter().flat_map(|stream| stream.consumers).collect(),
        }
    }
}

/// Parses the gauges, of which either all fields or none are there.
fn parse_gauges(fields: HashMap<String, String>) -> Result<Option<Gauges>, Fault> {
    if fields.is_empty() {
        return Ok(None);
    }
    let number = |name: &str, minimum: i64| {
        let number = fields.get(name).and_then(|text| text.parse::<i64>().ok());
        number.filter(|number| *number >= minimum).ok_or(Fault::WrongType)
    };
    Ok(Some(Gauges {
        at_ms: number("at_ms", 1)?,
        unsettled: number("unsettled", 0)?,
        due_not_enqueued: number("due_not_enqueued", 0)?,
        next_due_ms: number("next_due_ms", -1)?,
        oldest_due_ms: number("oldest_due_ms", -1)?,
        accepted_total: number("accepted_total", 0)?,
        attempts_total: number("attempts_total", 0)?,
        retried_total: number("retried_total", 0)?,
        attempt_ms_total: number("attempt_ms_total", 0)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 9] = [
        "at_ms",
        "unsettled",
        "due_not_enqueued",
        "next_due_ms",
        "oldest_due_ms",
        "accepted_total",
        "attempts_total",
        "retried_total",
        "attempt_ms_total",
    ];

    fn hash(name: &str, value: Option<&str>) -> HashMap<String, String> {
        let mut hash: HashMap<_, _> = FIELDS.map(|field| (field.to_owned(), "7".to_owned())).into();
        match value {
            Some(value) => hash.insert(name.into(), value.into()),
            None => hash.remove(name),
        };
        hash
    }

    #[test]
    fn unpublished_gauges_are_absent() {
        assert_eq!(parse_gauges(HashMap::new()), Ok(None));
    }

    #[test]
    fn invalid_or_missing_gauge_is_a_fault_and_not_zero() {
        assert_eq!(parse_gauges(hash("next_due_ms", Some("-1"))).map(|gauges| gauges.is_some()), Ok(true));
        for field in FIELDS {
            for value in
                [None, Some("NaN"), Some("-2"), Some(""), Some("1.5"), Some("inf"), Some("9223372036854775808")]
            {
                assert_eq!(parse_gauges(hash(field, value)), Err(Fault::WrongType), "{field} {value:?}");
            }
        }
    }
}
