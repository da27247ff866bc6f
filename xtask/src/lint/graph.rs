//! Which file uses which: every path is followed through modules and re-exports to the file that defines it.
//!
//! What it cannot see: a method or a field of a type that the file does not name, and what a macro makes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;

use super::module::Name;
use super::tree::{Node, Tree};

/// One place where a file names an item of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub path: String,
}

#[derive(Debug, Default)]
pub struct Graph {
    /// For each pair of files the first place.
    pub uses: BTreeMap<Node, BTreeMap<Node, Place>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Item(usize),
    Module(usize),
}

/// Names under way, so that an import which names itself comes to an end.
type Seen = Vec<(usize, String)>;

impl Graph {
    /// A file is a part of the modules that it stands in: what it uses of theirs (`super::`) is no use of another file.
    pub fn add(&mut self, tree: &Tree) {
        for (id, module) in tree.modules.iter().enumerate() {
            let from = &tree.nodes[module.node];
            let around = tree.around(id);
            for mention in &module.mentions {
                for node in tree.used(id, &mention.path) {
                    let to = &tree.nodes[node];
                    if to == from || around.contains(&node) {
                        continue;
                    }
                    let place = Place { line: mention.line, path: mention.path.join("::") };
                    let uses = self.uses.entry(from.clone()).or_default();
                    let first = uses.entry(to.clone()).or_insert_with(|| place.clone());
                    if place < *first {
                        *first = place;
                    }
                }
            }
        }
    }

    /// The shortest circle through each file that is in one; each circle once.
    pub fn circles(&self) -> BTreeSet<Vec<Node>> {
        self.uses.keys().filter_map(|start| self.circle(start)).collect()
    }

    fn circle(&self, start: &Node) -> Option<Vec<Node>> {
        let mut before: HashMap<&Node, &Node> = HashMap::new();
        let mut waiting = VecDeque::from([start]);
        while let Some(node) = waiting.pop_front() {
            for next in self.uses.get(node).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    let mut circle = vec![node.clone()];
                    while let Some(node) = circle.last().and_then(|node| before.get(node)) {
                        circle.push((*node).clone());
                    }
                    circle.reverse();
                    let least =
                        circle.iter().enumerate().min_by_key(|(_, node)| *node).map_or(0, |(at, _)| at);
                    circle.rotate_left(least);
                    return Some(circle);
                }
                if next != start && !before.contains_key(next) {
                    before.insert(next, node);
                    waiting.push_back(next);
                }
            }
        }
        None
    }

    /// What the files at or below `path` use outside it, a line each.
    pub fn list(&self, path: &str) -> String {
        let inside = |node: &Node| Path::new(&node.file).starts_with(path);
        let mut text = String::new();
        for (from, uses) in self.uses.iter().filter(|(from, _)| inside(from)) {
            for (to, place) in uses.iter().filter(|(to, _)| !inside(to)) {
                text += &format!("{}:{} uses {} of {}\n", from.file, place.line, place.path, to.file);
            }
        }
        text
    }

    /// The circle as a reader follows it.
    pub fn describe(&self, circle: &[Node]) -> String {
        let mut text = format!("circle of {} files\n", circle.len());
        for (node, next) in circle.iter().zip(circle.iter().cycle().skip(1)) {
            if let Some(place) = self.uses.get(node).and_then(|uses| uses.get(next)) {
                text += &format!("    {}:{} uses {} of {}\n", node.file, place.line, place.path, next.file);
            }
        }
        text
    }
}

impl Tree {
    /// The nodes of the modules that this one stands in.
    fn around(&self, module: usize) -> Vec<usize> {
        std::iter::successors(self.modules[module].parent, |at| self.modules[*at].parent)
            .map(|at| self.modules[at].node)
            .collect()
    }

    /// The nodes that define what this path means in this module. A path that leads out of the crate, or to a module and
    /// not to an item of it, has none.
    fn used(&self, module: usize, path: &[String]) -> Vec<usize> {
        let targets = self.resolve(module, path, &mut Vec::new());
        let mut nodes: Vec<usize> = targets
            .into_iter()
            .filter_map(|target| match target {
                Target::Item(node) => Some(node),
                Target::Module(_) => None,
            })
            .collect();
        if let ([name], true) = (path, nodes.is_empty()) {
            nodes = self.macros.get(name).cloned().unwrap_or_default();
        }
        nodes
    }

    fn resolve(&self, module: usize, path: &[String], seen: &mut Seen) -> Vec<Target> {
        let Some((first, rest)) = path.split_first() else { return Vec::new() };
        let parent = |module: usize| self.modules[module].parent.unwrap_or(module);
        let mut targets = match first.as_str() {
            "crate" => vec![Target::Module(0)],
            "self" => vec![Target::Module(module)],
            "super" => vec![Target::Module(parent(module))],
            name => self.lookup(module, name, seen),
        };
        for name in rest {
            // Only a module has something behind `::`, where a function has the same name.
            if targets.iter().any(|target| matches!(target, Target::Module(_))) {
                targets.retain(|target| matches!(target, Target::Module(_)));
            }
            let step = |target| match target {
                Target::Item(_) => vec![target],
                Target::Module(module) if name == "super" => vec![Target::Module(parent(module))],
                Target::Module(module) => {
                    let found = self.lookup(module, name, seen);
                    // Something that a macro makes there, or that the module has from another crate.
                    if found.is_empty() { vec![Target::Item(self.modules[module].node)] } else { found }
                }
            };
            targets = targets.into_iter().flat_map(step).collect();
        }
        targets
    }

    /// What a name means in a module: what it defines or imports by name, else what it has by `*`.
    fn lookup(&self, module: usize, name: &str, seen: &mut Seen) -> Vec<Target> {
        let key = (module, name.to_owned());
        // `use names::names` leads to the module of that name, and not to itself.
        let is_anew = !seen.contains(&key);
        seen.push(key);
        let Some(here) = self.modules.get(module) else { return Vec::new() };
        let mut targets = Vec::new();
        for meaning in here.names.get(name).into_iter().flatten() {
            match meaning {
                Name::Here => targets.push(Target::Item(here.node)),
                Name::Module(child) => targets.push(Target::Module(*child)),
                Name::Import(path) if is_anew => targets.extend(self.resolve(module, path, seen)),
                Name::Import(_) => {}
            }
        }
        if is_anew && !here.names.contains_key(name) {
            for glob in &here.globs {
                for target in self.resolve(module, glob, seen) {
                    if let Target::Module(from) = target {
                        targets.extend(self.lookup(from, name, seen));
                    }
                }
            }
        }
        seen.pop();
        targets
    }
}
