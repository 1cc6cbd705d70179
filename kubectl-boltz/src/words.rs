//! Times, bars and tables, as text.

use anstyle::{AnsiColor, Style};
use jiff::{SignedDuration, Timestamp};
use std::io::Write;
use tabwriter::TabWriter;

/// The length of a bar, in characters.
const BAR: i64 = 16;

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default().bold();
pub const CARE: Style = AnsiColor::Yellow.on_default();
pub const DIM: Style = Style::new().dimmed();
pub const PLAIN: Style = Style::new();

/// The text in that style. Where the output is no terminal, or NO_COLOR is set, styles are taken out again.
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A duration as kubectl writes ages: two units while the first is small.
pub fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().abs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, "y", days % 365, "d"),
    }
}

/// `in 5h`, `5h ago`.
pub fn relative(time: Timestamp, now: Timestamp) -> String {
    let distance = time.duration_since(now);
    if distance.is_negative() {
        format!("{} ago", duration(distance))
    } else {
        format!("in {}", duration(distance))
    }
}

/// `in 5h (2026-11-26 17:00 UTC)`.
pub fn relative_and_absolute(time: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", relative(time, now), time.strftime("%F %R UTC"))
}

/// A lifetime: `█` is over, `░` is left, `◆` is where the key will be replaced.
pub fn lifetime_bar(
    begin: Timestamp,
    end: Option<Timestamp>,
    renewal: Option<Timestamp>,
    now: Timestamp,
) -> String {
    let Some(end) = end.filter(|end| *end > begin) else { return "∞".to_owned() };
    let place = |time: Timestamp| {
        let share = time.duration_since(begin).as_secs_f64() / end.duration_since(begin).as_secs_f64();
        // Between 0 and the length of the bar.
        #[allow(clippy::cast_possible_truncation)]
        let place = (share.clamp(0.0, 1.0) * 16.0) as i64;
        place
    };
    let (over, mark) = (place(now), renewal.map(place));
    (0..BAR)
        .map(|index| match index {
            index if mark == Some(index) => '◆',
            index if index < over => '█',
            _ => '░',
        })
        .collect()
}

/// Rows in aligned columns.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut writer = TabWriter::new(Vec::new()).padding(3).ansi(true);
    let lines = std::iter::once(header.join("\t")).chain(rows.iter().map(|row| row.join("\t")));
    for line in lines {
        // Writes to memory.
        let _ = writeln!(writer, "{line}");
    }
    let text = writer.into_inner().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// What others wrote, on one line and without characters that a terminal would obey: controls, and those that turn the
/// direction of writing.
pub fn plain(text: &str) -> String {
    let is_obeyed = |character: char| {
        let turns = matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        turns || character.is_control()
    };
    text.chars().map(|character| if is_obeyed(character) { ' ' } else { character }).collect()
}

/// The time, or a dash.
pub fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (30 * 3600, "30h"),
            (3 * 86_400, "3d"),
            (3 * 86_400 + 3600, "3d1h"),
            (30 * 86_400 + 3600, "30d"),
            (800 * 86_400, "2y70d"),
        ] {
            assert_eq!(duration(SignedDuration::from_secs(seconds)), text, "{seconds}");
            assert_eq!(duration(SignedDuration::from_secs(-seconds)), text, "-{seconds}");
        }
        assert_eq!(relative(at(0), at(60)), "60s ago");
        assert_eq!(relative(at(60), at(0)), "in 60s");
    }

    #[test]
    fn bars_show_what_is_over_and_the_renewal() {
        let bar = |now, end: Option<i64>, renewal: Option<i64>| {
            lifetime_bar(at(0), end.map(at), renewal.map(at), at(now))
        };
        assert_eq!(bar(0, Some(16), Some(10)), "░░░░░░░░░░◆░░░░░");
        assert_eq!(bar(8, Some(16), Some(10)), "████████░░◆░░░░░");
        assert_eq!(bar(12, Some(16), Some(10)), "██████████◆█░░░░");
        assert_eq!(bar(99, Some(16), None), "████████████████");
        assert_eq!(bar(-5, Some(16), None), "░░░░░░░░░░░░░░░░");
        assert_eq!(bar(5, None, None), "∞");
        assert_eq!(bar(5, Some(0), None), "∞", "no division by zero");
    }

    #[test]
    fn columns_are_aligned_whatever_their_colour() {
        let rows = [vec![styled(BAD, "a"), "b".to_owned()], vec!["long".to_owned(), "c".to_owned()]];
        let text = anstream::adapter::strip_str(&table(&["X", "Y"], &rows)).to_string();
        assert_eq!(text, "X      Y\na      b\nlong   c\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        for (text, shown) in [
            ("a\u{1b}[31mb\nc", "a [31mb c"),
            ("a\u{202e}b\u{2066}c\u{2069}", "a b c "),
            ("Größe 日本", "Größe 日本"),
        ] {
            assert_eq!(plain(text), shown);
        }
    }
}
