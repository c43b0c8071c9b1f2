//! Reads what a scaler needs to know about one stream, in two steps: the oldest entry that is not delivered is the first
//! one after the group's last delivered id, which the first step finds.

use std::collections::HashMap;

use redis::{Pipeline, RedisResult, Value};

use crate::depth::milliseconds;
use crate::fault::Fault;
use crate::keys::GROUP;

/// Number of commands of the first step.
pub(crate) const COMMANDS: usize = 3;

/// State of one stream. Figures count tasks.
#[derive(Debug)]
pub(crate) struct StreamSnapshot {
    /// Delivered or not.
    pub(crate) length: u64,
    /// Delivered and not acknowledged.
    pub(crate) in_flight: u64,
    last_delivered_id: String,
    /// Time at which the oldest entry that is not delivered was added, in milliseconds since 1970 by Redis' clock.
    pub(crate) oldest_undelivered_at_ms: Option<i64>,
    /// Name of each consumer, and the number of its tasks in flight.
    pub(crate) consumers: Vec<(String, u64)>,
}

impl StreamSnapshot {
    /// Adds the commands of the first step.
    pub(crate) fn ask(pipeline: &mut Pipeline, stream: &str) {
        pipeline.cmd("XLEN").arg(stream);
        pipeline.cmd("XINFO").arg("GROUPS").arg(stream);
        pipeline.cmd("XINFO").arg("CONSUMERS").arg(stream).arg(GROUP);
    }

    /// Parses the answers of the first step.
    pub(crate) fn new([length, groups, consumers]: [RedisResult<Value>; COMMANDS]) -> Result<Self, Fault> {
        let (in_flight, last_delivered_id) = group(rows(groups)?)?;
        Ok(Self {
            length: count(checked(length)?)?,
            in_flight,
            last_delivered_id,
            oldest_undelivered_at_ms: None,
            consumers: rows(consumers)?.into_iter().map(consumer).collect::<Result<_, _>>()?,
        })
    }

    /// Whether the second step is needed.
    pub(crate) fn has_undelivered(&self) -> bool {
        self.length > self.in_flight
    }

    /// Adds the command of the second step.
    pub(crate) fn ask_oldest(&self, pipeline: &mut Pipeline, stream: &str) {
        let after = format!("({}", self.last_delivered_id);
        pipeline.cmd("XRANGE").arg(stream).arg(after).arg("+").arg("COUNT").arg(1);
    }

    /// Parses the answer of the second step. There is no entry if it was delivered in the meantime.
    pub(crate) fn with_oldest(self, answer: RedisResult<Value>) -> Result<Self, Fault> {
        let oldest: Vec<(String, Value)> = parse(checked(answer)?)?;
        Ok(Self { oldest_undelivered_at_ms: oldest.first().map(|(id, _)| milliseconds(id)), ..self })
    }
}

type Fields = HashMap<String, Value>;

pub(crate) fn checked(answer: RedisResult<Value>) -> Result<Value, Fault> {
    answer.map_err(|error| Fault::from(&error))
}

pub(crate) fn parse<T: redis::FromRedisValue>(value: Value) -> Result<T, Fault> {
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

/// Number of pending entries of the workers' group, and the id of the last entry that it delivered.
fn group(groups: Vec<Fields>) -> Result<(u64, String), Fault> {
    for mut fields in groups {
        if field::<String>(&mut fields, "name")? == GROUP {
            return Ok((count(field(&mut fields, "pending")?)?, field(&mut fields, "last-delivered-id")?));
        }
    }
    Ok((0, "0-0".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_count_is_a_fault() {
        assert_eq!(count(Value::Int(-1)), Err(Fault::WrongType));
        assert_eq!(count(Value::Nil), Err(Fault::WrongType));
        assert_eq!(count(Value::Int(4)), Ok(4));
    }
}
