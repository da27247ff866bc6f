//! Engines, images, and the trees of `chroot`.

use std::collections::BTreeSet;

use super::{Findings, Subject};
use crate::plan::{Environment, Kind};
use crate::rootfs;

/// Values of a flag, written as one word or as two.
pub fn values_of<'a>(flags: &'a [String], names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    flags.iter().enumerate().filter_map(move |(place, flag)| {
        if names.contains(&flag.as_str()) {
            return flags.get(place + 1).map(String::as_str);
        }
        let (name, value) = flag.split_once('=')?;
        (name.starts_with("--") && names.contains(&name)).then_some(value)
    })
}

pub fn engines(subject: &Subject<'_>, findings: &mut Findings) {
    let engines: BTreeSet<_> =
        subject.plan.environments.iter().filter_map(|environment| environment.kind.engine()).collect();
    for engine in engines {
        match subject.machine.engine(engine, &["--version"]) {
            Ok(version) => findings.fine(engine, version),
            Err(why) => {
                findings.fatal(
                    engine,
                    why,
                    format!("install {engine} and start its service, or leave out its environments"),
                );
            }
        }
    }
}

/// What the engine knows of an image.
struct Image {
    id: String,
    architecture: String,
}

fn inspect(subject: &Subject<'_>, engine: &str, image: &str) -> Result<Image, String> {
    let args = ["image", "inspect", "--format", "{{.Id}} {{.Architecture}}", image];
    let text = subject.machine.engine(engine, &args)?;
    let mut words = text.split_whitespace().map(str::to_owned);
    let id = words.next().ok_or_else(|| format!("{engine} does not describe it"))?;
    Ok(Image { id, architecture: words.next().unwrap_or_default() })
}

/// The image's name in an environment.
fn image_of(subject: &Subject<'_>, environment: &Environment) -> Option<(&'static str, String)> {
    let engine = environment.kind.engine()?;
    let name = environment.image.as_deref()?;
    Some((engine, subject.values_of(environment)?.fill(name).ok()?))
}

/// The architecture of this machine as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "x86_64" => "amd64",
        other => other,
    }
}

pub fn images(subject: &Subject<'_>, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for environment in &subject.plan.environments {
        let Some((engine, image)) = image_of(subject, environment) else { continue };
        if !seen.insert((engine, image.clone())) {
            continue;
        }
        match inspect(subject, engine, &image) {
            Ok(found) if !found.architecture.is_empty() && found.architecture != architecture() => {
                findings.fatal(
                    &environment.name,
                    format!("{image} is for {}, this machine is {}", found.architecture, architecture()),
                    format!("{engine} pull --platform linux/{} {image}", architecture()),
                );
            }
            Ok(found) => findings.fine(&environment.name, format!("{image} is {}", found.id)),
            Err(_) if environment.import_program.is_some() => {
                findings.fine(&environment.name, format!("{image} will be made of one program"));
            }
            Err(why) => findings.fatal(
                &environment.name,
                format!("{engine} has no image {image} ({why})"),
                format!("{engine} pull {image}"),
            ),
        }
    }
}

pub fn rootfs(subject: &Subject<'_>, findings: &mut Findings) {
    let images: Vec<(String, String)> = subject
        .plan
        .environments
        .iter()
        .filter_map(|environment| {
            let (engine, image) = image_of(subject, environment)?;
            Some((environment.name.clone(), inspect(subject, engine, &image).ok()?.id))
        })
        .collect();
    for environment in subject.plan.environments.iter().filter(|environment| environment.kind == Kind::Chroot)
    {
        let Some(values) = subject.values_of(environment) else { continue };
        let Ok(dir) = values.fill(environment.rootfs.as_deref().unwrap_or_default()) else { continue };
        let made = match rootfs::read(&subject.machine.file(&dir)) {
            Ok(made) => made,
            Err(error) => {
                let image = subject
                    .plan
                    .environments
                    .iter()
                    .find_map(|other| Some(image_of(subject, other)?.1))
                    .unwrap_or_else(|| "IMAGE".to_owned());
                findings.fatal(
                    &environment.name,
                    error.to_string(),
                    format!("sudo spark-trace study rootfs {image} {dir}    (a tree that is there already: --tree PATH)"),
                );
                continue;
            }
        };
        let other = images.iter().find(|(_, id)| *id != made.id);
        match other {
            _ if made.id.is_empty() => findings.warning(
                &environment.name,
                format!("{dir} does not say of which image it is"),
                "make sure that it is the containers' image",
            ),
            Some((name, id)) => findings.warning(
                &environment.name,
                format!("{dir} is of the image {}, {name} runs {id}", made.id),
                "unpack the same image, or compare two versions on purpose",
            ),
            None => findings.fine(&environment.name, format!("{dir} is of {} ({})", made.image, made.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_one_word_or_two() {
        let flags =
            ["--ulimit", "memlock=-1", "--ulimit=stack=1", "-v", "/a:/b", "--ulimit"].map(str::to_owned);
        assert_eq!(values_of(&flags, &["--ulimit"]).collect::<Vec<_>>(), ["memlock=-1", "stack=1"]);
        assert_eq!(values_of(&flags, &["-v", "--volume"]).collect::<Vec<_>>(), ["/a:/b"]);
    }
}
