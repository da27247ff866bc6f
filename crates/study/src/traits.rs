//! What a plan says of a model.

use serde::{Deserialize, Serialize};

/// What a model's overhead may depend on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Traits {
    #[serde(default)]
    pub parameters: Option<f64>,
    #[serde(default)]
    pub architecture: Option<String>,
}
