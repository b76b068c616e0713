//! Listeners on Unix sockets: who may open them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use end_to_end::{Server, Sink, run, tool};

use crate::unfolded;

#[test]
fn mode_owner_and_group() {
    let sink = Sink::start();
    let mut server = Server::prepare("");
    let [first, second] = ["first.sock", "second.sock"].map(|name| server.place().join(name));
    let root = is_root();
    // Only root can give a socket away.
    let owner = if root { "unix-owner = \"daemon\"\nunix-group = \"daemon\"\n" } else { "" };
    server.configure(&format!(
        "[[listener]]\nname = \"first\"\ntls = \"none\"\naddress = [\"unix:{}\"]\nunix-mode = \"0600\"\n{owner}\
         [[listener]]\nname = \"second\"\nkind = \"lmtp\"\ntls = \"none\"\naddress = [\"unix:{}\"]\n{}",
        first.display(),
        second.display(),
        sink.route()
    ));
    server.resume();
    let found = |path| std::fs::metadata(path).unwrap();
    assert_eq!(found(&first).permissions().mode() & 0o7777, 0o600);
    assert_eq!(found(&second).permissions().mode() & 0o7777, 0o660);
    if root {
        assert_eq!((found(&first).uid(), found(&first).gid()), (1, 1));
    }
    for (path, protocol) in [(&first, "ESMTP"), (&second, "LMTP")] {
        let common = ["--socket", path.to_str().unwrap(), "--protocol", protocol];
        let envelope = ["--helo", "client.test", "--from", "ann@example.org", "--to", "bob@example.com"];
        run(&tool("swaks"), &[&common[..], &envelope].concat(), "").good();
        let trace = unfolded(&sink.mail().content);
        assert!(trace.contains(&format!(" with {protocol} id ")), "{trace}");
    }
    // What a server that was killed left behind is in nobody's way.
    server.kill();
    server.resume();
    assert_eq!(found(&first).permissions().mode() & 0o7777, 0o600);
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}
