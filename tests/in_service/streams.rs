//! A client that waits for nobody: whole messages behind each other, their replies in order.

use end_to_end::{Server, Sink};

#[test]
fn messages_behind_each_other_share_a_sync() {
    const MESSAGES: usize = 200;
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let mut client = server.client();
    let mut all = Vec::new();
    for number in 0..MESSAGES {
        // One of them is refused in the middle, and one transaction is given up.
        let to = if number == 70 { "not an address" } else { "<bob@example.net>" };
        all.extend_from_slice(format!("MAIL FROM:<ann@example.org>\r\nRCPT TO:{to}\r\n").as_bytes());
        let content = format!("Subject: {number}\r\n\r\n{}\r\n", "x".repeat(number * 7));
        all.extend_from_slice(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes());
        if number == 70 {
            all.extend_from_slice(b"RSET\r\n");
        }
    }
    all.extend_from_slice(b"NOOP\r\nQUIT\r\n");
    client.put(&all);
    let mut ids = Vec::new();
    for number in 0..MESSAGES {
        client.expect(250);
        if number == 70 {
            client.expect(501);
            assert!(!client.reply().is_positive());
            client.expect(250);
            continue;
        }
        client.expect(250);
        ids.push(client.expect(250).text());
    }
    client.expect(250);
    client.expect(221);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), MESSAGES - 1);
    let mut subjects: Vec<usize> = (1..MESSAGES)
        .map(|_| {
            let mail = sink.mail().content;
            let subject = mail.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned();
            assert!(
                mail.ends_with(&format!("\r\n\r\n{}\r\n", "x".repeat(subject.parse::<usize>().unwrap() * 7)))
            );
            subject.parse().unwrap()
        })
        .collect();
    subjects.sort_unstable();
    assert_eq!(subjects, (0..MESSAGES).filter(|number| *number != 70).collect::<Vec<_>>());
    let syncs = server.metric("ringpost_journal_sync_seconds_count", &[]);
    assert!(syncs < MESSAGES as f64 / 2.0, "{syncs} syncs");
}
