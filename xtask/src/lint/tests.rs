//! Small crates whose circles are known because they were written so.

use std::fs;
use std::path::Path;

use super::graph::Graph;
use super::tree::Tree;

/// The circles of a crate of these files, each as the names of its files in order.
fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let graph = graph(files);
    graph.circles().iter().map(|circle| circle.iter().map(|node| node.file.clone()).collect()).collect()
}

fn graph(files: &[(&str, &str)]) -> Graph {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut graph = Graph::default();
    graph.add(&Tree::read(dir.path(), &dir.path().join("lib.rs")).unwrap());
    graph
}

#[test]
fn two_files_that_use_each_other_are_a_circle() {
    let found = circles(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B;\npub struct A(B);\npub struct Other;"),
        ("b.rs", "pub struct B;\npub fn f(_: super::a::Other) {}"),
        ("c.rs", "use crate::{a::A, b::B};\npub struct C(A, B);"),
    ]);
    assert_eq!(found, [["a.rs", "b.rs"]]);
}

#[test]
fn a_circle_is_described_by_its_lines() {
    let graph = graph(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "\nuse crate::b::B;\npub struct A(B);"),
        ("b.rs", "pub struct B(Option<Box<crate::a::A>>);"),
    ]);
    let circle = graph.circles().into_iter().next().unwrap();
    assert_eq!(
        graph.describe(&circle),
        "circle of 2 files\n    a.rs:2 uses crate::b::B of b.rs\n    b.rs:1 uses crate::a::A of a.rs\n"
    );
    assert_eq!(graph.list("a.rs"), "a.rs:2 uses crate::b::B of b.rs\n");
}

#[test]
fn a_longer_circle_is_found_once() {
    let found = circles(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "pub struct A(crate::b::B);"),
        ("b.rs", "pub struct B(crate::c::C);"),
        ("c.rs", "pub struct C(Vec<crate::a::A>);"),
    ]);
    assert_eq!(found, [["a.rs", "b.rs", "c.rs"]]);
}

/// Names lead through re-exports, `*`, modules, function bodies, macros and attributes.
#[test]
fn every_way_to_name_an_item_counts() {
    let ways = [
        "pub struct X(crate::facade::A);",
        "use crate::facade::*;\npub struct X(A);",
        "use crate::a;\npub struct X(a::A);",
        "use crate::a as other;\npub struct X(other::A);",
        "pub fn x() { use crate::a::f; f() }",
        "pub fn x() -> String { format!(\"{}\", crate::a::NUMBER) }",
        "use crate::a;\npub fn x() { assert_eq!(a::NUMBER, 1) }",
        "use crate::facade::*;\npub fn x() { assert!(matches!(f(), ())) }",
        "#[derive(serde::Deserialize)] pub struct X { #[serde(default = \"crate::a::f\")] x: u8 }",
        "pub fn x() { use crate::a::Kind::*; }",
        "pub fn x() { crate::a::A::method() }",
        "pub mod inner { pub struct X(super::super::a::A); }",
        "crate::a::make!();",
        "use crate::same;\npub fn x() { same::same() }",
    ];
    for way in ways {
        let found = circles(&[
            (
                "lib.rs",
                "mod a; mod b; mod facade; mod same { mod same { pub use crate::a::f as same; } pub use same::same; }",
            ),
            ("facade.rs", "pub use super::a::*;"),
            (
                "a.rs",
                "pub struct A;\nimpl A { pub fn method() {} }\npub enum Kind { One }\npub const NUMBER: u8 = 1;\n\
                 pub fn f() {}\nmacro_rules! make { () => {} }\npub(crate) use make;\npub fn g(_: crate::b::Back) {}",
            ),
            ("b.rs", &format!("pub struct Back;\n{way}")),
        ]);
        assert_eq!(found, [["a.rs", "b.rs"]], "{way}");
    }
}

#[test]
fn what_looks_like_a_use_and_is_none_does_not_count() {
    let none = [
        // The name of a member, of a local variable and of another crate.
        "pub fn x(y: &Y) { assert!(y.f()) }\npub struct Y;",
        "pub fn x() { let a = 1; println!(\"{}\", a) }",
        "pub fn x() { ::a::f() }",
        "/// [`crate::a::A`]\npub struct X;",
        "pub(in crate::a) struct X;",
        "// crate::a::A\npub const X: &str = \"crate::a::A\";",
        // Only in tests.
        "#[cfg(test)]\nmod tests { use crate::a::A; fn x(_: A) {} }",
    ];
    for text in none {
        let found = circles(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub struct A;\npub fn f() {}\npub fn g(_: crate::b::Back) {}"),
            ("b.rs", &format!("pub struct Back;\n{text}")),
        ]);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn a_file_is_a_part_of_the_module_that_it_stands_in() {
    let parts = [
        ("lib.rs", "mod a;"),
        ("a/mod.rs", "mod b;\npub struct Shared;\npub fn f() { b::g(Shared) }"),
        ("a/b.rs", "use super::Shared;\npub fn g(_: Shared) {}"),
    ];
    assert!(circles(&parts).is_empty());
    // But what another module uses of it may not lead back.
    let around = [
        ("lib.rs", "mod a; mod c;"),
        ("a/mod.rs", "mod b;\npub struct Shared;\npub fn f() { b::g() }"),
        ("a/b.rs", "pub fn g() { crate::c::h(todo!()) }"),
        ("c.rs", "use crate::a::Shared;\npub fn h(_: Shared) {}"),
    ];
    assert_eq!(circles(&around), [["a/b.rs", "c.rs", "a/mod.rs"]]);
}

#[test]
fn modules_lie_where_rust_looks_for_them() {
    let found = circles(&[
        ("lib.rs", "mod a; #[path = \"elsewhere/file.rs\"] mod b; mod inline { pub mod c; }"),
        ("a.rs", "mod deep;\npub struct A;"),
        ("a/deep.rs", "pub struct Deep(crate::b::B);"),
        ("elsewhere/file.rs", "mod beside;\npub struct B(crate::inline::c::C);"),
        ("elsewhere/beside.rs", ""),
        ("inline/c.rs", "pub struct C(crate::a::deep::Deep);"),
    ]);
    assert_eq!(found, [["a/deep.rs", "elsewhere/file.rs", "inline/c.rs"]]);
}

#[test]
fn a_file_that_is_not_rust_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lib.rs"), "mod a;").unwrap();
    let read = || Tree::read(dir.path(), &dir.path().join("lib.rs"));
    assert!(read().unwrap_err().chain().any(|cause| cause.to_string().contains("cannot read")));
    fs::write(dir.path().join("a.rs"), "pub fn (").unwrap();
    assert!(read().unwrap_err().chain().any(|cause| cause.to_string().contains("cannot parse")));
    assert!(Tree::read(dir.path(), Path::new("/nowhere/lib.rs")).is_err());
}
