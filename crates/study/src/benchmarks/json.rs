//! JSON objects in a file or between the lines of a log.

use serde_json::Value;

/// All objects that begin a line, in their order; of an array each element.
pub fn objects(text: &str) -> Vec<Value> {
    let begins = text.trim_start();
    if begins.starts_with(['{', '[']) {
        let whole: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_str(begins).into_iter::<Value>().collect();
        if let Ok(values) = whole {
            return flat(values);
        }
    }
    between_lines(text)
}

fn flat(values: Vec<Value>) -> Vec<Value> {
    let elements = values.into_iter().flat_map(|value| match value {
        Value::Array(elements) => elements,
        other => vec![other],
    });
    elements.filter(Value::is_object).collect()
}

/// Other lines of a log stand before and after an object, not within it. What was cut or interrupted is no object.
fn between_lines(text: &str) -> Vec<Value> {
    let mut found = vec![];
    let (mut at, mut read_to) = (0, 0);
    for line in text.split_inclusive('\n') {
        let begin = at + line.len() - line.trim_start().len();
        at += line.len();
        if begin < read_to || !text[begin..].starts_with('{') {
            continue;
        }
        let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
        if let Some(Ok(value)) = values.next() {
            read_to = begin + values.byte_offset();
            found.push(value);
        }
    }
    found
}
