//! What the code of one module defines, imports and names.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::module::{Mention, Module, Name};

/// Attributes whose strings are paths of Rust code.
const WITH_PATHS: &[&str] = &["serde", "schemars"];

/// Walks over a module's items; modules in it are left to the caller.
pub struct Names<'a, 'ast> {
    module: &'a mut Module,
    pub modules: Vec<&'ast syn::ItemMod>,
    pub macros: Vec<String>,
}

impl<'a> Names<'a, '_> {
    pub fn new(module: &'a mut Module) -> Self {
        Self { module, modules: Vec::new(), macros: Vec::new() }
    }

    fn define(&mut self, ident: &syn::Ident) {
        self.module.names.entry(ident.to_string()).or_default().push(Name::Here);
    }

    fn mention(&mut self, path: Vec<String>, line: usize) {
        if !path.is_empty() {
            self.module.mentions.push(Mention { path, line });
        }
    }

    /// A re-export is a signpost: who comes by it uses the file that it leads to, and it uses nothing itself.
    fn import(&mut self, tree: &syn::UseTree, prefix: &[String], is_reexport: bool) {
        let with = |ident: &syn::Ident| {
            let mut path = prefix.to_vec();
            // `use a::{self}` is `use a`.
            if ident != "self" || path.is_empty() {
                path.push(ident.to_string());
            }
            path
        };
        let (path, name, ident) = match tree {
            syn::UseTree::Path(inner) => return self.import(&inner.tree, &with(&inner.ident), is_reexport),
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, prefix, is_reexport));
            }
            syn::UseTree::Glob(glob) => {
                self.module.globs.push(prefix.to_vec());
                if !is_reexport {
                    self.mention(prefix.to_vec(), glob.star_token.spans[0].start().line);
                }
                return;
            }
            syn::UseTree::Name(name) => (with(&name.ident), with(&name.ident).pop(), &name.ident),
            syn::UseTree::Rename(rename) => {
                (with(&rename.ident), Some(rename.rename.to_string()), &rename.ident)
            }
        };
        if !is_reexport {
            self.mention(path.clone(), ident.span().start().line);
        }
        if let Some(name) = name {
            self.module.names.entry(name).or_default().push(Name::Import(path));
        }
    }

    /// Paths among the tokens of a macro or an attribute, which nobody has parsed: names joined by `::`, and a name alone
    /// where it looks like a type or like a function that is called.
    fn scan(&mut self, tokens: TokenStream, strings_are_paths: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, wanted: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == wanted);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.scan(group.stream(), strings_are_paths),
                TokenTree::Literal(literal) if strings_are_paths => {
                    let line = literal.span().start().line;
                    if let Ok(path) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                        .and_then(|text| text.parse_with(syn::Path::parse_mod_style))
                    {
                        self.mention(segments(&path), line);
                    }
                }
                TokenTree::Ident(first) => {
                    let is_member = at > 0 && is(at - 1, '.') && !(at > 1 && is(at - 2, '.'));
                    let mut path = vec![first.to_string()];
                    while is(at + 1, ':') && is(at + 2, ':') {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        path.push(next.to_string());
                        at += 3;
                    }
                    let is_called = matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
                    let is_type = path[0].starts_with(char::is_uppercase);
                    if !is_member && (path.len() > 1 || is_called || is_type) {
                        self.mention(path, first.span().start().line);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

fn segments(path: &syn::Path) -> Vec<String> {
    // `::name` is another crate.
    if path.leading_colon.is_some() {
        return Vec::new();
    }
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// Defines the name of an item and walks into it.
macro_rules! definitions {
    ($($method:ident: $item:ident),* $(,)?) => {
        $(fn $method(&mut self, item: &'ast syn::$item) {
            self.define(&item.ident);
            visit::$method(self, item);
        })*
    };
}

impl<'ast> Visit<'ast> for Names<'_, 'ast> {
    definitions! {
        visit_item_const: ItemConst,
        visit_item_enum: ItemEnum,
        visit_item_static: ItemStatic,
        visit_item_struct: ItemStruct,
        visit_item_trait: ItemTrait,
        visit_item_trait_alias: ItemTraitAlias,
        visit_item_type: ItemType,
        visit_item_union: ItemUnion,
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.define(&item.sig.ident);
        visit::visit_item_fn(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.modules.push(item);
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        if let Some(name) = &item.ident {
            self.macros.push(name.to_string());
            self.define(name);
        }
        visit::visit_item_macro(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&item.tree, &[], !matches!(item.vis, syn::Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.segments.first().map_or(0, |first| first.ident.span().start().line);
        self.mention(segments(path), line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.scan(call.tokens.clone(), false);
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            let with_paths = WITH_PATHS.iter().any(|name| list.path.is_ident(name));
            self.scan(list.tokens.clone(), with_paths);
        }
    }

    /// Who may see an item is no use of theirs.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}
