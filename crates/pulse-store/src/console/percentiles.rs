//! Percentiles of the durations in a histogram.

use serde::Serialize;
use utoipa::ToSchema;

/// Percentiles in seconds; each is at most 19 % off, because a bucket of the histogram ends at 1.41 times its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct Percentiles {
    /// Number of durations.
    pub count: i64,
    /// Median.
    pub p50: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

impl Percentiles {
    /// Of a histogram as the function `histogram` of the database makes it, or of an empty array.
    pub(crate) fn of(histogram: &[i64]) -> Self {
        let count = histogram.iter().sum();
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|part| percentile(histogram, count, part));
        Self { count, p50, p95, p99 }
    }
}

/// Interpolates within the bucket. The last bucket has no end, so its beginning counts.
fn percentile(histogram: &[i64], count: i64, part: f64) -> Option<f64> {
    let wanted = part * count as f64;
    let mut below = 0.0;
    for (bucket, number) in histogram.iter().enumerate().filter(|(_, number)| **number > 0) {
        let number = *number as f64;
        if below + number >= wanted {
            let (begin, end) = bounds(bucket, bucket + 1 == histogram.len());
            return Some(begin + (end - begin) * (wanted - below) / number);
        }
        below += number;
    }
    None
}

/// Begin and end of a bucket, counted from 0, in seconds.
fn bounds(bucket: usize, is_last: bool) -> (f64, f64) {
    let end = |bucket: usize| 0.001 * 2_f64.powf(bucket as f64 / 2.0);
    match bucket {
        0 => (0.0, end(0)),
        _ if is_last => (end(bucket - 1), end(bucket - 1)),
        _ => (end(bucket - 1), end(bucket)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(usize, i64)]) -> Vec<i64> {
        let mut histogram = vec![0; 48];
        for (bucket, count) in counts {
            histogram[*bucket] = *count;
        }
        histogram
    }

    #[test]
    fn percentiles_of_no_duration_are_unknown() {
        assert_eq!(Percentiles::of(&[]), Percentiles::default());
        assert_eq!(Percentiles::of(&histogram(&[])), Percentiles::default());
    }

    #[test]
    fn percentiles_lie_in_their_buckets() {
        // 90 of up to 1 ms, 9 of 8 to 11.3 ms, 1 of 1.02 to 1.45 s.
        let of = Percentiles::of(&histogram(&[(0, 90), (7, 9), (21, 1)]));
        assert_eq!(of.count, 100);
        assert!((of.p50.expect("known") - 0.000_556).abs() < 0.000_001, "{of:?}");
        let p95 = of.p95.expect("known");
        assert!((0.008..0.0114).contains(&p95), "{of:?}");
        assert!((of.p99.expect("known") - 0.001 * 2_f64.powf(3.5)).abs() < 1e-9, "the end of the bucket: {of:?}");
    }

    #[test]
    fn durations_beyond_the_last_bucket_count_as_its_beginning() {
        let p50 = Percentiles::of(&histogram(&[(47, 1)])).p50.expect("known");
        assert!((p50 - 8388.608).abs() < 0.001, "{p50}");
    }
}
