//! The comparison as a table in Markdown.

use std::fmt::Write;

use super::compare::{Comparison, Figures, KEDA};

/// The table of some comparisons, and what it shows in one sentence.
pub fn table(comparisons: &[Comparison]) -> String {
    let mut text = String::from("| trace | these rules |");
    KEDA.iter().for_each(|name| text += &format!(" KEDA, {name} |"));
    text += " default | best |\n|---|---|---|---|---|---|---|---|\n";
    for comparison in comparisons {
        text += &row(comparison);
    }
    if comparisons.len() > 1 {
        let count = |holds: fn(&Comparison) -> bool| comparisons.iter().filter(|it| holds(it)).count();
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "\nOf {} traces, the default is beaten on {}, and the best setting of each trace on {}.\n",
            comparisons.len(),
            count(Comparison::beats_default),
            count(Comparison::beats_best),
        );
    }
    text
}

fn row(comparison: &Comparison) -> String {
    let best = comparison.best();
    let mut row = format!("| {} | {} |", comparison.name, cell(&comparison.ours));
    for (index, figures) in comparison.keda.iter().enumerate() {
        let cell = cell(figures);
        row += &if index == best { format!(" **{cell}** |") } else { format!(" {cell} |") };
    }
    let verdict = |holds: bool| if holds { "yes" } else { "no" };
    row + &format!(" {} | {} |\n", verdict(comparison.beats_default()), verdict(comparison.beats_best()))
}

fn cell(figures: &Figures) -> String {
    format!("{} / {}", thousands(figures.seconds_over), thousands(figures.worker_seconds))
}

/// A rounded number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
