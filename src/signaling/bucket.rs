//! A token bucket: so many at once, so many per second.

use std::time::Instant;

#[derive(Clone, Debug)]
pub struct Bucket {
    size: f64,
    per_s: f64,
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    /// Starts full.
    pub fn new(size: u32, per_s: u32, now: Instant) -> Bucket {
        Bucket { size: f64::from(size), per_s: f64::from(per_s), level: f64::from(size), filled_at: now }
    }

    /// Takes one out; `false` if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled_at);
        self.level = (self.level + passed.as_secs_f64() * self.per_s).min(self.size);
        self.filled_at = now;
        let enough = self.level >= 1.0;
        if enough {
            self.level -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_then_the_rate_rules() {
        let start = Instant::now();
        let mut bucket = Bucket::new(5, 10, start);
        let passed = |bucket: &mut Bucket, now| (0..20).filter(|_| bucket.take(now)).count();
        assert_eq!(passed(&mut bucket, start), 5);
        assert_eq!(passed(&mut bucket, start + Duration::from_millis(200)), 2);
        assert_eq!(passed(&mut bucket, start + Duration::from_secs(3600)), 5);
    }
}
