//! Pictures of domains (BIMI): unbound has the records, Python the pictures over HTTPS, openssl makes the certificates of them, and
//! dkimpy signs the selectors.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use end_to_end::{Place, Program, free_address, run, tool, until};
use flate2::{Compression, write::GzEncoder};

use crate::{
    authenticity::{House, MESSAGE, PYTHON, field, text_record},
    outbound_tls::Authority,
};

const HEAD: &str =
    "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.2\" baseProfile=\"tiny-ps\" viewBox=\"0 0 8 8\">";

/// A picture with this within it.
pub(crate) fn picture(within: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n{HEAD}<title>Us</title>{within}</svg>\n")
}

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A host with files, each at the path of its name.
pub(crate) struct WebHost {
    program: Option<Program>,
    place: Place,
    address: SocketAddr,
    certificate: (PathBuf, PathBuf),
}

const SCRIPT: &str = r#"
import http.server, os, ssl, sys
ip, port, certificate, key, directory = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        # In one piece: two are asked for at the same time.
        sys.stdout.write(f"asked for {self.path} {self.headers['Accept']}\n")
        sys.stdout.flush()
        path = os.path.join(directory, self.path[1:])
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good.svg")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if not os.path.exists(path):
            return self.send_error(404)
        body = open(path, "rb").read()
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer((ip, int(port)), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("it serves", flush=True)
server.serve_forever()
"#;

impl WebHost {
    pub(crate) fn start(certificate: (PathBuf, PathBuf)) -> Self {
        let mut host = Self { program: None, place: Place::new(), address: free_address(), certificate };
        let script = host.place.write("web.py", SCRIPT);
        let mut command = Command::new(tool("python3"));
        let (ip, port) = (host.address.ip().to_string(), host.address.port().to_string());
        command.arg(script).args([ip, port]).arg(&host.certificate.0).arg(&host.certificate.1);
        command.arg(host.place.path());
        let program = Program::start("web", &mut command);
        program.wait_for("it serves", |line| line.contains("it serves").then_some(()));
        host.program = Some(program);
        host
    }

    pub(crate) fn has(&self, name: &str, contents: impl AsRef<[u8]>) {
        self.place.write(name, contents);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn stop(&mut self) {
        self.program = None;
    }

    /// How often this was asked for.
    fn count(&self, name: &str) -> usize {
        let asked = format!("asked for /{name} ");
        self.program.as_ref().unwrap().stdout().lines().filter(|line| line.starts_with(&asked)).count()
    }
}

/// Authorities that say whose picture something is: one that is believed, and one that issues for it.
pub(crate) struct Marks {
    place: Place,
}

/// The certificate of a picture as openssl writes it: all of its ASN.1 is written here in words.
const MARK: &str = "basicConstraints = CA:FALSE\nsubjectAltName = {names}\nextendedKeyUsage = {purpose}\n\
1.3.6.1.4.1.11129.2.4.2 = ASN1:FORMAT:HEX,OCTETSTRING:0000\n\
1.3.6.1.5.5.7.1.12 = ASN1:SEQUENCE:logotype\n\
[logotype]\nsubject = EXPLICIT:2,IMPLICIT:0,SEQUENCE:data\n[data]\nimages = SEQUENCE:images\n\
[images]\nimage = SEQUENCE:image\n[image]\ndetails = SEQUENCE:details\n\
[details]\ntype = IA5STRING:image/svg+xml\nhashes = SEQUENCE:hashes\nplaces = SEQUENCE:places\n\
[hashes]\nhash = SEQUENCE:hash\n[hash]\nalgorithm = SEQUENCE:algorithm\nvalue = FORMAT:HEX,OCTETSTRING:00\n\
[algorithm]\nname = OID:sha256\n[places]\nplace = IA5STRING:data:image/svg+xml;base64,{picture}\n";

pub(crate) const PURPOSE: &str = "1.3.6.1.5.5.7.3.31";

impl Marks {
    pub(crate) fn new() -> Self {
        let marks = Self { place: Place::new() };
        marks.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=marks \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign -keyout ca-key.pem -out ca.pem");
        let extensions = format!(
            "basicConstraints = critical,CA:TRUE\nkeyUsage = keyCertSign\nextendedKeyUsage = {PURPOSE}\n"
        );
        marks.sign("issuer", "ca", &extensions);
        marks
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.place.join("ca.pem")
    }

    /// The chain of a certificate for these names, of this picture.
    pub(crate) fn issue(&self, names: &str, purpose: &str, svg: &str) -> String {
        let extensions = MARK
            .replace("{names}", names)
            .replace("{purpose}", purpose)
            .replace("{picture}", &STANDARD.encode(packed(svg)));
        self.sign("mark", "issuer", &extensions);
        let read = |file: &str| std::fs::read_to_string(self.place.join(file)).unwrap();
        format!("{}{}", read("mark.pem"), read("issuer.pem"))
    }

    fn sign(&self, name: &str, by: &str, extensions: &str) {
        self.place.write(&format!("{name}.ext"), extensions);
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}-key.pem -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}-key.pem -CAcreateserial -days 365 -extfile {name}.ext \
             -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let place = |word: &str| {
            let is_file = [".pem", ".csr", ".ext"].iter().any(|end| word.ends_with(end));
            if is_file { self.place.join(word).display().to_string() } else { word.to_owned() }
        };
        let arguments: Vec<String> = arguments.split_whitespace().map(place).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(&tool("openssl"), &arguments, "").good();
    }
}

/// The message with this selector, signed.
fn selecting(selector: &str, key: &Path) -> String {
    let content = format!("BIMI-Selector: v=BIMI1; s={selector}\r\n{MESSAGE}");
    let script = format!(
        "import sys, dkim\n\
         message = sys.stdin.buffer.read()\n\
         pem = open({key:?}, 'rb').read()\n\
         names = [b'from', b'to', b'subject', b'date', b'message-id', b'bimi-selector']\n\
         sys.stdout.buffer.write(dkim.sign(message, b'r1', b'example.org', pem, include_headers=names) + message)\n"
    );
    run(Path::new(PYTHON), &["-c", &script], &content).good().stdout
}

/// A house, and what readers are to see of example.org.
struct World {
    house: House,
    web: WebHost,
    marks: Marks,
    _authority: Authority,
}

/// By selector: where the picture is, and the certificate.
const RECORDS: [(&str, &str, &str); 9] = [
    ("default", "good.svg", "good.pem"),
    ("packed", "good.svgz", ""),
    ("alone", "", "good.pem"),
    ("scripted", "scripted.svg", ""),
    ("moved", "moved", ""),
    ("absent", "absent.svg", ""),
    ("other", "good.svg", "other.pem"),
    ("another", "another.svg", "good.pem"),
    ("server", "good.svg", "server.pem"),
];

impl World {
    fn new(rules: &str) -> Self {
        let authority = Authority::new(&["unused.example.org"]);
        let web = WebHost::start(authority.issue("web", &["logo.example.org"]));
        let marks = Marks::new();
        let good = picture("<circle cx=\"4\" cy=\"4\" r=\"3\"/>");
        web.has("good.svg", &good);
        web.has("good.svgz", packed(&good));
        web.has("another.svg", picture("<rect width=\"8\" height=\"8\"/>"));
        web.has("scripted.svg", picture("<script>alert(1)</script>"));
        let for_domain = "DNS:example.org, DNS:another._bimi.example.org";
        web.has("good.pem", marks.issue(for_domain, PURPOSE, &good));
        web.has("other.pem", marks.issue("DNS:example.com", PURPOSE, &good));
        web.has("server.pem", marks.issue("DNS:example.org", "serverAuth", &good));
        let port = web.address().port();
        let place = |name: &str| {
            if name.is_empty() { String::new() } else { format!("https://logo.example.org:{port}/{name}") }
        };
        let records: String = RECORDS
            .iter()
            .map(|(selector, l, a)| {
                let text = format!("v=BIMI1; l={}; a={}", place(l), place(a));
                text_record(&format!("{selector}._bimi.example.org"), &text)
            })
            .collect();
        let more = text_record("_dmarc.example.org", "v=DMARC1; p=reject")
            + &text_record("declined._bimi.example.org", "v=BIMI1; l=; a=;")
            + &text_record("broken._bimi.example.org", "v=BIMI1; l=http://logo.example.org/x.svg")
            + &format!("local-data: 'logo.example.org A {}'\n", web.address().ip());
        let house = House::with(&Self::rules(rules, &marks, ""), |_, sink| {
            let trust = format!(
                "[outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n",
                authority.certificate().display(),
            );
            (format!("{records}{more}"), format!("{}{trust}", sink.route()))
        });
        Self { house, web, marks, _authority: authority }
    }

    fn rules(rules: &str, marks: &Marks, bimi: &str) -> String {
        let bimi = match bimi {
            "" => format!("authorities = [\"{}\"]\nprivate-servers = true\n", marks.authority().display()),
            other => other.to_owned(),
        };
        format!("{rules}[bimi]\n{bimi}")
    }

    /// From now on these rules hold, and this of `[bimi]`, if it is not what held before.
    fn change(&self, rules: &str, bimi: &str) {
        self.house.change(&Self::rules(rules, &self.marks, bimi));
    }

    /// What is told of a message by SPF alone, or with this selector: what stands behind `bimi=`, and all of the message.
    fn told(&self, selector: &str) -> (String, String) {
        let sent = match selector {
            "" => MESSAGE.to_owned(),
            selector => selecting(selector, &self.house.key("dkim/r1.pem")),
        };
        self.told_of(&sent)
    }

    fn told_of(&self, sent: &str) -> (String, String) {
        let received = self.house.taken("192.0.2.1", "ann@example.org", sent);
        let results = field(&received, "Authentication-Results");
        let bimi = results.split_once("bimi=").map_or("", |(_, bimi)| bimi);
        let words: Vec<&str> = bimi.split_whitespace().collect();
        (words.join(" "), received)
    }

    /// Likewise, once its picture is known.
    fn known(&self, selector: &str) -> (String, String) {
        let (first, received) = self.told(selector);
        assert!(
            first.starts_with("temperror reason=\"the indicator is not known yet\""),
            "{selector}: {first}"
        );
        assert!(!received.contains("BIMI-Location") && !received.contains("BIMI-Indicator"), "{received}");
        let (location, evidence) =
            RECORDS.iter().find(|(name, ..)| *name == selector).map(|(_, l, a)| (*l, *a)).unwrap();
        let is_it = |event: &serde_json::Value| {
            let ends = |key: &str, name: &str| match event[key].as_str() {
                Some(place) => !name.is_empty() && place.ends_with(name),
                None => name.is_empty(),
            };
            ends("location", location) && ends("evidence", evidence)
        };
        let server = &self.house.server;
        until(selector, || {
            let mut events = server.events("indicator_fetched");
            events.extend(server.events("indicator_failed"));
            events.iter().any(is_it).then_some(())
        });
        // It is told a moment before it is known.
        until(selector, || Some(self.told(selector)).filter(|(told, _)| !told.contains("not known yet")))
    }
}

/// What is shown, decoded.
fn shown(received: &str) -> String {
    let value: String = field(received, "BIMI-Indicator").split_whitespace().collect();
    String::from_utf8(STANDARD.decode(value).unwrap()).unwrap()
}

#[test]
fn readers_are_shown_what_a_domain_asserts() {
    let mut world = World::new("bimi = \"indicator\"\n");
    let good = std::fs::read_to_string(world.web.place.join("good.svg")).unwrap();
    let port = world.web.address().port();
    let (told, received) = world.known("default");
    let pass =
        "pass header.d=example.org header.selector=default policy.authority=pass policy.indicator-hash=";
    assert!(told.starts_with(pass), "{told}");
    assert_eq!(shown(&received), good);
    let at = |name: &str| format!("https://logo.example.org:{port}/{name};");
    let location = format!("v=BIMI1; l={} a={}", at("good.svg"), at("good.pem"));
    assert_eq!(field(&received, "BIMI-Location"), location);
    // It was fetched once, by all of the messages that asked for it.
    assert_eq!((world.web.count("good.svg"), world.web.count("good.pem")), (1, 1));
    // By SPF alone, and in a message whose header section is written last.
    let large = format!("{MESSAGE}{}", "And it goes on, and on. \r\n".repeat(10_000));
    for sent in [MESSAGE, &large] {
        let (told, received) = world.told_of(sent);
        assert!(told.starts_with(pass) && received.ends_with(sent), "{told}");
        assert_eq!(shown(&received), good);
    }
    let (told, received) = world.known("packed");
    assert!(
        told.contains("pass header.d=example.org header.selector=packed policy.authority=none"),
        "{told}"
    );
    assert_eq!(shown(&received), good);
    assert!(!field(&received, "BIMI-Location").contains("a="), "{received}");
    let (told, received) = world.known("alone");
    assert!(told.starts_with("pass") && told.contains("policy.authority=pass"), "{told}");
    assert_eq!(shown(&received), good);
    assert!(!field(&received, "BIMI-Location").contains("l="), "{received}");
    for (selector, expected) in [
        ("scripted", "fail reason=\"indicator: it has an element that is not allowed: script\""),
        ("moved", "fail reason=\"indicator: the host answered 302 Found\""),
        ("absent", "fail reason=\"indicator: the host answered 404 Not Found\""),
        ("other", "fail reason=\"the certificate is for another domain\""),
        ("another", "fail reason=\"certificate: it is of another picture than the one that is shown\""),
        ("server", "fail reason=\"certificate: "),
    ] {
        let (told, received) = world.known(selector);
        assert!(told.starts_with(expected), "{selector}: {told}");
        let has_certificate = RECORDS.iter().any(|(name, _, a)| *name == selector && !a.is_empty());
        assert_eq!(told.contains("policy.authority=fail"), has_certificate, "{told}");
        assert!(!received.contains("BIMI-Location:") && !received.contains("BIMI-Indicator:"), "{received}");
    }
    assert_eq!(world.web.count("moved"), 1, "and nobody follows");
    for (selector, expected) in [
        ("declined", "declined header.d=example.org header.selector=declined"),
        ("broken", "fail reason=\"a place in the BIMI record is no https:// URL\""),
        ("nothing", "none"),
    ] {
        let (told, received) = world.told(selector);
        assert!(told.starts_with(expected), "{selector}: {told}");
        assert!(!received.contains("BIMI-Location:"), "{received}");
    }
    let counted = |result: &str| {
        world.house.server.metric("ringpost_bimi_results_total", &[&format!("result=\"{result}\"")])
    };
    assert!(counted("pass") >= 5.0 && counted("declined") == 1.0 && counted("none") == 1.0);
    let fetched = |result: &str| {
        world.house.server.metric("ringpost_bimi_fetches_total", &[&format!("result=\"{result}\"")])
    };
    assert_eq!((fetched("good"), fetched("bad")), (4.0, 5.0));
    // What is known stays known while nobody has it; without the authority its word counts no more, and what is not known is not had.
    world.web.stop();
    assert!(world.told("").0.starts_with(pass));
    world.change("bimi = \"indicator\"\n", "private-servers = true\n");
    let (told, _) = world.told("");
    assert!(told.starts_with("temperror reason=\"the indicator is not known yet\""), "{told}");
    let failed = world.house.server.event("indicator_failed", |event| event["what"] == "unavailable");
    assert!(failed["error"].as_str().unwrap().contains("cannot connect"), "{failed}");
    let told = until("it is known that it is not had", || {
        Some(world.told("").0).filter(|told| !told.contains("not known yet"))
    });
    assert!(told.starts_with("temperror reason=\"indicator: cannot connect"), "{told}");
}

/// The fields are ours, whatever is found, and wherever verifying is all that is asked for.
#[test]
fn pictures_that_others_show_are_taken_out() {
    let world = World::new("");
    let forged = "BIMI-Location: v=BIMI1; l=https://evil.example/x.svg\r\nbimi-indicator : PHN2Zz4=\r\n\tPHN2Zz4=\r\n\
                  BIMI-Logo-Preference: avp=brand\r\n";
    for (address, from) in [("192.0.2.1", "ann@example.org"), ("192.0.2.66", "x@bare.example")] {
        let received = world.house.taken(address, from, &format!("{forged}{MESSAGE}"));
        assert!(received.ends_with(MESSAGE), "{received}");
        let lower = received.to_ascii_lowercase();
        assert!(!lower.contains("bimi"), "{received}");
    }
    // Another's mail is skipped, and so is what may deceive; fields are written only where all is well.
    world.change("bimi = \"indicator\"\n", "");
    let received =
        world.house.taken("192.0.2.66", "x@bare.example", &format!("BIMI-Indicator: PHN2Zz4=\r\n{MESSAGE}"));
    let results = field(&received, "Authentication-Results");
    assert!(results.contains("bimi=skipped reason=\"DMARC does not pass\""), "{results}");
    assert!(!received.to_ascii_lowercase().contains("bimi-"), "{received}");
    let odd = MESSAGE.replacen("From: Ann", "From: \"pay@bank.example\"", 1);
    let (told, _) = world.told_of(&odd);
    assert!(told.starts_with("skipped reason=\"the message may deceive its reader\""), "{told}");
    // A selector that is not signed is none.
    let (told, _) = world.told_of(&format!("BIMI-Selector: v=BIMI1; s=declined\r\n{MESSAGE}"));
    assert!(told.contains("header.selector=default"), "{told}");
    // Only with a certificate, and only the record.
    world.change("bimi = \"certificate\"\n", "");
    let (told, _) = world.told("packed");
    assert!(told.starts_with("skipped reason=\"the indicator has no certificate\""), "{told}");
    world.change("bimi = \"record\"\n", "");
    let (told, received) = world.told("scripted");
    assert!(told.starts_with("skipped reason=\"the indicator is not looked at here\""), "{told}");
    assert!(field(&received, "BIMI-Location").contains("/scripted.svg"), "{received}");
    assert_eq!(world.web.count("scripted.svg"), 0);
    // Nobody is asked whom a stranger names within our own walls.
    world.change("bimi = \"indicator\"\n", "private-servers = false\n");
    let (told, _) = world.told("absent");
    assert!(told.starts_with("temperror"), "{told}");
    let failed = world.house.server.event("indicator_failed", |event| {
        event["location"].as_str().is_some_and(|place| place.ends_with("/absent.svg"))
    });
    assert!(failed["error"].as_str().unwrap().contains("is not asked"), "{failed}");
    assert_eq!(world.web.count("absent.svg"), 0);
}
