//! What hypotheses are judged by.
use super::*;
pub struct Case<'a> {
    a: Option<&'a Recording>,
    b: &'a Recording,
    at: At,
}
impl<'a> Case<'a> {
    pub fn new(a: Option<&'a Recording>, b: &'a Recording, at: At) -> Self {
        Self { a, b, at }
    }
    pub(super) fn judge(&self) -> Findings {
        let _ = (self.a, self.b);
        Findings {
            at: self.at,
            a_at_ns: None,
            b_at_ns: 0,
            delta_bytes: None,
            residual_bytes: None,
            material_bytes: 0,
            headline: String::new(),
            findings: Vec::new(),
        }
    }
}
