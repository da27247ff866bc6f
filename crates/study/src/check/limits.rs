//! Limits of processes (`ulimit`): an environment that differs in them differs in more than its name.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Subject};
use crate::plan::{Environment, Kind};
use crate::ulimit::{self, Limit};

/// What an environment's processes get.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    Set(Limit),
    /// The engine's own setting.
    Engine,
    /// That of whoever starts the study.
    Inherited(Limit),
    Unknown,
}

impl Value {
    fn limit(&self) -> Option<Limit> {
        match self {
            Self::Set(limit) | Self::Inherited(limit) => Some(*limit),
            Self::Engine | Self::Unknown => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Set(limit) => limit.to_string(),
            Self::Engine => "the engine's default".to_owned(),
            Self::Inherited(limit) => format!("{limit}, inherited"),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

pub fn look(subject: &Subject<'_>, findings: &mut Findings) {
    let mut set: Vec<(&Environment, BTreeMap<String, Limit>)> = vec![];
    for environment in &subject.plan.environments {
        match limits_of(subject, environment) {
            Ok(limits) => set.push((environment, limits)),
            Err(what) => {
                findings.fatal(&environment.name, what, "correct it in the plan");
                return;
            }
        }
    }
    for (environment, limits) in set.iter().filter(|(it, _)| it.kind.engine().is_none()) {
        let raised = limits.iter().filter(|(name, limit)| {
            let now = ulimit::resource(name).and_then(|resource| subject.machine.limit(resource));
            now.is_some_and(|(_, hard)| limit.hard > hard)
        });
        let raised: Vec<_> = raised.map(|(name, limit)| format!("{name}={limit}")).collect();
        if !raised.is_empty() && subject.machine.may_raise_limits() == Some(false) {
            let found = format!("{} cannot be set: root has no CAP_SYS_RESOURCE here", raised.join(", "));
            findings.fatal(&environment.name, found, "start the study outside of this container");
        }
    }
    let names: BTreeSet<&String> = set.iter().flat_map(|(_, limits)| limits.keys()).collect();
    let mut differ = false;
    for name in names {
        let values: Vec<(&Environment, Value)> = set
            .iter()
            .map(|(environment, limits)| {
                let value = match limits.get(name.as_str()) {
                    Some(limit) => Value::Set(*limit),
                    None => default(subject, environment, name),
                };
                (*environment, value)
            })
            .collect();
        let first = values.first().and_then(|(_, value)| value.limit());
        if first.is_some() && values.iter().all(|(_, value)| value.limit() == first) {
            continue;
        }
        differ = true;
        let texts: Vec<_> = values
            .iter()
            .map(|(environment, value)| format!("{} {}", environment.name, value.text()))
            .collect();
        let lacking = values.iter().find(|(_, value)| !matches!(value, Value::Set(_)));
        let wanted = values.iter().find_map(|(_, value)| match value {
            Value::Set(limit) => Some(format!("{name}={limit}")),
            _ => None,
        });
        let next = match (lacking, wanted) {
            (Some((environment, _)), Some(wanted)) if environment.kind.engine().is_none() => {
                format!("write `ulimits = [\"{wanted}\"]` for {}", environment.name)
            }
            (Some((environment, _)), Some(wanted)) => {
                format!("add \"--ulimit\", \"{wanted}\" to the flags of {}", environment.name)
            }
            _ => "write the same limit for all environments".to_owned(),
        };
        findings.warning("", format!("{name} differs: {}", texts.join(", ")), next);
    }
    if !differ {
        findings.fine("", "all environments have the same limits, as far as the plan sets them");
    }
}

/// What the plan sets.
fn limits_of(subject: &Subject<'_>, environment: &Environment) -> Result<BTreeMap<String, Limit>, String> {
    let flags = subject.flags(environment);
    let texts: Vec<String> = match environment.kind {
        Kind::Docker | Kind::Podman => {
            super::containers::values_of(&flags, &["--ulimit"]).map(str::to_owned).collect()
        }
        Kind::Native | Kind::Chroot => environment.ulimits.clone(),
    };
    texts.iter().map(|text| ulimit::parse(text).map(|(name, limit)| (name.to_owned(), limit))).collect()
}

fn default(subject: &Subject<'_>, environment: &Environment, name: &str) -> Value {
    if environment.kind.engine().is_some() {
        return Value::Engine;
    }
    let inherited = ulimit::resource(name).and_then(|resource| subject.machine.limit(resource));
    inherited.map_or(Value::Unknown, |(soft, hard)| Value::Inherited(Limit { soft, hard }))
}
