//! An instance of Exim.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use end_to_end::{Place, Program, Signal, free_address, listens, unpacked, until};
use rustix::process::getuid;

/// The user that Debian's Exim is built for; it does not start where there is none.
const USER: &str = "Debian-exim";

/// An Exim that relays everything to one next hop. Nothing of it lies outside its own directory.
pub(crate) struct Exim {
    program: Program,
    place: Place,
    address: SocketAddr,
}

impl Exim {
    /// Starts it, with this certificate and its key, and waits until it listens.
    pub(crate) fn start(next_hop: SocketAddr, certificate: &Path, key: &Path) -> Self {
        assert!(getuid().is_root(), "Exim changes its user, which only root may: run this test as root");
        let (place, address) = (Place::new(), free_address());
        let base = place.path().display();
        let (ip, port) = (next_hop.ip(), next_hop.port());
        let (own_ip, own_port) = (address.ip(), address.port());
        let binary = unpacked("exim", "usr/sbin/exim4");
        // A copy without the set-user-id bit: what root starts needs none.
        fs::copy(binary, place.join("exim")).unwrap();
        fs::set_permissions(place.join("exim"), PermissionsExt::from_mode(0o755)).unwrap();
        let (user, group) = ids();
        for name in ["spool", "log"] {
            fs::create_dir(place.join(name)).unwrap();
            chown(place.join(name), Some(user), Some(group)).unwrap();
        }
        for (name, file) in [("certificate.pem", certificate), ("key.pem", key)] {
            fs::copy(file, place.join(name)).unwrap();
            chown(place.join(name), Some(user), Some(group)).unwrap();
        }
        let conf = place.write(
            "exim.conf",
            format!(
                "exim_path = {base}/exim\n\
                 primary_hostname = mx.exim.test\n\
                 spool_directory = {base}/spool\n\
                 log_file_path = {base}/log/%slog\n\
                 pid_file_path = {base}/exim.pid\n\
                 exim_user = {USER}\n\
                 exim_group = {USER}\n\
                 deliver_drop_privilege = true\n\
                 keep_environment =\n\
                 disable_ipv6 = true\n\
                 local_interfaces = {own_ip}\n\
                 daemon_smtp_ports = {own_port}\n\
                 host_lookup =\n\
                 helo_lookup_domains =\n\
                 rfc1413_query_timeout = 0s\n\
                 dkim_verify_signers =\n\
                 allow_domain_literals = true\n\
                 smtputf8_advertise_hosts = *\n\
                 dsn_advertise_hosts = *\n\
                 tls_advertise_hosts = *\n\
                 tls_certificate = {base}/certificate.pem\n\
                 tls_privatekey = {base}/key.pem\n\
                 smtp_accept_queue_per_connection = 0\n\
                 acl_smtp_rcpt = acl_all\n\
                 acl_smtp_data = acl_all\n\
                 acl_smtp_vrfy = acl_all\n\
                 begin acl\n\
                 acl_all:\n  accept\n\
                 begin routers\n\
                 own_reports:\n  driver = redirect\n  condition = ${{if eq{{$sender_host_address}}{{}}}}\n  \
                 data = :blackhole:\n\
                 smart:\n  driver = manualroute\n  route_list = * {ip} byname\n  self = send\n  \
                 transport = out\n\
                 begin transports\n\
                 out:\n  driver = smtp\n  port = {port}\n  allow_localhost\n  hosts_avoid_tls = *\n  \
                 hosts_try_fastopen =\n  hosts_try_chunking =\n  dnssec_request_domains =\n"
            ),
        );
        let mut command = Command::new(place.join("exim"));
        command.arg("-bdf").arg("-C").arg(&conf);
        let program = Program::start("exim", &mut command);
        until("exim listens", || listens(address).then_some(()));
        Self { program, place, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until its queue is empty.
    pub(crate) fn drained(&self) {
        until("Exim's queue is empty", || {
            let queue = fs::read_dir(self.place.join("spool/input"));
            queue.map_or(true, |mut entries| entries.next().is_none()).then_some(())
        });
    }
}

/// User and group of Exim.
fn ids() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("there is no user {USER}; tests/setup.sh makes it"));
    let mut fields = line.split(':').skip(1).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}

impl Drop for Exim {
    fn drop(&mut self) {
        if self.program.is_running() {
            self.program.signal(Signal::TERM);
            self.program.wait();
        }
        if std::thread::panicking() {
            for name in ["main", "panic", "reject"] {
                let log = fs::read_to_string(self.place.join(&format!("log/{name}log")));
                eprintln!("--- exim, {name}:\n{}", log.unwrap_or_default());
            }
        }
    }
}
