//! The profiles in `tuning/` can be used as they are, and the guide names only what there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use config::{Config, CoreCount, ExampleOptions, Source, Takes};
use mail::Domain;

/// Every profile, with the number of CPUs of the host it is for.
const PROFILES: [(&str, usize); 3] = [("small-vps", 1), ("relay-2-cores", 2), ("relay-16-cores", 16)];

#[test]
fn every_profile_is_tried_here() {
    let files = fs::read_dir(root().join("tuning")).unwrap().map(|entry| entry.unwrap().path());
    let found: BTreeSet<_> =
        files.filter_map(|file| Some(file.to_str()?.strip_suffix(".toml")?.to_owned())).collect();
    let names: BTreeSet<_> =
        PROFILES.iter().map(|(name, _)| root().join("tuning").join(name).display().to_string()).collect();
    assert_eq!(found, names);
}

#[test]
fn a_profile_is_a_drop_in() {
    for (name, cpus) in PROFILES {
        let profile = source(&format!("tuning/{name}.toml"));
        // An unknown key, a wrong unit or values that contradict each other are errors.
        let config = Config::from_sources(&[example(), profile])
            .unwrap_or_else(|errors| panic!("{name}: {}", errors[0]));
        assert_eq!(config.warnings(cpus), [], "{name}");
        assert_ne!(config, Config::from_sources(&[example()]).unwrap(), "{name} changes nothing");
    }
}

#[test]
fn a_profile_is_read_from_conf_d() {
    for (name, _) in PROFILES {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("ringpost.toml");
        fs::write(&main, example().text).unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        let there = folder.path().join("conf.d/50-profile.toml");
        fs::copy(root().join(format!("tuning/{name}.toml")), there).unwrap();
        let alone = Config::load(&main).unwrap();
        let same = Config::from_sources(&[
            Source { file: main, text: example().text },
            source(&format!("tuning/{name}.toml")),
        ]);
        assert_eq!(alone, same.unwrap(), "{name}");
    }
}

#[test]
fn every_key_of_a_profile_has_its_reason() {
    let mut bare = Vec::new();
    for (name, _) in PROFILES {
        let text = source(&format!("tuning/{name}.toml")).text;
        let mut before = "";
        for (number, line) in text.lines().enumerate() {
            let is_key = line.contains('=') && !line.starts_with('#');
            if is_key && !before.starts_with("# ") {
                bare.push(format!("{name}:{}: {line}", number + 1));
            }
            before = line;
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}

#[test]
fn the_small_profile_fits_its_host() {
    const MIB: u64 = 1 << 20;
    /// tuning/README.md: a held message with its recipient, in queue, journal and index.
    const RECIPIENT: u64 = 900;
    /// tuning/README.md: without mail.
    const IDLE: u64 = 66 * MIB;
    let config = Config::from_sources(&[example(), source("tuning/small-vps.toml")]).unwrap();
    let CoreCount::Count(cores) = config.cores.count else { panic!("a small host is told its cores") };
    let each = config.buffers.budget
        + config.buffers.free
        + config.queue.recipients_max * RECIPIENT
        + config.dns.cache_size
        + config.log.buffer
        + config.ring.io_memory;
    let all = each * u64::from(cores) + config.index.cache * u64::from(config.journal.shards);
    assert!(IDLE + all < 448 * MIB, "{} MiB", (IDLE + all) / MIB);
}

#[test]
fn the_guide_names_metrics_that_exist() {
    let known = read("docs/metrics.md");
    let mut wrong = Vec::new();
    for file in guides() {
        let text = read(&file);
        for name in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let metric = name.starts_with("ringpost_") || name.starts_with("process_");
            // As the text format has the parts of a histogram.
            let stem =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            if metric && !known.contains(&format!("`{stem}`")) {
                wrong.push(format!("{file}: {name}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_guide_names_keys_that_exist() {
    let known = keys();
    let sections: BTreeSet<_> = known.iter().filter_map(|key| key.rsplit_once('.')).map(|(s, _)| s).collect();
    let mut wrong = Vec::new();
    for file in guides() {
        let text = read(&file);
        // Code in backticks: `section.key`, perhaps with a value.
        for code in text.split('`').skip(1).step_by(2) {
            let key = code.split([' ', '=']).next().unwrap_or_default();
            let Some((section, _)) = key.rsplit_once('.') else { continue };
            if sections.contains(section) && !known.contains(key) {
                wrong.push(format!("{file}: {key}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// Where a row says how its knob is turned back, it says what that takes.
#[test]
fn the_guide_knows_what_a_change_takes() {
    let known: BTreeMap<String, Takes> = Config::keys().into_iter().collect();
    let (mut wrong, mut rows) = (Vec::new(), 0);
    let text = read("docs/tuning.md");
    let mut knob = None;
    for line in text.lines() {
        let cells: Vec<_> = line.split(" | ").collect();
        if line.ends_with("| undo |") {
            knob = cells.iter().position(|cell| cell.trim_start_matches("| ") == "knob");
            continue;
        }
        let Some(cell) = knob.filter(|_| line.starts_with("| ")).and_then(|knob| cells.get(knob)) else {
            knob = knob.filter(|_| line.starts_with('|'));
            continue;
        };
        let keys = cell.split('`').skip(1).step_by(2).filter_map(|code| code.split([' ', '=']).next());
        let takes: Vec<_> = keys.filter_map(|key| known.get(key)).collect();
        let undo = line.trim_end_matches(" |");
        let said = match (undo.ends_with("; reload"), undo.ends_with("; restart")) {
            (true, _) => Takes::Reload,
            (_, true) => Takes::Restart,
            (false, false) => continue,
        };
        if takes.is_empty() {
            continue;
        }
        rows += 1;
        let needed = if takes.contains(&&Takes::Restart) { Takes::Restart } else { Takes::Reload };
        if said != needed {
            wrong.push(format!("a {needed:?} is what it takes: {line}"));
        }
    }
    assert!(rows > 20, "{rows} rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every key of the configuration, by the reference page.
fn keys() -> BTreeSet<String> {
    let page = read("docs/configuration.md");
    let (mut section, mut keys) = (String::new(), BTreeSet::new());
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("## `[") {
            section = name.trim_end_matches(['`', ']']).trim_start_matches('[').to_owned();
        } else if let Some(key) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) {
            keys.insert(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
        }
    }
    assert!(keys.contains("timeouts.inbound.command") && keys.contains("listener.backlog"), "{keys:?}");
    keys
}

/// The pages that lead to a knob.
fn guides() -> Vec<String> {
    let entries = fs::read_dir(root().join("tuning")).expect("the folder of the profiles");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pages = names.filter(|name| name.ends_with(".md"));
    pages.map(|name| format!("tuning/{name}")).chain(["docs/tuning.md".to_owned()]).collect()
}

fn example() -> Source {
    let text = Config::example(&ExampleOptions {
        hostname: Domain::parse("mx.example.org").expect("our own text"),
        certificate: "certificate.pem".into(),
        key: "key.pem".into(),
        data_directory: "data".into(),
        by_root: false,
        cpus: 2,
    });
    Source { file: root().join("ringpost.toml"), text }
}

fn source(file: &str) -> Source {
    Source { text: read(file), file: root().join(file) }
}

fn read(file: &str) -> String {
    let path = root().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}
