//! `cargo xtask setup`: finds or installs what building, testing and the demo need.
//!
//! What is needed is the table in `items.rs`; tool versions and package names are in
//! `ebpf_build::versions`. Running it again changes nothing.

mod apt;
mod cross;
mod field;
mod items;
mod machines;

use std::fmt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use items::{ITEMS, Item};
pub use machines::KEYRING;

/// Finds or installs what building, testing and the demo need
///
/// Uses rustup, cargo and, on Debian and Ubuntu, apt-get (with sudo where you are not root).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup               # find or install
  cargo xtask setup --check       # only report; exit code 1 where something required is missing
  cargo xtask setup --comparisons # also what `cargo xtask bench` compares with
  cargo xtask setup --cross       # also what building for another architecture takes
  cargo xtask setup --machines    # also what virtual machines take: `cargo xtask vm`
  cargo xtask setup --field       # also the programs that field tests record: redis, PostgreSQL, node, ...")]
pub struct Args {
    /// Only report; exit code 1 where something required is missing
    #[arg(long)]
    check: bool,
    /// Also install the tools that only benchmarks compare with
    #[arg(long)]
    comparisons: bool,
    /// Also install what building for another architecture takes
    #[arg(long)]
    cross: bool,
    /// Also install what virtual machines take
    #[arg(long)]
    machines: bool,
    /// Also install the programs that field tests record (servers among them; tests skip what is missing)
    #[arg(long)]
    field: bool,
}

/// How much to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What building takes, and tests that need no root.
    Building,
    /// Also what container tests and the demo take.
    Containers,
    /// Also what benchmarks compare with.
    Comparisons,
    /// What building for another architecture takes.
    Cross,
    /// Also what virtual machines take.
    Machines,
    /// Programs of others that field tests record.
    Field,
}

impl Scope {
    /// What it includes besides itself.
    fn includes(self) -> &'static [Self] {
        match self {
            Self::Building => &[],
            Self::Containers | Self::Cross => &[Self::Building],
            Self::Comparisons => &[Self::Building, Self::Containers],
            Self::Machines => &[Self::Building, Self::Cross],
            Self::Field => &[],
        }
    }

    fn takes(self, item: &Item) -> bool {
        self == item.scope || self.includes().contains(&item.scope)
    }
}

/// One way to get something that is missing.
enum Remedy {
    Command(Vec<String>),
    /// Debian packages; the optional ones only where apt knows them.
    Apt {
        packages: Vec<String>,
        where_known: Vec<String>,
    },
}

pub fn run(args: &Args) -> Result<()> {
    let options = [
        (args.comparisons, Scope::Comparisons),
        (args.cross, Scope::Cross),
        (args.machines, Scope::Machines),
        (args.field, Scope::Field),
    ];
    let chosen = options.iter().filter(|(is_chosen, _)| *is_chosen).map(|(_, scope)| *scope);
    let scopes: Vec<_> = [Scope::Containers].into_iter().chain(chosen).collect();
    if args.check { check(&scopes) } else { ensure_all(&scopes) }
}

/// Installs what is missing; fails where something required stays missing.
pub fn ensure(scope: Scope) -> Result<()> {
    ensure_all(&[scope])
}

/// The same for several scopes.
pub fn ensure_all(scopes: &[Scope]) -> Result<()> {
    finish(ITEMS.iter().filter(|item| !ensure_item(item, is_wanted(item, scopes))).collect())
}

fn is_wanted(item: &Item, scopes: &[Scope]) -> bool {
    scopes.iter().any(|scope| scope.takes(item))
}

fn check(scopes: &[Scope]) -> Result<()> {
    let missing = ITEMS.iter().filter(|item| match (item.find)() {
        Ok(detail) => {
            say("found", item, &detail);
            false
        }
        Err(_) if !is_wanted(item, scopes) => {
            say("optional", item, &format!("not installed; {}", item.purpose));
            false
        }
        Err(why) => {
            say("missing", item, &why);
            true
        }
    });
    finish(missing.collect())
}

fn finish(missing: Vec<&Item>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|item| item.name).collect();
    bail!("setup is not complete, missing: {}; see the lines above for what to do", names.join(", "));
}

/// Whether the item is there in the end, or is not wanted.
fn ensure_item(item: &Item, wanted: bool) -> bool {
    let mut why = match (item.find)() {
        Ok(detail) => {
            say("found", item, &detail);
            return true;
        }
        Err(_) if !wanted => {
            say("optional", item, &format!("not installed; {}", item.purpose));
            return true;
        }
        Err(why) => why,
    };
    for remedy in (item.remedies)() {
        if !remedy.possible() {
            continue;
        }
        say("installing", item, &format!("with `{remedy}`"));
        if let Err(error) = remedy.apply() {
            say("failed", item, &format!("{error:#}"));
            if crate::signals::interrupted() {
                return false;
            }
        }
        // Looked at after a failure, too: apt-get may fail on an unrelated package after installing ours.
        match (item.find)() {
            Ok(detail) => {
                say("installed", item, &detail);
                return true;
            }
            Err(still) => why = still,
        }
    }
    say("cannot", item, &format!("{why}\n    {}", item.by_hand));
    false
}

/// One step in one line, further lines indented.
fn say(step: &str, item: &Item, detail: &str) {
    println!("{step:<10}  {}: {detail}", item.name);
}

impl Remedy {
    fn command(argv: &[&str]) -> Self {
        Self::Command(argv.iter().map(|&word| word.to_owned()).collect())
    }

    fn apt(packages: &[&str], where_known: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self::Apt { packages: owned(packages), where_known: owned(where_known) }
    }

    /// Whether this machine has the means; whether it succeeds is for `apply` to say.
    fn possible(&self) -> bool {
        match self {
            Self::Command(argv) => argv.first().is_some_and(|name| ebpf_build::find_in_path(name).is_some()),
            Self::Apt { packages, .. } => apt::knows(packages),
        }
    }

    fn apply(&self) -> Result<()> {
        match self {
            Self::Command(argv) => {
                let Some((program, args)) = argv.split_first() else { return Ok(()) };
                let mut command = Command::new(program);
                // Without what the cargo that runs us has set: another build than ours.
                ebpf_build::clean_environment(command.args(args));
                process::output(&mut command, "installing").map(drop)
            }
            Self::Apt { packages, where_known } => apt::install(packages, where_known),
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(argv) => f.write_str(&argv.join(" ")),
            Self::Apt { packages, .. } => write!(f, "apt-get install {}", packages.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_includes_what_building_takes_and_only_machines_another_architecture() {
        let names = |scopes: &[Scope]| {
            let wanted = ITEMS.iter().filter(|item| is_wanted(item, scopes));
            wanted.map(|item| (item.name, item.scope)).collect::<Vec<_>>()
        };
        let building = names(&[Scope::Building]);
        assert!(!building.is_empty() && building.iter().all(|(_, scope)| *scope == Scope::Building));
        for scope in [Scope::Containers, Scope::Comparisons, Scope::Cross, Scope::Machines] {
            let wanted = names(&[scope]);
            assert!(building.iter().all(|item| wanted.contains(item)), "{scope:?}");
            let cross = matches!(scope, Scope::Cross | Scope::Machines);
            assert_eq!(wanted.iter().any(|(_, of)| *of == Scope::Cross), cross, "{scope:?}");
        }
        assert_eq!(names(&[Scope::Comparisons, Scope::Machines, Scope::Field]).len(), ITEMS.len());
    }
}
