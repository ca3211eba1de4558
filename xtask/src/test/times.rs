/*!
The time that a run took: by the clock for steps, in processor time for the lab's scenarios.
*/
use std::time::{Duration, Instant};

use stockade_lab::{cache, plan::Durations};

/// The greatest number of lines in each list of the report.
const LONGEST: usize = 10;

/// The steps of a run with the time that each took.
#[derive(Debug, Default)]
pub struct Times {
    steps: Vec<(String, Duration)>,
    beside: Vec<(String, Duration)>,
    scenarios: Durations,
}

impl Times {
    /// Runs a step and notes its time.
    pub fn of<T>(&mut self, name: &str, step: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let result = step();
        self.steps.push((name.to_owned(), begin.elapsed()));
        result
    }

    /// Notes the time of work that ran beside steps.
    pub fn beside(&mut self, name: &str, took: Duration) {
        self.beside.push((format!("{name}, beside other steps"), took));
    }

    /// Notes the durations of the lab's scenarios.
    pub fn scenarios(&mut self, durations: Durations) {
        self.scenarios = durations;
    }

    /// Returns the time of the whole run.
    #[must_use]
    pub fn whole(&self) -> Duration {
        self.steps.iter().map(|(_, took)| *took).sum()
    }

    /// Returns the report: the longest steps and scenarios, longest first, and the folder of the cache.
    #[must_use]
    pub fn report(&self) -> String {
        let mut steps = [&self.steps[..], &self.beside].concat();
        steps.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        let mut text = format!("Where the time went: {} in all.\n", minutes(self.whole()));
        for (name, took) in steps.iter().take(LONGEST) {
            text += &format!("  {:>9}  {name}\n", minutes(*took));
        }
        let longest = self.scenarios.longest(LONGEST);
        if !longest.is_empty() {
            let sum = minutes(self.scenarios.sum());
            text += &format!("The lab's guests used {sum} of processor time. The longest scenarios:\n");
            for (name, took) in longest {
                text += &format!("  {:>7.1} s  {name}\n", took.as_secs_f64());
            }
        }
        if let Ok(folder) = cache::folder() {
            text += &format!("Fetched and built files are kept in {}.\n", folder.display());
        }
        text
    }
}

/// Formats a time for people: `4 min 07 s`, or `7.3 s` below a minute.
pub fn minutes(time: Duration) -> String {
    if time < Duration::from_mins(1) {
        return format!("{:.1} s", time.as_secs_f64());
    }
    format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Times, minutes};

    #[test]
    fn times_are_told_longest_first() {
        assert_eq!(minutes(Duration::from_millis(7300)), "7.3 s");
        assert_eq!(minutes(Duration::from_secs(247)), "4 min 07 s");
        let steps = vec![("short".into(), Duration::from_secs(1)), ("long".into(), Duration::from_secs(90))];
        let times = Times { steps, ..Times::default() };
        let report = times.report();
        assert!(
            report.starts_with("Where the time went: 1 min 31 s in all.\n  1 min 30 s  long\n"),
            "{report}"
        );
    }
}
