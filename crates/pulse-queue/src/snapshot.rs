//! Reads what a scaler needs to know about the queues of many instances, in one round trip for each 10 instances.
//!
//! Strict: a figure that is missing, negative or not a number is a fault, never zero. Only a stream or a group that
//! does not exist yet counts as empty.

use std::collections::HashMap;

use pulse_tls::CaBundle;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use crate::connection::Connection;
use crate::depth::{Depth, Gauges, milliseconds};
use crate::error::QueueError;
use crate::keys::{GROUP, Keys, STREAMS};
use crate::server::Server;

/// Maximum number of instances in one round trip. Their answers fit into [`crate::bounded::MAX_ANSWER`] with 700 workers
/// each.
const CHUNK: usize = 10;
/// Number of commands for each stream.
const STREAM_COMMANDS: usize = 4;
/// Number of commands for each instance.
const COMMANDS: usize = STREAMS.len() * STREAM_COMMANDS + 1;

/// State of the queue of one instance. Figures count tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Depth of the queue, the sum of both streams.
    pub depth: Result<Depth, Fault>,
    /// Time at which the oldest entry was added, in milliseconds since 1970 by Redis' clock; `None` if there is none.
    pub oldest_entry_ms: Option<i64>,
    /// Gauges published by the scheduler, of any age; `None` if it never published any.
    pub gauges: Result<Option<Gauges>, Fault>,
    /// Name of each consumer, and the number of its tasks in flight, once for each stream.
    pub consumers: Vec<(String, u64)>,
}

/// Reason why a figure could not be read. The user who names the server learns of it only what a Redis says: every other
/// server, open port and closed port is the same [`Fault::Connection`], whether it refuses, hangs, or speaks something
/// else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The URL or its scheme cannot be used.
    Url,
    /// The host name has no address.
    NameNotFound,
    /// Redis is unreachable, does not answer in time, or answers that it cannot serve now.
    Connection,
    /// The password is wrong, or the user lacks a permission.
    Auth,
    /// The server's certificate is not trusted, or the CA cannot be used.
    Tls,
    /// A key or an answer has another type than expected.
    WrongType,
    /// The answer is longer than that of a queue.
    AnswerTooLong,
}

impl From<&RedisError> for Fault {
    fn from(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
            | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Self::Auth,
            (ErrorKind::UnexpectedReturnType, _) | (_, Some("WRONGTYPE")) => Self::WrongType,
            _ if pulse_tls::is_certificate_refused(error) => Self::Tls,
            _ => Self::Connection,
        }
    }
}

impl QueueError {
    /// The reason of this error, for a status or a metric.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config(_) => Fault::Url,
            Self::Tls(_) => Fault::Tls,
            Self::NameNotFound => Fault::NameNotFound,
            Self::AnswerTooLong => Fault::AnswerTooLong,
            Self::Unavailable(error) => Fault::from(error),
            Self::NoGroup | Self::TimedOut | Self::Handshake => Fault::Connection,
        }
    }
}

/// Reads the queues of many instances, on one separate connection.
pub struct SnapshotReader {
    connection: Connection,
}

impl SnapshotReader {
    /// Creates a reader for the Redis at `url`, which trusts `ca` instead of the system's roots. It looks up `alias` in
    /// place of the URL's host, if given; TLS still verifies the host. The first read connects.
    ///
    /// # Errors
    /// [`QueueError::Config`] or [`QueueError::Tls`] if the URL or the CA cannot be used. An unreachable server is not
    /// an error here.
    pub fn new(url: &str, ca: Option<&CaBundle>, alias: Option<String>) -> Result<Self, QueueError> {
        Ok(Self { connection: Connection::new(Server::new(url, ca)?.with_alias(alias)) })
    }

    /// Reads the queues of `instances`, each `<namespace>/<name>`; the snapshots have the same order. Takes at most 3 s
    /// for each 10 instances.
    ///
    /// # Errors
    /// [`QueueError`] if a round trip fails. What is wrong with one instance alone is a [`Fault`] in its snapshot.
    pub async fn read(&mut self, instances: &[String]) -> Result<Vec<Snapshot>, QueueError> {
        let mut snapshots = Vec::with_capacity(instances.len());
        for chunk in instances.chunks(CHUNK) {
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            pipeline.cmd("TIME");
            for keys in chunk.iter().map(|instance| Keys::new(instance)) {
                for stream in STREAMS.map(|stream| keys.stream(stream)) {
                    pipeline.cmd("XLEN").arg(stream);
                    pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
                    pipeline.cmd("XINFO").arg("CONSUMERS").arg(stream).arg(GROUP);
                    pipeline.cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(1);
                }
                pipeline.cmd("HGETALL").arg(&keys.gauges);
            }
            let answers: Vec<RedisResult<Value>> = self.connection.query_pipeline(&pipeline).await?;
            let mut answers = answers.into_iter();
            let unexpected = || QueueError::Unavailable((ErrorKind::UnexpectedReturnType, "no answer").into());
            let time = answers.next().ok_or_else(unexpected)??;
            let (seconds, micros): (i64, i64) = redis::from_redis_value(time).map_err(RedisError::from)?;
            let now_ms = seconds * 1000 + micros / 1000;
            for _ in chunk {
                let answer: Vec<_> = answers.by_ref().take(COMMANDS).collect();
                let answer: [_; COMMANDS] = answer.try_into().map_err(|_| unexpected())?;
                snapshots.push(snapshot(answer, now_ms));
            }
        }
        Ok(snapshots)
    }
}

fn snapshot(answers: [RedisResult<Value>; COMMANDS], redis_now_ms: i64) -> Snapshot {
    let mut answers = answers.into_iter();
    let mut snapshot = Snapshot {
        depth: Ok(Depth { length: 0, in_flight: 0, redis_now_ms }),
        oldest_entry_ms: None,
        gauges: Ok(None),
        consumers: Vec::new(),
    };
    for _ in STREAMS {
        let stream: [_; STREAM_COMMANDS] = std::array::from_fn(|_| answers.next().unwrap_or(Ok(Value::Nil)));
        snapshot.add(stream_snapshot(stream));
    }
    snapshot.gauges = checked(answers.next().unwrap_or(Ok(Value::Nil))).and_then(parse).and_then(parse_gauges);
    snapshot
}

/// State of one stream.
struct StreamSnapshot {
    length: u64,
    in_flight: u64,
    oldest_entry_ms: Option<i64>,
    consumers: Vec<(String, u64)>,
}

impl Snapshot {
    /// Adds a stream. If one of the streams cannot be read, nothing is known of the queue.
    fn add(&mut self, stream: Result<StreamSnapshot, Fault>) {
        match (&mut self.depth, stream) {
            (Ok(depth), Ok(stream)) => {
                depth.length += stream.length;
                depth.in_flight += stream.in_flight;
                self.oldest_entry_ms = self.oldest_entry_ms.into_iter().chain(stream.oldest_entry_ms).min();
                self.consumers.extend(stream.consumers);
            }
            (Ok(_), Err(fault)) => {
                (self.depth, self.oldest_entry_ms) = (Err(fault), None);
                self.consumers.clear();
            }
            (Err(_), _) => {}
        }
    }
}

fn stream_snapshot(
    [length, groups, consumers, oldest]: [RedisResult<Value>; STREAM_COMMANDS],
) -> Result<StreamSnapshot, Fault> {
    let oldest: Vec<(String, Value)> = parse(checked(oldest)?)?;
    Ok(StreamSnapshot {
        length: count(checked(length)?)?,
        in_flight: pending(rows(groups)?)?,
        oldest_entry_ms: oldest.first().map(|(id, _)| milliseconds(id)),
        consumers: rows(consumers)?.into_iter().map(consumer).collect::<Result<_, _>>()?,
    })
}

type Fields = HashMap<String, Value>;

fn checked(answer: RedisResult<Value>) -> Result<Value, Fault> {
    answer.map_err(|error| Fault::from(&error))
}

fn parse<T: redis::FromRedisValue>(value: Value) -> Result<T, Fault> {
    redis::from_redis_value(value).map_err(|_| Fault::WrongType)
}

/// The list in an answer to `XINFO`; empty if the stream or the group does not exist yet.
fn rows(answer: RedisResult<Value>) -> Result<Vec<Fields>, Fault> {
    match answer {
        Err(error) if error.code() == Some("NOGROUP") || error.detail() == Some("no such key") => Ok(Vec::new()),
        answer => parse(checked(answer)?),
    }
}

fn field<T: redis::FromRedisValue>(fields: &mut Fields, name: &str) -> Result<T, Fault> {
    parse(fields.remove(name).ok_or(Fault::WrongType)?)
}

/// Parses a count: the library would convert −1 to a huge number.
fn count(value: Value) -> Result<u64, Fault> {
    u64::try_from(parse::<i64>(value)?).map_err(|_| Fault::WrongType)
}

fn consumer(mut fields: Fields) -> Result<(String, u64), Fault> {
    Ok((field(&mut fields, "name")?, count(field(&mut fields, "pending")?)?))
}

/// Number of pending entries of the workers' group.
fn pending(groups: Vec<Fields>) -> Result<u64, Fault> {
    for mut fields in groups {
        if field::<String>(&mut fields, "name")? == GROUP {
            return count(field(&mut fields, "pending")?);
        }
    }
    Ok(0)
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
        oldest_age_ms: number("oldest_age_ms", 0)?,
        accepted_total: number("accepted_total", 0)?,
        settled_total: number("settled_total", 0)?,
        busy_worker_ms: number("busy_worker_ms", 0)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 8] = [
        "at_ms",
        "unsettled",
        "due_not_enqueued",
        "next_due_ms",
        "oldest_age_ms",
        "accepted_total",
        "settled_total",
        "busy_worker_ms",
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

    #[test]
    fn negative_count_is_a_fault() {
        assert_eq!(count(Value::Int(-1)), Err(Fault::WrongType));
        assert_eq!(count(Value::Nil), Err(Fault::WrongType));
        assert_eq!(count(Value::Int(4)), Ok(4));
    }
}
