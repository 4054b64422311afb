//! Which kernel was measured fastest for what, on one device: kept in a file between processes.

use std::collections::BTreeMap;
use std::path::Path;

use super::cache;

/// A measured kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    /// Its name.
    pub kernel: String,
    /// Microseconds of a launch.
    pub median_us: f64,
}

/// The fastest kernels by the kind of problem: by the key that the chooser makes of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuned {
    picks: BTreeMap<String, Pick>,
}

impl Tuned {
    /// The kernel for problems of this kind.
    pub fn pick(&self, key: &str) -> Option<&Pick> {
        self.picks.get(key)
    }

    /// Keeps a measurement.
    pub fn keep(&mut self, key: String, pick: Pick) {
        self.picks.insert(key, pick);
    }

    /// How many kinds of problem are known.
    pub fn len(&self) -> usize {
        self.picks.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// Reads a file that [`Tuned::write`] wrote for the same `identity`: device, driver and set of kernels. What is not there, was written
    /// for another, or is damaged, counts as unknown.
    pub fn read(path: &Path, identity: &str) -> Tuned {
        let Ok(text) = std::fs::read_to_string(path) else { return Tuned::default() };
        let mut lines = text.lines();
        if lines.next() != Some(&head(identity)) {
            return Tuned::default();
        }
        let pick = |line: &str| {
            let mut fields = line.split('\t');
            let (key, kernel, us) = (fields.next()?, fields.next()?, fields.next()?);
            let median_us = us.parse().ok().filter(|us: &f64| us.is_finite() && *us >= 0.0)?;
            Some((key.to_string(), Pick { kernel: kernel.into(), median_us }))
        };
        Tuned { picks: lines.filter_map(pick).collect() }
    }

    /// Writes the file as a whole.
    pub fn write(&self, path: &Path, identity: &str) -> std::io::Result<()> {
        let mut text = head(identity) + "\n";
        for (key, pick) in &self.picks {
            text += &format!("{key}\t{}\t{:.3}\n", pick.kernel, pick.median_us);
        }
        cache::write(path, text.as_bytes())
    }
}

fn head(identity: &str) -> String {
    format!("# halfbyte {} | {}", env!("CARGO_PKG_VERSION"), identity.replace(['\n', '\t'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_by_the_same_device_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/tuned.tsv");
        let mut tuned = Tuned::default();
        tuned.keep("gemm a".into(), Pick { kernel: "k1".into(), median_us: 1.5 });
        tuned.keep("gemm b".into(), Pick { kernel: "k2".into(), median_us: 20.25 });
        tuned.write(&path, "gpu\n1").unwrap();
        assert_eq!(Tuned::read(&path, "gpu\n1"), tuned);
        assert!(Tuned::read(&path, "gpu 2").is_empty(), "another driver");
        let mut text = std::fs::read_to_string(&path).unwrap();
        text += "half a li";
        std::fs::write(&path, text + "\nkey\tk\tNaN\n").unwrap();
        assert_eq!(Tuned::read(&path, "gpu\n1"), tuned, "damaged lines are left out");
        assert!(Tuned::read(&folder.path().join("none"), "gpu").is_empty());
    }
}
