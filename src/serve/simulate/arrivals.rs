//! When requests come: Poisson, bursts, and recorded times rescaled to a rate. Times are in seconds, in ascending order.

use std::path::Path;

use crate::base::xorshift::Xorshift;
use crate::error::{Error, Result};

/// An exponential variable of mean 1.
fn exponential(random: &mut Xorshift) -> f64 {
    -(1.0 - random.unit()).ln()
}

/// A standard normal variable (Box and Muller, 1958).
pub fn normal(random: &mut Xorshift) -> f64 {
    (2.0 * exponential(random)).sqrt() * (std::f64::consts::TAU * random.unit()).cos()
}

/// Where arrivals come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Independent of one another.
    Poisson,
    /// Three times the rate for half a second on average, then half the rate for two seconds on average.
    Bursts,
    /// Times of a log.
    #[allow(missing_docs)]
    Recorded { name: String, times_s: Vec<f64> },
}

impl Source {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Source::Poisson => "Poisson",
            Source::Bursts => "bursts",
            Source::Recorded { name, .. } => name,
        }
    }

    /// `count` arrivals, fewer where the log has fewer, at a mean of `rate` a second.
    pub fn arrivals(&self, count: usize, rate: f64, seed: u64) -> Vec<f64> {
        let mut random = Xorshift::new(seed);
        match self {
            Source::Poisson => {
                let mut at_s = 0.0;
                let mut next = || {
                    at_s += exponential(&mut random) / rate;
                    at_s
                };
                (0..count).map(|_| next()).collect()
            }
            Source::Bursts => bursts(count, rate, &mut random),
            Source::Recorded { times_s, .. } => {
                let used = &times_s[..times_s.len().min(count)];
                let Some((first, last)) = used.first().zip(used.last()) else { return Vec::new() };
                let scale = used.len() as f64 / rate / (last - first).max(1e-9);
                used.iter().map(|t| (t - first) * scale).collect()
            }
        }
    }
}

/// A Poisson process whose rate has two states.
fn bursts(count: usize, rate: f64, random: &mut Xorshift) -> Vec<f64> {
    let (mut at_s, mut high, mut change_s) = (0.0, false, 0.0);
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        if at_s >= change_s {
            high = !high;
            change_s = at_s + exponential(random) * if high { 0.5 } else { 2.0 };
        }
        let next_s = at_s + exponential(random) / (if high { 3.0 * rate } else { 0.5 * rate });
        at_s = next_s.min(change_s);
        if next_s <= change_s {
            times.push(at_s);
        }
    }
    times
}

/// Seconds since midnight of `2023-11-16 18:17:03.9799600`, days added.
fn seconds(stamp: &str) -> Option<f64> {
    let (date, time) = stamp.trim().split_once([' ', 'T'])?;
    let day: f64 = date.rsplit('-').next()?.parse().ok()?;
    let parts: Vec<f64> = time.trim_end_matches('Z').split(':').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    Some(((day * 24.0 + hours) * 60.0 + minutes) * 60.0 + seconds)
}

/// Arrivals of a table with a header, whose first column is a time: a stamp (`2023-11-16 18:17:03.97`) or seconds. Errors when the file cannot be
/// read, when a line has no time and when there are fewer than two lines.
pub fn read(path: &Path) -> Result<Source> {
    let bad = |why: String| Error::BadInput(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    let time = |(number, line): (usize, &str)| {
        let stamp = line.split(',').next().unwrap_or("");
        seconds(stamp)
            .or_else(|| stamp.trim().parse().ok().filter(|t: &f64| t.is_finite()))
            .ok_or_else(|| bad(format!("line {}: {stamp:?} is no time; wanted YYYY-MM-DD HH:MM:SS.F or seconds", number + 1)))
    };
    let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty());
    let mut times_s = lines.map(time).collect::<Result<Vec<f64>>>()?;
    if times_s.len() < 2 {
        return Err(bad("fewer than two arrivals after the header".into()));
    }
    times_s.sort_by(f64::total_cmp);
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or("recorded").into();
    Ok(Source::Recorded { name, times_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_was_asked_for_and_seeds_repeat() {
        for source in [Source::Poisson, Source::Bursts] {
            let times = source.arrivals(200_000, 1000.0, 3);
            let rate = times.len() as f64 / times.last().unwrap();
            assert!((rate / 1000.0 - 1.0).abs() < 0.15, "{}: {rate}", source.name());
            assert!(times.windows(2).all(|w| w[0] <= w[1]));
            assert_eq!(times, source.arrivals(200_000, 1000.0, 3));
        }
    }

    #[test]
    fn logs_are_read_and_rescaled_and_others_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        std::fs::write(&path, "TIMESTAMP,Tokens\n2023-11-16 23:59:59.5,1\n2023-11-17 00:00:00.5,2\n2023-11-17 00:00:03.5,2\n")
            .unwrap();
        let source = read(&path).unwrap();
        assert_eq!(source.name(), "log");
        let times = source.arrivals(10, 30.0, 0);
        assert!(times.iter().zip([0.0, 0.025, 0.1]).all(|(a, b)| (a - b).abs() < 1e-9), "{times:?}");
        std::fs::write(&path, "t\n1.5\nx\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 3"));
        assert!(read(&folder.path().join("none.csv")).is_err());
    }
}
