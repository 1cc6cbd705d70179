//! One object as a tree: object, Secret, keys, pods.

use super::{
    object::View,
    users::{Copy, User, restarts},
};
use crate::words::{BAD, DIM, PLAIN, duration, or_dash, plain, relative, relative_and_absolute, styled};
use boltz_operator::{
    api::{PreviousKeyStatus, RestartState},
    explain::explain,
};
use jiff::Timestamp;
use kube::ResourceExt;

/// The pods that use the Secret, or why they are not known.
pub type Users<'a> = Result<&'a [User], &'a str>;

/// The tree, and below it what happens next.
pub fn render(view: &View, users: Users) -> String {
    let mut lines = vec![headline(view)];
    let mut branches: Vec<(String, Vec<String>)> = Vec::new();
    let status = view.status();
    let secret = status.and_then(|status| status.secret_name.as_deref());
    let data_key = view.object.spec.as_ref().map(|spec| spec.secret.key.as_str()).unwrap_or_default();
    branches.push(match secret {
        Some(secret) => (format!("Secret {} (key {})", plain(secret), plain(data_key)), Vec::new()),
        None => (styled(BAD, "no Secret"), Vec::new()),
    });
    let account = status.and_then(|status| status.account_name.as_deref());
    branches.extend(account.map(|name| (format!("BoltzAccount {}", plain(name)), Vec::new())));
    if let Some(id) = status.and_then(|status| status.key_id.as_deref()) {
        let mut details = vec![format!("{}  {}", view.bar(), lifetime(view))];
        details.push(format!(
            "last used {}",
            or_dash(view.current_key_last_used_at(), |at| relative(at, view.now))
        ));
        branches.push((format!("key {}  current", plain(id)), details));
    }
    let previous = status.map(|status| status.previous_keys.as_slice()).unwrap_or_default();
    branches.extend(previous.iter().map(|previous| (previous_key(previous, view.now), Vec::new())));
    branches.extend(workloads(view));
    branches.push(pods(view, users));
    let last = branches.len() - 1;
    for (index, (text, children)) in branches.into_iter().enumerate() {
        let (branch, indent) = if index == last { ("└─", "   ") } else { ("├─", "│  ") };
        lines.push(format!("{branch} {text}"));
        lines.extend(children.into_iter().map(|child| format!("{indent} {child}")));
    }
    lines.push(String::new());
    lines.extend(trouble(view));
    lines.push(format!("next: {}", view.next_step()));
    if let Ok(users) = users {
        let namespace = view.object.metadata.namespace.clone().unwrap_or_default();
        let commands = restarts(users, &namespace);
        if !commands.is_empty() {
            let count = users.iter().filter(|user| user.copy == Copy::Old).count();
            let end = previous.iter().map(|previous| previous.revoke_after.0).min();
            let end = end.map_or("which is revoked".to_owned(), |at| match relative(at, view.now) {
                due if at <= view.now => format!("and a previous key is not revoked, due {due}"),
                when => format!("and a previous key is revoked {when}"),
            });
            lines.push(styled(
                BAD,
                &format!("containers with an old key: {count}, {end}. To give them the current key:"),
            ));
            lines.extend(commands.into_iter().map(|command| format!("  {command}")));
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn headline(view: &View) -> String {
    let ready = view.condition("Ready");
    // An expired key has not been ready since then.
    let since = ready.filter(|ready| ready.status != "True" || !view.is_expired());
    // The default of the CRD has no time.
    let since = since.filter(|ready| ready.status != "Unknown");
    let since = since.map(|ready| duration(view.now.duration_since(ready.last_transition_time.0)));
    let since = since.map(|since| format!(" for {since}")).unwrap_or_default();
    format!("BoltzApiKey {}  Ready={}{since}  {}", view.full_name(), view.ready_word(), view.reason())
}

fn lifetime(view: &View) -> String {
    let issued = view.issued_at().map(|at| format!("issued {}", relative(at, view.now))).unwrap_or_default();
    let end = view.expires_at().map_or("never expires".to_owned(), |at| {
        let verb = if at <= view.now { "expired" } else { "expires" };
        format!("{verb} {}", relative_and_absolute(at, view.now))
    });
    let between = |start: Timestamp, end: Timestamp| {
        format!("from {} to {}", start.strftime("%F %R"), end.strftime("%F %R UTC"))
    };
    let window = match view.status().and_then(|status| status.rotation_window.as_ref()) {
        Some(window) => Some(format!(", rotated in the window {}", between(window.start.0, window.end.0))),
        None => view.next_window().map(|next| format!(", next window {}", between(next.start, next.end))),
    };
    format!("{issued}, {end}{}", window.unwrap_or_default())
}

fn previous_key(previous: &PreviousKeyStatus, now: Timestamp) -> String {
    let end = previous.revoke_after.0;
    let end = if end <= now {
        styled(BAD, &format!("to be revoked since {}", duration(now.duration_since(end))))
    } else {
        format!("revoked {}", relative_and_absolute(end, now))
    };
    let used = or_dash(previous.last_used_at.as_ref(), |at| relative(at.0, now));
    format!("key {}  previous, {end}, last used {used}", plain(&previous.key_id))
}

/// The workloads that the operator restarts, and how far they are.
fn workloads(view: &View) -> Option<(String, Vec<String>)> {
    let status = view.status()?;
    let pending = status.pending_restarts.iter().map(|target| format!("{target}: to be restarted"));
    let restarted = status.restarts.iter().map(|restart| {
        let style = match restart.state {
            RestartState::Paused | RestartState::Failed => BAD,
            RestartState::Restarted | RestartState::Progressing | RestartState::Done => PLAIN,
        };
        let state = styled(style, <&str>::from(restart.state));
        let message = restart.message.as_deref().map(|message| format!(". {}", plain(message)));
        let (kind, name) = (<&str>::from(restart.kind), plain(&restart.name));
        format!("{kind} {name}: {state}{}", message.unwrap_or_default())
    });
    let lines: Vec<String> = pending.chain(restarted).collect();
    (!lines.is_empty()).then(|| ("restarts for the current key".to_owned(), lines))
}

fn pods(view: &View, users: Users) -> (String, Vec<String>) {
    match users {
        Err(why) => (format!("pods: not known: {why}"), Vec::new()),
        Ok([]) => ("no pod uses the Secret".to_owned(), Vec::new()),
        Ok(users) => {
            let line = |user: &User| {
                let User { pod, container, source, .. } = user;
                format!("{pod}/{container}  {}: {}", source.text(), user.copy_text(view.now))
            };
            ("pods that use the Secret".to_owned(), users.iter().map(line).collect())
        }
    }
}

/// The message of the condition, and what the reason means.
fn trouble(view: &View) -> Vec<String> {
    let Some((reason, message)) = view.trouble() else { return Vec::new() };
    let mut lines = vec![format!("{reason}: {message}")];
    let known = explain(&reason);
    lines.extend(known.map(|known| format!("what to do: {}", known.action)));
    // A reason such as that of a rotation has no explanation of its own.
    let what = known.map_or_else(|| view.object.name_any(), |known| known.reason.to_owned());
    lines.push(styled(DIM, &format!("more: kubectl boltz explain {what}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::{
        samples::{NOW, object},
        users::Source,
    };
    use serde_json::json;

    #[test]
    fn the_next_window_is_told_also_if_nothing_waits_for_it() {
        let spec = json!({"rotation": {"window": {"schedule": "0 2 * * 6", "duration": "3h"}}});
        let object = object("design", spec, json!({"createdAt": "2026-11-20T12:00:00Z"}));
        let view = View::new(&object, NOW.parse().unwrap());
        assert_eq!(
            lifetime(&view),
            "issued 6d ago, never expires, next window from 2026-11-28 02:00 to 2026-11-28 05:00 UTC"
        );
    }

    #[test]
    fn everything_is_in_the_tree() {
        let object = object(
            "design",
            json!({}),
            json!({
                "observedGeneration": 1,
                "keyID": "key-2", "secretName": "design", "createdAt": "2026-11-20T12:00:00Z",
                "expiresAt": "2026-12-20T12:00:00Z", "renewalTime": "2026-12-10T12:00:00Z",
                "rotationWindow": {"start": "2026-12-10T11:00:00Z", "end": "2026-12-10T14:00:00Z"},
                "lastRotationTime": "2026-11-20T12:00:00Z", "lastUsedAt": "2026-11-26T11:00:00Z",
                "previousKeys": [{"keyID": "key-1", "revokeAfter": "2026-11-26T13:00:00Z"}],
                "pendingRestarts": [{"kind": "DaemonSet", "name": "agent"}],
                "restarts": [
                    {"kind": "Deployment", "name": "web", "keyID": "key-2", "state": "Progressing"},
                    {
                        "kind": "StatefulSet", "name": "db", "keyID": "key-2", "state": "Paused",
                        "message": "Its update strategy is OnDelete.",
                    },
                ],
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Issued", "message": "The Secret contains a valid key.",
                    "lastTransitionTime": "2026-11-20T12:00:00Z",
                }],
            }),
        );
        let user = User {
            pod: "web-1".to_owned(),
            container: "app".to_owned(),
            workload: "deployment/web".to_owned(),
            source: Source::EnvFrom,
            started_at: Some("2026-11-19T12:00:00Z".parse().unwrap()),
            copy: Copy::Old,
        };
        let view = View::new(&object, NOW.parse().unwrap());
        let text = |users: Users| anstream::adapter::strip_str(&render(&view, users)).to_string();
        assert_eq!(
            text(Ok(std::slice::from_ref(&user))),
            "BoltzApiKey team/design  Ready=True for 6d  Issued\n\
             ├─ Secret design (key BOLTZ_API_KEY)\n\
             ├─ key key-2  current\n\
             │   ███░░░░░░░◆░░░░░  issued 6d ago, expires in 24d (2026-12-20 12:00 UTC), rotated in the \
                 window from 2026-12-10 11:00 to 2026-12-10 14:00 UTC\n\
             │   last used 60m ago\n\
             ├─ key key-1  previous, revoked in 60m (2026-11-26 13:00 UTC), last used -\n\
             ├─ restarts for the current key\n\
             │   DaemonSet agent: to be restarted\n\
             │   Deployment web: Progressing\n\
             │   StatefulSet db: Paused. Its update strategy is OnDelete.\n\
             └─ pods that use the Secret\n    \
                 web-1/app  envFrom: OLD KEY: started 7d ago, before the rotation\n\
             \n\
             next: 1 workload waits to be restarted\n\
             containers with an old key: 1, and a previous key is revoked in 60m. To give them the current key:\n  \
               kubectl --namespace team rollout restart deployment/web\n"
        );
        let late = View::new(&object, "2026-11-26T16:00:00Z".parse().unwrap());
        let late = anstream::adapter::strip_str(&render(&late, Ok(&[user]))).to_string();
        assert!(late.contains("key: 1, and a previous key is not revoked, due 3h ago. To give"), "{late}");
        let refused = text(Err("you may not list pods in team"));
        assert!(refused.contains("└─ pods: not known: you may not list pods in team\n"), "{refused}");
    }
}
