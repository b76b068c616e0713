//! The whole pool through real sockets.

use std::{fs, os::unix::net::UnixStream};

use axum::{extract::ConnectInfo, routing::get};

use super::*;

fn pool(control_socket: PathBuf) -> Handle {
    let registry = Arc::new(Registry::new());
    let process = Arc::new(registry.process("0.1.0", 0));
    let scraped = Arc::clone(&registry);
    let services = Services {
        unsubscribe: Router::new(),
        reports: Router::new(),
        guarded: Router::new().route("/", get(|| async { "guarded" })),
        mail: Router::new().route("/", get(client)),
        everything: Router::new()
            .route("/", get(|| async { "everything" }))
            .route("/metrics", get(|| async move { scraped.render() }))
            .route("/panic", get(panics)),
        registry,
        process,
    };
    let http = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    let mail = http.clone();
    let (listening, limits) = (Vec::new(), Limits::default());
    let options = Options {
        worker_threads: 1,
        http,
        mail,
        unsubscribe: Vec::new(),
        reports: Vec::new(),
        control_socket,
        listening,
        limits,
    };
    let mut pool = start(options, services).unwrap();
    pool.listen().unwrap();
    pool.open();
    pool
}

async fn client(ConnectInfo(address): ConnectInfo<SocketAddr>) -> String {
    format!("mail from {address}")
}

async fn panics() -> &'static str {
    panic!("a fault of ours")
}

fn ask(mut stream: impl std::io::Read + std::io::Write, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[expect(clippy::disallowed_types, reason = "a client of the pool under test")]
fn connect(pool: &Handle, address: SocketAddr) -> std::net::TcpStream {
    let tcp = pool.runtime().block_on(tokio::net::TcpStream::connect(address)).unwrap();
    let tcp = tcp.into_std().unwrap();
    tcp.set_nonblocking(false).unwrap();
    tcp
}

#[test]
fn requests_are_answered_until_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let pool = pool(path.clone());
    let control = || UnixStream::connect(&path).unwrap();
    assert!(ask(control(), "/").ends_with("everything"));
    assert!(!ask(control(), "/panic").contains("200 OK"), "a panic ends its connection");
    assert!(ask(control(), "/metrics").contains("ringpost_build_info"), "and no other");

    assert!(ask(connect(&pool, pool.http_addresses()[0]), "/").ends_with("guarded"));
    let mail = connect(&pool, pool.mail_addresses()[0]);
    let own = format!("mail from {}", mail.local_addr().unwrap());
    assert!(ask(mail, "/").ends_with(&own), "who asks is known");

    // An idle connection does not hold up the end.
    let idle = control();
    pool.stop(Duration::from_secs(20));
    drop(idle);
    assert!(!path.exists());
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn ports_change_hands_and_the_control_socket_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let old = pool(path.clone());
    let registry = Arc::new(Registry::new());
    let services = Services {
        unsubscribe: Router::new(),
        reports: Router::new(),
        guarded: Router::new().route("/", get(|| async { "new" })),
        mail: Router::new(),
        everything: Router::new().route("/", get(|| async { "everything new" })),
        process: Arc::new(registry.process("0.1.0", 0)),
        registry,
    };
    let options = Options {
        unsubscribe: Vec::new(),
        reports: Vec::new(),
        worker_threads: 1,
        http: old.http_addresses().to_vec(),
        mail: Vec::new(),
        control_socket: path.clone(),
        listening: old.listening().unwrap(),
        limits: Limits::default(),
    };
    let mut new = start(options, services).unwrap();
    let address = new.http_addresses()[0];
    // Both have the port, and one serves it.
    assert!(ask(connect(&old, address), "/").ends_with("guarded"));
    old.leave();
    let waiting = connect(&old, address);
    new.listen().unwrap();
    new.open();
    let answer = ask(waiting, "/");
    assert!(answer.ends_with("new") || answer.ends_with("guarded"), "whoever takes it serves it: {answer}");
    old.stop(Duration::from_secs(20));
    assert!(
        ask(UnixStream::connect(&path).unwrap(), "/").ends_with("everything new"),
        "the path is the new one's"
    );
    new.stop(Duration::ZERO);
    assert!(!path.exists());
}

/// Another process that was to take over has put its own in the place, and has failed.
#[test]
fn the_control_socket_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let pool = pool(path.clone());
    let control = || ask(UnixStream::connect(&path).unwrap(), "/");
    pool.reclaim().unwrap();
    assert!(control().ends_with("everything"), "nothing was to be done");
    fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err());
    pool.reclaim().unwrap();
    assert!(control().ends_with("everything"));
    pool.stop(Duration::ZERO);
    assert!(!path.exists());
}

#[test]
fn who_is_connected_keeps_the_pool_from_being_deserted() {
    let dir = tempfile::tempdir().unwrap();
    let pool = pool(dir.path().join("control.sock"));
    let address = pool.http_addresses()[0];
    assert!(!pool.is_deserted(), "somebody may come");
    let idle = connect(&pool, address);
    while pool.connections() == 0 {
        thread::yield_now();
    }
    pool.leave();
    // Who is idle is hung up on.
    while !pool.is_deserted() {
        thread::yield_now();
    }
    drop(idle);
}

#[test]
fn a_failed_start_names_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let first = pool(dir.path().join("control.sock"));
    let address = first.http_addresses()[0];
    let registry = Arc::new(Registry::new());
    let process = Arc::new(registry.process("0.1.0", 0));
    let services = Services {
        unsubscribe: Router::new(),
        reports: Router::new(),
        guarded: Router::new(),
        mail: Router::new(),
        everything: Router::new(),
        registry,
        process,
    };
    let control_socket = dir.path().join("other.sock");
    let options = Options {
        unsubscribe: Vec::new(),
        reports: Vec::new(),
        worker_threads: 1,
        http: vec![address],
        mail: Vec::new(),
        control_socket,
        listening: Vec::new(),
        limits: Limits::default(),
    };
    let error = start(options, services).unwrap_err().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("another program"), "{error}");
    first.stop(Duration::ZERO);
}

/// What strangers are answered at is described with the rest.
#[test]
fn paths_of_the_pool_are_described() {
    let document = admin::api_document();
    for (path, methods) in
        [(crate::unsubscribe::PATH, &["get", "post"][..]), (crate::reports_in::posts::PATH, &["post"])]
    {
        let described: Vec<_> = document["paths"][path].as_object().unwrap().keys().collect();
        assert_eq!(described, methods, "{path}");
    }
}
