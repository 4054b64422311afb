// Renders kernels/*.ptx.j2 for each row of kernels/variants.toml, and shaders/*.wgsl.j2 for each of shaders/variants.toml. Used by
// build.rs, and by the tests, which read the same files while kernels are being written (`HALFBYTE_RENDER=1`, see docs/kernels.md).

use std::collections::BTreeMap;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value, context};

/// Size of the parameter `finish`: `BYTES` of src/device/gpu/finish.rs, which has its layout.
pub const FINISH_BYTES: usize = 336;

/// A row of a table of variants.
pub trait Variant: serde::de::DeserializeOwned {
    /// Unique.
    fn name(&self) -> &str;
    /// File in the folder.
    fn template(&self) -> &str;
    /// What the template may name.
    fn values(&self) -> Value;
    /// The text from what the template gives.
    fn text(&self, body: String) -> Result<String, String>;
}

/// A row of shaders/variants.toml.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShaderRow {
    /// The kernel's name, unique: that of the row in kernels/variants.toml which takes the same arguments, where there is one.
    pub name: String,
    /// File in shaders/.
    pub template: String,
    /// Threads of a workgroup.
    pub threads: u32,
    /// What the template varies in: numbers and words.
    #[serde(default)]
    pub params: BTreeMap<String, toml::Value>,
}

impl Variant for ShaderRow {
    fn name(&self) -> &str {
        &self.name
    }

    fn template(&self) -> &str {
        &self.template
    }

    fn values(&self) -> Value {
        context! { name => self.name, threads => self.threads, ..Value::from_serialize(&self.params) }
    }

    fn text(&self, body: String) -> Result<String, String> {
        Ok(body + "\n")
    }
}

/// A row of kernels/variants.toml.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The entry's name, unique.
    pub name: String,
    /// File in kernels/.
    pub template: String,
    /// `.target`: sm_61, sm_75, sm_80 or sm_90a.
    pub target: String,
    /// `.version`, where the kernel needs a newer one than its target's: see [`version`].
    #[serde(default)]
    pub version: Option<String>,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory in bytes; static memory is not counted.
    #[serde(default)]
    pub shared_bytes: u32,
    /// Registers of a thread at most, without a formula.
    pub registers: u32,
    /// Machine instructions expected, by mnemonic prefix, at least so many.
    #[serde(default)]
    pub sass: BTreeMap<String, u32>,
    /// What the template varies in: numbers and words.
    #[serde(default)]
    pub params: BTreeMap<String, toml::Value>,
}

impl Variant for Row {
    fn name(&self) -> &str {
        &self.name
    }

    fn template(&self) -> &str {
        &self.template
    }

    fn values(&self) -> Value {
        context! {
            name => self.name, target => self.target, threads => self.threads, shared_bytes => self.shared_bytes,
            sm => self.target.trim_start_matches("sm_").trim_end_matches('a').parse::<u32>().unwrap_or(0),
            ..Value::from_serialize(&self.params)
        }
    }

    fn text(&self, body: String) -> Result<String, String> {
        let version = self.version.as_deref().or(version(&self.target));
        let version = version.ok_or_else(|| format!("{} is no target of ours", self.target))?;
        Ok(format!(".version {version}\n.target {}\n.address_size 64\n{body}\n", self.target))
    }
}

#[derive(serde::Deserialize)]
#[serde(bound = "R: Variant")]
struct Table<R> {
    variant: Vec<R>,
}

/// A row with its text.
pub struct Rendered<R> {
    pub row: R,
    pub text: String,
}

/// `.version` of each target: the lowest that has what the tier's kernels use, so that old drivers take them.
pub fn version(target: &str) -> Option<&'static str> {
    Some(match target {
        "sm_61" | "sm_70" | "sm_75" => "7.0",
        "sm_80" => "7.4",
        "sm_90a" => "8.0",
        _ => return None,
    })
}

/// Every row of `folder`/variants.toml.
pub fn rows<R: Variant>(folder: &Path) -> Result<Vec<R>, String> {
    let file = folder.join("variants.toml");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let table: Table<R> = toml::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut names = std::collections::BTreeSet::new();
    match table.variant.iter().find(|r| !names.insert(r.name().to_string())) {
        Some(twice) => Err(format!("{}: {} stands there twice", file.display(), twice.name())),
        None => Ok(table.variant),
    }
}

/// Renders every row, or those that `wanted` takes.
pub fn render<R: Variant>(folder: &Path, wanted: impl Fn(&R) -> bool) -> Result<Vec<Rendered<R>>, String> {
    render_rows(folder, rows(folder)?.into_iter().filter(wanted))
}

/// Renders these rows.
pub fn render_rows<R: Variant>(folder: &Path, rows: impl Iterator<Item = R>) -> Result<Vec<Rendered<R>>, String> {
    let environment = environment(folder)?;
    let one = |row: R| {
        let say = |e: minijinja::Error| format!("{} from {}: {e:#}", row.name(), row.template());
        let body = environment.get_template(row.template()).and_then(|t| t.render(row.values())).map_err(say)?;
        let text = row.text(body).map_err(|e| format!("{}: {e}", row.name()))?;
        Ok(Rendered { row, text })
    };
    rows.map(one).collect()
}

/// Templates say `${value}`, `# statement` on a line of its own, `<% statement %>` within one, and `## comment`.
fn environment(folder: &Path) -> Result<Environment<'static>, String> {
    let syntax = SyntaxConfig::builder()
        .block_delimiters("<%", "%>")
        .variable_delimiters("${", "}")
        .comment_delimiters("<#", "#>")
        .line_statement_prefix("# ")
        .line_comment_prefix("##")
        .build()
        .map_err(|e| e.to_string())?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    // Registers "%f3, %f4, %f5" of list("%f", 3, 3).
    environment.add_function("list", |prefix: String, count: u32, start: Option<u32>| {
        let start = start.unwrap_or(0);
        (start..start + count).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(", ")
    });
    // The last parameter of kernels with slots for formulas.
    environment.add_global("FINISH", format!(".param .align 8 .b8 finish[{FINISH_BYTES}]"));
    environment.add_function("log2", |n: u32| n.ilog2());
    environment.add_function("hex", |n: u64| format!("0x{n:x}"));
    for (name, text) in templates(folder)? {
        environment.add_template_owned(name, text).map_err(|e| format!("{e:#}"))?;
    }
    Ok(environment)
}

/// Names relative to the folder, and texts.
fn templates(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for (prefix, folder) in [("", folder.to_path_buf()), ("lib/", folder.join("lib"))].into_iter().filter(|f| f.1.exists()) {
        let entries = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        for path in entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "j2")) {
            let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            found.push((format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy()), text));
        }
    }
    Ok(found)
}
