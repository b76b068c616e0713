//! Signatures: ours, dkimpy's and OpenDKIM's, on messages as they might be, before and after they were changed.
//!
//! Nothing is excused. What the others are known to do otherwise, `dkim.py` and `opendkim.py` set right before they are asked, and say
//! by which section; then all have to say the same of each signature.

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

/// As many signatures, and names in one, as there are in no message.
const ALL: usize = 1000;

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
        let lines = records.iter().map(|(name, text)| format!("{name} {text}\n")).collect::<String>();
        place.write("records", lines);
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
        signatures_max: ALL,
        signed_fields_max: ALL,
        ..Limits::default()
    };
    let few = Limits { signatures_max: Limits::default().signatures_max, ..limits };
    let (judge, mut wrong) = (Judge::new(), Vec::new());
    let (mut agreed, mut partial, mut many) = (BTreeMap::<(&str, bool), usize>::new(), 0, 0);
    for (i, message) in messages.iter().enumerate() {
        let judged = |limits| {
            let client = client("192.0.2.1", "client.example", "");
            world.message(&judge, client, limits, message).dkim
        };
        let verdicts = judged(limits);
        let fields = signatures(message);
        let counts = [fields.len(), dkimpy[i].len(), opendkim[i].len()];
        assert!(counts.iter().all(|count| *count == verdicts.len()), "{i}.eml: {counts:?}");
        // What we do not look at stands behind what we do ("verifiers [may] limit the number of signatures they check", RFC 6376 §6.1).
        if verdicts.len() > few.signatures_max {
            let (looked_at, rest) = verdicts.split_at(few.signatures_max);
            let (as_usual, more) = (judged(few), rest.len());
            assert_eq!(as_usual[..looked_at.len()], *looked_at, "{i}.eml");
            assert_eq!(as_usual[looked_at.len()..].len(), 1, "{i}.eml: one stands for {more}");
            assert_eq!(as_usual[looked_at.len()].reason, Some(Reason::TooMany), "{i}.eml");
            many += 1;
        }
        for (place, (dkim, signature)) in verdicts.iter().zip(&fields).enumerate() {
            let ours = dkim.result == DkimResult::Pass;
            for (who, says) in [("dkimpy", &dkimpy[i][place]), ("opendkim", &opendkim[i][place])] {
                partial += usize::from(says == "partial");
                // With `l=` ours is of the whole body: it has to be the body hash that is another.
                let is_partial = says == "partial" && dkim.reason != Some(Reason::BodyHash);
                if ours == (says == "pass") && !is_partial {
                    *agreed.entry((who, ours)).or_default() += 1;
                } else {
                    wrong.push(format!(
                        "{i}.eml after {:?}: we say {:?} {:?}, {who} says {says} of {signature}",
                        changes[i], dkim.result, dkim.reason
                    ));
                }
            }
        }
    }
    println!("agreed: {agreed:?}; partial: {partial}; with more signatures than we look at: {many}");
    if let Some(directory) = std::env::var_os("KEEP").filter(|_| !wrong.is_empty()) {
        let status =
            std::process::Command::new("cp").arg("-r").arg(keys.place.path()).arg(directory).status();
        println!("kept: {status:?}");
    }
    let some: String = wrong.iter().take(20).fold(String::new(), |text, line| text + line + "\n");
    assert!(wrong.is_empty(), "{} differ:\n{some}", wrong.len());
    for who in ["dkimpy", "opendkim"] {
        assert!(agreed[&(who, true)] > 1200 && agreed[&(who, false)] > 1200, "{agreed:?}");
    }
    assert!((partial > 0 && many > 0) || !Random::is_usual(), "{partial} {many}");
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
    let choose = |random: &mut Random| match random.below(8) {
        0 => ("r2", "rsa-sha1", "r2.pem"),
        1 | 2 => ("r2", "rsa-sha256", "r2.pem"),
        _ => ("e2", "ed25519-sha256", "e2.key"),
    };
    sign_by(include_str!("dkim.py"), "p", String::new(), random, keys, messages, choose);
}

fn sign_by_opendkim(random: &mut Random, keys: &Keys, messages: &mut [Vec<u8>]) {
    let choose = |random: &mut Random| match random.below(2) {
        0 => ("r1", "rsa-sha256", "r1.pem"),
        _ => ("e1", "ed25519-sha256", "e1.pem"),
    };
    let records = keys.file("records") + "\n";
    sign_by(include_str!("opendkim.py"), "o", records, random, keys, messages, choose);
}

/// Has messages signed, each as chance has it: with a selector, an algorithm and the file of a key that are chosen.
fn sign_by(
    script: &str,
    prefix: &str,
    mut lines: String,
    random: &mut Random,
    keys: &Keys,
    messages: &mut [Vec<u8>],
    choose: impl Fn(&mut Random) -> (&'static str, &'static str, &'static str),
) {
    let files: Vec<_> = (0..messages.len()).map(|i| keys.file(&format!("{prefix}{i}.eml"))).collect();
    for (file, message) in files.iter().zip(&*messages) {
        fs::write(file, message).unwrap();
        let (selector, algorithm, key) = choose(random);
        let ((_, header), (_, body)) = (random.of(&FORMS), random.of(&FORMS));
        let (length, key) = (if random.one_in(6) { "yes" } else { "no" }, keys.file(key));
        writeln!(lines, "sign {file} {selector} example.org {algorithm} {header} {body} {length} {key}")
            .unwrap();
    }
    run(Path::new(PYTHON), &["-c", script], &lines).good();
    for (file, message) in files.iter().zip(messages) {
        *message = fs::read(file).unwrap();
        fs::remove_file(file).unwrap();
    }
}

fn judged_by_dkimpy(keys: &Keys, messages: &[Vec<u8>]) -> Vec<Vec<String>> {
    let records = keys.records.iter().map(|(name, text)| format!("record {name} {text}\n")).collect();
    judged_by(include_str!("dkim.py"), keys, records, messages)
}

fn judged_by_opendkim(keys: &Keys, messages: &[Vec<u8>]) -> Vec<Vec<String>> {
    judged_by(include_str!("opendkim.py"), keys, keys.file("records") + "\n", messages)
}

/// What is said of the signatures of each message, in their order.
fn judged_by(script: &str, keys: &Keys, mut lines: String, messages: &[Vec<u8>]) -> Vec<Vec<String>> {
    (0..messages.len()).for_each(|i| writeln!(lines, "verify {}", keys.file(&format!("{i}.eml"))).unwrap());
    let said = run(Path::new(PYTHON), &["-c", script], &lines).good().stdout;
    let answers: Vec<Vec<String>> =
        said.lines().map(|line| line.split(' ').skip(1).map(str::to_owned).collect()).collect();
    assert_eq!(answers.len(), messages.len());
    answers
}
