//! Growth, as bars of text.

use crate::report::Growth;
use std::fmt::Write;

const WIDTH: f64 = 60.0;

/// Memory over the number of objects.
pub fn growth(growth: &[Growth]) -> String {
    let most = growth
        .iter()
        .flat_map(|row| [row.at_rest, row.peak_at_start, row.peak_in_a_pass])
        .fold(1.0, f64::max);
    let mut text = String::from("memory in MB over the number of objects\n");
    for row in growth {
        for (what, value) in [
            ("at rest", row.at_rest),
            ("peak at start", row.peak_at_start),
            ("peak in a pass", row.peak_in_a_pass),
        ] {
            let bar = "#".repeat((value / most * WIDTH).round() as usize);
            let _ = writeln!(text, "{:>7}  {what:<14} {value:>7.1}  {bar}", row.objects);
        }
    }
    if let (Some(first), Some(last)) = (growth.first(), growth.last())
        && last.objects > first.objects
    {
        let slope = (last.at_rest - first.at_rest) * 1e3 / (last.objects - first.objects) as f64;
        let _ = writeln!(text, "at rest: {slope:.1} kB for each object more");
    }
    text
}
