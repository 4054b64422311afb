//! Texts that mean the same, written alike.

use std::borrow::Cow;

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;

/// Folding can undo a normal form and the other way round; none of the texts tested changes in the third round.
const ROUNDS: usize = 8;

/// Which differences between texts count for nothing. Always among them: those of canonically equivalent texts (Unicode's normal form C).
///
/// What is applied once changes nothing when it is applied again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Normalization {
    /// Between characters and what they are compatible with: widths, ligatures, superscripts, no-break spaces (Unicode Standard Annex 15, form KC).
    pub compatibility: bool,
    /// Between upper and lower case: full case folding (The Unicode Standard, 3.13), the same for every language. Turn it off for models that
    /// tell case apart.
    pub case: bool,
    /// Between one white space and another, several, and those at the ends.
    pub white_space: bool,
}

impl Default for Normalization {
    fn default() -> Self {
        Normalization { compatibility: true, case: true, white_space: true }
    }
}

impl Normalization {
    /// The text that stands for `text` and for all that mean the same.
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for _ in 0..ROUNDS {
            let next = self.once(&text);
            if next == text {
                break;
            }
            text = next;
        }
        text
    }

    fn once(&self, text: &str) -> String {
        let folded = if self.case { CaseMapper::new().fold_string(text) } else { Cow::Borrowed(text) };
        let normal = match self.compatibility {
            true => ComposingNormalizerBorrowed::new_nfkc(),
            false => ComposingNormalizerBorrowed::new_nfc(),
        };
        let text = normal.normalize(&folded);
        if self.white_space { text.split_whitespace().collect::<Vec<_>>().join(" ") } else { text.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> impl Iterator<Item = Normalization> {
        (0..8).map(|bits| Normalization { compatibility: bits & 1 != 0, case: bits & 2 != 0, white_space: bits & 4 != 0 })
    }

    #[test]
    fn texts_that_mean_the_same_are_written_alike() {
        let normal = Normalization::default();
        for (a, b) in [
            ("  How do\tI\n reset it? ", "how do i reset it?"),
            ("Straße", "STRASSE"),
            ("ﬁle № ５", "FILE NO 5"),
            ("cafe\u{301}", "CAFÉ"),
            ("a\u{a0}b\u{3000}c", "A B C"),
            ("㎒ ㎓", "mhz ghz"),
            ("ΌΣΟΣ", "όσος"),
        ] {
            assert_eq!(normal.apply(a), normal.apply(b));
        }
        assert_ne!(normal.apply("résumé"), normal.apply("resume"), "accents mean something");
        assert_ne!(normal.apply("ab"), normal.apply("a b"));
        let exact = Normalization { compatibility: false, case: false, white_space: false };
        assert_eq!(exact.apply(" Straße ５ "), " Straße ５ ");
        assert_eq!(exact.apply("cafe\u{301}"), "café");
        assert_eq!(Normalization { case: false, ..normal }.apply(" Straße　５ "), "Straße 5");
    }

    #[test]
    fn every_character_is_settled_after_two_rounds() {
        let normal = Normalization::default();
        for text in ('\0'..=char::MAX).map(|c| format!("\u{3b1}{c}\u{345} \u{308}")) {
            let once = normal.apply(&text);
            assert_eq!(normal.once(&normal.once(&text)), once, "{text:?}");
            assert_eq!(normal.once(&once), once, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn applied_again_it_changes_nothing(text in "\\PC{0,24}|[aAßẞſıİ\u{345}\u{301}\u{308}ΐΰΣς\u{a0}\u{2003}\t\n ㎒ﬃǅ]{0,24}") {
            for normal in all() {
                let once = normal.apply(&text);
                prop_assert_eq!(normal.apply(&once), once);
            }
        }

        #[test]
        fn upper_and_lower_case_are_one(text in "[a-zA-Zäöüßéèçñøåæœα-ωа-я ]{0,40}") {
            let normal = Normalization::default();
            prop_assert_eq!(normal.apply(&text.to_uppercase()), normal.apply(&text.to_lowercase()));
        }
    }
}
