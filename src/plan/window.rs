//! When a rotation that can wait may begin: `spec.rotation.window`. Time zones are those of the system or, where it has none
//! as in the image, those that are compiled in.

use super::time::{earlier, later};
use crate::{api::RotationWindow, duration::parse_positive_duration};
use cronexpr::{Crontab, MakeTimestamp};
use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use std::time::Duration;

/// Users can forge the times of a record.
const LAST_YEAR: i16 = 9990;

/// A window that opens again and again.
#[derive(Clone, Debug)]
pub struct Window {
    /// Asked as if the time zone was UTC: cronexpr does not end where a clock goes back by half an hour.
    schedule: Crontab,
    time_zone: TimeZone,
    /// How long it stays open.
    pub duration: Duration,
}

/// The window from when it opens until it closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The window is open from then on.
    pub start: Timestamp,
    /// The window is closed from then on.
    pub end: Timestamp,
}

impl Window {
    /// Reads the spec; the error names the field.
    pub fn read(spec: &RotationWindow) -> Result<Self, String> {
        let time_zone = TimeZone::get(&spec.time_zone)
            .map_err(|_| "spec.rotation.window.timeZone is not the name of a time zone".to_owned())?;
        // CronJob has no days from the end of a month, and cronexpr's are not those of other programs.
        let day = |index: usize, marks: &[char]| {
            spec.schedule.split_whitespace().nth(index).is_some_and(|field| field.contains(marks))
        };
        if day(2, &['L', 'l', 'W', 'w']) || day(4, &['L', 'l', '#']) {
            return Err("spec.rotation.window.schedule must not use L, W or #".to_owned());
        }
        let schedule =
            cronexpr::parse_crontab(&format!("{} UTC", for_cronexpr(&spec.schedule))).map_err(|_| {
                "spec.rotation.window.schedule is not a cron schedule with five fields".to_owned()
            })?;
        let duration = parse_positive_duration(&spec.duration)
            .map_err(|error| format!("spec.rotation.window.duration: {error}"))?;
        Ok(Self { schedule, time_zone, duration })
    }

    /// The first opening that ends after this time: the one that contains it, or the next. `None`: it does not open
    /// in the next four years.
    pub fn first_ending_after(&self, time: Timestamp) -> Option<Opening> {
        // What began at this time or earlier has ended.
        let since = earlier(time, self.duration);
        let mut wall_clock = self.time_zone.to_datetime(since);
        loop {
            wall_clock = self.next(wall_clock)?;
            let found = self.time_zone.to_ambiguous_timestamp(wall_clock);
            // A time that the clock skips, or the second time of the same hour.
            let is_skipped = matches!(found.offset(), AmbiguousOffset::Gap { .. });
            let start = found.earlier().ok()?;
            if !is_skipped && start > since {
                return Some(Opening { start, end: later(start, self.duration) });
            }
        }
    }

    /// The next time of the schedule on the wall clock, at most four years ahead.
    fn next(&self, wall_clock: DateTime) -> Option<DateTime> {
        // cronexpr adds four years, and panics if there are none.
        if wall_clock.year() > LAST_YEAR {
            return None;
        }
        let after = TimeZone::UTC.to_timestamp(wall_clock).ok()?;
        let next = self.schedule.find_next(MakeTimestamp(after)).ok()?;
        (next.timestamp() > after).then(|| next.datetime())
    }

    /// From the start on, and no longer at the end.
    pub fn is_open(&self, time: Timestamp) -> bool {
        self.first_ending_after(time).is_some_and(|opening| opening.start <= time)
    }
}

/// The schedule of a CronJob, written so that cronexpr reads it as CronJob does. For CronJob `*/2` restricts a day field as a
/// list of days would, and a week ends on Saturday. Source: <https://pkg.go.dev/github.com/robfig/cron/v3>.
fn for_cronexpr(schedule: &str) -> String {
    let named = match schedule.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    let fields = named.split_whitespace().enumerate().map(|(index, field)| match index {
        2 => day_field(field, "1", "31"),
        4 => day_field(field, "0", "6"),
        _ => field.replace('?', "*"),
    });
    fields.collect::<Vec<_>>().join(" ")
}

fn day_field(field: &str, first: &str, last: &str) -> String {
    let items: Vec<&str> = field.split(',').collect();
    if items.iter().any(|item| ["*", "?", "*/1", "?/1"].contains(item)) {
        return "*".to_owned();
    }
    let items = items.into_iter().map(|item| match item.split_once('/') {
        Some(("*" | "?", step)) => format!("{first}-{last}/{step}"),
        Some((start, step)) if !start.contains('-') => format!("{start}-{last}/{step}"),
        _ => item.to_owned(),
    });
    items.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(schedule: &str, duration: &str, time_zone: &str) -> Window {
        let spec = serde_json::json!({"schedule": schedule, "duration": duration, "timeZone": time_zone});
        Window::read(&serde_json::from_value(spec).unwrap()).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_opening_that_contains_a_time_or_the_next() {
        let berlin = "Europe/Berlin";
        for (schedule, duration, zone, at, start) in [
            // Saturdays at two in the night, in winter.
            ("0 2 * * 6", "3h", berlin, "2026-11-26T12:00:00Z", "2026-11-28T01:00:00Z"),
            ("0 2 * * sat", "3h", berlin, "2026-11-28T01:00:00Z", "2026-11-28T01:00:00Z"),
            ("0 2 * * 6", "3h", berlin, "2026-11-28T03:59:59Z", "2026-11-28T01:00:00Z"),
            ("0 2 * * 6", "3h", berlin, "2026-11-28T04:00:00Z", "2026-12-05T01:00:00Z"),
            // In summer it is an hour earlier by UTC.
            ("0 2 * * 6", "3h", berlin, "2026-07-01T00:00:00Z", "2026-07-04T00:00:00Z"),
            ("0 2 * * 6", "3h", "UTC", "2026-07-01T00:00:00Z", "2026-07-04T02:00:00Z"),
            // 28 March 2027: the hour from two to three does not exist, so the window does not open.
            ("30 2 * * *", "1h", berlin, "2027-03-27T12:00:00Z", "2027-03-29T00:30:00Z"),
            // A window that was open before does not close later.
            ("30 1 * * *", "2h", berlin, "2027-03-28T02:29:59Z", "2027-03-28T00:30:00Z"),
            ("30 1 * * *", "2h", berlin, "2027-03-28T02:30:00Z", "2027-03-28T23:30:00Z"),
            // 25 October 2026: the hour from two to three comes twice. The window opens in the first.
            ("30 2 * * *", "10m", berlin, "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"),
            ("30 2 * * *", "10m", berlin, "2026-10-25T00:40:00Z", "2026-10-26T01:30:00Z"),
            ("30 2 * * *", "10m", berlin, "2026-10-25T01:20:00Z", "2026-10-26T01:30:00Z"),
            ("0 2 29 2 *", "1h", "UTC", "2026-01-01T00:00:00Z", "2028-02-29T02:00:00Z"),
            ("0 2 29 2 *", "1h", "UTC", "2028-02-29T03:00:00Z", "2032-02-29T02:00:00Z"),
            // The last day of February.
            ("0 0 28 feb *", "48h", "UTC", "2028-02-29T23:00:00Z", "2028-02-28T00:00:00Z"),
            // As in cron: with both days restricted, one of them suffices. 1 December 2026 is a Tuesday.
            ("0 0 1 * 5", "1h", "UTC", "2026-11-28T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("0 0 1 * 5", "1h", "UTC", "2026-12-02T00:00:00Z", "2026-12-04T00:00:00Z"),
            // Openings may overlap: the first that has not ended counts.
            ("0 * * * *", "90m", "UTC", "2026-11-26T12:10:00Z", "2026-11-26T11:00:00Z"),
            ("*/20 0-1,22 * * mon-fri", "5m", "UTC", "2026-11-27T22:45:00Z", "2026-11-30T00:00:00Z"),
        ] {
            let opening = window(schedule, duration, zone).first_ending_after(time(at)).unwrap();
            assert_eq!(opening.start, time(start), "{schedule} for {duration} in {zone}, at {at}");
            let is_open = window(schedule, duration, zone).is_open(time(at));
            assert_eq!(is_open, opening.start <= time(at), "{schedule}, at {at}");
        }
    }

    /// What robfig/cron v3.0.1, which CronJob uses, says comes next after noon of 26 November 2026, a Thursday.
    #[test]
    fn schedules_are_those_of_a_cronjob() {
        for (schedule, times) in [
            // A step restricts a day field, so that the other suffices too.
            ("0 2 */2 * 6", ["2026-11-27T02", "2026-11-28T02", "2026-11-29T02"]),
            ("0 2 1 * */2", ["2026-11-28T02", "2026-11-29T02", "2026-12-01T02"]),
            ("0 2 1,*/7 * mon", ["2026-11-29T02", "2026-11-30T02", "2026-12-01T02"]),
            ("0 2 31 * 1/3", ["2026-11-30T02", "2026-12-03T02", "2026-12-07T02"]),
            // Every day does not.
            ("0 2 ? * 6", ["2026-11-28T02", "2026-12-05T02", "2026-12-12T02"]),
            ("0 2 *,3 * 6", ["2026-11-28T02", "2026-12-05T02", "2026-12-12T02"]),
            ("0 2 */1 * 6", ["2026-11-28T02", "2026-12-05T02", "2026-12-12T02"]),
            ("0 2 */10 * *", ["2026-12-01T02", "2026-12-11T02", "2026-12-21T02"]),
            ("0 2 20/5 * *", ["2026-11-30T02", "2026-12-20T02", "2026-12-25T02"]),
            ("0 2 1-31/9 * *", ["2026-11-28T02", "2026-12-01T02", "2026-12-10T02"]),
            ("0 2 * * */3", ["2026-11-28T02", "2026-11-29T02", "2026-12-02T02"]),
            // The week ends on Saturday.
            ("0 2 * * 5/2", ["2026-11-27T02", "2026-12-04T02", "2026-12-11T02"]),
            ("0 2 * * sun-tue", ["2026-11-29T02", "2026-11-30T02", "2026-12-01T02"]),
            ("0 2 * */5 *", ["2026-11-27T02", "2026-11-28T02", "2026-11-29T02"]),
            ("0 2 * jan/3 *", ["2027-01-01T02", "2027-01-02T02", "2027-01-03T02"]),
            ("@weekly", ["2026-11-29T00", "2026-12-06T00", "2026-12-13T00"]),
            ("@monthly", ["2026-12-01T00", "2027-01-01T00", "2027-02-01T00"]),
            ("@yearly", ["2027-01-01T00", "2028-01-01T00", "2029-01-01T00"]),
            ("@midnight", ["2026-11-27T00", "2026-11-28T00", "2026-11-29T00"]),
            ("@hourly", ["2026-11-26T13", "2026-11-26T14", "2026-11-26T15"]),
        ] {
            let window = window(schedule, "10m", "UTC");
            let mut at = time("2026-11-26T12:30:00Z");
            for expected in times {
                let opening = window.first_ending_after(at).unwrap();
                assert_eq!(opening.start, time(&format!("{expected}:00:00Z")), "{schedule}");
                at = opening.end;
            }
        }
    }

    /// An image `FROM scratch` has no others.
    #[test]
    fn time_zones_are_compiled_in() {
        for name in ["Europe/Berlin", "Etc/UTC", "America/Argentina/Buenos_Aires"] {
            assert!(jiff::tz::TimeZoneDatabase::bundled().get(name).is_ok(), "{name}");
        }
    }

    /// The record can be forged.
    #[test]
    fn no_time_is_too_far() {
        let window = window("0 2 * jul wed", "1h", "Europe/Berlin");
        for at in [
            "9986-01-01T00:00:00Z",
            "9996-01-01T00:00:00Z",
            "9999-12-30T22:00:00Z",
            "-009999-01-02T01:59:59Z",
        ] {
            let opening = window.first_ending_after(time(at));
            assert!(opening.is_none_or(|opening| opening.end > time(at)), "{at}");
        }
        for at in [Timestamp::MIN, Timestamp::MAX] {
            assert!(window.first_ending_after(at).is_none_or(|opening| opening.start <= opening.end));
        }
    }

    #[test]
    fn a_day_that_does_not_come_in_four_years() {
        assert_eq!(window("0 0 30 2 *", "1h", "UTC").first_ending_after(time("2026-11-26T12:00:00Z")), None);
        // 2100 is no leap year.
        assert_eq!(window("0 2 29 2 *", "1h", "UTC").first_ending_after(time("2096-03-01T00:00:00Z")), None);
    }

    /// Whatever the clock does: each opening lasts as long as it says, and contains its own times.
    #[test]
    fn each_opening_of_two_years_is_found_from_within() {
        // Where summer time begins at two, each year has a day without half past two. On Lord Howe half an hour is skipped.
        for (zone, openings) in [
            ("Europe/Berlin", 728),
            ("America/New_York", 728),
            ("Australia/Lord_Howe", 730),
            ("Asia/Kathmandu", 730),
            ("UTC", 730),
        ] {
            let window = window("30 2 * * *", "10m", zone);
            let mut at = time("2026-01-01T00:00:00Z");
            let mut count = 0;
            loop {
                let opening = window.first_ending_after(at).unwrap();
                if opening.start >= time("2028-01-01T00:00:00Z") {
                    break;
                }
                assert_eq!(later(opening.start, window.duration), opening.end, "{zone}");
                let last = earlier(opening.end, Duration::from_secs(1));
                assert_eq!(window.first_ending_after(opening.start), Some(opening), "{zone}");
                assert_eq!(window.first_ending_after(last), Some(opening), "{zone}");
                at = opening.end;
                count += 1;
            }
            assert_eq!(count, openings, "{zone}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (schedule, duration, zone, field) in [
            ("0 2 * *", "1h", "UTC", "schedule"),
            ("0 25 * * *", "1h", "UTC", "schedule"),
            ("0 0 2 * * 6", "1h", "UTC", "schedule"),
            ("", "1h", "UTC", "schedule"),
            ("0 2 L * *", "1h", "UTC", "schedule"),
            ("0 2 1W * *", "1h", "UTC", "schedule"),
            ("0 2 * * 5L", "1h", "UTC", "schedule"),
            ("0 2 * * 5#2", "1h", "UTC", "schedule"),
            ("0 2 * * fri-mon", "1h", "UTC", "schedule"),
            ("@reboot", "1h", "UTC", "schedule"),
            ("0 2 * * *", "0s", "UTC", "duration"),
            ("0 2 * * *", "soon", "UTC", "duration"),
            ("0 2 * * *", "1h", "Middle-earth/Shire", "timeZone"),
            ("0 2 * * *", "1h", "", "timeZone"),
        ] {
            let spec = serde_json::json!({"schedule": schedule, "duration": duration, "timeZone": zone});
            let error = Window::read(&serde_json::from_value(spec).unwrap()).unwrap_err();
            assert!(
                error.contains(&format!("spec.rotation.window.{field}")),
                "{schedule} {duration} {zone}: {error}"
            );
        }
    }
}
