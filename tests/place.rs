//! Where a test works: its directory, its addresses, and the programs it finds.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

use tempfile::TempDir;

/// A directory of a test's own, gone when the test has passed.
#[derive(Debug)]
pub struct Place {
    directory: Option<TempDir>,
}

impl Place {
    /// A new one. Everybody may look into it, because mail servers change their user.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("ringpost-test-").tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { directory: Some(directory) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// A file or directory in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file into it; makes the directories on the way.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("left for you to look at: {}", directory.keep().display());
        }
    }
}

/// An address and port on loopback that nobody has.
///
/// Each test process has a loopback address of its own, made from its process id, so that tests beside one another
/// cannot take each other's ports, and none is lost to a connection on its way out.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let [_, high, middle, low] = process::id().to_be_bytes();
    let ip = IpAddr::V4(Ipv4Addr::new(127, 64 | (high & 63), middle, low));
    loop {
        let address = SocketAddr::new(ip, NEXT.fetch_add(1, Ordering::Relaxed));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Whether anybody listens there, from what the kernel says.
///
/// Neither bound to try it, which would take the address from a program that is about to listen there, nor connected to,
/// which the program would see.
///
/// # Panics
/// When the address is not of IPv4, as those of [`free_address`] are.
pub fn listens(address: SocketAddr) -> bool {
    const LISTEN: &str = "0A";
    let address = as_written(address);
    sockets().iter().any(|[local, _, state]| *local == address && state == LISTEN)
}

/// How many connections to that address there are, from what the kernel says.
///
/// # Panics
/// As [`listens`].
pub fn connections(address: SocketAddr) -> usize {
    const ESTABLISHED: &str = "01";
    let address = as_written(address);
    sockets().iter().filter(|[_, remote, state]| *remote == address && state == ESTABLISHED).count()
}

/// Local address, remote address and state of all (proc(5), `/proc/net/tcp`).
fn sockets() -> Vec<[String; 3]> {
    let lines = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // The first word is the number of the line.
    let words = |line: &str| {
        let mut words = line.split_whitespace().skip(1).map(str::to_owned);
        Some([words.next()?, words.next()?, words.next()?])
    };
    lines.lines().skip(1).filter_map(words).collect()
}

/// An address as the kernel writes it.
fn as_written(address: SocketAddr) -> String {
    let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not of IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port())
}

/// A program of this workspace, built in the same profile as the test.
///
/// # Panics
/// When it is not there.
pub fn built(name: &str) -> PathBuf {
    // The test itself is target/PROFILE/deps/NAME-HASH.
    let test = env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(
        program.exists(),
        "{} is not there; tests/all.sh builds it, as does `cargo build -p daemon -p loadtest`",
        program.display()
    );
    program
}

/// A file of a package that tests/setup.sh unpacks and does not install, because it cannot live beside another.
///
/// # Panics
/// When it is not there.
pub fn unpacked(package: &str, file: &str) -> PathBuf {
    // The test itself is target/PROFILE/deps/NAME-HASH.
    let test = env::current_exe().unwrap();
    let file = test.ancestors().nth(3).unwrap().join("tools").join(package).join(file);
    assert!(file.exists(), "{} is not there; run tests/setup.sh, which unpacks it", file.display());
    file
}

/// A program of the system.
///
/// # Panics
/// When it is not installed.
pub fn tool(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/lib/postfix/sbin"];
    let directories = env::split_paths(&path).chain(system.map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|program| program.is_file()).unwrap_or_else(|| {
        panic!("`{name}` is not installed; run tests/setup.sh, which installs what tests need")
    })
}
