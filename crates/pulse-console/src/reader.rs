//! Reads the live figures once per second and renders them once, for all viewers.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pulse_metrics::FloatGauge;
use pulse_store::console::{Range, TailFilter};
use pulse_store::{Store, StoreError};
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::frame::{Figures, Frame, Live, MAX_VIEWERS, Tail, message};
use crate::pages::{overview, workers};

/// Time between two readings.
const PERIOD: Duration = Duration::from_secs(1);
/// Time after which viewers get the last figures again, with their age.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Maximum number of events of a reading.
const TAIL: i64 = 500;
/// Time limit for a reading, for a server that does not even send an error.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Times between two readings of the charts of each range.
const CHARTS: [(Range, Duration); 3] = [
    (Range::Hour, Duration::from_secs(10)),
    (Range::Day, Duration::from_secs(60)),
    (Range::Week, Duration::from_secs(60)),
];

/// Starts the task. It has one connection for itself, so no page delays it, and it delays no page.
pub(crate) fn start(store: &Store, age: FloatGauge, shutdown: CancellationToken) -> Live {
    let (sender, frames) = watch::channel(Arc::<Frame>::default());
    let (store, frame, charts_read) = (store.separate(1), Frame::default(), [None; 3]);
    let live = Live::new(frames);
    let tails = live.tails.clone();
    let reader = Reader { store, frames: sender, tails, frame, charts_read, age, started: Instant::now() };
    tokio::spawn(async move { shutdown.run_until_cancelled(reader.run()).await });
    live
}

struct Reader {
    store: Store,
    frames: watch::Sender<Arc<Frame>>,
    tails: Arc<Semaphore>,
    frame: Frame,
    charts_read: [Option<Instant>; 3],
    /// Age of the figures.
    age: FloatGauge,
    started: Instant,
}

impl Reader {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.waiting_for(self.read()).await {
                Some(Ok(figures)) => {
                    self.frame.failed = false;
                    self.frame.figures = Some(Arc::new(figures));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "no figures for the console");
                    self.frame.failed = true;
                }
                None => self.abandon(),
            }
            self.publish();
            if !self.frame.failed {
                self.read_charts().await;
            }
        }
    }

    async fn read(&self) -> Result<Figures, StoreError> {
        let overview = self.store.overview().await?;
        let workers = self.store.workers().await?;
        let is_watched = self.tails.available_permits() < MAX_VIEWERS;
        let tail = if is_watched { Some(self.read_tail().await?) } else { None };
        Ok(Figures { overview, workers, tail, read_at: Instant::now() })
    }

    async fn read_tail(&self) -> Result<Tail, StoreError> {
        let events = self.store.event_tail(&TailFilter::default(), None, TAIL).await?.events;
        let before = self.frame.figures.as_ref().and_then(|figures| figures.tail.as_ref());
        let newest_before = before.and_then(|tail| tail.events.first()).map(|event| event.id);
        let oldest = events.last().map(|event| event.id);
        let is_partial = events.len() as i64 == TAIL && newest_before.is_some_and(|newest| oldest > Some(newest));
        Ok(Tail { events, is_partial })
    }

    /// The result of a reading, or `None` after the time limit. Meanwhile viewers see the age of the figures.
    async fn waiting_for<T>(&self, reading: impl Future<Output = T>) -> Option<T> {
        let mut reading = pin!(reading);
        let started = Instant::now();
        while started.elapsed() < READ_TIMEOUT {
            match tokio::time::timeout(PATIENCE, reading.as_mut()).await {
                Ok(result) => return Some(result),
                Err(_) => self.publish(),
            }
        }
        None
    }

    /// Leaves a connection alone whose server has not answered for long: the kernel may wait for many minutes.
    fn abandon(&mut self) {
        tracing::debug!("PostgreSQL did not answer the console in time");
        self.frame.failed = true;
        self.store = self.store.separate(1);
    }

    fn publish(&self) {
        let mut frame = self.frame.clone();
        frame.overview = message(&overview::figures(&frame));
        frame.workers = message(&workers::figures(&frame));
        let read_at = frame.figures.as_ref().map_or(self.started, |figures| figures.read_at);
        self.age.set(read_at.elapsed().as_secs_f64());
        self.frames.send_replace(Arc::new(frame));
    }

    async fn read_charts(&mut self) {
        for (range, period) in CHARTS {
            let place = range as usize;
            if self.charts_read[place].is_some_and(|read| read.elapsed() < period) {
                continue;
            }
            self.charts_read[place] = Some(Instant::now());
            match self.waiting_for(self.store.series(range)).await {
                Some(Ok(series)) => {
                    let charts = overview::charts(&series.points, range);
                    self.frame.charts[place] = Some(charts.into_string().into());
                }
                Some(Err(error)) => tracing::debug!(%error, "no charts for the console"),
                None => self.abandon(),
            }
        }
    }
}
