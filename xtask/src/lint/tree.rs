//! The modules of one crate, read from its source: what each defines, imports and names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::Visit;

use super::module::{Module, Name};
use super::names::Names;

/// A file, or the unit tests that stand in it: they may use what the file itself must not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// From the workspace's directory.
    pub file: String,
    pub tests: bool,
}

#[derive(Debug, Default)]
pub struct Tree {
    pub nodes: Vec<Node>,
    /// The first is the crate's root.
    pub modules: Vec<Module>,
    /// The nodes that define a `macro_rules` of this name: such a name is in scope by the order of the text.
    pub macros: HashMap<String, Vec<usize>>,
}

/// Where a module's code stands, and where the files of its children do.
#[derive(Clone)]
struct Place {
    file: PathBuf,
    children: PathBuf,
}

impl Tree {
    /// Reads the crate whose root is this file. Files are named from `workspace`.
    pub fn read(workspace: &Path, root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let children = root.parent().unwrap_or(workspace).to_owned();
        tree.file(workspace, Place { file: root.to_owned(), children }, None, false)?;
        Ok(tree)
    }

    fn file(&mut self, workspace: &Path, place: Place, parent: Option<usize>, tests: bool) -> Result<usize> {
        let text = std::fs::read_to_string(&place.file)
            .with_context(|| format!("cannot read {}", place.file.display()))?;
        let parsed =
            syn::parse_file(&text).with_context(|| format!("cannot parse {}", place.file.display()))?;
        let file = place.file.strip_prefix(workspace).unwrap_or(&place.file).display().to_string();
        self.nodes.push(Node { file, tests });
        let node = self.nodes.len() - 1;
        self.module(workspace, &place, parent, node, &parsed.items)
    }

    fn module(
        &mut self,
        workspace: &Path,
        place: &Place,
        parent: Option<usize>,
        node: usize,
        items: &[syn::Item],
    ) -> Result<usize> {
        let id = self.modules.len();
        self.modules.push(Module {
            parent,
            node,
            names: HashMap::new(),
            globs: Vec::new(),
            mentions: Vec::new(),
        });
        let mut names = Names::new(&mut self.modules[id]);
        items.iter().for_each(|item| names.visit_item(item));
        let (modules, macros) = (names.modules, names.macros);
        macros.into_iter().for_each(|name| self.macros.entry(name).or_default().push(node));
        for module in modules {
            let name = module.ident.to_string();
            let child = self.child(workspace, place, id, module).with_context(|| format!("module {name}"))?;
            self.modules[id].names.entry(name).or_default().push(Name::Module(child));
        }
        Ok(id)
    }

    fn child(
        &mut self,
        workspace: &Path,
        place: &Place,
        parent: usize,
        module: &syn::ItemMod,
    ) -> Result<usize> {
        let name = module.ident.to_string();
        let tests = module.attrs.iter().any(is_for_tests);
        let node = self.modules[parent].node;
        let children = place.children.join(&name);
        if let Some((_, items)) = &module.content {
            let of_file = &self.nodes[node];
            let node = if tests && !of_file.tests {
                self.nodes.push(Node { tests: true, file: of_file.file.clone() });
                self.nodes.len() - 1
            } else {
                node
            };
            return self.module(workspace, &Place { children, ..place.clone() }, Some(parent), node, items);
        }
        let tests = tests || self.nodes[node].tests;
        let place = match module.attrs.iter().find_map(path_attribute) {
            // A file that an attribute names has its children beside it.
            Some(path) => {
                let file = place.file.parent().unwrap_or(workspace).join(path);
                Place { children: file.parent().unwrap_or(workspace).to_owned(), file }
            }
            None => {
                let beside = place.children.join(format!("{name}.rs"));
                let file = if beside.is_file() { beside } else { children.join("mod.rs") };
                Place { file, children }
            }
        };
        self.file(workspace, place, Some(parent), tests)
    }
}

/// `#[cfg(test)]`, and what else is only there in tests.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    list.path.is_ident("cfg") && list.tokens.clone().into_iter().any(|token| token.to_string() == "test")
}

/// The file that `#[path = "file"]` names.
fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else { return None };
    pair.path.is_ident("path").then(|| text.value())
}
