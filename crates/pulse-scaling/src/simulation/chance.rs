//! Random numbers, the same on every platform for the same seed.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// From this mean on, a normal distribution stands for Poisson's.
const NORMAL_FROM: f64 = 50.0;

/// A source of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Chance(Xoshiro256PlusPlus);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Uniform in 0..1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0.random()
    }

    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Between two positive numbers, of which each order of magnitude is equally likely.
    pub(super) fn magnitude(&mut self, low: f64, high: f64) -> f64 {
        libm::exp(self.between(libm::log(low), libm::log(high)))
    }

    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    /// Number of arrivals in a time in which `mean` are expected.
    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > NORMAL_FROM {
            let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
            let normal = radius * libm::cos(std::f64::consts::TAU * self.unit());
            return (mean + normal * libm::sqrt(mean)).round().max(0.0) as u64;
        }
        let (limit, mut product, mut count) = (libm::exp(-mean), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// A whole number whose mean is `value`.
    pub(super) fn rounded(&mut self, value: f64) -> u32 {
        let whole = value.floor();
        whole as u32 + u32::from(self.unit() < value - whole)
    }
}
