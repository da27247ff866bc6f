//! Which containers a client of an engine has requested, by what the engine says of them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::client_args::{Intent, Request, project_directory, value_of, values_of};

/// What an engine has said of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    pub name: Option<String>,
    pub image: Option<String>,
    pub image_id: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// When it was created, started, and entered: nanoseconds since the epoch.
    pub created: Vec<u64>,
    pub started: Vec<u64>,
    pub entered: Vec<u64>,
    /// Its command as it was given with the image or lies in it; absent where the engine was not queried or it is gone.
    pub command: Option<Vec<String>>,
    /// Where its id was to be written.
    pub id_file: Option<String>,
}

/// A client, and when it lived: nanoseconds since the epoch.
#[derive(Debug, Clone)]
pub struct Life {
    pub request: Request,
    pub began: u64,
    pub ended: Option<u64>,
    pub working: Option<PathBuf>,
    /// $COMPOSE_PROJECT_NAME
    pub project: Option<String>,
}

/// How well a container fits what a client requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    No,
    /// Image and command are the same; another client may have requested the same.
    Alike,
    /// The client names it.
    Named,
}

/// Containers created through clients on another CPU may be reported a moment early.
const SLACK_NS: u64 = 10_000_000;

pub const PROJECT_LABEL: &str = "com.docker.compose.project";
const DIRECTORY_LABEL: &str = "com.docker.compose.project.working_dir";

impl Life {
    fn during(&self, times: &[u64]) -> bool {
        let end = self.ended.unwrap_or(u64::MAX).saturating_add(SLACK_NS);
        times.iter().any(|time| (self.began.saturating_sub(SLACK_NS)..=end).contains(time))
    }

    /// How well a container fits. `first` of several that it names is settled by [`named`].
    pub fn fit(&self, id: &str, seen: &Seen) -> Fit {
        match &self.request.intent {
            Intent::Nothing => Fit::No,
            Intent::Named { .. } => {
                let acted = self.during(&seen.started) || self.during(&seen.entered);
                if acted && self.place_of(id, seen).is_some() { Fit::Named } else { Fit::No }
            }
            Intent::New if !self.during(&seen.created) => Fit::No,
            Intent::New => self.fit_new(seen),
            Intent::Project { name, directory } => {
                let acted = [&seen.created, &seen.started, &seen.entered];
                let Some(project) = seen.labels.get(PROJECT_LABEL) else { return Fit::No };
                if !acted.into_iter().any(|times| self.during(times)) {
                    return Fit::No;
                }
                let wanted = name.as_ref().or(self.project.as_ref());
                let fits = match (wanted, seen.labels.get(DIRECTORY_LABEL)) {
                    (Some(wanted), _) => wanted == project,
                    (None, Some(of_label)) => {
                        let words = self.request.words.iter().map(|word| self.absolute(word));
                        let mut files = words.filter_map(|file| file.parent().map(Path::to_owned));
                        project_directory(directory.as_ref(), self.working.as_ref())
                            .is_some_and(|own| own == Path::new(of_label))
                            || files.any(|parent| parent == Path::new(of_label))
                    }
                    (None, None) => project_directory(directory.as_ref(), self.working.as_ref())
                        .is_some_and(|own| project_name(&own).as_ref() == Some(project)),
                };
                if fits { Fit::Named } else { Fit::No }
            }
        }
    }

    /// Where among its words the client names a container.
    fn place_of(&self, id: &str, seen: &Seen) -> Option<usize> {
        self.request.words.iter().position(|word| {
            seen.name.as_ref() == Some(word)
                || word.len() >= SHORTEST_ID
                    && word.bytes().all(|b| b.is_ascii_hexdigit())
                    && id.starts_with(word.as_str())
        })
    }

    fn fit_new(&self, seen: &Seen) -> Fit {
        let words = &self.request.words;
        let is_its_file =
            |file: &str| seen.id_file.as_deref().is_some_and(|own| self.absolute(own) == self.absolute(file));
        let mut names = values_of(words, &["--name"]);
        if names.any(|name| seen.name.as_deref() == Some(name))
            || values_of(words, &["--cidfile"]).any(is_its_file)
        {
            return Fit::Named;
        }
        // A flag before the image names another one; behind it such words are the container's own business.
        let Some(flags) = self.flags_before_image(seen).map(|at| &words[..at]) else { return Fit::No };
        let names_another = value_of(flags, &["--name"]).is_some()
            || value_of(flags, &["--cidfile"]).is_some() && seen.id_file.is_some();
        if names_another { Fit::No } else { Fit::Alike }
    }

    /// How many words stand before the image where the line ends with the container's image and command.
    fn flags_before_image(&self, seen: &Seen) -> Option<usize> {
        let words = &self.request.words;
        let image = seen.image.as_ref()?;
        let is_image = |word: &String| word == image || image.strip_suffix(":latest") == Some(word);
        let Some(command) = &seen.command else { return words.iter().position(is_image) };
        // The words after the image are the command, or there are none and it is the image's own.
        let own = words.len().checked_sub(1).filter(|&at| is_image(&words[at]));
        let given = words.len().checked_sub(command.len() + 1).filter(|&at| is_image(&words[at]));
        given.filter(|_| words.ends_with(command)).or(own)
    }

    fn absolute(&self, path: &str) -> PathBuf {
        self.working.as_ref().map_or_else(|| PathBuf::from(path), |working| working.join(path))
    }
}

/// Engines take shorter ones, too; fewer digits are likelier to be a word of another kind.
const SHORTEST_ID: usize = 4;

/// A project's name where none is given (compose: the directory's, in lower case, without what is no letter or digit).
fn project_name(directory: &Path) -> Option<String> {
    let name = directory.file_name()?.to_str()?.to_lowercase();
    Some(name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect())
}

/// Containers that a client names: those that fit, or of `exec` the one that it names first.
pub fn named(life: &Life, seen: &BTreeMap<String, Seen>) -> Vec<String> {
    let fits = seen.iter().filter(|(id, seen)| life.fit(id, seen) == Fit::Named);
    let mut fits: Vec<_> = fits.map(|(id, seen)| (life.place_of(id, seen), id.clone())).collect();
    if life.request.intent == (Intent::Named { first: true }) {
        fits.sort();
        fits.truncate(1);
    }
    fits.into_iter().map(|(_, id)| id).collect()
}

/// What is known of clients that name no container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Alike {
    /// Containers that nobody else can have requested.
    pub ours: BTreeSet<String>,
    /// Groups of containers of which some are somebody else's.
    pub unclear: Vec<BTreeSet<String>>,
}

/// Decides by image and command. As many clients request containers like these as there are: all are theirs. Where there are
/// more containers, somebody else has requested the same.
pub fn alike(clients: &[&Life], seen: &BTreeMap<String, Seen>) -> Alike {
    let mut left: Vec<(usize, BTreeSet<String>)> = clients
        .iter()
        .map(|life| {
            let fits = seen.iter().filter(|(id, seen)| life.fit(id, seen) == Fit::Alike);
            (1, fits.map(|(id, _)| id.clone()).collect())
        })
        .filter(|(_, fits): &(usize, BTreeSet<String>)| !fits.is_empty())
        .collect();
    let mut found = Alike::default();
    while let Some((mut clients, mut group)) = left.pop() {
        while let Some(at) = left.iter().position(|(_, other)| !other.is_disjoint(&group)) {
            let (more, other) = left.swap_remove(at);
            clients += more;
            group.extend(other);
        }
        if group.len() <= clients { found.ours.extend(group) } else { found.unclear.push(group) }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::client_args::request;

    const SECOND: u64 = 1_000_000_000;

    fn life(line: &str) -> Life {
        let argv: Vec<_> = line.split(' ').map(ToOwned::to_owned).collect();
        let comm = argv[0].clone();
        Life {
            request: request(&comm, &argv),
            began: 10 * SECOND,
            ended: Some(20 * SECOND),
            working: Some("/srv/app".into()),
            project: None,
        }
    }

    fn seen(name: &str, image: &str, command: &str, at: u64) -> Seen {
        Seen {
            name: Some(name.into()),
            image: Some(image.into()),
            command: Some(command.split_whitespace().map(ToOwned::to_owned).collect()),
            created: vec![at * SECOND],
            started: vec![at * SECOND],
            ..Seen::default()
        }
    }

    fn all(list: &[(&str, Seen)]) -> BTreeMap<String, Seen> {
        list.iter().map(|(id, seen)| ((*id).to_owned(), seen.clone())).collect()
    }

    #[test]
    fn a_name_or_the_end_of_the_line_decides() {
        let web = life("docker run --name web img sleep 5");
        assert_eq!(web.fit("a", &seen("web", "img", "sleep 5", 11)), Fit::Named);
        assert_eq!(web.fit("a", &seen("other", "img", "sleep 5", 11)), Fit::No);
        let plain = life("docker run --rm img sleep 5");
        assert_eq!(plain.fit("a", &seen("x", "img", "sleep 5", 11)), Fit::Alike);
        for other in
            [seen("x", "img", "sleep 6", 11), seen("x", "rm", "img", 11), seen("x", "img", "sleep 5", 30)]
        {
            assert_eq!(plain.fit("a", &other), Fit::No, "{other:?}");
        }
        // An argument of the container's own program is no name of the container.
        let server = life("docker run img serve --name model");
        assert_eq!(server.fit("a", &seen("x", "img", "serve --name model", 11)), Fit::Alike);
        // The image's own command.
        assert_eq!(life("docker run -d img").fit("a", &seen("x", "img", "serve", 11)), Fit::Alike);
    }

    #[test]
    fn containers_that_exist_are_named() {
        let id = "0123456789ab";
        let both = life("docker restart web 0123");
        assert_eq!(both.fit(id, &seen("x", "i", "", 11)), Fit::Named);
        assert_eq!(both.fit("f", &seen("web", "i", "", 11)), Fit::Named);
        assert_eq!(both.fit("f", &seen("web", "i", "", 9)), Fit::No);
        // A health check enters another container, whose name is a word of the command.
        let enters = life("docker exec web cat db");
        let entered = |name| Seen { entered: vec![12 * SECOND], ..seen(name, "i", "", 1) };
        let list = all(&[("1", entered("db")), ("2", entered("web"))]);
        assert_eq!(named(&enters, &list), ["2"]);
    }

    #[test]
    fn a_project_is_known_by_its_labels() {
        let of = |project: &str, directory: Option<&str>| {
            let directory = directory.map(|d| (DIRECTORY_LABEL.to_owned(), d.to_owned()));
            let labels =
                [(PROJECT_LABEL.to_owned(), project.to_owned())].into_iter().chain(directory).collect();
            Seen { labels, ..seen("x", "i", "", 11) }
        };
        assert_eq!(life("docker-compose up").fit("a", &of("app", Some("/srv/app"))), Fit::Named);
        assert_eq!(life("docker-compose up").fit("a", &of("app", Some("/srv/other"))), Fit::No);
        assert_eq!(life("docker-compose -f /etc/x/c.yml up").fit("a", &of("x", Some("/etc/x"))), Fit::Named);
        assert_eq!(life("docker-compose up").fit("a", &of("app", None)), Fit::Named);
        assert_eq!(life("docker-compose -p p up").fit("a", &of("p", Some("/else"))), Fit::Named);
        assert_eq!(life("docker-compose up").fit("a", &seen("app", "i", "", 11)), Fit::No);
    }

    #[test]
    fn as_many_clients_as_containers_are_all_ours_and_more_are_unclear() {
        let (one, two) = (life("docker run img a"), life("docker run img a"));
        let list = all(&[("1", seen("x", "img", "a", 11)), ("2", seen("y", "img", "a", 12))]);
        assert_eq!(alike(&[&one, &two], &list).ours.len(), 2);
        let found = alike(&[&one], &list);
        assert!(found.ours.is_empty() && found.unclear.len() == 1, "{found:?}");
    }
}
