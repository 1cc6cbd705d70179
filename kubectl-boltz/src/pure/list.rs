//! Objects in a table, the most urgent first.

use super::object::View;
use crate::words::{or_dash, plain, relative, table};
use boltz_operator::api::WatchedApiKey;
use jiff::{SignedDuration, Timestamp};

/// Which objects are shown. All of what is set has to hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    pub not_ready: bool,
    pub overdue: bool,
    pub expiring: Option<SignedDuration>,
    pub unused: Option<SignedDuration>,
}

impl Filter {
    pub fn admits(&self, view: &View) -> bool {
        (!self.not_ready || !(view.has_valid_key() || view.is_unready_on_purpose()))
            && (!self.overdue || view.is_overdue())
            && self.expiring.is_none_or(|within| view.expires_within(within))
            && self.unused.is_none_or(|time| view.is_unused_for(time))
    }
}

/// The indices of the objects that are shown, the most urgent first.
pub fn by_urgency(objects: &[WatchedApiKey], filter: &Filter, now: Timestamp) -> Vec<usize> {
    let views: Vec<View> = objects.iter().map(|object| View::new(object, now)).collect();
    let mut shown: Vec<usize> = (0..views.len()).filter(|index| filter.admits(&views[*index])).collect();
    shown.sort_by_key(|index| {
        let view = &views[*index];
        (view.urgency(), view.expires_at().unwrap_or(Timestamp::MAX), view.full_name())
    });
    shown
}

#[derive(Clone, Copy, Debug)]
pub struct Columns {
    pub all_namespaces: bool,
    pub wide: bool,
    /// Draws the lifetime of each key as a bar.
    pub bars: bool,
}

/// The objects as a table, and below it why those that are not Ready are not.
pub fn render(objects: &[&WatchedApiKey], columns: Columns, now: Timestamp) -> String {
    let mut header = Vec::new();
    if columns.all_namespaces {
        header.push("NAMESPACE");
    }
    header.extend(["NAME", "READY", "REASON"]);
    if columns.bars {
        header.push("LIFETIME");
    }
    header.extend(["EXPIRES", "LAST USED", "NEXT"]);
    if columns.wide {
        header.extend(["SECRET", "WORKSPACE", "KEY ID", "PREVIOUS KEYS"]);
    }
    let rows: Vec<Vec<String>> = objects.iter().map(|object| row(&View::new(object, now), columns)).collect();
    let mut text = table(&header, &rows);
    let troubles = objects.iter().filter_map(|object| {
        let view = View::new(object, now);
        let (reason, message) = view.trouble().filter(|_| !view.is_unready_on_purpose())?;
        let name = if columns.all_namespaces { view.full_name() } else { name(&view) };
        Some(format!("{name}: {reason}: {message}\n"))
    });
    let troubles: String = troubles.collect();
    if !troubles.is_empty() {
        text.push('\n');
        text.push_str(&troubles);
    }
    text
}

fn name(view: &View) -> String {
    view.object.metadata.name.clone().unwrap_or_default()
}

fn row(view: &View, columns: Columns) -> Vec<String> {
    let mut row = Vec::new();
    if columns.all_namespaces {
        row.push(view.object.metadata.namespace.clone().unwrap_or_default());
    }
    row.extend([name(view), view.ready_word(), view.reason()]);
    if columns.bars {
        row.push(view.bar());
    }
    let has_key = view.status().is_some_and(|status| status.key_id.is_some());
    let without_end = if has_key { "never" } else { "-" };
    let expiry = view.expires_at().map_or(without_end.to_owned(), |at| relative(at, view.now));
    row.extend([expiry, or_dash(view.last_used_at(), |at| relative(at, view.now)), view.next_step()]);
    if columns.wide {
        let text = |value: Option<&String>| or_dash(value, |text| plain(text));
        let status = view.status();
        row.push(text(status.and_then(|status| status.secret_name.as_ref())));
        row.push(text(status.and_then(|status| status.workspace_id.as_ref())));
        row.push(text(status.and_then(|status| status.key_id.as_ref())));
        row.push(status.map_or(0, |status| status.previous_keys.len()).to_string());
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::samples::{NOW, object};
    use serde_json::{Value as Json, json};

    fn ready(is_ready: bool, more: Json) -> Json {
        let mut status = more;
        status["conditions"] = json!([{
            "type": "Ready", "status": if is_ready { "True" } else { "False" },
            "reason": if is_ready { "Issued" } else { "BoltzRejected" },
            "message": "Boltz says \u{1b}[31m402.", "lastTransitionTime": NOW,
        }]);
        status["keyID"] = json!("key-1");
        status
    }

    #[test]
    fn the_most_urgent_come_first_and_filters_hold() {
        let objects = [
            object("fine", json!({}), ready(true, json!({"lastUsedAt": "2026-11-26T00:00:00Z"}))),
            object("soon", json!({}), ready(true, json!({"expiresAt": "2026-12-01T00:00:00Z"}))),
            object("refused", json!({}), ready(false, json!({}))),
            object(
                "late",
                json!({}),
                ready(
                    true,
                    json!({"renewalTime": "2026-11-26T01:00:00Z", "expiresAt": "2027-11-26T01:00:00Z"}),
                ),
            ),
            object("old", json!({}), ready(true, json!({"lastUsedAt": "2026-01-01T00:00:00Z"}))),
            object("over", json!({}), ready(true, json!({"expiresAt": "2026-11-26T11:30:00Z"}))),
        ];
        let names = |filter: Filter| {
            let shown = by_urgency(&objects, &filter, NOW.parse().unwrap());
            let name = |index: usize| objects[index].metadata.name.clone().unwrap();
            shown.into_iter().map(name).collect::<Vec<_>>()
        };
        let days = |days: i64| Some(SignedDuration::from_hours(24 * days));
        assert_eq!(names(Filter::default()), ["over", "refused", "late", "soon", "fine", "old"]);
        assert_eq!(names(Filter { not_ready: true, ..Filter::default() }), ["over", "refused"]);
        assert_eq!(names(Filter { overdue: true, ..Filter::default() }), ["late"]);
        assert_eq!(names(Filter { expiring: days(14), ..Filter::default() }), ["over", "soon"]);
        assert_eq!(names(Filter { unused: days(30), ..Filter::default() }), ["old"]);
        assert_eq!(names(Filter { unused: days(30), overdue: true, ..Filter::default() }), [""; 0]);
    }

    #[test]
    fn the_reason_is_below_the_table() {
        let object = object("refused", json!({}), ready(false, json!({})));
        let columns = Columns { all_namespaces: true, wide: false, bars: true };
        let text = render(&[&object], columns, NOW.parse().unwrap());
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.ends_with("\nteam/refused: BoltzRejected: Boltz says  [31m402.\n"), "{text}");
    }
}
