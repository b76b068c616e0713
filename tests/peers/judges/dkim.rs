//! Signatures: ours, dkimpy's and OpenDKIM's, on messages as they might be, before and after they were changed.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, thread};

use end_to_end::{Place, run, tool};
use trust::{
    BodyLength, Canonicalization, Digester, DkimResult, Judge, Key, KeyKind, Limits, Reason, Sha1Signatures,
    Signer, SignerOptions,
};

use super::{
    Random, World, client, digest,
    messages::{change, find, message},
    now,
};
use crate::authenticity::PYTHON;

/// How many messages each of the three signs.
const OURS: usize = 1800;
const DKIMPY: usize = 900;
const OPENDKIM: usize = 300;

/// Files that OpenDKIM is given at a time: a command has its longest length.
const BATCH: usize = 400;

/// What somebody says of one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Says {
    Good,
    /// It is not, for this reason.
    Bad(String),
    /// It says nothing.
    Nothing,
}

/// Who says something else than we do, where he may.
struct Difference {
    name: &'static str,
    section: &'static str,
    /// Whether this is it: what we say, why, and what the other says.
    is: fn(&Judged) -> bool,
}

struct Judged<'a> {
    who: &'a str,
    ours: Option<Reason>,
    theirs: &'a Says,
    /// The field, as it stands in the message.
    signature: &'a str,
    change: &'a str,
    message: &'a [u8],
}

/// What others say otherwise, and may.
const DIFFERENCES: &[Difference] = &[
    // "the appended text": whoever adds to a message keeps the signature. We count it only where all of the body is signed.
    Difference {
        name: "body length",
        section: "RFC 6376 §8.2",
        is: |judged| {
            judged.ours == Some(Reason::BodyHash)
                && *judged.theirs == Says::Good
                && judged.signature.contains(" l=")
        },
    },
    // "verifiers [may] limit the number of signatures they check".
    Difference {
        name: "many",
        section: "RFC 6376 §6.1",
        is: |judged| judged.ours == Some(Reason::TooMany) && *judged.theirs == Says::Good,
    },
    // "If the body is non-empty but does not end with a CRLF, a CRLF is added." They add none; SMTP carries no such line but by BDAT.
    Difference {
        name: "no last line end",
        section: "RFC 6376 §3.4.3, §3.4.4",
        is: |judged| !judged.message.ends_with(b"\r\n"),
    },
    // OpenDKIM gives its filter fields with one space after the colon, as the milter protocol first did: so the simple form is
    // another one, when it verifies and when it signs.
    Difference {
        name: "white space after the colon",
        section: "RFC 6376 §3.4.1",
        is: |judged| {
            judged.who == "opendkim"
                && matches!(judged.ours, None | Some(Reason::Signature))
                && judged.signature.contains("c=simple/")
                && has_odd_space(judged.message)
        },
    },
    // "verifiers [may] stop at the first that is good": it calls the others neutral.
    Difference {
        name: "not looked at",
        section: "RFC 6376 §6.1",
        is: |judged| {
            judged.who == "opendkim"
                && matches!(judged.theirs, Says::Bad(text) if text.starts_with("neutral"))
        },
    },
    // One without a version has it look at none of the others: "an attempt by an attacker" is not thought of there.
    Difference {
        name: "no version",
        section: "RFC 6376 §6.1",
        is: |judged| {
            judged.who == "opendkim" && *judged.theirs == Says::Nothing && judged.change == "no version"
        },
    },
];

struct Keys {
    place: Place,
    records: Vec<(String, String)>,
    ours: Vec<String>,
}

impl Keys {
    fn new() -> Self {
        let place = Place::new();
        let (mut records, mut ours) = (Vec::new(), Vec::new());
        for (selector, kind) in [("r1", KeyKind::Rsa2048), ("e1", KeyKind::Ed25519)] {
            let pem = trust::new_key(kind).unwrap();
            records.push((format!("{selector}._domainkey.example.org"), trust::record(&pem).unwrap()));
            place.write(&format!("{selector}.pem"), &pem);
            ours.push(pem);
        }
        // dkimpy signs with RSA in Python: a short key is enough of that.
        let pem = place.join("r2.pem");
        let arguments = ["genrsa", "-out", pem.to_str().unwrap(), "1024"];
        run(&tool("openssl"), &arguments, "").good();
        let text = trust::record(&fs::read_to_string(&pem).unwrap());
        let text = text.unwrap_or_else(|_| public_by_openssl(&pem));
        records.push(("r2._domainkey.example.org".into(), text));
        let script = "import nacl.signing, base64\n\
                      key = nacl.signing.SigningKey.generate()\n\
                      print(base64.b64encode(bytes(key)).decode(), base64.b64encode(bytes(key.verify_key)).decode())\n";
        let made = run(Path::new(PYTHON), &["-c", script], "").good().stdout;
        let (private, public) = made.trim().split_once(' ').unwrap();
        place.write("e2.key", private);
        records.push(("e2._domainkey.example.org".into(), format!("v=DKIM1; k=ed25519; p={public}")));
        Self { place, records, ours }
    }

    fn file(&self, name: &str) -> String {
        self.place.join(name).to_str().unwrap().to_owned()
    }
}

/// The record of a key that is too short for us to sign with.
fn public_by_openssl(pem: &Path) -> String {
    let arguments = ["rsa", "-in", pem.to_str().unwrap(), "-pubout"];
    let text = run(&tool("openssl"), &arguments, "").good().stdout;
    let lines: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    format!("v=DKIM1; k=rsa; p={lines}")
}

#[test]
fn all_judges_agree_on_signatures() {
    let keys = Keys::new();
    let mut world = World::default();
    keys.records.iter().for_each(|(name, text)| world.text(name, text));
    let mut random = Random::new(6376);
    let mut messages: Vec<Vec<u8>> = (0..OURS + DKIMPY + OPENDKIM).map(|_| message(&mut random)).collect();
    let (ours, theirs) = messages.split_at_mut(OURS);
    let (dkimpy, opendkim) = theirs.split_at_mut(DKIMPY);
    thread::scope(|scope| {
        let seeds = [random.below(1 << 30), random.below(1 << 30)].map(|seed| seed as u64);
        let keys = &keys;
        scope.spawn(move || sign_by_dkimpy(&mut Random(seeds[0]), keys, dkimpy));
        scope.spawn(move || sign_by_opendkim(&mut Random(seeds[1]), keys, opendkim));
        sign_by_us(&mut random, keys, ours);
    });
    let mut changes = Vec::new();
    for (i, message) in messages.iter_mut().enumerate() {
        changes.push(change(&mut random, message));
        fs::write(keys.file(&format!("{i}.eml")), message).unwrap();
    }
    let (dkimpy, opendkim) = thread::scope(|scope| {
        let opendkim = scope.spawn(|| judged_by_opendkim(&keys, &messages));
        (judged_by_dkimpy(&keys, &messages), opendkim.join().unwrap())
    });
    let limits = Limits {
        sha1: Sha1Signatures::Accepted,
        body_length: BodyLength::Ignored,
        header_size_max: 16 << 20,
        ..Limits::default()
    };
    let (judge, mut wrong) = (Judge::new(), Vec::new());
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut agreed: BTreeMap<(&str, bool), usize> = BTreeMap::new();
    for (i, message) in messages.iter().enumerate() {
        let client = client("192.0.2.1", "client.example", "");
        let verdict = world.message(&judge, client, limits, message);
        let fields = signatures(message);
        // One stands for all beyond the limit.
        assert_eq!(verdict.dkim.len(), fields.len().min(limits.signatures_max + 1), "{i}.eml");
        for (place, (dkim, signature)) in verdict.dkim.iter().zip(&fields).enumerate() {
            let ours = dkim.result == DkimResult::Pass;
            for (who, says) in [("dkimpy", &dkimpy[i]), ("opendkim", &opendkim[i])] {
                let says = match who {
                    "dkimpy" => says.get(place).cloned().unwrap_or(Says::Nothing),
                    _ => said_of(says, &dkim.start_of_b),
                };
                let judged =
                    Judged { who, ours: dkim.reason, theirs: &says, signature, change: changes[i], message };
                if ours == (says == Says::Good) {
                    *agreed.entry((who, ours)).or_default() += 1;
                } else if let Some(difference) =
                    DIFFERENCES.iter().find(|difference| (difference.is)(&judged))
                {
                    *seen.entry(difference.name).or_default() += 1;
                } else {
                    wrong.push(format!(
                        "{i}.eml after {:?}: we say {:?} {:?}, {who} says {says:?} of {signature}",
                        changes[i], dkim.result, dkim.reason
                    ));
                }
            }
        }
    }
    println!("agreed: {agreed:?}; differences: {seen:?}");
    if let Some(directory) = std::env::var_os("KEEP").filter(|_| !wrong.is_empty()) {
        let status =
            std::process::Command::new("cp").arg("-r").arg(keys.place.path()).arg(directory).status();
        println!("kept: {status:?}");
    }
    let some: String = wrong.iter().take(20).fold(String::new(), |text, line| text + line + "\n");
    assert!(wrong.is_empty(), "{} differ:\n{some}", wrong.len());
    for who in ["dkimpy", "opendkim"] {
        assert!(agreed[&(who, true)] > 700 && agreed[&(who, false)] > 700, "{agreed:?}");
    }
    for Difference { name, section, .. } in DIFFERENCES {
        assert!(seen.contains_key(name), "{name} ({section}) was not seen");
    }
}

/// Whether a field has something else than one space after its colon.
fn has_odd_space(message: &[u8]) -> bool {
    let end = find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let head = String::from_utf8_lossy(&message[..end]).into_owned();
    let mut fields = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']) && !line.is_empty());
    fields.any(|line| {
        let value = line.split_once(':').map_or("", |(_, value)| value);
        !value.starts_with(' ')
            || value.trim_start_matches(' ').len() + 1 != value.len()
            || value.trim().is_empty()
            || value.starts_with(" \t")
    })
}

/// The fields as they stand there, in their order.
fn signatures(message: &[u8]) -> Vec<String> {
    let end = find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let head = String::from_utf8_lossy(&message[..end]).into_owned();
    let mut fields: Vec<String> = Vec::new();
    for line in head.split_inclusive("\r\n") {
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => field.push_str(line),
            _ => fields.push(line.to_owned()),
        }
    }
    fields.retain(|field| field.to_ascii_lowercase().starts_with("dkim-signature:"));
    fields
}

const FORMS: [(Canonicalization, &str); 2] =
    [(Canonicalization::Simple, "simple"), (Canonicalization::Relaxed, "relaxed")];

/// One to three signatures each, and now and then a dozen.
fn sign_by_us(random: &mut Random, keys: &Keys, messages: &mut [Vec<u8>]) {
    let domain = "example.org".parse().unwrap();
    let mut signers = Vec::new();
    for (selector, pem) in ["r1", "e1"].into_iter().zip(&keys.ours) {
        for (header, _) in FORMS {
            for (body, _) in FORMS {
                for fields in [None, Some(["Subject", "Received", "To", "X-Mailer"])] {
                    let mut options = SignerOptions { header, body, ..SignerOptions::default() };
                    if let Some(fields) = fields {
                        options.fields = fields.map(Into::into).into();
                        options.sealed = vec!["Cc".into()];
                        options.identity = Some("ann@example.org".into());
                        options.lifetime = Some(std::time::Duration::from_secs(86_400));
                    }
                    let key = Key::parse(pem).unwrap();
                    signers.push(Signer::new(key, &domain, selector, options).unwrap());
                }
            }
        }
    }
    for message in messages {
        let count = if random.one_in(100) { 12 } else { 1 + random.below(6) / 3 };
        // Each once: by its beginning a signature is told from others.
        let mut left: Vec<&Signer> = signers.iter().collect();
        let chosen: Vec<&Signer> = (0..count).map(|_| left.swap_remove(random.below(left.len()))).collect();
        let digest = digest(Digester::new(Limits::default()).signing(chosen.iter().copied()), message);
        let mut out = Vec::new();
        for signer in chosen {
            signer.sign(&mut out, &digest, b"", now()).unwrap();
        }
        drop(message.splice(..0, out));
    }
}

fn sign_by_dkimpy(random: &mut Random, keys: &Keys, messages: &mut [Vec<u8>]) {
    let mut lines = String::new();
    let files: Vec<_> = (0..messages.len()).map(|i| keys.file(&format!("p{i}.eml"))).collect();
    for (file, message) in files.iter().zip(&*messages) {
        fs::write(file, message).unwrap();
        let (selector, algorithm, key) = match random.below(8) {
            0 => ("r2", "rsa-sha1", keys.file("r2.pem")),
            1 | 2 => ("r2", "rsa-sha256", keys.file("r2.pem")),
            _ => ("e2", "ed25519-sha256", keys.file("e2.key")),
        };
        let ((_, header), (_, body)) = (random.of(&FORMS), random.of(&FORMS));
        let length = if random.one_in(6) { "yes" } else { "no" };
        writeln!(lines, "sign {file} {selector} example.org {algorithm} {header} {body} {length} {key}")
            .unwrap();
    }
    run(Path::new(PYTHON), &["-c", include_str!("dkim.py")], &lines).good();
    for (file, message) in files.iter().zip(messages) {
        *message = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
    }
}

/// Its filter tells what field it would insert, where it is given files.
fn sign_by_opendkim(random: &mut Random, keys: &Keys, messages: &mut [Vec<u8>]) {
    // It signs nothing without it.
    messages
        .iter_mut()
        .filter(|message| !message.ends_with(b"\r\n"))
        .for_each(|message| message.extend_from_slice(b"\r\n"));
    // By form: it has one for a run.
    let mut by_form: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..messages.len() {
        by_form.entry(random.below(8)).or_default().push(i);
    }
    for (form, places) in by_form {
        let ((_, header), (_, body)) = (FORMS[form & 1], FORMS[form >> 1 & 1]);
        let (selector, key, algorithm) = match form >> 2 {
            0 => ("r1", "r1.pem", "rsa-sha256"),
            _ => ("e1", "e1.pem", "ed25519-sha256"),
        };
        let configuration = format!(
            "Mode s\nSyslog no\nDomain example.org\nSelector {selector}\nKeyFile {}\nCanonicalization {header}/{body}\n\
             SignatureAlgorithm {algorithm}\nOversignHeaders From\nInternalHosts 0.0.0.0/0\nRequireSafeKeys no\n",
            keys.file(key)
        );
        let file = keys.place.write(&format!("sign{form}.conf"), configuration);
        let names: Vec<_> = places.iter().map(|i| keys.file(&format!("o{i}.eml"))).collect();
        places.iter().zip(&names).for_each(|(i, name)| fs::write(name, &messages[*i]).unwrap());
        let arguments = ["-x", file.to_str().unwrap(), "-vv", "-t", &names.join(",")];
        let said = run(&tool("opendkim"), &arguments, "");
        let said = said.stdout + &said.stderr;
        // In the order of the files, as each ends.
        let fields: Vec<_> = said
            .split("### INSHEADER: idx=")
            .skip(1)
            .map(|text| {
                let value = text.split_once("hname='DKIM-Signature' hvalue='").unwrap().1;
                let value = value.split_once('\'').unwrap().0;
                format!("DKIM-Signature: {}\r\n", value.replace("\r\n", "\n").replace('\n', "\r\n"))
            })
            .collect();
        assert_eq!(fields.len(), places.len(), "{}", &said[..2000.min(said.len())]);
        for (i, field) in places.iter().zip(fields) {
            drop(messages[*i].splice(..0, field.into_bytes()));
        }
        names.iter().for_each(|name| fs::remove_file(name).unwrap());
    }
}

fn judged_by_dkimpy(keys: &Keys, messages: &[Vec<u8>]) -> Vec<Vec<Says>> {
    let mut lines: String = keys
        .records
        .iter()
        .fold(String::new(), |lines, (name, text)| lines + &format!("record {name} {text}\n"));
    (0..messages.len()).for_each(|i| writeln!(lines, "verify {}", keys.file(&format!("{i}.eml"))).unwrap());
    let said = run(Path::new(PYTHON), &["-c", include_str!("dkim.py")], &lines).good().stdout;
    let answers: Vec<Vec<Says>> = said
        .lines()
        .map(|line| {
            let words = line.split(' ').skip(1);
            words.map(|word| if word == "pass" { Says::Good } else { Says::Bad(word.to_owned()) }).collect()
        })
        .collect();
    assert_eq!(answers.len(), messages.len());
    answers
}

/// What it says of each signature, by how its `b=` begins.
fn judged_by_opendkim(keys: &Keys, messages: &[Vec<u8>]) -> Vec<Vec<Says>> {
    let records =
        keys.records.iter().fold(String::new(), |text, (name, record)| text + &format!("{name} {record}\n"));
    let records = keys.place.write("records", records);
    let configuration = format!(
        "Mode v\nSyslog no\nTestPublicKeys {}\nMinimumKeyBits 1024\nAllowSHA1Only yes\nAlwaysAddARHeader yes\nMaximumHeaders 0\n",
        records.display()
    );
    keys.place.write("verify.conf", configuration);
    let mut answers = vec![Vec::new(); messages.len()];
    let mut rest = &(0..messages.len()).collect::<Vec<_>>()[..];
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(BATCH)];
        let names: Vec<_> = batch.iter().map(|i| format!("{i}.eml")).collect();
        // In the order in which it is said.
        let command = "cd \"$0\" && exec stdbuf -oL opendkim -x verify.conf -vv -t \"$1\" 2>&1";
        let directory = keys.place.path().to_str().unwrap();
        let said = run(&tool("sh"), &["-c", command, directory, &names.join(",")], "").stdout;
        let mut seen = 0;
        for (i, name) in batch.iter().zip(&names) {
            let Some((_, text)) = said.split_once(&format!("opendkim: {name}: mlfi_envfrom()")) else {
                break;
            };
            seen += 1;
            let text = text.split(": mlfi_envfrom()").next().unwrap();
            let Some((_, value)) = text.split_once("hname='Authentication-Results' hvalue='") else {
                continue;
            };
            let value = value.split('\'').next().unwrap().replace(['\r', '\n', '\t'], " ");
            let results = value.split(';').filter_map(|result| result.trim().strip_prefix("dkim="));
            answers[*i].extend(results.map(|result| Says::Bad(result.to_owned())));
        }
        assert!(seen > 0, "{}", &said[..2000.min(said.len())]);
        // It stops at a message of which it has seen enough early.
        rest = &rest[seen..];
    }
    answers
}

fn said_of(results: &[Says], start_of_b: &str) -> Says {
    let named = results.iter().find_map(|says| {
        let Says::Bad(text) = says else { return None };
        let ours =
            text.split(' ').any(|word| word.strip_prefix("header.b=").is_some_and(|b| b == start_of_b));
        ours.then_some(text)
    });
    match named {
        Some(text) if text.starts_with("pass") => Says::Good,
        Some(text) => Says::Bad(text.clone()),
        None => Says::Nothing,
    }
}
