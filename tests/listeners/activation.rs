//! Sockets that systemd has opened (sd_listen_fds(3)).

use std::{process::Command, thread};

#[expect(clippy::disallowed_types, reason = "a client of the server under test")]
use std::net::TcpStream;

use end_to_end::{Client, Server, Sink, free_address, tool, until};

use crate::swaks;

#[test]
fn sockets_are_handed_over_by_name() {
    let sink = Sink::start();
    let (smtp, second, lmtp) = (free_address(), free_address(), free_address());
    let listener = |name: &str, more: &str| {
        format!("[[listener]]\nname = \"{name}\"\naddress = [\"systemd:{name}\"]\n{more}")
    };
    let mut server = Server::prepare(&format!(
        "{}{}{}",
        listener("handed", ""),
        listener("lmtp", "kind = \"lmtp\"\ntls = \"none\"\n"),
        sink.route()
    ));
    let inner = server.command();
    let mut command = Command::new(tool("systemd-socket-activate"));
    for address in [smtp, second, lmtp] {
        command.arg("-l").arg(address.to_string());
    }
    // Two sockets have one name.
    command.arg("--fdname=handed:handed:lmtp").arg(inner.get_program()).args(inner.get_args());
    // It starts the server when somebody comes, who is served then.
    let first = thread::spawn(move || {
        #[expect(clippy::disallowed_types, reason = "a client of the server under test")]
        let waiting = || TcpStream::connect(smtp).ok();
        let early = until("the socket is there", waiting);
        let mut client = Client::connect(smtp);
        client.expect(220);
        drop(early);
    });
    server.resume_by(&mut command);
    first.join().unwrap();
    // Connections come to each socket and each core.
    for address in [smtp, second] {
        for _ in 0..4 {
            swaks(address, &["--to", "bob@example.com", "--tls"]).good();
            sink.mail();
            assert_eq!(server.event("connected", |_| true)["listener"], "handed");
        }
    }
    swaks(lmtp, &["--to", "bob@example.com", "--protocol", "LMTP"]).good();
    sink.mail();
    let (status, lines) = server.stop();
    assert!(status.success(), "{lines:?}");
    // Without systemd it says what is missing.
    server.launch();
    let status = server.program_mut().wait();
    assert!(!status.success());
    let said = server.program().lines().join("\n");
    assert!(said.contains("systemd has handed over no socket named `handed`"), "{said}");
}
