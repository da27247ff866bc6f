//! Changes to values of a recording, chosen by bytes.

use std::sync::LazyLock;

use serde_json::{Value, json};

/// Recordings without much in them, and with most of what one can have.
static WHOLE: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let texts = [
        include_str!("../../spark-trace/tests/data/synthetic-native.json"),
        include_str!("../../spark-trace/tests/data/synthetic-container.json"),
        include_str!("../../spark-trace/tests/data/synthetic-cuda.json"),
    ];
    texts.into_iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
});

/// What a value may become.
const VALUES: &[fn(&Value) -> Value] = &[
    |_| Value::Null,
    |_| json!(0),
    |_| json!(1),
    |_| json!(-1),
    |_| json!(i64::MIN),
    |_| json!(i64::MAX),
    |_| json!(u64::MAX),
    |_| json!(1e300),
    |_| json!(""),
    |_| json!("\u{202e}\u{1b}[2J|`_*<script>"),
    |_| json!([]),
    |_| json!({}),
    // The same once more: rows that were there once come twice.
    |value| match value {
        Value::Array(items) => Value::Array([&items[..], &items[..]].concat()),
        other => json!([other, other]),
    },
    |value| match value {
        Value::Array(items) => Value::Array(items.iter().rev().cloned().collect()),
        Value::Number(number) => json!(number.as_u64().unwrap_or(0).wrapping_add(1)),
        other => other.clone(),
    },
    |value| match value {
        Value::Array(items) => Value::Array(items.iter().skip(1).cloned().collect()),
        Value::Number(number) => json!(number.as_u64().unwrap_or(0).wrapping_mul(1 << 20)),
        other => other.clone(),
    },
];

/// The first byte chooses a recording. Then come changes of three bytes: two say which value, one what it becomes.
pub fn edited(data: &[u8]) -> String {
    let Some((&first, rest)) = data.split_first() else { return String::new() };
    let Some(whole) = WHOLE.get(usize::from(first) % WHOLE.len().max(1)) else { return String::new() };
    let mut value = whole.clone();
    for edit in rest.chunks_exact(3) {
        let wanted = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        let count = count(&value);
        let mut left = wanted % count;
        change(&mut value, &mut left, VALUES[usize::from(edit[2]) % VALUES.len()]);
    }
    value.to_string()
}

/// Values in a value, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes the value that is `left` values further on, in the order of the text; true where that was done.
fn change(value: &mut Value, left: &mut usize, into: fn(&Value) -> Value) -> bool {
    if *left == 0 {
        *value = into(value);
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| change(item, left, into)),
        Value::Object(members) => members.values_mut().any(|member| change(member, left, into)),
        _ => false,
    }
}
