//! The registry's settings as a file, and changes of them as JSON merge patches.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::hardware::cache;
use crate::serve::registry::Settings;

/// Its name in the folder of models.
pub(super) const NAME: &str = "registry.json";

/// Reads a file; one that is not there says nothing. Errors with the field, what is wrong and what would be right.
pub(super) fn read(path: &Path) -> Result<Settings> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Settings::default()),
        Err(e) => return Err(Error::file(path, e)),
    };
    let settings: Settings =
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text)).map_err(|e| Error::file(path, e))?;
    settings.check().map(|()| settings)
}

/// Writes the file as a whole: it is the old one or the new one, also after a crash.
pub(super) fn write(path: &Path, settings: &Settings) -> Result<()> {
    let text = serde_json::to_vec_pretty(settings).map_err(|e| Error::file(path, e))?;
    cache::write(path, &text).map_err(|e| Error::file(path, e))
}

/// Settings with a patch: members replace those of their name, objects are merged, null takes a member away (RFC 7386).
pub(super) fn patched(settings: &Settings, patch: Value) -> Result<Settings> {
    let wrong = |why: String| Error::BadInput(format!("registry: {why}"));
    let mut whole = serde_json::to_value(settings).map_err(|e| wrong(e.to_string()))?;
    merge(&mut whole, patch);
    serde_path_to_error::deserialize(whole).map_err(|e| wrong(e.to_string()))
}

fn merge(into: &mut Value, patch: Value) {
    let Value::Object(members) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Default::default());
    }
    let Value::Object(object) = into else { return };
    for (name, member) in members {
        if member.is_null() {
            object.remove(&name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), member);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_merge_as_the_rfc_says() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": [1]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        ];
        for (mut target, patch, result) in cases {
            merge(&mut target, patch.clone());
            assert_eq!(target, result, "{patch}");
        }
    }

    #[test]
    fn settings_are_read_back_as_they_were_written_and_wrong_ones_are_refused_by_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        assert_eq!(read(&path).unwrap(), Settings::default());
        let patch = json!({"memory_limit_bytes": 5, "aliases": {"prod": {"model": "m", "version": 3}}, "models": {"m": {
            "weights": {"3": 90, "4": 10}, "aliases": {"stable": 3}, "warm_up": [{"batch": 8}],
            "canary": {"version": 5, "rules": {"steps": [0.1], "error_rate": {"absolute": 0.02}}},
        }}});
        let settings = patched(&Settings::default(), patch).unwrap();
        assert_eq!(settings.models["m"].weights, [(3, 90.0), (4, 10.0)].into());
        assert_eq!(settings.models["m"].canary.as_ref().unwrap().rules.error_rate.relative, 0.0);
        write(&path, &settings).unwrap();
        assert_eq!(read(&path).unwrap(), settings);
        let less = patched(&settings, json!({"models": {"m": {"canary": null, "weights": {"4": null}}}})).unwrap();
        assert_eq!((&less.models["m"].canary, &less.models["m"].weights), (&None, &[(3, 90.0)].into()));
        for (text, says) in [
            (r#"{"models": {"m": {"wieghts": {}}}}"#, "models.m.wieghts: unknown field `wieghts`, expected one of"),
            (r#"{"models": {"m": {"weights": {"x": 1}}}}"#, "models.m.weights"),
            (r#"{"models": {"m": {"canary": {}}}}"#, "models.m.canary: missing field `version`"),
            (r#"{"when_full": "panic"}"#, "when_full: unknown variant `panic`, expected `refuse` or `unload_idle`"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(NAME), "{error}");
        }
    }
}
