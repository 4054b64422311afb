//! What a registry is told: names, shares, trials, budgets. Plain data, which with feature `serde` is read from and written to JSON.

use std::collections::BTreeMap;

use super::canary::Rules;
use crate::error::{Error, Result};

/// What a registry is told.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct Settings {
    /// The most memory that all versions together may take.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub memory_limit_bytes: Option<u64>,
    /// What happens when a version would take more than is left of that.
    pub when_full: WhenFull,
    /// Other names of models.
    pub aliases: BTreeMap<String, Alias>,
    /// Models of which something is to be said.
    pub models: BTreeMap<String, ModelSettings>,
}

/// What happens when there is no room for another version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum WhenFull {
    /// It is refused.
    #[default]
    Refuse,
    /// Versions that were not asked for longest are unloaded, those of pinned models excepted.
    UnloadIdle,
}

/// What a name stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Alias {
    /// A model's own name.
    pub model: String,
    /// One of its versions; `None` is whichever the model's shares choose.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub version: Option<u64>,
}

/// What a registry is told of a model.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default, deny_unknown_fields))]
pub struct ModelSettings {
    /// Whether it is loaded at the start.
    pub preload: bool,
    /// Whether it is never unloaded to make room.
    pub pinned: bool,
    /// The most memory that each of its versions may take.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub memory_limit_bytes: Option<u64>,
    /// Runs before a version is ready: sizes of the axes that the model leaves open, by name, by `INPUT.AXIS` or by number; `batch` is the
    /// first axis of inputs. An axis that is not named has size 1.
    pub warm_up: Vec<BTreeMap<String, usize>>,
    /// Names of versions.
    pub aliases: BTreeMap<String, u64>,
    /// Shares of the requests that name no version, in any unit. Without any the highest version gets all.
    pub weights: BTreeMap<u64, f64>,
    /// A version on trial beside them.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub canary: Option<Trial>,
    /// How the last trial ended.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub last_canary: Option<Ended>,
}

impl Default for ModelSettings {
    fn default() -> Self {
        let (aliases, weights, warm_up) = Default::default();
        let (memory_limit_bytes, canary, last_canary) = (None, None, None);
        ModelSettings { preload: true, pinned: false, memory_limit_bytes, warm_up, aliases, weights, canary, last_canary }
    }
}

/// A version on trial.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Trial {
    /// The version.
    pub version: u64,
    /// How it goes on, and what ends it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub rules: Rules,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Ended {
    /// The version that was on trial.
    pub version: u64,
    /// Whether it gets all requests now, or none.
    pub promoted: bool,
    /// Why.
    pub reason: String,
    /// When: seconds since 1970.
    pub at_s: u64,
}

impl Settings {
    /// What is said of a model.
    pub fn model(&self, name: &str) -> ModelSettings {
        self.models.get(name).cloned().unwrap_or_default()
    }

    /// Errors with the field, what is wrong and what would be right.
    pub fn check(&self) -> Result<()> {
        let wrong = |at: String, why: &str| Err(Error::BadInput(format!("registry: {at}: {why}")));
        for (name, alias) in &self.aliases {
            if self.models.contains_key(name) || self.aliases.contains_key(&alias.model) {
                return wrong(format!("aliases.{name}"), "an alias stands for a model, and is the name of none");
            }
        }
        for (name, model) in &self.models {
            if let Some(number) = model.aliases.keys().find(|alias| alias.is_empty() || alias.parse::<u64>().is_ok()) {
                return wrong(
                    format!("models.{name}.aliases.{number}"),
                    "it would be taken for a version: begin it with a letter",
                );
            }
            let mut weights = model.weights.values();
            if !weights.all(|w| w.is_finite() && *w >= 0.0)
                || (!model.weights.is_empty() && model.weights.values().sum::<f64>() <= 0.0)
            {
                return wrong(format!("models.{name}.weights"), "weights are numbers of 0 or more, one of them more than 0");
            }
            if model.warm_up.iter().flat_map(BTreeMap::values).any(|&size| size == 0) {
                return wrong(format!("models.{name}.warm_up"), "sizes are 1 or more");
            }
            if let Some(why) = model.canary.as_ref().and_then(|c| c.rules.check().err()) {
                return wrong(format!("models.{name}.canary.rules"), &why);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_field() {
        let model = |change: fn(&mut ModelSettings)| {
            let mut model = ModelSettings::default();
            change(&mut model);
            Settings { models: [("m".to_string(), model)].into(), ..Settings::default() }
        };
        let mut chained = model(|_| {});
        chained.aliases.insert("a".into(), Alias { model: "b".into(), version: None });
        chained.aliases.insert("b".into(), Alias { model: "m".into(), version: None });
        let mut shadowing = model(|_| {});
        shadowing.aliases.insert("m".into(), Alias { model: "n".into(), version: None });
        let wrong = [
            (chained, "aliases.a"),
            (shadowing, "aliases.m"),
            (model(|m| m.aliases = [("7".into(), 1)].into()), "models.m.aliases.7"),
            (model(|m| m.weights = [(1, f64::NAN)].into()), "models.m.weights"),
            (model(|m| m.weights = [(1, 0.0)].into()), "models.m.weights"),
            (model(|m| m.warm_up = vec![[("batch".to_string(), 0)].into()]), "models.m.warm_up"),
            (
                model(|m| m.canary = Some(Trial { version: 2, rules: Rules { window: 0, ..Rules::default() } })),
                "models.m.canary.rules: window",
            ),
        ];
        for (settings, field) in wrong {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(&format!("registry: {field}")), "{field}: {error}");
        }
        model(|m| m.weights = [(1, 0.5)].into()).check().unwrap();
    }
}
