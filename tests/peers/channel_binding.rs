//! Logins that are tied to the TLS connection, at a host that has them of GNU SASL, and its TLS of OpenSSL.

use std::process::Command;

use end_to_end::{Place, Program, Server, free_address};
use serde_json::Value;

use crate::{
    authenticity::PYTHON,
    logins::{PASSWORD, USER, secret},
    outbound_tls::Authority,
};

/// A submission server. How it behaves is in the file `mode`, read for each connection: what it offers, the newest TLS that it
/// speaks, and what its library knows of the channel. GNU SASL has `tls-exporter` alone, so `tls-server-end-point` is by hand.
const SCRIPT: &str = r#"
import base64, ctypes, hashlib, hmac, os, socket, sys
from OpenSSL import SSL, crypto

ip, port, chain, key, mode_file, user, password = sys.argv[1:]
gsasl = ctypes.CDLL("libgsasl.so.18")
AUTHID, PASSWORD, SCRAM_ITER, CB_TLS_EXPORTER, NEEDS_MORE, NO_CALLBACK = 1, 3, 15, 25, 1, 51
gsasl.gsasl_property_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
gsasl.gsasl_property_fast.argtypes = [ctypes.c_void_p, ctypes.c_int]
gsasl.gsasl_property_fast.restype = ctypes.c_char_p
gsasl.gsasl_step64.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)]
gsasl.gsasl_server_start.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]
gsasl.gsasl_finish.argtypes = [ctypes.c_void_p]
gsasl.gsasl_strerror_name.restype = ctypes.c_char_p
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
binding = None

@CALLBACK
def on_property(context, session, wanted):
    if wanted == PASSWORD and gsasl.gsasl_property_fast(session, AUTHID) == user.encode():
        gsasl.gsasl_property_set(session, PASSWORD, password.encode())
    elif wanted == CB_TLS_EXPORTER and binding:
        gsasl.gsasl_property_set(session, CB_TLS_EXPORTER, base64.b64encode(binding))
    elif wanted == SCRAM_ITER:
        gsasl.gsasl_property_set(session, SCRAM_ITER, b"4096")
    else:
        return NO_CALLBACK
    return 0

context = ctypes.c_void_p()
assert gsasl.gsasl_init(ctypes.byref(context)) == 0
gsasl.gsasl_callback_set.argtypes = [ctypes.c_void_p, CALLBACK]
gsasl.gsasl_callback_set(context, on_property)

def by_gsasl(mechanism, said, challenge):
    session, out = ctypes.c_void_p(), ctypes.c_char_p()
    assert gsasl.gsasl_server_start(context, mechanism.encode(), ctypes.byref(session)) == 0
    flag = base64.b64decode(said).decode().split(",")[0]
    status = gsasl.gsasl_step64(session, said.encode(), ctypes.byref(out))
    while status == NEEDS_MORE:
        said = challenge(out.value.decode())
        status = gsasl.gsasl_step64(session, said.encode(), ctypes.byref(out))
    if status == 0 and out.value:
        challenge(out.value.decode())
    gsasl.gsasl_finish(session)
    return flag, "" if status == 0 else gsasl.gsasl_strerror_name(status).decode()

def by_hand(mechanism, said, challenge):
    encode = lambda octets: base64.b64encode(octets).decode()
    attributes = lambda text: dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    first = base64.b64decode(said).decode()
    flag, authzid, bare = first.split(",", 2)
    salt, nonce = os.urandom(16), attributes(bare)["r"] + "ours"
    server_first = f"r={nonce},s={encode(salt)},i=4096"
    last = base64.b64decode(challenge(encode(server_first.encode()))).decode()
    mac = lambda key, text: hmac.new(key, text, hashlib.sha256).digest()
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    without_proof = last[:last.rindex(",p=")]
    text = f"{bare},{server_first},{without_proof}".encode()
    client_key = mac(salted, b"Client Key")
    proof = bytes(a ^ b for a, b in zip(client_key, mac(hashlib.sha256(client_key).digest(), text)))
    bound = flag.encode() + b",," + (binding if flag.startswith("p=") else b"")
    if attributes(last)["c"] != encode(bound):
        return flag, "channel-bindings-dont-match"
    if not last.endswith(",p=" + encode(proof)):
        return flag, "invalid-proof"
    challenge(encode(b"v=" + encode(mac(mac(salted, b"Server Key"), text)).encode()))
    return flag, ""

def serve(raw):
    global binding
    offered, version, knows = open(mode_file).read().split("\n")[:3]
    connection, buffer, binding = raw, b"", None
    def say(text):
        connection.sendall(text.encode() + b"\r\n")
    def hear():
        nonlocal buffer
        while b"\r\n" not in buffer:
            more = connection.recv(4096)
            if not more:
                raise EOFError
            buffer += more
        line, buffer = buffer.split(b"\r\n", 1)
        return line.decode()
    def challenge(text):
        say("334 " + text)
        return hear()
    say("220 submission.test")
    while True:
        words = hear().split(" ")
        verb = words[0].upper()
        if verb == "EHLO":
            say("250-submission.test\r\n250 " + ("STARTTLS" if connection is raw else "AUTH " + offered))
        elif verb == "STARTTLS":
            say("220 go on")
            settings = SSL.Context(SSL.TLS_SERVER_METHOD)
            settings.use_certificate_chain_file(chain)
            settings.use_privatekey_file(key)
            settings.set_max_proto_version(SSL.TLS1_3_VERSION if version == "1.3" else SSL.TLS1_2_VERSION)
            connection, buffer = SSL.Connection(settings, raw), b""
            connection.set_accept_state()
            connection.do_handshake()
            if knows == "exporter" or knows == "another":
                binding = connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
            if knows == "another":
                # As of the connection that somebody between has with the client.
                binding = bytes(32)
            if knows == "end-point":
                shown = crypto.load_certificate(crypto.FILETYPE_PEM, open(chain).read())
                binding = hashlib.sha256(crypto.dump_certificate(crypto.FILETYPE_ASN1, shown)).digest()
        elif verb == "AUTH":
            way = by_hand if knows == "end-point" else by_gsasl
            flag, problem = way(words[1], words[2], challenge)
            print(words[1], flag, problem or "in", flush=True)
            say("535 5.7.8 " + problem if problem else "235 2.7.0 in")
        elif verb == "DATA":
            say("354 go on")
            while hear() != ".":
                pass
            say("250 2.0.0 taken")
        elif verb == "QUIT":
            say("221 2.0.0 bye")
            return
        else:
            say("250 2.0.0 fine")

listener = socket.create_server((ip, int(port)))
print("it serves", flush=True)
while True:
    raw, _ = listener.accept()
    try:
        serve(raw)
    except (EOFError, OSError, SSL.Error) as error:
        print("ended:", repr(error), flush=True)
    raw.close()
"#;

#[test]
fn a_login_is_tied_to_the_connection() {
    let (place, address) = (Place::new(), free_address());
    let authority = Authority::new(&["submission.test"]);
    // The key is in there too.
    let chain = authority.chain();
    let mode = |text: &str| place.write("mode", text);
    let mode_file = mode("SCRAM-SHA-256-PLUS SCRAM-SHA-256\n1.3\nexporter\n");
    let script = place.write("submission.py", SCRIPT);
    let mut command = Command::new(PYTHON);
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    command.arg(script).args([&ip, &port]).args([&chain, &chain, &mode_file]).args([USER, PASSWORD]);
    let host = Program::start("submission", &mut command);
    host.wait_for("it serves", |line| line.contains("it serves").then_some(()));

    let password = secret(&place, "password", PASSWORD);
    let with = |mechanisms: &str| {
        format!(
            "[outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n\
             [dns]\nhosts = {{ \"submission.test\" = [\"{ip}\"] }}\n\
             [queue]\nretry = [\"1s\"]\ndestination-retry-min = \"1s\"\n\
             [[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"submission.test:{port}\"]\n\
             idle = \"0s\"\ntls = \"verified\"\ncredential = \"submission\"\n\
             [[credential]]\nname = \"submission\"\nuser = \"{USER}\"\npassword-file = \"{}\"\nrefused = \"fail\"\n\
             {mechanisms}\n",
            authority.certificate().display(),
            password.display(),
        )
    };
    let server = Server::start(&with(""));
    let mut number = 0;
    let mut check = |text: &str, said: &str, result: &str| {
        mode(text);
        number += 1;
        let recipient = format!("bob{number}@example.net");
        server.client().send("ann@example.org", &[&recipient], "Subject: bound\r\n\r\n");
        host.wait_for(said, |line| (line == said).then_some(()));
        let outcome = server.event("outcome", |event| event["to"] == *recipient && event["result"] == result);
        assert_eq!(outcome["to"], Value::from(recipient));
    };
    let offered = "SCRAM-SHA-256-PLUS SCRAM-SHA-256";
    check(&format!("{offered}\n1.3\nexporter\n"), "SCRAM-SHA-256-PLUS p=tls-exporter in", "delivered");
    check("SCRAM-SHA-1-PLUS SCRAM-SHA-1\n1.3\nexporter\n", "SCRAM-SHA-1-PLUS p=tls-exporter in", "delivered");
    check(
        &format!("{offered}\n1.2\nend-point\n"),
        "SCRAM-SHA-256-PLUS p=tls-server-end-point in",
        "delivered",
    );
    // A host that has nothing of the kind.
    check("SCRAM-SHA-256\n1.3\nnothing\n", "SCRAM-SHA-256 y in", "delivered");
    // Somebody between takes it out of the offer, and hands the rest on.
    let refused = "GSASL_AUTHENTICATION_ERROR";
    check("SCRAM-SHA-256\n1.3\nexporter\n", &format!("SCRAM-SHA-256 y {refused}"), "failed");
    // Somebody between has a certificate that we believe, and hands all of it on.
    let another = format!("{offered}\n1.3\nanother\n");
    check(&another, &format!("SCRAM-SHA-256-PLUS p=tls-exporter {refused}"), "failed");
    // Who will have none of it says so, and nobody takes that for an attack.
    server.configure(&with("mechanisms = [\"scram-sha-256\"]"));
    server.reload();
    check(&format!("{offered}\n1.3\nexporter\n"), "SCRAM-SHA-256 n in", "delivered");
    // And who will have nothing else does not log in without.
    server.configure(&with("mechanisms = [\"scram-sha-256-plus\"]"));
    server.reload();
    mode("SCRAM-SHA-256 PLAIN\n1.3\nnothing\n");
    server.client().send("ann@example.org", &["last@example.net"], "Subject: bound\r\n\r\n");
    let failed =
        server.event("login_failed", |event| event["error"].as_str().unwrap().contains("no way to log in"));
    assert_eq!(failed["credential"], "submission");
}
