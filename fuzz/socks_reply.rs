//! Whatever a SOCKS5 proxy says: alike in pieces and at once, and never an octet of the next hop's.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use proxy::{Next, Socks5, SocksError};

fn talk(target: Option<SocketAddr>, login: bool, said: &[u8], piece: usize) -> (Result<bool, SocksError>, usize) {
    let login = login.then_some(("user", "password"));
    let (mut socks, _) = match target {
        Some(target) => Socks5::connect(target, login),
        None => Socks5::trial(login),
    };
    let mut read = 0;
    loop {
        let len = socks.wanted().min(piece).min(said.len() - read);
        if len == 0 {
            return (Ok(false), read);
        }
        let now = &said[read..read + len];
        read += len;
        match socks.on_received(now) {
            Ok(Next::Receive | Next::Send(_)) => {}
            Ok(Next::Done) => return (Ok(true), read),
            Err(error) => return (Err(error), read),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (&luck, said) = bytes.split_first().unwrap_or((&0, &[]));
    let target = match luck & 3 {
        0 => None,
        1 => Some("198.51.100.1:25".parse().unwrap()),
        _ => Some("[2001:db8::1]:25".parse().unwrap()),
    };
    let login = luck & 4 != 0;
    let whole = talk(target, login, said, usize::MAX);
    assert!(whole.1 <= 2 + 2 + 5 + 255 + 2);
    for piece in 1..4 {
        let (end, read) = talk(target, login, said, piece);
        assert_eq!(end, whole.0);
        // Of what is not understood, a piece may be enough to see it.
        assert!(read == whole.1, "{read} of {}", whole.1);
    }
});
