//! Limits of what one user takes from this process, so that no user takes what others need.
//!
//! The buckets are local to the process: no request waits for another process. Each process allows its share of a rate,
//! because load balancers spread the requests of a user.

mod bucket;
mod fields;
mod usage;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pulse_core::UserLimits;
use pulse_http::{Problem, ProblemCode};

use crate::metrics::ApiMetrics;

use self::bucket::{Bucket, Rate, whole_seconds};
use self::fields::Item;
pub(crate) use self::fields::RateLimitFields;
use self::usage::Counted;
pub(crate) use self::usage::{Place, Usage};

/// `Retry-After` of a user who has too many requests in flight, in seconds.
const IN_FLIGHT_RETRY_SECONDS: u64 = 1;

/// What a rate is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Requests,
    Events,
    Bytes,
}

impl Measure {
    const ALL: [Self; 3] = [Self::Requests, Self::Events, Self::Bytes];

    /// In header fields, metrics and texts.
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Events => "events",
            Self::Bytes => "bytes",
        }
    }

    fn unit(self) -> Option<&'static str> {
        (self == Self::Bytes).then_some("content-bytes")
    }

    fn limit(self, limits: &UserLimits) -> u32 {
        match self {
            Self::Requests => limits.requests_per_second,
            Self::Events => limits.events_per_second,
            Self::Bytes => limits.bytes_per_second,
        }
        .unwrap_or(0)
    }

    fn bucket(self, usage: &Usage) -> &Bucket {
        match self {
            Self::Requests => &usage.requests,
            Self::Events => &usage.events,
            Self::Bytes => &usage.bytes,
        }
    }
}

/// The limits of this process.
pub(crate) struct Limits {
    /// Of the instance, for users whose limits do not say otherwise.
    instance: UserLimits,
    new_users: Option<Rate>,
    created: Bucket,
    /// Number of API processes that share the rates.
    processes: AtomicU32,
    started: Instant,
    metrics: ApiMetrics,
}

impl Limits {
    pub(crate) fn new(instance: UserLimits, new_users_per_minute: u32, metrics: ApiMetrics) -> Self {
        Self {
            instance,
            new_users: Rate::per_minute(new_users_per_minute),
            created: Bucket::default(),
            processes: AtomicU32::new(1),
            started: Instant::now(),
            metrics,
        }
    }

    /// Sets the number of API processes that share the rates.
    pub(crate) fn share(&self, processes: u32) {
        self.processes.store(processes, Ordering::Relaxed);
    }

    /// Admits a request, whose body is not read yet.
    ///
    /// # Errors
    /// 429 `too_many_in_flight`, 429 `rate_limited`.
    pub(crate) fn admit(&self, usage: &Arc<Usage>) -> Result<Place, Problem> {
        let place = self.place(usage, Counted::InFlight)?;
        self.take(usage, Measure::Requests, 1)?;
        Ok(place)
    }

    /// Admits a request that lists or counts events.
    ///
    /// # Errors
    /// 429 `too_many_in_flight`.
    pub(crate) fn admit_list(&self, usage: &Arc<Usage>) -> Result<Place, Problem> {
        self.place(usage, Counted::Lists)
    }

    /// Checks before a body is read whether it could be accepted. `length` is its size in bytes, or less if not known.
    ///
    /// # Errors
    /// 429 `rate_limited`.
    pub(crate) fn check_body(&self, usage: &Usage, length: u64) -> Result<(), Problem> {
        let limits = usage.limits().or(self.instance);
        for (measure, units) in [(Measure::Events, 1), (Measure::Bytes, length.max(1))] {
            if let Some(rate) = self.rate(measure, &limits) {
                let checked = measure.bucket(usage).check(units as f64, rate, self.started.elapsed());
                checked.map_err(|wait| self.rate_limited(usage, measure, wait))?;
            }
        }
        Ok(())
    }

    /// Takes the bytes of a body.
    ///
    /// # Errors
    /// 429 `rate_limited`.
    pub(crate) fn take_bytes(&self, usage: &Usage, bytes: usize) -> Result<(), Problem> {
        self.take(usage, Measure::Bytes, bytes)
    }

    /// Takes events.
    ///
    /// # Errors
    /// 429 `rate_limited`.
    pub(crate) fn take_events(&self, usage: &Usage, events: usize) -> Result<(), Problem> {
        self.take(usage, Measure::Events, events)
    }

    /// Takes one of the users that this process creates per minute.
    ///
    /// # Errors
    /// 429 `rate_limited`.
    pub(crate) fn take_new_user(&self) -> Result<(), Problem> {
        let Some(rate) = self.new_users else { return Ok(()) };
        let taken = self.created.take(1.0, rate, self.started.elapsed());
        taken.map_err(|wait| {
            self.metrics.limited("new_users");
            let detail = "too many users are created at the moment: send the request again later";
            Problem::new(ProblemCode::RateLimited, detail).retry_after(whole_seconds(wait))
        })
    }

    /// The header fields of a response; none without a rate.
    pub(crate) fn fields(&self, usage: &Usage) -> RateLimitFields {
        RateLimitFields::of(self.items(usage))
    }

    fn rate(&self, measure: Measure, limits: &UserLimits) -> Option<Rate> {
        match measure.limit(limits) {
            0 => None,
            limit => Rate::per_second(limit, self.processes.load(Ordering::Relaxed)),
        }
    }

    fn items(&self, usage: &Usage) -> impl Iterator<Item = Item> {
        let limits = usage.limits().or(self.instance);
        Measure::ALL.into_iter().filter_map(move |measure| {
            let rate = self.rate(measure, &limits)?;
            let level = measure.bucket(usage).level(rate, self.started.elapsed());
            Some(Item {
                name: measure.name(),
                quota: rate.quota(),
                per_seconds: Some(rate.per_seconds()),
                unit: measure.unit(),
                remaining: level.remaining,
                next_seconds: level.next_seconds,
            })
        })
    }

    fn take(&self, usage: &Usage, measure: Measure, units: usize) -> Result<(), Problem> {
        let Some(rate) = self.rate(measure, &usage.limits().or(self.instance)) else { return Ok(()) };
        let taken = measure.bucket(usage).take(units as f64, rate, self.started.elapsed());
        taken.map_err(|wait| self.rate_limited(usage, measure, wait))
    }

    fn rate_limited(&self, usage: &Usage, measure: Measure, wait: Duration) -> Problem {
        let name = measure.name();
        self.metrics.limited(name);
        let limit = measure.limit(&usage.limits().or(self.instance));
        let detail = format!(
            "the limit of {limit} {name} per second is reached: send the request again after the seconds in Retry-After"
        );
        let problem = Problem::new(ProblemCode::RateLimited, detail).retry_after(whole_seconds(wait));
        problem.with_headers(self.fields(usage))
    }

    fn place(&self, usage: &Arc<Usage>, counted: Counted) -> Result<Place, Problem> {
        let limits = usage.limits().or(self.instance);
        let (limit, name, what) = match counted {
            Counted::InFlight => (limits.max_in_flight, "in_flight", "requests in flight"),
            Counted::Lists => (limits.max_lists, "lists", "requests in flight that list or count events"),
        };
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(u32::MAX);
        Place::take(usage, counted, limit).ok_or_else(|| {
            self.metrics.limited(name);
            let item = Item {
                name,
                quota: limit.into(),
                per_seconds: None,
                unit: Some("concurrent-requests"),
                remaining: 0,
                next_seconds: IN_FLIGHT_RETRY_SECONDS,
            };
            let detail = format!("the limit of {limit} {what} is reached: wait for the responses of others first");
            Problem::new(ProblemCode::TooManyInFlight, detail)
                .retry_after(IN_FLIGHT_RETRY_SECONDS)
                .with_headers(RateLimitFields::of(std::iter::once(item).chain(self.items(usage))))
        })
    }
}
