//! Lists, caps and rates of connections, over two cores.

use end_to_end::{Client, Server, until};

use crate::{configuration, server, swaks, turned_away};

const CROWDED: &str = "4.7.0 too many connections, try again later";

/// Connections to both listeners, until one is turned away.
fn connect_all(server: &Server) -> Vec<Client> {
    let connect = |address| {
        let mut client = Client::connect(address);
        (client.reply().code == 220).then_some(client)
    };
    [server.smtp(), server.submission()].into_iter().cycle().map_while(connect).collect()
}

#[track_caller]
fn refused(server: &Server, cause: &str, times: f64) {
    let label = format!("reason=\"{cause}\"");
    assert_eq!(server.metric("ringpost_connections_refused_total", &[&label]), times, "{cause}");
    for _ in 0..times as u32 {
        server.event("connection_refused", |event| event["cause"] == cause);
    }
}

#[test]
fn caps_hold_over_all_cores_and_listeners() {
    let server = server("[limits]\nconnections-per-client-max = 6\n");
    let mut held = connect_all(&server);
    assert_eq!(held.len(), 6, "exactly, whichever core each is on");
    turned_away(server.smtp(), 421, CROWDED);
    refused(&server, "client_limit", 2.0);
    // Our own come in all the same.
    swaks(server.smtp(), "127.0.0.2", &[]).good();
    // So do those whom a reload spares; who is there stays.
    server.configure(&configuration(
        "[limits]\nconnections-per-client-max = 6\n[clients]\nallow = [\"127.0.0.1\"]\n",
    ));
    assert_eq!(server.reload()["event"], "reloaded");
    swaks(server.smtp(), "127.0.0.1", &[]).good();
    server.configure(&configuration("[limits]\nconnections-per-client-max = 6\n"));
    server.reload();
    turned_away(server.smtp(), 421, CROWDED);
    assert_eq!(held[0].ask("NOOP").code, 250);
    // Who leaves makes room.
    held[0].ask("QUIT");
    held.remove(0);
    until("there is room", || swaks(server.smtp(), "127.0.0.1", &[]).status.success().then_some(()));
    held.clear();
    until("nobody is counted", || (server.metric("ringpost_clients_tracked", &[]) == 0.0).then_some(()));
}

#[test]
fn a_network_and_a_host_have_caps() {
    let server = server("[limits]\nconnections-per-network-max = 4\n[clients]\nconnections-max = 6\n");
    let held = connect_all(&server);
    assert_eq!(held.len(), 4);
    // Of the same network, but not of another address.
    let other = swaks(server.smtp(), "127.0.0.3", &[]);
    assert!(other.stdout.contains("421 4.7.0"), "{other}");
    refused(&server, "network_limit", 2.0);
    swaks(server.smtp(), "127.0.1.1", &[]).good();
    server.configure(&configuration("[clients]\nconnections-max = 4\n"));
    server.reload();
    turned_away(server.smtp(), 421, CROWDED);
    refused(&server, "host_limit", 1.0);
    drop(held);
}

#[test]
fn who_comes_too_fast_is_turned_away() {
    let limits = "[limits]\nconnection-rate-per-client = 2\nconnection-rate-per-network = 3\n";
    let server = server(&format!("{limits}[clients]\nconnection-rate = 4\n"));
    for (from, served) in [
        ("127.0.0.1", true),
        ("127.0.0.1", true),
        ("127.0.0.1", false),
        ("127.0.0.3", true),
        ("127.0.0.3", false),
        ("127.0.2.1", true),
        ("127.0.2.1", false),
        ("127.0.0.2", true),
    ] {
        let session = swaks(server.smtp(), from, &[]);
        assert_eq!(session.status.success(), served, "{from}: {session}");
        assert!(served || session.stdout.contains("421 4.7.0"), "{session}");
    }
    refused(&server, "client_rate", 1.0);
    refused(&server, "network_rate", 1.0);
    refused(&server, "host_rate", 1.0);
}

#[test]
fn who_is_denied_is_turned_away_from_the_next_reload_on() {
    let server = server("");
    swaks(server.smtp(), "127.0.0.1", &[]).good();
    let deny = "[clients]\ndeny = [\"127.0.0.0/24\"]\nallow = [\"127.0.0.7\"]\n";
    server.configure(&configuration(deny));
    server.reload();
    turned_away(server.smtp(), 554, "5.7.1 no SMTP service for you");
    // Even one that may relay; but not one that is allowed.
    let own = swaks(server.smtp(), "127.0.0.2", &[]);
    assert!(own.stdout.contains("554 5.7.1 no SMTP service for you"), "{own}");
    swaks(server.smtp(), "127.0.0.7", &[]).good();
    refused(&server, "policy", 2.0);
    server.configure(&configuration(""));
    server.reload();
    swaks(server.smtp(), "127.0.0.1", &[]).good();
}
