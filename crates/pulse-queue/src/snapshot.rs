//! Reading all that a scaler asks of the queues of many instances, in one round trip and on one connection.
//!
//! Strict: a figure that is missing, negative or no number is a fault and never zero. Only a stream or a group that
//! nobody has created yet is empty.

use std::collections::HashMap;

use pulse_tls::CaBundle;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use crate::connection::{self, Connection};
use crate::depth::{Depth, Gauges, milliseconds};
use crate::error::QueueError;
use crate::keys::{GROUP, Keys};

/// Ingests asked about in one round trip.
const CHUNK: usize = 100;
/// Commands for each of them.
const COMMANDS: usize = 5;

/// All that Redis tells of the queue of one instance. Figures count tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What Redis knows of the stream.
    pub depth: Result<Depth, Fault>,
    /// When the oldest entry of the stream was added, in milliseconds since 1970 by Redis' clock.
    pub oldest_entry_ms: Option<i64>,
    /// What the scheduler published, however old it is; `None` if it never did.
    pub gauges: Result<Option<Gauges>, Fault>,
    /// Consumers, and how many tasks each has in flight.
    pub consumers: Vec<(String, u64)>,
}

/// Why something could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody answers there, or only to say that it cannot serve now.
    Connection,
    /// The password or the rights are wrong.
    Auth,
    /// The server is not believed, or does not speak TLS.
    Tls,
    /// No answer in time.
    TimedOut,
    /// A key holds something else than we wrote.
    WrongType,
}

impl From<&RedisError> for Fault {
    fn from(error: &RedisError) -> Self {
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
            | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => Self::Auth,
            (ErrorKind::Parse | ErrorKind::UnexpectedReturnType, _) | (_, Some("WRONGTYPE")) => Self::WrongType,
            _ if pulse_tls::explain(error).is_some() => Self::Tls,
            _ if error.is_timeout() => Self::TimedOut,
            _ => Self::Connection,
        }
    }
}

impl QueueError {
    /// What is wrong, for whoever has to explain it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config(_) | Self::NoGroup => Fault::Connection,
            Self::Tls(_) => Fault::Tls,
            Self::Unavailable(error) => Fault::from(error),
            Self::TimedOut | Self::Handshake => Fault::TimedOut,
        }
    }
}

/// Reads the queues of many instances, on one connection of its own.
pub struct SnapshotReader {
    connection: Connection,
}

impl SnapshotReader {
    /// Prepares to connect to `url`, and to believe `ca` instead of the system's roots; the first read does.
    ///
    /// # Errors
    /// [`QueueError::Config`] or [`QueueError::Tls`]. An absent server is not an error here.
    pub fn new(url: &str, ca: Option<&CaBundle>) -> Result<Self, QueueError> {
        Ok(Self { connection: Connection::new(connection::open(url, ca)?) })
    }

    /// Looks at these instances, `<namespace>/<name>`; the answers are in their order. Takes at most 3 s for each 100.
    ///
    /// # Errors
    /// [`QueueError`], if Redis told nothing of any of them.
    pub async fn read(&mut self, instances: &[String]) -> Result<Vec<Snapshot>, QueueError> {
        let mut snapshots = Vec::with_capacity(instances.len());
        for chunk in instances.chunks(CHUNK) {
            let mut pipeline = redis::pipe();
            pipeline.ignore_errors();
            pipeline.cmd("TIME");
            for Keys { tasks, gauges } in chunk.iter().map(|instance| Keys::new(instance)) {
                pipeline.cmd("XLEN").arg(&tasks);
                pipeline.cmd("XINFO").arg("GROUPS").arg(&tasks);
                pipeline.cmd("XINFO").arg("CONSUMERS").arg(&tasks).arg(GROUP);
                pipeline.cmd("XRANGE").arg(&tasks).arg("-").arg("+").arg("COUNT").arg(1);
                pipeline.cmd("HGETALL").arg(&gauges);
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

fn snapshot(
    [length, groups, consumers, oldest, gauges]: [RedisResult<Value>; COMMANDS],
    redis_now_ms: i64,
) -> Snapshot {
    let stream = || -> Result<_, Fault> {
        let length = count(known(length)?)?;
        let consumers = rows(consumers)?.into_iter().map(consumer).collect::<Result<Vec<_>, _>>()?;
        let (in_flight, delivered_until_ms) = group(rows(groups)?)?;
        let oldest: Vec<(String, Value)> = parse(known(oldest)?)?;
        let oldest_entry_ms = oldest.first().map(|(id, _)| milliseconds(id));
        Ok((Depth { length, in_flight, delivered_until_ms, redis_now_ms }, oldest_entry_ms, consumers))
    };
    let gauges = known(gauges).and_then(parse).and_then(published);
    match stream() {
        Ok((depth, oldest_entry_ms, consumers)) => Snapshot { depth: Ok(depth), oldest_entry_ms, gauges, consumers },
        Err(fault) => Snapshot { depth: Err(fault), oldest_entry_ms: None, gauges, consumers: Vec::new() },
    }
}

type Fields = HashMap<String, Value>;

fn known(answer: RedisResult<Value>) -> Result<Value, Fault> {
    answer.map_err(|error| Fault::from(&error))
}

fn parse<T: redis::FromRedisValue>(value: Value) -> Result<T, Fault> {
    redis::from_redis_value(value).map_err(|_| Fault::WrongType)
}

/// What `XINFO` lists; nothing of a stream or group that nobody has created yet.
fn rows(answer: RedisResult<Value>) -> Result<Vec<Fields>, Fault> {
    match answer {
        Err(error) if error.code() == Some("NOGROUP") || error.detail() == Some("no such key") => Ok(Vec::new()),
        answer => parse(known(answer)?),
    }
}

fn field<T: redis::FromRedisValue>(fields: &mut Fields, name: &str) -> Result<T, Fault> {
    parse(fields.remove(name).ok_or(Fault::WrongType)?)
}

/// A count: the library would take −1 for a huge one.
fn count(value: Value) -> Result<u64, Fault> {
    u64::try_from(parse::<i64>(value)?).map_err(|_| Fault::WrongType)
}

fn consumer(mut fields: Fields) -> Result<(String, u64), Fault> {
    Ok((field(&mut fields, "name")?, count(field(&mut fields, "pending")?)?))
}

/// Pending entries of the workers' group, and the time of the last one that was delivered.
fn group(groups: Vec<Fields>) -> Result<(u64, i64), Fault> {
    for mut fields in groups {
        if field::<String>(&mut fields, "name")? == GROUP {
            let pending = count(field(&mut fields, "pending")?)?;
            return Ok((pending, milliseconds(&field::<String>(&mut fields, "last-delivered-id")?)));
        }
    }
    Ok((0, 0))
}

/// All fields or none.
fn published(fields: HashMap<String, String>) -> Result<Option<Gauges>, Fault> {
    if fields.is_empty() {
        return Ok(None);
    }
    let number = |name: &str, least: i64| {
        let number = fields.get(name).and_then(|text| text.parse::<i64>().ok());
        number.filter(|number| *number >= least).ok_or(Fault::WrongType)
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
    fn gauges_that_nobody_published_are_absent() {
        assert_eq!(published(HashMap::new()), Ok(None));
    }

    #[test]
    fn a_gauge_that_is_no_number_or_negative_or_missing_is_a_fault_and_never_zero() {
        assert_eq!(published(hash("next_due_ms", Some("-1"))).map(|gauges| gauges.is_some()), Ok(true));
        for field in FIELDS {
            for value in
                [None, Some("NaN"), Some("-2"), Some(""), Some("1.5"), Some("inf"), Some("9223372036854775808")]
            {
                assert_eq!(published(hash(field, value)), Err(Fault::WrongType), "{field} {value:?}");
            }
        }
    }

    #[test]
    fn a_negative_count_is_a_fault() {
        assert_eq!(count(Value::Int(-1)), Err(Fault::WrongType));
        assert_eq!(count(Value::Nil), Err(Fault::WrongType));
        assert_eq!(count(Value::Int(4)), Ok(4));
    }
}
