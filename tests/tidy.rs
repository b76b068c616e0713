//! The house checks itself: rooms, captions, imports, and what else a reader relies on.
//!
//! The plan is the room table in `docs/ARCHITECTURE.md`. Every test names all it finds wrong, not the first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A row of the room table.
struct Room {
    caption: String,
    may_import: BTreeSet<String>,
}

#[test]
fn rooms_match_the_plan() {
    let plan = plan();
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for (name, folder) in rooms() {
        found.insert(name.clone());
        let Some(room) = plan.get(&name) else {
            wrong.push(format!("room `{name}` is not in the plan"));
            continue;
        };
        let imports: BTreeSet<_> = manifest(&folder)
            .of("dependencies")
            .keys()
            .filter(|name| plan.contains_key(*name))
            .cloned()
            .collect();
        let stray: Vec<_> = imports.difference(&room.may_import).collect();
        if !stray.is_empty() {
            wrong.push(format!("room `{name}` imports {stray:?}, the plan does not allow it"));
        }
        let caption = caption(&folder);
        if caption != room.caption {
            wrong.push(format!("first //! line of room `{name}`: {caption:?}, planned {:?}", room.caption));
        }
    }
    for name in plan.keys().filter(|name| !found.contains(*name)) {
        wrong.push(format!("room `{name}` is in the plan and not in the tree"));
    }
    assert_clean(&wrong);
}

#[test]
fn files_begin_with_a_caption() {
    let wrong = sources("rs").filter(|(_, text)| !text.starts_with("//! "));
    assert_clean(&wrong.map(|(file, _)| format!("{file}: no //! caption")).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_half_done() {
    // In two halves, so that this file does not find itself.
    let words = [
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("TO", "DO"),
        concat!("dbg", "!("),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[", "allow("),
        concat!("#[", "ignore"),
    ];
    let mut wrong = Vec::new();
    for (file, text) in sources("rs") {
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{file}:{}: {word}", number + 1));
            }
        }
    }
    assert_clean(&wrong);
}

#[test]
fn runtimes_stay_in_their_rooms() {
    const TOKIO: [&str; 6] = ["admin", "bridge", "daemon", "inject", "pool", "shard"];
    const TOKIO_SYNC_ONLY: [&str; 1] = ["shard"];
    let mut wrong = Vec::new();
    for (name, folder) in rooms() {
        let manifest = manifest(&folder);
        let dependencies = manifest.of("dependencies");
        let mut barred = vec!["glommio", "io-uring", "tokio-uring", "rio"];
        if name == "ring" {
            barred.clear();
        }
        if !TOKIO.contains(&name.as_str()) {
            barred.push("tokio");
        }
        for barred in barred.iter().filter(|barred| dependencies.contains_key(**barred)) {
            wrong.push(format!("room `{name}` depends on {barred}"));
        }
        if !TOKIO_SYNC_ONLY.contains(&name.as_str()) {
            continue;
        }
        for file in files(&folder, "rs").iter().filter(|file| !is_test(file)) {
            let text = read(file);
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (at, _) in
                code.match_indices("tokio::").filter(|(at, _)| !code[*at..].starts_with("tokio::sync"))
            {
                let line = code[..at].matches('\n').count() + 1;
                wrong.push(format!("{}:{line}: only tokio::sync works on a shard", shown(file)));
            }
        }
    }
    assert_clean(&wrong);
}

#[test]
fn manifests_are_all_alike() {
    const ONLY_LIB_IS_A_TARGET: [&str; 4] =
        ["autobins = false", "autotests = false", "autobenches = false", "autoexamples = false"];
    let mut wrong = Vec::new();
    for folder in members() {
        let manifest = manifest(&folder);
        let file = shown(&folder.join("Cargo.toml"));
        for line in ONLY_LIB_IS_A_TARGET {
            if !manifest.text.lines().any(|other| other.trim_end() == line) {
                wrong.push(format!("{file}: `{line}` is missing: a file could become a target by its name"));
            }
        }
        // The one build script is for what starts executors.
        let script = manifest.text.lines().find_map(|line| line.strip_prefix("build = "));
        if !script.is_some_and(|script| script == "false" || script.ends_with("link.rs\"")) {
            wrong.push(format!("{file}: `build = false` is missing: a file named build.rs would be run"));
        }
        if !manifest.text.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{file}: the lints of the workspace are missing"));
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.of(section) {
                if !value.contains("workspace = true") {
                    wrong.push(format!("{file}: the version of `{name}` belongs into the root manifest"));
                }
            }
        }
    }
    assert_clean(&wrong);
}

#[test]
fn cited_rfcs_are_listed() {
    let list = read(&root().join("docs/rfc.md"));
    let listed: BTreeSet<_> =
        list.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    let mut wrong = BTreeSet::new();
    let texts = sources("rs").chain(sources("txt")).chain(sources("md"));
    for (file, text) in texts.filter(|(file, _)| file != "docs/rfc.md") {
        for number in cited_rfcs(&text) {
            if !listed.contains(number) {
                wrong.insert(format!("{file}: RFC {number} is not in docs/rfc.md"));
            }
        }
    }
    assert_clean(&wrong.into_iter().collect::<Vec<_>>());
}

/// What a transcript shows is asked for by a section of an RFC, or by a document that Postfix has in the place of one.
#[test]
fn transcripts_say_what_they_show_and_who_asks_for_it() {
    let mut wrong = Vec::new();
    for (file, text) in sources("txt").filter(|(file, _)| file.contains("/transcripts/")) {
        let head: Vec<_> = text.lines().map_while(|line| line.strip_prefix("# ")).collect();
        if head.is_empty() {
            wrong.push(format!("{file}: no # line at the top"));
        } else if !cites_a_document(&head.join(" ")) {
            wrong.push(format!("{file}: the # lines at the top name no section of an RFC"));
        }
    }
    assert_clean(&wrong);
}

#[test]
fn rfcs_are_in_the_rooms_that_are_named() {
    let rooms: BTreeMap<_, _> = rooms().into_iter().collect();
    let mut cited: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, folder) in &rooms {
        let files = ["rs", "txt"].into_iter().flat_map(|extension| files(folder, extension));
        for text in files.map(|file| read(&file)) {
            cited.entry(name).or_default().extend(cited_rfcs(&text).map(str::to_owned));
        }
    }
    let mut wrong = Vec::new();
    for line in read(&root().join("docs/rfc.md")).lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, number, _, state, place, _] = cells[..] else { continue };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let named: Vec<_> = place.split('`').skip(1).step_by(2).collect();
        for room in named.iter().filter(|room| !rooms.contains_key(**room)) {
            wrong.push(format!("docs/rfc.md: RFC {number}: there is no room `{room}`"));
        }
        let is_here = state.starts_with("yes") || state.starts_with("part");
        if is_here && !named.iter().any(|room| cited.get(room).is_some_and(|cited| cited.contains(number))) {
            wrong.push(format!("docs/rfc.md: RFC {number} is cited in none of its rooms: {named:?}"));
        }
    }
    assert_clean(&wrong);
}

#[test]
fn every_fuzz_target_is_on_the_list() {
    let folder = root().join("fuzz");
    if !folder.join("Cargo.toml").exists() {
        return;
    }
    let list = fs::read_to_string(folder.join("targets.txt")).unwrap_or_default();
    let listed: BTreeSet<_> = list.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let manifest = manifest(&folder).text;
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for file in entries(&folder) {
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        if !is_rust || !read(&file).contains("fuzz_target!") {
            continue;
        }
        let name = name_of(&file);
        if !listed.contains(name.as_str()) {
            wrong.push(format!("fuzz/{name}.rs is not in fuzz/targets.txt, so nobody runs it"));
        }
        if !manifest.contains(&format!("name = \"{name}\"")) {
            wrong.push(format!("fuzz/{name}.rs is not in fuzz/Cargo.toml"));
        }
        found.insert(name);
    }
    for name in listed.iter().filter(|name| !found.contains(**name)) {
        wrong.push(format!("{name} is in fuzz/targets.txt, and there is no such file"));
    }
    assert_clean(&wrong);
}

#[test]
fn the_readme_shows_how_to_begin() {
    let readme = read(&root().join("README.md"));
    let makefile = read(&root().join("Makefile"));
    let mut wrong = Vec::new();
    for verb in ["run", "test", "load"] {
        if !readme.contains(&format!("make {verb}")) {
            wrong.push(format!("README.md does not show `make {verb}`"));
        }
        if !makefile.contains(&format!("\n{verb}:")) {
            wrong.push(format!("Makefile has no `{verb}`"));
        }
    }
    assert_clean(&wrong);
}

#[test]
fn rfc_numbers_are_found() {
    let cited = |text| cited_rfcs(text).collect::<Vec<_>>();
    assert_eq!(cited("(RFC 5321 §4.1.4)"), ["5321"]);
    assert_eq!(cited("RFC 5322, 2045) and RFC 3030"), ["5322", "2045", "3030"]);
    assert_eq!(cited("(RFC 5321 §4.5.3.1.8, 100)"), ["5321"]);
    assert_eq!(cited("RFC 1870, 6152, 6531, 3461"), ["1870", "6152", "6531", "3461"]);
    assert!(cited("RFCs are many, 1000 of them").is_empty());
}

#[test]
fn sections_and_documents_are_found() {
    for (text, expected) in [
        ("No 250 before it is durable (RFC 5321 §4.2.5).", true),
        ("As XFORWARD_README has it.", true),
        ("As RFC 5321 has it.", false),
        ("RFC § 4.2", false),
        ("README", false),
    ] {
        assert_eq!(cites_a_document(text), expected, "{text}");
    }
}

fn assert_clean(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the root").to_owned()
}

/// The room table: | `room` | caption | `import` `import` |.
fn plan() -> BTreeMap<String, Room> {
    let text = read(&root().join("docs/ARCHITECTURE.md"));
    let mut plan: BTreeMap<String, Room> = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, room, caption, imports, _] = cells[..] else { continue };
        let Some(room) = room.strip_prefix('`').and_then(|room| room.strip_suffix('`')) else { continue };
        let may_import = if imports == "every room above it in this table" {
            plan.keys().cloned().collect()
        } else {
            imports.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        plan.insert(room.to_owned(), Room { caption: caption.to_owned(), may_import });
    }
    assert!(!plan.is_empty(), "docs/ARCHITECTURE.md has no room table");
    plan
}

/// Name and folder of every room.
fn rooms() -> Vec<(String, PathBuf)> {
    let folders = entries(&root().join("src")).into_iter().filter(|path| path.is_dir());
    folders.map(|folder| (name_of(&folder), folder)).collect()
}

/// The folders of all crates of the workspace.
fn members() -> Vec<PathBuf> {
    let others = ["bench", "loadtest", "tests"].map(|name| root().join(name));
    rooms().into_iter().map(|(_, folder)| folder).chain(others).collect()
}

struct Manifest {
    text: String,
}

fn manifest(folder: &Path) -> Manifest {
    Manifest { text: read(&folder.join("Cargo.toml")) }
}

impl Manifest {
    /// The names in a section, and what stands behind them.
    fn of(&self, section: &str) -> BTreeMap<String, String> {
        let head = format!("[{section}]");
        let lines = self.text.lines().skip_while(|line| line.trim() != head).skip(1);
        let lines = lines.take_while(|line| !line.starts_with('['));
        let pairs = lines.filter_map(|line| {
            let end = line.find(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_')?;
            (end > 0).then(|| (line[..end].to_owned(), line[end..].to_owned()))
        });
        pairs.collect()
    }
}

/// The first sentence of the room's `lib.rs` or `main.rs`, less the full stop.
fn caption(folder: &Path) -> String {
    let file = folder.join(if folder.join("lib.rs").exists() { "lib.rs" } else { "main.rs" });
    let text = read(&file);
    let first = text.lines().next().and_then(|line| line.strip_prefix("//! ")).unwrap_or_default();
    first.strip_suffix('.').unwrap_or(first).to_owned()
}

/// Every file of ours with that extension, by its path from the root, with its text.
fn sources(extension: &'static str) -> impl Iterator<Item = (String, String)> {
    let folders = ["src", "bench", "loadtest", "tests", "fuzz", "docs"].map(|name| root().join(name));
    let files = folders.into_iter().flat_map(move |folder| files(&folder, extension));
    files.map(|file| (shown(&file), read(&file)))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in entries(folder) {
        if path.is_dir() {
            // What builds and fuzzing leave behind is not ours.
            if !["target", "corpus", "artifacts", "coverage"].iter().any(|name| path.ends_with(name)) {
                found.extend(files(&path, extension));
            }
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found
}

/// What is in a folder, by name; nothing when there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.sort();
    paths
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_test(file: &Path) -> bool {
    let name = name_of(file);
    name.ends_with("_test") || name == "test"
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// Whether the text names a section of an RFC, or one of Postfix's documents, as `XFORWARD_README`.
fn cites_a_document(text: &str) -> bool {
    let has_section =
        |rest: &str| number_of_rfc(rest).is_some_and(|(number, _)| rest[number.len()..].starts_with(" §"));
    text.split("RFC ").skip(1).any(has_section) || text.contains("_README")
}

/// The numbers in `RFC 5321`, `RFC 5322, 2045`.
fn cited_rfcs(text: &str) -> impl Iterator<Item = &str> {
    text.split("RFC ").skip(1).flat_map(|rest| {
        // A list goes on as long as numbers of four digits stand between its commas.
        rest.split(", ").map_while(number_of_rfc).scan(true, |open, (number, last)| {
            let here = *open;
            *open = !last;
            here.then_some(number)
        })
    })
}

/// The number at the start, and whether something else follows it.
fn number_of_rfc(text: &str) -> Option<(&str, bool)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (3..=4).contains(&digits).then(|| (&text[..digits], digits != text.len()))
}
