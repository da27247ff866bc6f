//! Reading series that lie flat in what they belong to.
//!
//! serde's `flatten` reads a value of any form first and makes ours of it: four times the memory, and twice the time.
//! These have the same fields side by side.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::column::Column;
use super::schema::{Absent, CgroupSeries, DeviceSeries, ProcessSeries, Series};

/// `Deserialize` for a type with these fields and a `series` among them.
macro_rules! flat {
    ($name:ident { $($field:ident: $type:ty),* }) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                struct Flat {
                    $($field: $type,)*
                    begin_ns: Vec<u64>,
                    end_ns: Vec<u64>,
                    columns: BTreeMap<String, Column>,
                    absent: Vec<Absent>,
                }
                let Flat { $($field,)* begin_ns, end_ns, columns, absent } = Flat::deserialize(deserializer)?;
                Ok(Self { $($field,)* series: Series { begin_ns, end_ns, columns, absent } })
            }
        }
    };
}

flat!(CgroupSeries { id: u64, path: String });
flat!(ProcessSeries { pid: u32 });
flat!(DeviceSeries { index: u32, uuid: Option<String> });
