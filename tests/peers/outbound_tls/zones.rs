//! `signed.test`, signed by ldns, and `plain.test`, which nobody signs; unbound answers for both and proves the one.

use std::{fs, net::SocketAddr, process::Command};

use end_to_end::{Place, Program, free_address, run, tool};

pub(crate) struct Zones {
    _program: Program,
    _place: Place,
    address: SocketAddr,
}

impl Zones {
    /// With these records. Under the name `bogus`, the signature of the TLSA records for this port is wrong.
    pub(crate) fn start(signed: &[String], plain: &[String], port_of_hosts: u16) -> Self {
        Self::start_with(signed, plain, port_of_hosts, "")
    }

    /// And with these lines in the configuration of unbound.
    pub(crate) fn start_with(signed: &[String], plain: &[String], port_of_hosts: u16, more: &str) -> Self {
        let (place, address) = (Place::new(), free_address());
        let zone = |name: &str, records: &[String]| {
            let soa = format!(
                "@ SOA ns.{name}. root.{name}. 1 3600 600 86400 60\n@ NS ns.{name}.\nns A 127.0.0.1\n"
            );
            place.write(name, format!("$ORIGIN {name}.\n$TTL 60\n{soa}{}\n", records.join("\n")));
        };
        zone("signed.test", signed);
        zone("plain.test", plain);
        let ldns = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(tool(program));
            let output = command.current_dir(place.path()).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program}: {output:?}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let key = ldns("ldns-keygen", &["-k", "-a", "ECDSAP256SHA256", "signed.test"]);
        ldns("ldns-signzone", &["-f", "signed", "signed.test", &key]);
        let text = fs::read_to_string(place.join("signed")).unwrap();
        let spoilt = format!("_{port_of_hosts}._tcp.bogus.");
        let spoil = |line: &str| match line.strip_prefix(&*spoilt) {
            // A signature of nothing: the key tag and all before it stays.
            Some(_) if line.contains("RRSIG\tTLSA") => {
                let (head, signature) = line.rsplit_once(' ').unwrap();
                let (first, rest) = signature.split_at(1);
                format!("{head} {}{rest}", if first == "A" { "B" } else { "A" })
            }
            Some(_) | None => line.to_owned(),
        };
        place.write("signed", text.lines().map(|line| format!("{}\n", spoil(line))).collect::<String>());
        let (ip, port, directory) = (address.ip(), address.port(), place.path().display());
        let file = place.write(
            "unbound.conf",
            format!(
                "server:\n\
                 interface: {ip}\n\
                 port: {port}\n\
                 access-control: 127.0.0.0/8 allow\n\
                 directory: \"{directory}\"\n\
                 chroot: \"\"\n\
                 username: \"\"\n\
                 pidfile: \"\"\n\
                 logfile: \"\"\n\
                 use-syslog: no\n\
                 do-daemonize: no\n\
                 do-ip6: no\n\
                 num-threads: 1\n\
                 module-config: \"validator iterator\"\n\
                 trust-anchor-file: \"{directory}/{key}.key\"\n\
                 local-zone: \"test.\" transparent\n\
                 local-zone: \".\" static\n\
                 {more}\
                 auth-zone:\n name: \"signed.test.\"\n zonefile: \"{directory}/signed\"\n for-upstream: yes\n for-downstream: no\n\
                 auth-zone:\n name: \"plain.test.\"\n zonefile: \"{directory}/plain.test\"\n for-upstream: yes\n for-downstream: no\n"
            ),
        );
        run(&tool("unbound-checkconf"), &[file.to_str().unwrap()], "").good();
        let mut command = Command::new(tool("unbound"));
        command.arg("-d").arg("-c").arg(file);
        let program = Program::start("unbound", &mut command);
        program.wait_for("it runs", |line| line.contains("start of service").then_some(()));
        Self { _program: program, _place: place, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
