//! Series of figures, two of them taken in turns, and what is aimed at.

use std::fmt;

use crate::run::Run;

/// What a figure counts, for printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Megabytes (10^6 bytes) per second: more is better.
    MegabytesPerS,
    /// Things per second: more is better.
    PerS,
    /// Seconds: less is better.
    Seconds,
    /// Milliseconds: less is better.
    Milliseconds,
    /// Microseconds: less is better.
    Microseconds,
    /// KiB of memory: less is better.
    Kibibytes,
    /// MiB of memory: less is better.
    Mebibytes,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MegabytesPerS => "MB/s",
            Self::PerS => "/s",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "µs",
            Self::Kibibytes => "KiB",
            Self::Mebibytes => "MiB",
        })
    }
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Ours is so many times the baseline, or more.
    RatioAtLeast(f64),
    /// Ours is so many times the baseline, or less.
    RatioAtMost(f64),
    /// Ours is so much, or more, in the row's unit.
    AtLeast(f64),
    /// Ours is so much, or less, in the row's unit.
    AtMost(f64),
    /// Nothing: the row is there to look at.
    None,
}

impl Aim {
    /// Whether the medians reach it; `None` if nothing is aimed at.
    #[must_use]
    pub fn is_met(self, ours: f64, ratio: f64) -> Option<bool> {
        match self {
            Self::RatioAtLeast(least) => Some(ratio >= least),
            Self::RatioAtMost(most) => Some(ratio <= most),
            Self::AtLeast(least) => Some(ours >= least),
            Self::AtMost(most) => Some(ours <= most),
            Self::None => None,
        }
    }
}

/// A row of the table: what is measured, under which conditions, and what is aimed at.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// What is measured.
    pub title: &'a str,
    /// Durability, batch size, what is in flight.
    pub conditions: &'a str,
    /// What the figures count.
    pub unit: Unit,
    /// What is aimed at.
    pub aim: Aim,
}

/// Figures of the same thing, in the order in which they were taken.
#[derive(Clone, Debug)]
pub struct Series(Vec<f64>);

impl Series {
    /// Takes the figures.
    ///
    /// # Panics
    /// If there are none, or one is not a number.
    #[must_use]
    pub fn new(figures: Vec<f64>) -> Self {
        assert!(!figures.is_empty() && figures.iter().all(|figure| figure.is_finite()), "{figures:?}");
        Self(figures)
    }

    /// The middle one; of an even number the lower of the two.
    #[must_use]
    pub fn median(&self) -> f64 {
        percentile(&self.0, 50)
    }

    /// The smallest and the largest.
    #[must_use]
    pub fn spread(&self) -> (f64, f64) {
        (percentile(&self.0, 0), percentile(&self.0, 100))
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.spread();
        write!(f, "{:.2} ({least:.2}–{most:.2})", self.median())
    }
}

/// The figure that `percent` of them do not exceed; of two in the middle the lower.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * percent / 100]
}

/// What [`compare`] found.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Our figures.
    pub ours: Series,
    /// Those of the baseline.
    pub baseline: Series,
    /// The ratio of each round.
    pub ratio: Series,
}

/// Takes a figure of ours and one of the baseline in turns, and prints the median and spread of
/// both, of their ratio, and whether the aim is met. Each goes first in turn, so that neither
/// always finds the other's traces.
///
/// The first round warms up and is not counted.
pub fn compare(
    run: &Run,
    row: &Row<'_>,
    (our_name, mut ours): (&str, impl FnMut() -> f64),
    (base_name, mut baseline): (&str, impl FnMut() -> f64),
) -> Compared {
    let (mut our_figures, mut base_figures) = (Vec::new(), Vec::new());
    for round in 0..=run.rounds() {
        let (our_figure, base_figure) = if round % 2 == 0 {
            let our_figure = ours();
            (our_figure, baseline())
        } else {
            let base_figure = baseline();
            (ours(), base_figure)
        };
        if round > 0 {
            our_figures.push(our_figure);
            base_figures.push(base_figure);
        }
    }
    let ratios = our_figures.iter().zip(&base_figures).map(|(ours, base)| ours / base).collect();
    let (ours, baseline, ratio) = (Series::new(our_figures), Series::new(base_figures), Series::new(ratios));
    let compared = Compared { ours, baseline, ratio };
    print(row, our_name, base_name, &compared);
    compared
}

fn print(row: &Row<'_>, our_name: &str, base_name: &str, Compared { ours, baseline, ratio }: &Compared) {
    println!("{}\n  {}", row.title, row.conditions);
    println!("  {our_name:<52} {ours} {}", row.unit);
    println!("  {base_name:<52} {baseline} {}", row.unit);
    println!("  {:<52} {ratio}", "ratio of the first to the second");
    let aim = match row.aim {
        Aim::RatioAtLeast(least) => format!("a ratio of at least {least}"),
        Aim::RatioAtMost(most) => format!("a ratio of at most {most}"),
        Aim::AtLeast(least) => format!("at least {least} {}", row.unit),
        Aim::AtMost(most) => format!("at most {most} {}", row.unit),
        Aim::None => String::new(),
    };
    match row.aim.is_met(ours.median(), ratio.median()) {
        Some(is_met) => println!("  aim: {aim:<47} {}\n", if is_met { "met" } else { "MISSED" }),
        None => println!(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_its_median_and_its_spread() {
        assert_eq!(Series::new(vec![3.0, 1.0, 2.0]).to_string(), "2.00 (1.00–3.00)");
        assert_eq!(Series::new(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.0);
    }

    #[test]
    fn both_are_taken_equally_often_and_take_turns_in_going_first() {
        let run = Run::quietly(&std::env::temp_dir());
        let order = std::cell::RefCell::new(String::new());
        let take = |name| {
            order.borrow_mut().push(name);
            1.0
        };
        let row = Row { title: "", conditions: "", unit: Unit::PerS, aim: Aim::None };
        let compared = compare(&run, &row, ("a", || take('a')), ("b", || take('b')));
        assert_eq!(&order.borrow()[..8], "abbaabba");
        assert_eq!(order.borrow().matches('a').count(), run.rounds() + 1);
        assert_eq!(compared.ratio.median(), 1.0);
    }

    #[test]
    fn an_aim_is_met_by_the_medians() {
        assert_eq!(Aim::RatioAtLeast(0.8).is_met(100.0, 0.8), Some(true));
        assert_eq!(Aim::RatioAtMost(1.3).is_met(100.0, 1.31), Some(false));
        assert_eq!(Aim::AtLeast(5.0).is_met(4.0, 100.0), Some(false));
        assert_eq!(Aim::AtMost(5.0).is_met(4.0, 100.0), Some(true));
        assert_eq!(Aim::None.is_met(1.0, 1.0), None);
    }
}
