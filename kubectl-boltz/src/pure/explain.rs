//! Why an object is as it is.

use super::object::View;
use crate::words::{plain, relative, styled};
use anstyle::Style;
use boltz_operator::explain::explain;
use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::Time};

/// The conditions in words, what to do, what happens next, and the newest events.
pub fn render(view: &View, events: Result<&[Event], &str>) -> String {
    let bold = Style::new().bold();
    let mut lines = vec![format!("BoltzApiKey {}", view.full_name()), String::new()];
    let touched = view.status().filter(|status| !status.is_untouched());
    let conditions = touched.map(|status| status.conditions.as_slice()).unwrap_or_default();
    if conditions.is_empty() {
        lines.push("No operator has looked at it yet. Check the operator: kubectl boltz doctor".to_owned());
    }
    let mut explained: Vec<&str> = Vec::new();
    for condition in conditions {
        // False without a message says nothing.
        if condition.type_ != "Ready" && condition.status != "True" {
            continue;
        }
        let since = relative(condition.last_transition_time.0, view.now);
        lines.push(format!(
            "{}: {} ({since})",
            styled(bold, &format!("{}={}", plain(&condition.type_), plain(&condition.status))),
            plain(&condition.reason)
        ));
        if !condition.message.is_empty() {
            lines.push(format!("  {}", plain(&condition.message)));
        }
        if let Some(known) = explain(&condition.reason).filter(|known| !explained.contains(&known.reason)) {
            lines.push(format!("  meaning: {}", known.meaning));
            lines.push(format!("  what to do: {}", known.action));
            lines.push(format!("  what not to do: {}", known.avoid));
            explained.push(known.reason);
        }
    }
    let observed = view.status().and_then(|status| status.observed_generation);
    if !conditions.is_empty() && observed != view.object.metadata.generation {
        lines.push("The operator has not seen the newest spec yet.".to_owned());
    }
    lines.push(String::new());
    lines.push(format!("next: {}", view.next_step()));
    lines.push(String::new());
    match events {
        Ok([]) => lines.push("no events".to_owned()),
        Ok(events) => {
            lines.push(styled(bold, "events"));
            lines.extend(events.iter().map(|event| format!("  {}", event_line(event, view))));
        }
        Err(why) => lines.push(format!("events: not known: {why}")),
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn event_line(event: &Event, view: &View) -> String {
    let text = |text: &Option<String>| plain(text.as_deref().unwrap_or_default());
    let when = event_time(event).map(|time| relative(time.0, view.now)).unwrap_or_default();
    format!("{when}  {}  {}", text(&event.reason), text(&event.message))
}

/// When it happened last.
pub fn event_time(event: &Event) -> Option<Time> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let micro = series.or(event.event_time.as_ref()).map(|time| Time(time.0));
    event.last_timestamp.clone().or(micro).or_else(|| event.metadata.creation_timestamp.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::samples::{NOW, object};
    use serde_json::json;

    #[test]
    fn a_reason_is_explained_once() {
        let condition = |kind: &str, status: &str| {
            json!({
                "type": kind, "status": status, "reason": "SecretConflict", "message": "The Secret a exists.",
                "lastTransitionTime": "2026-11-26T11:00:00Z",
            })
        };
        let conditions =
            [condition("Ready", "False"), condition("Reconciling", "False"), condition("Stalled", "True")];
        let object = object("a", json!({}), json!({"observedGeneration": 1, "conditions": conditions}));
        let view = View::new(&object, NOW.parse().unwrap());
        let event = serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "reason": "NotReady", "message": "why",
            "eventTime": "2026-11-26T11:30:00.000000Z",
        }))
        .unwrap();
        let text = anstream::adapter::strip_str(&render(&view, Ok(&[event]))).to_string();
        assert_eq!(text.matches("meaning: Another Secret has the name").count(), 1, "{text}");
        assert!(text.contains("Ready=False: SecretConflict (60m ago)\n  The Secret a exists.\n"), "{text}");
        assert!(text.contains("next: somebody has to act\n"), "{text}");
        assert!(text.contains("  30m ago  NotReady  why\n"), "{text}");
        assert!(!text.contains("Reconciling"), "{text}");
    }
}
