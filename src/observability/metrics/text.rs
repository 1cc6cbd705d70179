//! The two text formats of Prometheus, and which of them a client wants.

use std::fmt::{self, Write};

/// The two formats that Prometheus asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Version 0.0.4, which every tool reads.
    Classic,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// With the version, as Prometheus expects it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What the header `Accept` asks for: OpenMetrics only if it is named, and not wanted less than the classic format.
    pub fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            let qualities = ranges.filter_map(|mut parts| {
                let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
                let quality = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f64>().ok());
                is_it.then(|| quality.unwrap_or(1.0))
            });
            qualities.fold(0.0, f64::max)
        };
        let wish = quality("application/openmetrics-text");
        if wish > 0.0 && wish >= quality("text/plain") { Self::OpenMetrics } else { Self::Classic }
    }
}

/// Converts OpenMetrics text without units, infos and exemplars, which the operator has not, to the classic format while it
/// is written: there, the descriptions of a counter have its whole name, and nothing marks the end.
pub(super) struct Classic<W> {
    inner: W,
    line: String,
    /// A line `# HELP`: the next one says whether it describes a counter.
    help: Option<String>,
}

impl<W: Write> Classic<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, line: String::new(), help: None }
    }

    fn end_line(&mut self) -> fmt::Result {
        let line = std::mem::take(&mut self.line);
        if line.starts_with("# HELP ") {
            self.help = Some(line);
            return Ok(());
        }
        let describes_counter = line.starts_with("# TYPE ") && line.ends_with(" counter");
        let lines = self.help.take().into_iter().chain(Some(line).filter(|line| line != "# EOF"));
        for line in lines {
            match line.splitn(4, ' ').collect::<Vec<_>>().as_slice() {
                [hash, word, name, rest] if describes_counter => {
                    writeln!(self.inner, "{hash} {word} {name}_total {rest}")?;
                }
                _ => writeln!(self.inner, "{line}")?,
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Classic<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            self.line.push_str(piece.strip_suffix('\n').unwrap_or(piece));
            if piece.ends_with('\n') {
                self.end_line()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_format_that_it_asks_for() {
        for (accept, format) in [
            ("", Format::Classic),
            ("*/*", Format::Classic),
            ("text/plain", Format::Classic),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;version=1.0.0;q=0", Format::Classic),
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
            ("text/plain;version=1.0.0; q=0.5, application/openmetrics-text; q=0.3", Format::Classic),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }

    #[test]
    fn the_classic_format_names_counters_with_their_suffix() {
        let open = "# HELP a_b Calls of a counter.\n# TYPE a_b counter\na_b_total{x=\"# EOF\"} 1\n\
                    # HELP g Not a counter.\n# TYPE g gauge\ng 1\n# EOF\n";
        let classic = "# HELP a_b_total Calls of a counter.\n# TYPE a_b_total counter\na_b_total{x=\"# EOF\"} 1\n\
                       # HELP g Not a counter.\n# TYPE g gauge\ng 1\n";
        let mut converted = String::new();
        let mut writer = Classic::new(&mut converted);
        // In pieces of any size.
        open.chars().for_each(|character| writer.write_char(character).unwrap());
        assert_eq!(converted, classic);
    }
}
