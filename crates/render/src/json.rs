//! Reports as JSON: all there is, names as they came (JSON escapes control characters itself).

use serde::Serialize;

use super::Rendered;

pub fn render(report: &impl Serialize) -> Rendered {
    let mut json = serde_json::to_vec_pretty(report)?;
    json.push(b'\n');
    Ok(json)
}
