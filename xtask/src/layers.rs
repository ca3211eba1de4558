/*!
Modules are layered: in every crate, no module depends on another one that depends on it, neither directly nor by way of others.

A module and the modules within it count as one, and the modules within it are layered among themselves. Tests are left out: they may use everything.
Names that a module re-exports count as names of the module that they come from.
*/
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::visit::Visit;

/// A path of names from the root of a crate.
type Names = Vec<String>;

/// The modules of a crate, by path, each with its items.
#[derive(Default)]
struct Crate {
    modules: BTreeMap<Names, Vec<syn::Item>>,
    /// Names that a module brings in by `use`, and the paths that these stand for.
    aliases: BTreeMap<Names, Names>,
}

/// Where a path is used: the module, and the path from the root of the crate.
type Uses = BTreeSet<(Names, Names)>;

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| {
                    list.tokens.to_string().split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
                })
    })
}

impl Crate {
    fn read(root: &Path) -> Self {
        let mut found = Self::default();
        let text = fs::read_to_string(root).unwrap();
        found.add(Vec::new(), root.parent().unwrap(), syn::parse_file(&text).unwrap().items);
        let modules: Vec<_> =
            found.modules.iter().map(|(path, items)| (path.clone(), items.clone())).collect();
        for (module, items) in modules {
            for item in &items {
                if let syn::Item::Use(import) = item
                    && !is_test(&import.attrs)
                {
                    found.add_aliases(&module, &mut Vec::new(), &import.tree);
                }
            }
        }
        found
    }

    /// Adds a module whose own modules have their files in `folder`.
    fn add(&mut self, path: Names, folder: &Path, items: Vec<syn::Item>) {
        for item in &items {
            let syn::Item::Mod(module) = item else { continue };
            if is_test(&module.attrs) {
                continue;
            }
            let name = module.ident.to_string();
            let inner = [path.clone(), vec![name.clone()]].concat();
            let (file, nested) = (folder.join(format!("{name}.rs")), folder.join(&name));
            if let Some((_, items)) = &module.content {
                self.add(inner, &nested, items.clone());
                continue;
            }
            let file = if file.exists() { file } else { nested.join("mod.rs") };
            let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            self.add(inner, &nested, syn::parse_file(&text).unwrap().items);
        }
        self.modules.insert(path, items);
    }

    fn add_aliases(&mut self, module: &Names, prefix: &mut Names, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_aliases(module, prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_aliases(module, prefix, tree));
            }
            syn::UseTree::Name(name) => {
                self.add_alias(module, prefix, &name.ident.to_string(), &name.ident.to_string());
            }
            syn::UseTree::Rename(name) => {
                self.add_alias(module, prefix, &name.ident.to_string(), &name.rename.to_string());
            }
            syn::UseTree::Glob(_) => {}
        }
    }

    fn add_alias(&mut self, module: &Names, prefix: &Names, name: &str, alias: &str) {
        let mut path = prefix.clone();
        if name != "self" {
            path.push(name.to_owned());
        }
        let alias = if name == "self" && alias == "self" {
            prefix.last().cloned().unwrap_or_default()
        } else {
            alias.to_owned()
        };
        if let Some(path) = self.resolve(module, &path) {
            self.aliases.insert([module.clone(), vec![alias]].concat(), path);
        }
    }

    /// A path as it stands in a module, from the root of the crate; `None` if it leads out of the crate.
    fn resolve(&self, module: &Names, path: &[String]) -> Option<Names> {
        let first = path.first()?;
        let mut base = module.clone();
        let mut rest = path;
        match first.as_str() {
            "crate" => (base, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            name if self.modules.contains_key(&[module.clone(), vec![name.to_owned()]].concat()) => {}
            _ => return None,
        }
        Some([base, rest.to_vec()].concat())
    }

    /// The module that a path from the root leads into, with names that are re-exported followed.
    fn owner(&self, path: &Names) -> Names {
        let mut path = path.clone();
        // Enough for any chain of re-exports; a circle of them does not compile.
        for _ in 0..20 {
            let Some(length) = (1..=path.len()).find(|&length| {
                !self.modules.contains_key(&path[..length]) && self.aliases.contains_key(&path[..length])
            }) else {
                break;
            };
            path = [self.aliases[&path[..length]].clone(), path[length..].to_vec()].concat();
        }
        while !self.modules.contains_key(&path) {
            path.pop();
        }
        path
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (module, items) in &self.modules {
            let mut seen = Seen { of: self, module, uses: &mut uses };
            for item in items {
                seen.visit_item(item);
            }
        }
        uses
    }
}

/// Collects the paths of the crate that a module uses.
struct Seen<'a> {
    of: &'a Crate,
    module: &'a Names,
    uses: &'a mut Uses,
}

impl Seen<'_> {
    fn add(&mut self, path: &[String]) {
        if let Some(path) = self.of.resolve(self.module, path) {
            self.uses.insert((self.module.clone(), self.of.owner(&path)));
        }
    }

    fn add_tree(&mut self, prefix: &mut Names, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(prefix, &path.tree);
                prefix.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(prefix, tree)),
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                prefix.push(ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            syn::UseTree::Glob(_) => self.add(prefix),
        }
    }
}

impl<'ast> Visit<'ast> for Seen<'_> {
    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {
        // Visited as a module of its own.
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            syn::Item::Static(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !is_test(&function.attrs) {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        let attributes = match statement {
            syn::Stmt::Local(local) => &local.attrs,
            syn::Stmt::Expr(syn::Expr::If(expression), _) => &expression.attrs,
            syn::Stmt::Expr(syn::Expr::Block(expression), _) => &expression.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            syn::visit::visit_stmt(self, statement);
        }
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        self.add_tree(&mut Vec::new(), &import.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&names);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        // The tokens of a macro are not parsed: paths in them are found by their separators.
        let text = invocation.tokens.to_string().replace(" :: ", "::");
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            let path: Names = word.split("::").map(str::to_owned).collect();
            if path.len() > 1 {
                self.add(&path);
            }
        }
        syn::visit::visit_macro(self, invocation);
    }
}

/// The edges between the modules directly within `parent`, each with a use that makes it.
fn edges(uses: &Uses, parent: &Names) -> BTreeMap<(String, String), (Names, Names)> {
    let within = |path: &Names| path.strip_prefix(&parent[..]).and_then(<[String]>::first).cloned();
    let mut edges = BTreeMap::new();
    for (from, to) in uses {
        if let (Some(a), Some(b)) = (within(from), within(to))
            && a != b
        {
            edges.entry((a, b)).or_insert_with(|| (from.clone(), to.clone()));
        }
    }
    edges
}

/// The cycles of a crate: for each module, the edges between the modules in it that lie on a cycle.
fn cycles(of: &Crate) -> Vec<String> {
    let uses = of.uses();
    let mut found = Vec::new();
    for parent in of.modules.keys() {
        let edges = edges(&uses, parent);
        let mut reached: BTreeSet<(String, String)> = edges.keys().cloned().collect();
        loop {
            let further: Vec<_> = reached
                .iter()
                .flat_map(|(a, b)| {
                    edges.keys().filter(move |(c, _)| b == c).map(move |(_, d)| (a.clone(), d.clone()))
                })
                .filter(|pair| !reached.contains(pair))
                .collect();
            if further.is_empty() {
                break;
            }
            reached.extend(further);
        }
        let edges: Vec<_> =
            edges.into_iter().filter(|((a, b), _)| reached.contains(&(b.clone(), a.clone()))).collect();
        if !edges.is_empty() {
            let list: Vec<_> = edges
                .iter()
                .map(|((a, b), (from, to))| {
                    format!("  {a} -> {b}: {} uses {}", from.join("::"), to.join("::"))
                })
                .collect();
            found.push(format!("in `{}`:\n{}", parent.join("::"), list.join("\n")));
        }
    }
    found
}

/// The root files of the libraries and programs of the workspace.
fn roots() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut roots = Vec::new();
    for entry in fs::read_dir(workspace).unwrap().flatten() {
        let source = entry.path().join("src");
        roots.extend(
            ["lib.rs", "main.rs"].map(|name| source.join(name)).into_iter().filter(|path| path.exists()),
        );
        for program in fs::read_dir(source.join("bin")).into_iter().flatten().flatten() {
            let path = if program.path().is_dir() { program.path().join("main.rs") } else { program.path() };
            roots.push(path);
        }
    }
    roots.sort();
    roots
}

#[test]
fn no_module_depends_on_one_that_depends_on_it() {
    let roots = roots();
    assert!(roots.len() > 12, "{roots:?}");
    let mut found = String::new();
    for root in roots {
        for cycle in cycles(&Crate::read(&root)) {
            found += &format!("{} {cycle}\n", root.display());
        }
    }
    assert!(found.is_empty(), "cycles between modules:\n{found}");
}

#[test]
fn a_cycle_is_found_by_imports_paths_re_exports_and_macros() {
    let cycle = |a: &str, b: &str, root: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        file("lib.rs", &format!("mod a; mod b; mod c;\n{root}"));
        file("a.rs", a);
        file("b.rs", b);
        file("c.rs", "pub fn c() { crate::a::f(); }");
        !cycles(&Crate::read(&folder.path().join("lib.rs"))).is_empty()
    };
    let back = "use crate::a::f; fn g() { f(); }";
    assert!(!cycle("pub fn f() {}", back, ""), "one direction alone");
    assert!(cycle("use crate::b::g; pub fn f() { g(); }", back, ""));
    assert!(cycle("use crate::{b::{self, G}}; pub fn f() {}", back, ""));
    assert!(cycle("pub fn f() { super::b::g(); }", back, ""));
    assert!(cycle("pub fn f() { println!(\"{}\", crate::b::G); }", back, ""));
    assert!(cycle("use crate::G; pub fn f() {}", back, "pub use b::G;"), "by the root's name for it");
    assert!(cycle("use crate::c::c; pub fn f() {}", "", ""), "through a third");
    assert!(!cycle("#[cfg(test)] mod tests { use crate::b::g; } pub fn f() {}", back, ""), "tests");
    assert!(!cycle("#[cfg(all(test, unix))] use crate::b::g; pub fn f() {}", back, ""), "imports for tests");
}
