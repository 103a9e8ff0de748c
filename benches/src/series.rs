//! Series of figures, and two of them taken in turns.

use std::fmt;

/// How often A and B take turns.
const ROUNDS: usize = 7;

/// What a figure counts, for printing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Megabytes (10^6 bytes) per second: more is better.
    MegabytesPerS,
    /// Milliseconds: less is better.
    Milliseconds,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MegabytesPerS => "MB/s",
            Self::Milliseconds => "ms",
        })
    }
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
        self.sorted()[(self.0.len() - 1) / 2]
    }

    /// The smallest and the largest.
    #[must_use]
    pub fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted[0], sorted[sorted.len() - 1])
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.spread();
        write!(f, "{:.2} ({least:.2}–{most:.2})", self.median())
    }
}

/// Takes a figure of A and one of B in turns, and prints the median and spread of both and of A ÷ B.
/// Each round goes first in turn, so that neither always finds the other's traces.
///
/// The first round warms up and is not counted.
pub fn alternate(
    unit: Unit,
    (a_name, mut a): (&str, impl FnMut() -> f64),
    (b_name, mut b): (&str, impl FnMut() -> f64),
) {
    let (mut figures_a, mut figures_b) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (figure_a, figure_b) = if round % 2 == 0 {
            let figure_a = a();
            (figure_a, b())
        } else {
            let figure_b = b();
            (a(), figure_b)
        };
        if round > 0 {
            figures_a.push(figure_a);
            figures_b.push(figure_b);
        }
    }
    let ratios = figures_a.iter().zip(&figures_b).map(|(a, b)| a / b).collect();
    println!("  {a_name:<44} {} {unit}", Series::new(figures_a));
    println!("  {b_name:<44} {} {unit}", Series::new(figures_b));
    println!("  {:<44} {}\n", "ratio of the first to the second", Series::new(ratios));
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
        let order = std::cell::RefCell::new(String::new());
        let take = |name| {
            order.borrow_mut().push(name);
            1.0
        };
        alternate(Unit::Milliseconds, ("a", || take('a')), ("b", || take('b')));
        assert_eq!(&order.borrow()[..8], "abbaabba");
        assert_eq!(order.borrow().matches('a').count(), ROUNDS + 1);
    }
}
