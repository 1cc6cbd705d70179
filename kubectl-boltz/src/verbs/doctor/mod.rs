//! `doctor`: what is missing for keys, and how to get it.

mod accounts;
mod cluster;
mod monitoring;
mod objects;
mod operator;

use super::Session;
use crate::{
    failure::{Failure, NOT_READY},
    output::Format,
    words::{BAD, CARE, DIM, GOOD, styled},
};
use serde::Serialize;
use serde_json::json;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(3);

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Grade {
    Good,
    /// You have no right to see it.
    Unknown,
    /// Something is missing that is not needed for keys.
    Care,
    Bad,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    check: &'static str,
    grade: Grade,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

impl Finding {
    fn new(check: &'static str, grade: Grade, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, grade, message: message.into(), fix: fix.into() }
    }

    fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Grade::Good, message, "")
    }

    /// A check that could not be made.
    fn unknown(check: &'static str, failure: &Failure) -> Self {
        match failure {
            Failure::Forbidden { .. } => {
                Self::new(check, Grade::Unknown, failure.short(), "ask somebody who may, or ignore it")
            }
            failure => Self::new(check, Grade::Bad, failure.short(), next_of(failure)),
        }
    }
}

fn next_of(failure: &Failure) -> String {
    let text = failure.to_string();
    text.rsplit("next: ").next().filter(|next| *next != text).unwrap_or_default().to_owned()
}

pub async fn doctor(session: &Session, wait: Option<Duration>) -> Result<u8, Failure> {
    let started = Instant::now();
    loop {
        let findings = examine(session).await;
        let is_well = findings.iter().all(|finding| finding.grade != Grade::Bad);
        let is_over = wait.is_none_or(|wait| started.elapsed() >= wait);
        if is_well || is_over {
            session.format.write(&json!({"findings": findings}), || text_of(session.format, &findings))?;
            return match (is_well, wait) {
                (true, _) => Ok(0),
                (false, None) => Ok(NOT_READY),
                (false, Some(_)) => Ok(3),
            };
        }
        let left = wait.unwrap_or_default().saturating_sub(started.elapsed());
        tokio::time::sleep(left.min(INTERVAL)).await;
    }
}

fn text_of(format: Format, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        if format == Format::Name {
            text.push_str(&format!("{}\n", finding.check));
            continue;
        }
        let mark = match finding.grade {
            Grade::Good => styled(GOOD, "✓"),
            Grade::Unknown => styled(DIM, "?"),
            Grade::Care => styled(CARE, "!"),
            Grade::Bad => styled(BAD, "✗"),
        };
        text.push_str(&format!("{mark} {}: {}\n", finding.check, finding.message));
        if !finding.fix.is_empty() {
            text.push_str(&format!("    fix: {}\n", finding.fix));
        }
    }
    text
}

async fn examine(session: &Session) -> Vec<Finding> {
    let mut findings = vec![cluster::api_server(session).await];
    if findings[0].grade == Grade::Bad {
        return findings;
    }
    let crd = cluster::crd(session).await;
    let has_crd = crd.grade != Grade::Bad;
    findings.push(crd);
    findings.push(cluster::rights(session).await);
    findings.push(cluster::rights_on_the_operator(session).await);
    let operators = match operator::operators(session).await {
        Ok(operators) => operators,
        Err(finding) => {
            findings.push(finding);
            Vec::new()
        }
    };
    for operator in &operators {
        findings.extend(operator::examine(session, operator).await);
    }
    if has_crd {
        let of_objects = objects::objects(session, &operators).await;
        // What the operator itself says is better than that no object complains.
        let is_known = |check: &str| findings.iter().any(|known| known.check == check);
        let news: Vec<Finding> = of_objects
            .into_iter()
            .filter(|finding| finding.grade == Grade::Bad || !is_known(finding.check))
            .collect();
        findings.extend(news);
        findings.extend(accounts::accounts(session).await);
    }
    findings.extend(monitoring::monitoring(session, &operators).await);
    findings
}
