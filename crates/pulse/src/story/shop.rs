//! What the shop posts. The same seed makes the same posts.

use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Name of the member of a payload that only the story has.
pub(crate) const MEMBER: &str = "pulse_demo_story";
/// All users of the story.
pub(crate) const USERS: [&str; 4] = ["shop-web", "shop-payments", "partner-feed", "till-17"];
/// Currencies of orders.
pub(crate) const CURRENCIES: [&str; 4] = ["EUR", "USD", "CHF", "GBP"];
/// The currencies of nine typical orders.
const ORDERS: [&str; 9] = ["EUR", "EUR", "EUR", "EUR", "USD", "USD", "CHF", "CHF", "GBP"];
/// How far the clock of the till is ahead: it has the time of another time zone, and some minutes more.
const WRONG_BY: Duration = Duration::from_secs(2 * 3600 + 7 * 60);

/// The release of the payments that is deployed.
pub(crate) enum Release {
    Good,
    /// Fails for payments in this currency, until it is rolled back.
    Bad {
        currency: String,
        until: SystemTime,
    },
}

/// One request.
#[derive(Debug, PartialEq)]
pub(crate) struct Post {
    pub(crate) user: &'static str,
    pub(crate) path: &'static str,
    pub(crate) request_id: String,
    pub(crate) body: Value,
    /// Whether its task fails until the rollback.
    pub(crate) fails: bool,
}

const ONE: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";

/// The state of the shop.
pub(crate) struct Shop {
    random: StdRng,
    number: u64,
}

impl Shop {
    pub(crate) fn new(seed: u64) -> Self {
        // Each seed has its own numbers, so that a request id means one order.
        Self { random: StdRng::seed_from_u64(seed), number: seed.saturating_mul(1000) }
    }

    /// An order with its payment, and sometimes the refund of an earlier one.
    pub(crate) fn order(&mut self, release: &Release) -> Vec<Post> {
        self.number += 1;
        let amount = f64::from(self.random.random_range(490..24_900_u32)) / 100.0;
        let currency = ORDERS[self.random.random_range(0..ORDERS.len())];
        let sale = (amount, currency);
        let failure = match release {
            Release::Bad { currency: bad, until } if bad == currency => Some(*until),
            _ => None,
        };
        let mut posts = vec![
            self.step("shop-web", "order_placed", self.number, sale, None),
            self.step("shop-payments", "payment_captured", self.number, sale, failure),
        ];
        if self.number.is_multiple_of(20) {
            posts.push(self.step("shop-payments", "refund_requested", self.number - 12, sale, None));
        }
        posts
    }

    /// One step of an order, which fails until the time `failure`.
    fn step(
        &mut self,
        user: &'static str,
        name: &str,
        order: u64,
        (amount, currency): (f64, &str),
        failure: Option<SystemTime>,
    ) -> Post {
        let mut script = json!({ "work_ms": self.random.random_range(5..60) });
        if let Some(until) = failure {
            script["error"] = format!("no exchange rate for {currency} in rates.json of release 2.8.0").into();
            script["fails_until"] = humantime::format_rfc3339_millis(until).to_string().into();
        }
        let kind = name.split('_').next().unwrap_or(name);
        let payload = json!({ "order": format!("O-{order}"), "amount": amount, "currency": currency, MEMBER: script });
        let session = format!("cart-{order}");
        let body = json!({ "event_name": name, "event_type": kind, "source": user, "session_id": session, "payload": payload });
        Post { user, path: ONE, request_id: format!("{kind}-{order}"), body, fails: failure.is_some() }
    }

    /// A batch of the noisy user.
    pub(crate) fn stock(&mut self, number: u64, events: u64) -> Post {
        let event = |_| {
            let (sku, stock) = (self.random.random_range(10_000..99_999_u32), self.random.random_range(0..500_u32));
            let script = json!({ "work_ms": self.random.random_range(5..40) });
            json!({ "event_name": "stock_changed", "event_type": "catalog", "source": "partner-feed", "payload": { "sku": sku, "stock": stock, MEMBER: script } })
        };
        let events: Vec<Value> = (0..events).map(event).collect();
        Post {
            user: "partner-feed",
            path: BATCH,
            request_id: format!("feed-{number}"),
            body: json!({ "events": events }),
            fails: false,
        }
    }

    /// A sale of the till, with the time of its wrong clock.
    pub(crate) fn sale(&mut self, now: SystemTime) -> Post {
        self.number += 1;
        let at = humantime::format_rfc3339_millis(now + WRONG_BY).to_string();
        let amount = f64::from(self.random.random_range(150..4_900_u32)) / 100.0;
        let payload = json!({ "receipt": self.number, "amount": amount, "currency": "EUR" });
        let body = json!({ "event_name": "sale_rung_up", "event_type": "order", "source": "till-17", "event_timestamp": at, "payload": payload });
        Post { user: "till-17", path: ONE, request_id: format!("till-{}", self.number), body, fails: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(seed: u64, release: &Release) -> Vec<Post> {
        let mut shop = Shop::new(seed);
        (0..200).flat_map(|_| shop.order(release)).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_orders() {
        assert_eq!(orders(7, &Release::Good), orders(7, &Release::Good));
        assert_ne!(orders(7, &Release::Good), orders(8, &Release::Good));
    }

    #[test]
    fn a_bad_release_fails_for_payments_in_one_currency() {
        let bad = Release::Bad { currency: "CHF".into(), until: SystemTime::UNIX_EPOCH };
        let posts = orders(1, &bad);
        let failing =
            |post: &&Post| post.body["payload"]["currency"] == "CHF" && post.body["event_name"] == "payment_captured";
        let expected: Vec<&Post> = posts.iter().filter(failing).collect();
        assert!(expected.len() > 10 && expected.iter().all(|post| post.fails), "{}", expected.len());
        assert_eq!(posts.iter().filter(|post| post.fails).count(), expected.len());
        for currency in CURRENCIES {
            assert!(posts.iter().any(|post| post.body["payload"]["currency"] == currency), "{currency}");
        }
        assert!(!orders(1, &Release::Good).iter().any(|post| post.fails));
    }
}
