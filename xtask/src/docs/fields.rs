//! docs/reference/recording-fields.md: every field of a recording, from the JSON Schema that `spark-trace schema` prints.

use std::collections::HashMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::program;

/// The type that `#[serde(flatten)]` puts into others (recording/schema.rs): its fields are listed once.
const FLATTENED: &str = "Series";

pub fn text() -> Result<String> {
    let schema = program::output(&["schema"])?;
    document(&serde_json::from_str(&schema).context("spark-trace schema printed no JSON")?)
}

/// An object or a list of words, and the first place in a recording that has it.
struct Section<'a> {
    path: String,
    schema: &'a Value,
}

fn document(schema: &Value) -> Result<String> {
    let types = schema["$defs"].as_object().context("the schema has no $defs")?;
    let mut sections = vec![Section { path: String::new(), schema }];
    let mut paths = HashMap::new();
    collect(schema, "", types, &mut paths, &mut sections)?;
    let mut out = String::from(INTRODUCTION);
    for Section { path, schema } in sections {
        if !path.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "\n## `{path}`\n");
            if let Some(text) = description(schema) {
                let _ = writeln!(out, "{text}\n");
            }
        }
        fields(schema, types, &paths, &mut out)?;
        words(schema, &mut out);
    }
    Ok(out)
}

/// Sections of all types below this one, each after the one that has it.
fn collect<'a>(
    schema: &'a Value,
    path: &str,
    types: &'a Map<String, Value>,
    paths: &mut HashMap<&'a str, String>,
    sections: &mut Vec<Section<'a>>,
) -> Result<()> {
    for (name, field) in properties(schema) {
        let Some((of, suffix)) = referred(field) else { continue };
        if paths.contains_key(of) {
            continue;
        }
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{name}{suffix}");
        let schema = types.get(of).with_context(|| format!("the schema has no type {of}"))?;
        paths.insert(of, path.clone());
        sections.push(Section { path: path.clone(), schema });
        collect(schema, &path, types, paths, sections)?;
    }
    Ok(())
}

/// Fields in the order of their declaration as far as the schema keeps it: the required ones.
fn properties(schema: &Value) -> Vec<(&str, &Value)> {
    let Some(fields) = schema["properties"].as_object() else { return Vec::new() };
    let required = || schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let first = required().filter_map(|name| Some((name, fields.get(name)?)));
    let others = fields.iter().map(|(name, field)| (&name[..], field));
    first.chain(others.filter(|(name, _)| !required().any(|known| known == *name))).collect()
}

/// The type that a field refers to, and whether a list or a map has it.
fn referred(field: &Value) -> Option<(&str, &'static str)> {
    if let Some(name) = reference(field) {
        return Some((name, ""));
    }
    if let Some(of) = reference(&field["items"]) {
        return Some((of, "[]"));
    }
    field["anyOf"].as_array()?.iter().find_map(|one| Some((reference(one)?, "")))
}

fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/$defs/")
}

fn fields(
    schema: &Value,
    types: &Map<String, Value>,
    paths: &HashMap<&str, String>,
    out: &mut String,
) -> Result<()> {
    let mut fields = properties(schema);
    let flat = types.get(FLATTENED).with_context(|| format!("the schema has no type {FLATTENED}"))?;
    let has = |name: &str| schema["properties"].get(name).is_some();
    let flattened = schema != flat && properties(flat).iter().all(|(name, _)| has(name));
    if flattened {
        fields.retain(|(name, _)| flat["properties"].get(*name).is_none());
    }
    // Names that say it all stand together, by their kind.
    let mut plain: Vec<(String, Vec<String>)> = Vec::new();
    for (name, field) in fields {
        let kind = kind(field, paths)?;
        match description(field) {
            Some(text) => _ = writeln!(out, "- `{name}` ({kind}): {text}"),
            None => match plain.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, names)) => names.push(format!("`{name}`")),
                None => plain.push((kind, vec![format!("`{name}`")])),
            },
        }
    }
    for (kind, names) in plain {
        let _ = writeln!(out, "- {} ({kind})", names.join(", "));
    }
    if flattened && let Some(path) = paths.get(FLATTENED) {
        let _ = writeln!(out, "- and the fields of {}", link(path));
    }
    Ok(())
}

/// The words that a text may be, one a line if they are explained.
fn words(schema: &Value, out: &mut String) {
    for one in schema["oneOf"].as_array().into_iter().flatten() {
        let word = one["const"].as_str().unwrap_or("-");
        let _ = writeln!(out, "- `{word}`: {}", description(one).unwrap_or_default());
    }
    let words = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        let _ = writeln!(out, "{}", words.join(", "));
    }
}

fn description(schema: &Value) -> Option<String> {
    Some(schema["description"].as_str()?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What values a field has; `?` if it may be absent or `null`.
fn kind(schema: &Value, paths: &HashMap<&str, String>) -> Result<String> {
    if let Some(name) = reference(schema) {
        let path = paths.get(name).with_context(|| format!("no section has the type {name}"))?;
        return Ok(link(path));
    }
    if let Some(all) = schema["anyOf"].as_array() {
        let one = all.iter().find(|one| one["type"] != "null").context("a field has no kind but null")?;
        return Ok(format!("{}?", kind(one, paths)?));
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => bail!("a field has no type: {schema}"),
    };
    let optional = if names.contains(&"null") { "?" } else { "" };
    let name = names.iter().find(|name| **name != "null").context("a field has no kind but null")?;
    Ok(match *name {
        "array" => format!("list of {}{optional}", kind(&schema["items"], paths)?),
        "object" => format!("{} by name{optional}", kind(&schema["additionalProperties"], paths)?),
        "string" => format!("text{optional}"),
        name => format!("{name}{optional}"),
    })
}

/// To the heading of a section, as GitHub names it.
fn link(path: &str) -> String {
    let anchor: String = path.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    format!("[{path}](#{anchor})").replacen("[]]", "\\[\\]]", 1)
}

const INTRODUCTION: &str = "\
# Fields of a recording

<!-- Generated by `cargo xtask docs` from the doc comments of the types in recording/: change them there. -->

[recording.md](../recording.md) explains the format. Sizes are bytes, times nanoseconds of `CLOCK_MONOTONIC`. `?` marks what may be
absent or `null`: unknown, never 0. `cgroup` is the id of a memory cgroup, 0 for none of the target; `stack` an id in `stacks`.

## Top level

";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_has_one_section_and_every_field_one_line() {
        let schema = json!({
            "properties": {
                "b": {"$ref": "#/$defs/B", "description": "Of\nb."},
                "a": {"type": "array", "items": {"$ref": "#/$defs/A"}},
                "again": {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}]},
            },
            "required": ["b", "a"],
            "$defs": {
                "A": {"description": "An A.", "properties": {
                    "x": {"type": ["integer", "null"]},
                    "y": {"type": ["integer", "null"]},
                    "m": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Map."},
                    "at": {"type": "integer"},
                }},
                "B": {"oneOf": [{"const": "one", "description": "The one."}]},
                "Series": {"properties": {"at": {"type": "integer"}}},
            },
        });
        let text = document(&schema).unwrap();
        let (_, text) = text.split_once("## Top level\n\n").unwrap();
        let expected = "\
- `b` ([b](#b)): Of b.
- `a` (list of [a\\[\\]](#a))
- `again` ([b](#b)?)

## `b`

- `one`: The one.

## `a[]`

An A.

- `m` (text by name): Map.
- `x`, `y` (integer?)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_unknown_type_is_an_error() {
        let schema = json!({"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {}});
        assert!(document(&schema).is_err());
        assert!(kind(&json!({"description": "no type"}), &HashMap::new()).is_err());
    }
}
