//! `pulse demo --story shop`: a small shop posts events until it is stopped, so that the console has something to show.

#[cfg(feature = "dev-servers")]
mod processor;
mod senders;
mod shop;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "dev-servers")]
pub(crate) use self::processor::ShopProcessor;
use self::senders::Senders;
use self::shop::{Post, Release, Shop};
use crate::args::duration;
use crate::output::print_line;

/// Events of one request of the noisy user.
const NOISY_BATCH: f64 = 10.0;
/// Time between two sales of the sender with the wrong clock.
const TILL_PERIOD: Duration = Duration::from_secs(2);

/// The stories that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Story {
    Shop,
}

#[derive(Debug, Args)]
pub(crate) struct StoryArgs {
    /// Seed of the orders: the same seed makes the same ones
    #[arg(long, default_value_t = 1, requires = "story")]
    seed: u64,
    /// Time after which the story ends; without it, it runs until it is stopped
    #[arg(long, value_parser = duration, requires = "story")]
    duration: Option<Duration>,
    /// Orders per second; each is an order, a payment, and now and then a refund
    #[arg(long, default_value_t = 5.0, value_parser = per_second, requires = "story")]
    rate: f64,
    /// Events per second of the noisy user
    #[arg(long, default_value_t = 100.0, value_parser = per_second, requires = "story")]
    noisy_rate: f64,
    /// Time after which the bad release is deployed
    #[arg(long, default_value = "20s", value_parser = duration, requires = "story")]
    bad_after: Duration,
    /// Time after which the bad release is rolled back
    #[arg(long, default_value = "60s", value_parser = duration, requires = "story")]
    bad_for: Duration,
    /// Currency for which the bad release fails
    #[arg(long, default_value = "CHF", value_parser = shop::CURRENCIES, requires = "story")]
    bad_currency: String,
}

/// A rate from 0.1 to 1,000 per second.
fn per_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.1..=1000.0).contains(&rate) { Ok(rate) } else { Err("expected 0.1 to 1000 per second".into()) }
}

/// What was posted so far.
#[derive(Default)]
struct Tally {
    accepted: AtomicU64,
    refused: AtomicU64,
}

struct Running<'a> {
    senders: Senders,
    tally: Tally,
    shutdown: &'a CancellationToken,
}

/// Runs the story until its end or `shutdown`.
///
/// # Errors
/// If the API does not answer.
pub(crate) async fn run(
    url: &str,
    jwt_secret: &str,
    args: StoryArgs,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let end = shutdown.child_token();
    if let Some(duration) = args.duration {
        let end = end.clone();
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            end.cancel();
        });
    }
    let story = Running { senders: Senders::new(url, jwt_secret)?, tally: Tally::default(), shutdown: &end };
    print_line(&format!("the shop opens: {} orders/s, and {} events/s of partner-feed", args.rate, args.noisy_rate))?;
    tokio::try_join!(story.orders(&args), story.noise(&args), story.till(&args))?;
    let (accepted, refused) =
        (story.tally.accepted.load(Ordering::Relaxed), story.tally.refused.load(Ordering::Relaxed));
    print_line(&format!("the shop closes: {accepted} requests were accepted, {refused} refused"))
}

impl Running<'_> {
    /// Orders, payments and refunds; the bad release and its rollback.
    async fn orders(&self, args: &StoryArgs) -> anyhow::Result<()> {
        let started = SystemTime::now();
        let bad_from = started + args.bad_after;
        let bad = Release::Bad { currency: args.bad_currency.clone(), until: bad_from + args.bad_for };
        let (mut shop, mut is_bad, mut failing) = (Shop::new(args.seed), false, None);
        self.every(args.rate, async || {
            let now = SystemTime::now();
            let was_bad = std::mem::replace(&mut is_bad, now >= bad_from && now < bad_from + args.bad_for);
            if is_bad && !was_bad {
                let text = "release 2.8.0 of the payments is deployed: it has no exchange rate for";
                print_line(&format!("{text} {}", args.bad_currency))?;
            }
            if was_bad && !is_bad {
                print_line("release 2.8.0 is rolled back: retry its dead letters in the console")?;
            }
            let posts = shop.order(if is_bad { &bad } else { &Release::Good });
            if let Some(post) = posts.iter().find(|post| post.fails).filter(|_| failing.is_none()) {
                print_line(&format!("the first payment that fails has the request id {}", post.request_id))?;
                failing = Some(post.request_id.clone());
            }
            self.post(&posts).await
        })
        .await
    }

    /// The noisy user: all events of 5 s at once, then nothing.
    async fn noise(&self, args: &StoryArgs) -> anyhow::Result<()> {
        const BURST: f64 = 5.0;
        let requests = (args.noisy_rate * BURST / NOISY_BATCH).ceil() as u64;
        let (mut shop, mut burst) = (Shop::new(args.seed), 0);
        self.every(1.0 / BURST, async || {
            burst += 1;
            for number in 0..requests {
                if !self.shutdown.is_cancelled() {
                    self.post(&[shop.stock(burst * requests + number, NOISY_BATCH as u64)]).await?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The sender with the wrong clock.
    async fn till(&self, args: &StoryArgs) -> anyhow::Result<()> {
        let mut shop = Shop::new(args.seed);
        self.every(1.0 / TILL_PERIOD.as_secs_f64(), async || self.post(&[shop.sale(SystemTime::now())]).await).await
    }

    /// Repeats `act` at a rate per second until the story ends.
    async fn every(&self, rate: f64, mut act: impl AsyncFnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            act().await?;
        }
        Ok(())
    }

    async fn post(&self, posts: &[Post]) -> anyhow::Result<()> {
        for post in posts {
            let is_accepted = self.senders.send(post).await?;
            let counter = if is_accepted { &self.tally.accepted } else { &self.tally.refused };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
