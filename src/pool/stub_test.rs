//! The client against servers of the test's own: what they do to a question is what it has to live with.

use dns::{Limits, Name, Outcome, Records, Server, StaticHosts};
use tokio::net::TcpListener;

use super::*;

/// A server at one port for both transports. What it answers over UDP is made of the question; over TCP it tells the
/// truth.
async fn server(udp: fn(&[u8]) -> Option<Vec<u8>>) -> SocketAddr {
    loop {
        let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = datagrams.local_addr().unwrap();
        // The other half of the port may be somebody else's.
        let Ok(streams) = TcpListener::bind(address).await else { continue };
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = datagrams.recv_from(&mut buffer).await {
                if let Some(answer) = udp(&buffer[..length]) {
                    datagrams.send_to(&answer, from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = streams.accept().await {
                let length = stream.read_u16().await.unwrap();
                let mut question = vec![0; length.into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = truth(&question).unwrap();
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        return address;
    }
}

/// The address 192.0.2.1 for whatever is asked.
fn truth(question: &[u8]) -> Option<Vec<u8>> {
    let end = 12 + question[12..].iter().position(|b| *b == 0)? + 5;
    let mut answer = question[..end].to_vec();
    // An answer, recursion available; one question, one answer, nothing else.
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    Some(answer)
}

fn truncated(question: &[u8]) -> Option<Vec<u8>> {
    let mut answer = truth(question)?;
    answer[2] |= 2;
    Some(answer)
}

fn silent(_: &[u8]) -> Option<Vec<u8>> {
    None
}

async fn ask(servers: &[SocketAddr], names: &[&str]) -> Vec<(String, Outcome)> {
    let limits = Limits { timeout: Duration::from_millis(700), attempts: 3, ..Limits::default() };
    let servers: Vec<_> = servers.iter().map(|address| Server::new(*address)).collect();
    let mut hosts = StaticHosts::default();
    hosts.add_address(Name::parse("known.example").unwrap(), "192.0.2.7".parse().unwrap());
    let mut stub = Stub::new(Resolver::new(limits, &servers, hosts));
    let questions = names.iter().map(|name| Question::a(Name::parse(name).unwrap())).collect();
    let answers = stub.ask_all(questions).await;
    answers
        .into_iter()
        .map(|(question, answer)| (question.name.to_string(), answer.outcome.clone()))
        .collect()
}

fn found(address: &str) -> Outcome {
    Outcome::Found(Records::Addresses(vec![address.parse().unwrap()]))
}

#[tokio::test]
async fn all_are_asked_at_once() {
    let server = server(truth).await;
    let names: Vec<String> = (0..50).map(|i| format!("n{i}.example")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("known.example");
    let answers = ask(&[server], &names).await;
    assert_eq!(answers.len(), 51);
    for (name, outcome) in answers {
        let expected = if name == "known.example" { "192.0.2.7" } else { "192.0.2.1" };
        assert_eq!(outcome, found(expected), "{name}");
    }
}

#[tokio::test]
async fn what_does_not_fit_comes_over_tcp() {
    let server = server(truncated).await;
    assert_eq!(ask(&[server], &["a.example"]).await, [("a.example".to_owned(), found("192.0.2.1"))]);
}

#[tokio::test]
async fn another_server_is_asked() {
    let (first, second) = (server(silent).await, server(truth).await);
    assert_eq!(ask(&[first, second], &["a.example"]).await, [("a.example".to_owned(), found("192.0.2.1"))]);
}

#[tokio::test]
async fn it_ends_when_nobody_answers() {
    let silent = server(silent).await;
    // At this port there was somebody a moment ago.
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for server in [silent, nobody] {
        let answers = ask(&[server], &["a.example", "b.example"]).await;
        assert_eq!(answers.len(), 2);
        assert!(answers.iter().all(|(_, outcome)| matches!(outcome, Outcome::TempFail(_))), "{answers:?}");
    }
}
