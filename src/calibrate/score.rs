//! How right an answer is.

use std::str::FromStr;

use super::compare::{Difference, top};

/// What a changed model's answers are judged by. Scores lie between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Metric {
    /// The share of rows whose largest value is at the labelled place.
    Accuracy,
    /// The share of rows whose largest value is where the original model's is.
    Agreement,
    /// Cosine of the angle to the original's output; 0 where it is negative.
    Cosine,
    /// Intersection over union with the original's mask: the values above the threshold.
    Mask(f32),
    /// 1 less the edit distance to the original's text over its length: the largest of each row, without repetitions and without the blank,
    /// the class of this number (connectionist temporal classification).
    Characters(u32),
    /// Whether the whole text, made as that of characters, is the same.
    Text(u32),
}

/// As much of an output as a [`Metric`] looks at.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Where each row's largest value is; of texts, those that are characters.
    Classes(Vec<u32>),
    /// All values.
    Values(Vec<f32>),
    /// Whether each value is above the threshold.
    Mask(Vec<bool>),
    /// None: a value is not a number.
    Broken,
}

impl Metric {
    /// Of an output with rows of `width` values.
    pub fn answer(self, output: &[f64], width: usize) -> Answer {
        if output.iter().any(|v| v.is_nan()) {
            return Answer::Broken;
        }
        let mut classes: Vec<u32> = match self {
            Metric::Accuracy | Metric::Agreement | Metric::Characters(_) | Metric::Text(_) => {
                output.chunks_exact(width.max(1)).map(|row| top(row) as u32).collect()
            }
            Metric::Cosine => return Answer::Values(output.iter().map(|&v| v as f32).collect()),
            Metric::Mask(threshold) => return Answer::Mask(output.iter().map(|&v| v > f64::from(threshold)).collect()),
        };
        if let Some(blank) = self.blank() {
            classes.dedup();
            classes.retain(|&c| c != blank);
        }
        Answer::Classes(classes)
    }

    /// Of a metric of texts, the class that is no character.
    pub fn blank(self) -> Option<u32> {
        match self {
            Metric::Characters(blank) | Metric::Text(blank) => Some(blank),
            _ => None,
        }
    }

    /// The right answer of a sample with these labels; texts may be filled up with blanks.
    pub fn labelled(self, labels: &[u32]) -> Answer {
        Answer::Classes(labels.iter().copied().filter(|&c| Some(c) != self.blank()).collect())
    }

    /// Most scores do not change at all where few answers do.
    pub fn is_rare(self) -> bool {
        !matches!(self, Metric::Cosine | Metric::Mask(_))
    }

    /// The score of `given` where `right` is right. 0 where they cannot be compared.
    pub fn score(self, right: &Answer, given: &Answer) -> f64 {
        match (right, given) {
            (Answer::Classes(a), Answer::Classes(b)) if matches!(self, Metric::Characters(_)) => {
                (1.0 - edits(a, b) as f64 / a.len().max(1) as f64).max(0.0)
            }
            (Answer::Classes(a), Answer::Classes(b)) if matches!(self, Metric::Text(_)) => f64::from(u8::from(a == b)),
            (Answer::Classes(a), Answer::Classes(b)) if a.len() == b.len() => {
                let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
                same as f64 / a.len().max(1) as f64
            }
            (Answer::Values(a), Answer::Values(b)) if a.len() == b.len() => {
                let mut difference = Difference::default();
                difference.add(a, b, 0);
                difference.cosine().max(0.0)
            }
            (Answer::Mask(a), Answer::Mask(b)) if a.len() == b.len() => {
                let count = |of: fn(bool, bool) -> bool| a.iter().zip(b).filter(|&(&a, &b)| of(a, b)).count() as f64;
                let union = count(|a, b| a | b);
                if union == 0.0 { 1.0 } else { count(|a, b| a & b) / union }
            }
            _ => 0.0,
        }
    }
}

/// Insertions, deletions and replacements that make `b` of `a` (Levenshtein 1965).
fn edits(a: &[u32], b: &[u32]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Metric::Accuracy => write!(f, "accuracy"),
            Metric::Agreement => write!(f, "agreement"),
            Metric::Cosine => write!(f, "cosine"),
            Metric::Mask(threshold) => write!(f, "mask:{threshold}"),
            Metric::Characters(blank) => write!(f, "characters:{blank}"),
            Metric::Text(blank) => write!(f, "text:{blank}"),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    /// As [`Metric`] is shown; masks are cut at 0.5 and the blank is class 0 where nothing else is said.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').map_or((text, None), |(name, value)| (name, Some(value)));
        let bad = |e: &dyn std::fmt::Display| format!("{text:?}: {e}");
        match (name, value) {
            ("accuracy", None) => Ok(Metric::Accuracy),
            ("agreement", None) => Ok(Metric::Agreement),
            ("cosine", None) => Ok(Metric::Cosine),
            ("mask", value) => Ok(Metric::Mask(value.unwrap_or("0.5").parse().map_err(|e| bad(&e))?)),
            ("characters", value) => Ok(Metric::Characters(value.unwrap_or("0").parse().map_err(|e| bad(&e))?)),
            ("text", value) => Ok(Metric::Text(value.unwrap_or("0").parse().map_err(|e| bad(&e))?)),
            _ => Err(bad(&"one of accuracy, agreement, cosine, mask:THRESHOLD, characters:BLANK, text:BLANK")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(metric: &str, right: &[f64], given: &[f64], width: usize) -> f64 {
        let metric: Metric = metric.parse().unwrap();
        assert_eq!(metric.to_string().parse(), Ok(metric));
        metric.score(&metric.answer(right, width), &metric.answer(given, width))
    }

    #[test]
    fn scores_are_those_of_their_definitions() {
        assert_eq!(score("agreement", &[0.0, 1.0, 2.0, 1.0], &[0.0, 5.0, 1.0, 2.0], 2), 0.5);
        assert!((score("cosine", &[1.0, 0.0], &[3.0, 3.0], 2) - 0.5f64.sqrt()).abs() < 1e-6);
        assert_eq!(score("cosine", &[1.0, 0.0], &[-1.0, 0.0], 2), 0.0);
        assert_eq!(score("mask", &[0.6, 0.6, 0.1, 0.1], &[0.9, 0.2, 0.8, 0.0], 4), 1.0 / 3.0);
        assert_eq!(score("mask:2", &[0.6, 0.6], &[0.9, 0.2], 2), 1.0);
        // Rows of three classes, the first is the blank: texts 1 2 1 and 1 2.
        let (a, b, blank) = ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]);
        let right = [a, a, b, b, blank, a].concat();
        assert_eq!(score("characters", &right, &[a, blank, b, b, b, blank].concat(), 3), 1.0 - 1.0 / 3.0);
        assert_eq!(score("characters", &right, &[blank; 6].concat(), 3), 0.0);
        assert_eq!(score("text", &right, &[blank, a, b, blank, a, a].concat(), 3), 1.0);
        assert_eq!(score("text", &right, &[a, blank, b, b, b, blank].concat(), 3), 0.0);
        // With class 2 as the blank the text is 1 0 1; labels may be filled up.
        let metric: Metric = "text:2".parse().unwrap();
        assert_eq!(metric.score(&metric.labelled(&[1, 0, 1, 2, 2]), &metric.answer(&right, 3)), 1.0);
    }

    #[test]
    fn what_is_not_a_number_is_wrong() {
        for metric in ["agreement", "cosine", "mask", "characters"] {
            assert_eq!(score(metric, &[1.0, 0.0], &[f64::NAN, 0.0], 2), 0.0, "{metric}");
        }
        assert!("iou".parse::<Metric>().unwrap_err().contains("characters:BLANK") && "mask:x".parse::<Metric>().is_err());
    }

    #[test]
    fn edits_are_counted_as_in_textbooks() {
        let letters = |s: &str| s.chars().map(u32::from).collect::<Vec<_>>();
        for (a, b, want) in [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0)] {
            assert_eq!((edits(&letters(a), &letters(b)), edits(&letters(b), &letters(a))), (want, want), "{a} {b}");
        }
    }
}
