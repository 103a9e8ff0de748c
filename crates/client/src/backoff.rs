//! How long to wait before the next attempt: twice as long each time, up to a bound, and never exactly.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// A node on the same machine is back within milliseconds of its restart.
const FIRST: Duration = Duration::from_millis(50);
/// Long enough for a node that is down, short enough for a person who has just started it again.
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The wait before the next attempt. Half of it is by chance, so that clients that lost their node at the
    /// same moment do not all come back at the same moment.
    pub(crate) fn next(&mut self) -> Duration {
        self.next_with(random())
    }

    fn next_with(&mut self, random: u32) -> Duration {
        let doubled = FIRST.saturating_mul(2_u32.saturating_pow(self.attempts)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        let half = doubled / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// The last attempt has worked.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Good enough to spread waits and first partitions; std seeds each hasher from the system's randomness.
pub(crate) fn random() -> u32 {
    let hash = RandomState::new().hash_one(0_u8);
    u32::try_from(hash >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_start_again_after_a_success() {
        let mut backoff = Backoff::default();
        let longest: Vec<u128> = (0..9).map(|_| backoff.next_with(u32::MAX).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next_with(0), FIRST / 2);
    }

    #[test]
    fn chance_moves_a_wait_between_its_half_and_its_whole() {
        for _ in 0..100 {
            let wait = Backoff { attempts: 40 }.next();
            assert!((LONGEST / 2..=LONGEST).contains(&wait), "{wait:?}");
        }
    }
}
