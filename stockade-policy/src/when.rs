/*!
Times of events: since boot, or by the wall clock where the caller knows when that was.
*/
use jiff::{SignedDuration, Timestamp, Unit};

/// How an event's time is told. The boot's time is only right for events of this boot.
#[must_use]
pub fn told(boot_ns: u64, booted: Option<Timestamp>) -> String {
    match booted.and_then(|booted| at(boot_ns, booted)) {
        Some(at) => at.to_string(),
        None => format!("{} after boot", since(boot_ns / 1_000_000_000)),
    }
}

/// The wall clock's time of an event, to the second.
#[must_use]
pub fn at(boot_ns: u64, booted: Timestamp) -> Option<Timestamp> {
    let since = SignedDuration::from_nanos(i64::try_from(boot_ns).ok()?);
    booted.checked_add(since).ok()?.round(Unit::Second).ok()
}

fn since(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_what_is_known() {
        let boot_ns = (3600 + 62) * 1_000_000_000;
        assert_eq!(told(boot_ns, None), "1 h 1 min after boot");
        assert_eq!(told(62_900_000_000, None), "1 min 2 s after boot");
        assert_eq!(told(9, None), "0 s after boot");
        let booted: Timestamp = "2026-05-01T10:00:00Z".parse().unwrap();
        assert_eq!(told(boot_ns, Some(booted)), "2026-05-01T11:01:02Z");
        assert!(told(u64::MAX, Some(booted)).ends_with("after boot"), "nobody ran for 584 years");
    }
}
