//! The watermark of a source: how far event time has certainly come, so that windows can close.
//!
//! A partition's own watermark is its largest event time less the allowed disorder. The source's is the smallest of
//! them, and it never goes back:
//!
//! * a partition that nothing was heard of counts as −∞;
//! * one that was silent for `idle`, and has nothing more to read, stops holding the minimum;
//! * when all are idle it goes on with the clock: the largest time of all, plus the time since the last arrival, less
//!   the disorder;
//! * silence is what the node has confirmed: it lasts until the last answer that had nothing, not until now. A task
//!   that was stopped for an hour has not heard an hour of silence;
//! * one that still repeats records of an earlier run holds it where that run left it, because windows may need what
//!   is yet to be repeated.

use std::time::Duration;

/// No watermark: −∞.
pub(crate) const NONE: i64 = i64::MIN;

#[derive(Debug)]
pub(crate) struct Watermarks {
    disorder_ms: i64,
    idle_after: Duration,
    partitions: Vec<Partition>,
    current: i64,
    /// The partition that holds `current` back, if one does: only its records can move it.
    holder: Option<usize>,
}

#[derive(Debug)]
struct Partition {
    largest: Option<i64>,
    last_arrival: Duration,
    /// When it was last known that nothing had come since.
    silent_until: Duration,
    at_end: bool,
    replaying: bool,
    idle: bool,
}

impl Watermarks {
    /// Starts from what an earlier run has reached: `closed`, and the largest time of each partition. Silence is
    /// counted from `now`.
    pub(crate) fn new(
        disorder: Duration,
        idle_after: Duration,
        closed: i64,
        largest: impl Iterator<Item = Option<i64>>,
        now: Duration,
    ) -> Self {
        let partitions = largest
            .map(|largest| Partition {
                largest,
                last_arrival: now,
                silent_until: now,
                at_end: false,
                replaying: false,
                idle: false,
            })
            .collect();
        Self { disorder_ms: millis(disorder), idle_after, partitions, current: closed, holder: None }
    }

    pub(crate) fn current(&self) -> i64 {
        self.current
    }

    pub(crate) fn largest(&self, partition: usize) -> Option<i64> {
        self.partitions[partition].largest
    }

    /// Records of this partition have been fetched.
    pub(crate) fn arrived(&mut self, partition: usize, now: Duration) {
        let partition = &mut self.partitions[partition];
        partition.last_arrival = now;
        partition.silent_until = now;
        partition.idle = false;
        self.holder = None;
    }

    /// The node says that there is nothing more of this partition.
    pub(crate) fn silent(&mut self, partition: usize, now: Duration) {
        self.partitions[partition].silent_until = now;
    }

    /// Whether everything of this partition that can be read has been taken.
    pub(crate) fn set_at_end(&mut self, partition: usize, at_end: bool) {
        self.partitions[partition].at_end = at_end;
    }

    pub(crate) fn is_replaying(&self, partition: usize) -> bool {
        self.partitions[partition].replaying
    }

    /// Whether this partition is still behind what an earlier run has handled.
    pub(crate) fn set_replaying(&mut self, partition: usize, replaying: bool) {
        self.partitions[partition].replaying = replaying;
        self.holder = None;
    }

    /// A record of this partition and time has been taken.
    pub(crate) fn observe(&mut self, partition: usize, time: i64) {
        let this = &mut self.partitions[partition];
        if this.largest.is_some_and(|largest| largest >= time) {
            return;
        }
        this.largest = Some(time);
        if self.holder.is_none_or(|holder| holder == partition) {
            self.recompute(false);
        }
    }

    /// Lets silence count: partitions become idle, and a source that is idle as a whole goes on with the clock.
    pub(crate) fn advance(&mut self) -> i64 {
        for partition in &mut self.partitions {
            let silence = partition.silent_until.saturating_sub(partition.last_arrival);
            partition.idle = silence >= self.idle_after && partition.at_end && !partition.replaying;
        }
        self.recompute(true);
        self.current
    }

    /// How long from `now` until more silence could move the watermark, if it has to reach `end` for anything to
    /// happen; `None` if silence cannot.
    pub(crate) fn wakes_in(&self, now: Duration, end: Option<i64>) -> Option<Duration> {
        let falls_idle = self
            .partitions
            .iter()
            .filter(|partition| partition.at_end && !partition.replaying && !partition.idle)
            .map(|partition| partition.last_arrival.saturating_add(self.idle_after).saturating_sub(now))
            .min();
        if falls_idle.is_some() || !self.partitions.iter().all(|partition| partition.idle) {
            return falls_idle;
        }
        let missing = end?.saturating_sub(self.by_clock(now)?);
        Some(Duration::from_millis(u64::try_from(missing).unwrap_or_default()))
    }

    fn recompute(&mut self, by_clock: bool) {
        self.holder = None;
        let mut smallest: Option<(i64, usize)> = None;
        for (index, partition) in self.partitions.iter().enumerate() {
            let own = match partition.largest {
                _ if partition.replaying => NONE,
                _ if partition.idle => continue,
                None => NONE,
                Some(largest) => largest.saturating_sub(self.disorder_ms),
            };
            if smallest.is_none_or(|(smallest, _)| own < smallest) {
                smallest = Some((own, index));
            }
        }
        match smallest {
            Some((watermark, holder)) => {
                self.current = self.current.max(watermark);
                self.holder = Some(holder);
            }
            None if by_clock => {
                let silent_until = self.partitions.iter().map(|partition| partition.silent_until).min();
                let watermark = silent_until.and_then(|until| self.by_clock(until));
                self.current = self.current.max(watermark.unwrap_or(NONE));
            }
            None => {}
        }
    }

    /// The watermark if all partitions are idle, and were silent until this moment.
    fn by_clock(&self, silent_until: Duration) -> Option<i64> {
        let largest = self.partitions.iter().filter_map(|partition| partition.largest).max()?;
        let last_arrival = self.partitions.iter().map(|partition| partition.last_arrival).max()?;
        let silence_ms = millis(silent_until.saturating_sub(last_arrival));
        Some(largest.saturating_add(silence_ms).saturating_sub(self.disorder_ms))
    }
}

/// In whole milliseconds, at most what an `i64` holds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn marks(partitions: usize, disorder_ms: u64) -> Watermarks {
        Watermarks::new(Duration::from_millis(disorder_ms), IDLE, NONE, (0..partitions).map(|_| None), at(0))
    }

    #[test]
    fn the_slowest_partition_decides_and_one_not_heard_holds_everything() {
        let mut marks = marks(2, 5);
        marks.observe(0, 1_000);
        assert_eq!(marks.current(), NONE);
        marks.observe(1, 400);
        assert_eq!(marks.current(), 395);
        marks.observe(0, 2_000);
        assert_eq!(marks.current(), 395);
        marks.observe(1, 1_500);
        assert_eq!(marks.current(), 1_495);
        marks.observe(1, 900);
        assert_eq!(marks.current(), 1_495, "a record out of order takes nothing back");
    }

    #[test]
    fn a_silent_partition_lets_go_only_at_its_end() {
        let mut marks = marks(2, 0);
        marks.observe(0, 1_000);
        marks.arrived(0, at(60));
        marks.silent(1, at(60));
        assert_eq!(marks.advance(), NONE, "silent for a minute, but there is more to read");
        marks.set_at_end(1, true);
        assert_eq!(marks.advance(), 1_000);
    }

    #[test]
    fn silence_has_to_be_heard() {
        let mut marks = marks(2, 0);
        marks.observe(0, 1_000);
        marks.set_at_end(1, true);
        marks.arrived(0, at(3_600));
        assert_eq!(marks.advance(), NONE, "nobody has asked for partition 1 in an hour");
        marks.silent(1, at(3_600));
        assert_eq!(marks.advance(), 1_000);
    }

    #[test]
    fn a_partition_that_wakes_up_holds_again_and_takes_nothing_back() {
        let mut marks = marks(2, 0);
        marks.set_at_end(1, true);
        marks.silent(1, at(20));
        marks.arrived(0, at(20));
        marks.observe(0, 1_000);
        assert_eq!(marks.advance(), 1_000);
        marks.arrived(1, at(21));
        marks.observe(1, 10);
        marks.observe(0, 5_000);
        assert_eq!(marks.advance(), 1_000);
    }

    #[test]
    fn when_all_are_silent_the_clock_takes_over() {
        let mut marks = marks(2, 100);
        marks.arrived(0, at(5));
        marks.observe(0, 50_000);
        let silent_until = |marks: &mut Watermarks, seconds| {
            for partition in 0..2 {
                marks.set_at_end(partition, true);
                marks.silent(partition, at(seconds));
            }
            marks.advance()
        };
        assert_eq!(
            silent_until(&mut marks, 14),
            49_900,
            "the empty one is idle since 10 s, the other not yet"
        );
        assert_eq!(marks.wakes_in(at(14), Some(60_000)), Some(at(1)));
        assert_eq!(silent_until(&mut marks, 15), 59_900);
        assert_eq!(marks.wakes_in(at(15), Some(60_000)), Some(Duration::from_millis(100)));
        assert_eq!(silent_until(&mut marks, 25), 69_900);
        marks.silent(1, at(3_600));
        assert_eq!(marks.advance(), 69_900, "of partition 0 an hour's silence is not known");
    }

    #[test]
    fn an_empty_source_has_no_time() {
        let mut marks = marks(1, 0);
        marks.set_at_end(0, true);
        marks.silent(0, at(1_000));
        assert_eq!(marks.advance(), NONE);
        assert_eq!(marks.wakes_in(at(1_000), None), None);
    }

    #[test]
    fn a_partition_that_repeats_holds_the_watermark_where_it_was() {
        let mut marks = Watermarks::new(at(0), IDLE, 700, [Some(700), Some(9_000)].into_iter(), at(0));
        marks.set_replaying(1, true);
        marks.set_at_end(1, true);
        marks.silent(1, at(100));
        marks.observe(0, 5_000);
        assert_eq!(marks.advance(), 700, "neither other partitions nor silence move it");
        marks.set_replaying(1, false);
        assert_eq!(marks.advance(), 5_000);
    }

    #[test]
    fn no_length_of_time_is_too_long() {
        let mut marks =
            Watermarks::new(Duration::MAX, Duration::MAX, NONE, [Some(i64::MAX)].into_iter(), at(5));
        marks.set_at_end(0, true);
        marks.observe(0, i64::MIN);
        marks.silent(0, at(6));
        assert_eq!(marks.advance(), 0);
        assert!(marks.wakes_in(at(6), Some(i64::MAX)).is_some());
    }
}
