//! No file of a crate depends on itself through other files.
//!
//! A file depends on each file that defines an item that one of its paths names. These are paths that start with
//! `crate::`, `super::`, `self::`, a child module or an imported name. A re-export is followed to the definition,
//! so a `mod.rs` that only declares and re-exports its children takes part in no cycle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::source::{Token, product};
use crate::{assert_none, sources};

/// The number of imports and re-exports that are followed for one path. Without a limit, two that name each other
/// would be followed forever.
const MAX_HOPS: usize = 8;

/// The path of a module from the crate root, such as `["inbound", "amqp"]`, or a path as it is written in the code.
type Segments = Vec<String>;

/// A name that a module imports, and the path that it stands for.
struct Import {
    /// `None` for a glob import and `as _`.
    name: Option<String>,
    path: Segments,
    /// Imported with `pub`.
    public: bool,
    line: usize,
}

/// A path in the code, outside of imports.
struct Mention {
    /// The module that contains it; this may be an inline module.
    module: Segments,
    path: Segments,
    line: usize,
}

#[derive(Default)]
struct File {
    path: PathBuf,
    /// By module: the file's own and its inline modules.
    imports: BTreeMap<Segments, Vec<Import>>,
    mentions: Vec<Mention>,
    /// All names outside of imports.
    names: BTreeSet<String>,
    /// Child modules that only tests compile.
    test_modules: Vec<String>,
}

/// The product files of one crate, by module path.
struct Crate {
    files: BTreeMap<Segments, File>,
}

/// For each file the files that it depends on, with the place of the first mention.
type Graph = BTreeMap<Segments, BTreeMap<Segments, String>>;

impl Crate {
    /// `folder` is the crate's `src`.
    fn new(folder: &str, sources: &[(PathBuf, String)]) -> Self {
        let mut files = BTreeMap::new();
        for (path, text) in sources {
            let from_root = path.strip_prefix(folder).expect("the file is in the folder");
            if let Some(module) = module_of(from_root) {
                files.insert(module.clone(), File::read(path.clone(), &module, text));
            }
        }
        let tests: Vec<Segments> = files
            .iter()
            .flat_map(|(module, file)| file.test_modules.iter().map(|it| child(module, it)))
            .collect();
        files.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Self { files }
    }

    fn graph(&self) -> Graph {
        self.files.keys().map(|module| (module.clone(), self.dependencies(module))).collect()
    }

    fn dependencies(&self, module: &Segments) -> BTreeMap<Segments, String> {
        let file = &self.files[module];
        let mut found = BTreeMap::new();
        let mut add = |from: &[String], path: &[String], line: usize| {
            let Some(target) = self.definition(from, path, 0).filter(|it| it != module) else {
                return;
            };
            let place = format!("{}:{line} ({})", file.path.display(), path.join("::"));
            found.entry(target).or_insert(place);
        };
        for (from, imports) in &file.imports {
            for import in imports.iter().filter(|import| self.is_used(module, from, import)) {
                add(from, &import.path, import.line);
            }
        }
        for mention in &file.mentions {
            add(&mention.module, &mention.path, mention.line);
        }
        found
    }

    /// False if the import only offers a name to other files: as a re-export, or to child modules. Such an import
    /// does not make its file depend on anything.
    fn is_used(&self, module: &Segments, from: &[String], import: &Import) -> bool {
        let file = &self.files[module];
        let is_named = import.name.as_ref().is_none_or(|name| file.names.contains(name));
        let is_from_child = || {
            let target = self.definition(from, &import.path, 0);
            target.is_some_and(|target| target.starts_with(module))
        };
        is_named || !(import.public || is_from_child())
    }

    /// The file that defines the item at the end of the path; `None` if that is in another crate or is a module.
    fn definition(&self, from: &[String], path: &[String], hops: usize) -> Option<Segments> {
        if hops > MAX_HOPS {
            return None;
        }
        let absolute = self.absolute(from, path, hops)?;
        let depth =
            (0..=absolute.len()).rev().find(|n| self.files.contains_key(&absolute[..*n]))?;
        let (module, rest) = absolute.split_at(depth);
        let name = rest.first()?;
        match self.import(module, name) {
            Some(import) => {
                let path = [&import.path, &rest[1..]].concat();
                self.definition(module, &path, hops + 1)
            }
            None => Some(module.to_vec()),
        }
    }

    /// The path from the crate's root; `None` for other crates and local names.
    fn absolute(&self, from: &[String], path: &[String], hops: usize) -> Option<Segments> {
        let (head, rest) = path.split_first()?;
        let base = match head.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_vec(),
            "super" => {
                let parent = &from[..from.len().checked_sub(1)?];
                return match rest.first().map(String::as_str) {
                    Some("super") => self.absolute(parent, rest, hops),
                    _ => Some([parent, rest].concat()),
                };
            }
            name if self.files.contains_key(&child(from, name)) => child(from, name),
            name if hops < MAX_HOPS => {
                self.absolute(from, &self.import(from, name)?.path, hops + 1)?
            }
            _ => return None,
        };
        Some([base.as_slice(), rest].concat())
    }

    /// The import of this name in a module.
    fn import(&self, module: &[String], name: &str) -> Option<&Import> {
        let file = (0..=module.len()).rev().find_map(|n| self.files.get(&module[..n]))?;
        let imports = file.imports.get(module)?;
        imports.iter().find(|import| import.name.as_deref() == Some(name))
    }
}

impl File {
    fn read(path: PathBuf, module: &Segments, text: &str) -> Self {
        let product = product(text);
        let mut file = Self { path, test_modules: product.test_modules, ..Self::default() };
        file.scan(module.clone(), &product.tokens);
        file
    }

    fn scan(&mut self, file_module: Segments, tokens: &[Token]) {
        // For each open inline module, the number of braces that are open outside of it.
        let mut inline: Vec<usize> = Vec::new();
        let mut module = file_module;
        let mut depth = 0;
        let mut at = 0;
        while at < tokens.len() {
            let token = &tokens[at];
            // `use` in `impl Trait + use<'a>` is no import.
            let is_capture_list = || tokens.get(at + 1).is_some_and(|it| it.is('<'));
            if token.is_name("use") && !is_capture_list() {
                let public = at > 0 && (tokens[at - 1].is_name("pub") || tokens[at - 1].is(')'));
                let end =
                    tokens[at..].iter().position(|it| it.is(';')).map_or(tokens.len(), |n| at + n);
                let imports = self.imports.entry(module.clone()).or_default();
                read_use_tree(&mut &tokens[at + 1..end], &[], public, imports);
                at = end;
            } else if token.is_name("mod") && tokens.get(at + 2).is_some_and(|it| it.is('{')) {
                module.extend(tokens[at + 1].name().map(str::to_owned));
                inline.push(depth);
                depth += 1;
                at += 2;
            } else if let Some(name) = token.name() {
                self.names.insert(name.to_owned());
                let path = path_at(tokens, at);
                let inside_path = at > 1 && tokens[at - 1].is(':') && tokens[at - 2].is(':');
                if path.len() > 1 && !inside_path {
                    self.mentions.push(Mention { module: module.clone(), path, line: token.line });
                }
            } else if token.is('{') {
                depth += 1;
            } else if token.is('}') {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                    module.pop();
                }
            }
            at += 1;
        }
    }
}

/// The path that starts at this token: the names that `::` joins.
fn path_at(tokens: &[Token], mut at: usize) -> Segments {
    let mut path = Vec::new();
    while let Some(name) = tokens.get(at).and_then(Token::name) {
        path.push(name.to_owned());
        let joined = [at + 1, at + 2].iter().all(|n| tokens.get(*n).is_some_and(|it| it.is(':')));
        if !joined {
            break;
        }
        at += 3;
    }
    path
}

/// Reads one branch of a `use` declaration from `rest`, up to the comma or brace that ends it. `prefix` is the path
/// before the surrounding braces.
fn read_use_tree(rest: &mut &[Token], prefix: &[String], public: bool, found: &mut Vec<Import>) {
    let mut path = prefix.to_vec();
    let mut name = None;
    while let Some((token, after)) = rest.split_first() {
        if token.is(',') || token.is('}') {
            break;
        }
        *rest = after;
        if token.is('{') {
            while !rest.is_empty() {
                read_use_tree(rest, &path, public, found);
                let ends = rest.first().is_some_and(|it| it.is('}'));
                *rest = rest.get(1..).unwrap_or_default();
                if ends {
                    return;
                }
            }
        } else if token.is('*') {
            name = None;
            path.push("*".to_owned());
        } else if token.is_name("as") {
            name = rest.first().and_then(Token::name).filter(|it| *it != "_").map(str::to_owned);
            *rest = rest.get(1..).unwrap_or_default();
        } else if let Some(segment) = token.name() {
            if segment == "self" && !path.is_empty() {
                name = path.last().cloned();
            } else {
                path.push(segment.to_owned());
                name = Some(segment.to_owned());
            }
        }
        if rest.is_empty() || rest[0].is(',') || rest[0].is('}') {
            let line = token.line;
            found.push(Import { name, path, public, line });
            return;
        }
    }
}

fn child(module: &[String], name: &str) -> Segments {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The module of a file, whose path starts at `src`; `None` for a binary's root and for files of tests.
fn module_of(file: &Path) -> Option<Segments> {
    let mut module: Segments =
        file.with_extension("").iter().map(|it| it.to_string_lossy().into_owned()).collect();
    if module == ["main"] || module.iter().any(|it| it == "tests") {
        return None;
    }
    if module == ["lib"] || module.last().is_some_and(|it| it == "mod") {
        module.pop();
    }
    Some(module)
}

/// One shortest cycle for each group of files that depend on each other.
fn breaches(graph: &Graph) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for start in graph.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(cycle) = shortest_cycle(graph, start) {
            let group = component(graph, start);
            let places: Vec<&str> =
                cycle.windows(2).map(|pair| graph[&pair[0]][&pair[1]].as_str()).collect();
            found.push(format!(
                "{} files depend on each other: {}",
                group.len(),
                places.join(" -> ")
            ));
            seen.extend(group);
        }
    }
    found
}

/// The files on a shortest path through the graph from `start` back to `start`, with `start` at both ends.
fn shortest_cycle(graph: &Graph, start: &Segments) -> Option<Vec<Segments>> {
    let mut paths = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(path) = paths.pop_front() {
        for next in graph.get(path.last()?).into_iter().flat_map(BTreeMap::keys) {
            let longer = [path.as_slice(), std::slice::from_ref(next)].concat();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next) {
                paths.push_back(longer);
            }
        }
    }
    None
}

/// All files that `start` reaches and that reach it.
fn component(graph: &Graph, start: &Segments) -> BTreeSet<Segments> {
    let reached = reachable(graph, start);
    reached.iter().filter(|it| reachable(graph, it).contains(start)).cloned().collect()
}

fn reachable(graph: &Graph, start: &Segments) -> BTreeSet<Segments> {
    let mut reached = BTreeSet::new();
    let mut to_visit = vec![start];
    while let Some(module) = to_visit.pop() {
        for next in graph.get(module).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next.clone()) {
                to_visit.push(next);
            }
        }
    }
    reached
}

fn assert_no_cycle(folder: &str) {
    assert_none(&breaches(&Crate::new(folder, &sources(folder)).graph()));
}

#[test]
fn domain_has_no_module_cycle() {
    assert_no_cycle("domain/src");
}

#[test]
fn application_has_no_module_cycle() {
    assert_no_cycle("application/src");
}

#[test]
fn adapters_have_no_module_cycle() {
    assert_no_cycle("adapters/src");
}

#[test]
fn bootstrap_has_no_module_cycle() {
    assert_no_cycle("bootstrap/src");
}

fn cycles_in(files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<_> = files
        .iter()
        .map(|(path, text)| (Path::new("src").join(path), (*text).to_owned()))
        .collect();
    breaches(&Crate::new("src", &files).graph())
}

#[test]
fn siblings_that_import_each_other_are_found() {
    let found = cycles_in(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B;\npub struct A(B);"),
        ("b.rs", "\nuse super::a::A;\npub struct B(A);"),
    ]);
    let expected =
        ["2 files depend on each other: src/a.rs:1 (crate::b::B) -> src/b.rs:2 (super::a::A)"];
    assert_eq!(found, expected);
}

#[test]
fn a_cycle_is_found_through_a_facade_and_an_imported_module() {
    let found = cycles_in(&[
        ("lib.rs", "mod outer; mod c;"),
        ("outer/mod.rs", "mod a; mod b; pub use a::A; pub(crate) use b::{self, B as Renamed};"),
        ("outer/a.rs", "use crate::c; pub struct A; fn f() { select! { _ = c::run() => {} } }"),
        ("outer/b.rs", "use super::A; pub struct B(A);"),
        ("c.rs", "use crate::outer::{b, Renamed}; pub fn run() { b::B::new() }"),
    ]);
    assert_eq!(
        found,
        ["3 files depend on each other: src/c.rs:1 (crate::outer::Renamed) -> \
          src/outer/b.rs:1 (super::A) -> src/outer/a.rs:1 (c::run)"]
    );
}

#[test]
fn a_parent_and_a_child_that_need_each_other_are_found() {
    let found = cycles_in(&[
        ("lib.rs", "mod parent;"),
        ("parent.rs", "mod child; pub struct P { field: child::C }"),
        ("parent/child.rs", "pub struct C; impl super::P {}"),
    ]);
    assert_eq!(
        found,
        ["2 files depend on each other: src/parent.rs:1 (child::C) -> \
          src/parent/child.rs:1 (super::P)"]
    );
}

#[test]
fn facades_comments_tests_and_other_crates_make_no_cycle() {
    assert_none(&cycles_in(&[
        ("lib.rs", "pub mod outer; pub use outer::A;"),
        (
            "outer/mod.rs",
            "mod a; mod b; pub use a::A; use b::B; pub(crate) mod names { use super::A; }",
        ),
        ("outer/a.rs", "//! See [`crate::outer::b::B`].\nuse super::B; #[cfg(test)] mod fakes;"),
        ("outer/a/fakes.rs", "use crate::outer::c::C;"),
        (
            "outer/b.rs",
            "use b::Other; struct B; #[cfg(test)] mod tests { use super::super::a::A; }",
        ),
        ("outer/b/tests.rs", "use crate::A;"),
    ]));
}
