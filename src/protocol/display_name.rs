//! What stands in front of the marker if the object has no display name: its namespace and name, shortened so that a person
//! recognizes both.

/// Of a shorter text only the beginning is kept: with both ends, nothing of it could be recognized.
const MIN_WITH_END: usize = 9;
const GAP: &str = "..";

/// `<namespace>/<name>` in so many characters. If they do not fit, each has half of them; what one does not need, the other
/// has.
pub(super) fn of_object(namespace: &str, name: &str, room: usize) -> String {
    let room = room.saturating_sub(1);
    let half = room / 2;
    let namespace = shortened(namespace, half.max(room.saturating_sub(name.chars().count())));
    let name = shortened(name, room.saturating_sub(namespace.chars().count()));
    format!("{namespace}/{name}")
}

/// The beginning and the end of the text. Names often differ at the end: `worker-eu-1`, `worker-eu-2`.
fn shortened(text: &str, room: usize) -> String {
    let length = text.chars().count();
    if length <= room {
        return text.to_owned();
    }
    if room < MIN_WITH_END {
        return text.chars().take(room).collect();
    }
    let end = room / 3;
    let beginning = text.chars().take(room - end - GAP.len());
    beginning.chain(GAP.chars()).chain(text.chars().skip(length - end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_and_name_share_the_room() {
        for (namespace, name, in_14, in_25) in [
            ("team", "key", "team/key", "team/key"),
            ("team-a", "protein-design", "team-a/protein", "team-a/protein-design"),
            ("team-a", "protein-design-of-antibodies", "team-a/protein", "team-a/protein-de..bodies"),
            ("production-team-alpha", "design", "product/design", "production..-alpha/design"),
            ("production-team", "protein-worker-eu-1", "produc/protein", "produc..team/protei..eu-1"),
            ("team-a", "", "team-a/", "team-a/"),
        ] {
            assert_eq!(of_object(namespace, name, 14), in_14);
            assert_eq!(of_object(namespace, name, 25), in_25);
        }
    }

    #[test]
    fn it_never_takes_more_room() {
        for (namespace, name) in
            [("n".repeat(63), "x".repeat(253)), ("n".repeat(63), "x".into()), ("n".into(), "x".repeat(253))]
        {
            for room in 1..70 {
                assert!(of_object(&namespace, &name, room).len() <= room, "{room}");
            }
        }
    }
}
