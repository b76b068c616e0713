//! What does an SMTP session cost the CPU, apart from the kernel? Octets of mail data a second, and the time of
//! one transaction's commands.
//!
//! `cargo bench -p bench --bench smtp`

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mail::{Domain, JournalShard, QueueId};
use smtp::{Action, ChunkScanner, Command, Line, LineScanner, MailDataScanner, Options, Session};

/// Lines of 76 octets, as encoders write them, and the final dot.
fn message(size: usize) -> Vec<u8> {
    let line =
        [b"TG9yZW0gaXBzdW0gZG9sb3Igc2l0IGFtZXQsIGNvbnNlY3RldHVyIGFkaXBpc2NpbmcgZWxpd".as_slice(), b"\r\n"]
            .concat();
    let mut wire: Vec<u8> = line.iter().copied().cycle().take(size - 2).collect();
    wire.extend(b"\r\n.\r\n");
    wire
}

/// Every other line has a dot to take away.
fn dotted(size: usize) -> Vec<u8> {
    let mut wire: Vec<u8> =
        b"..hidden in a list of things\r\nplain\r\n".iter().copied().cycle().take(size - 2).collect();
    wire.extend(b"\r\n.\r\n");
    wire
}

fn mail_data(c: &mut Criterion) {
    let mut group = c.benchmark_group("mail data");
    for (name, wire, piece) in [
        ("4 KB", message(4 << 10), usize::MAX),
        ("100 KB in 16 KB", message(100 << 10), 16 << 10),
        ("100 KB in 1448 B", message(100 << 10), 1448),
        ("100 KB of dots", dotted(100 << 10), 16 << 10),
    ] {
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut scanner = MailDataScanner::new();
                let mut pieces = 0;
                for input in black_box(&wire).chunks(piece) {
                    let _ = black_box(scanner.scan(input, |_| pieces += 1));
                }
                (scanner.findings(), pieces)
            });
        });
    }
    let wire = message(100 << 10);
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("100 KB by BDAT", |b| {
        b.iter(|| {
            let mut scanner = ChunkScanner::new();
            scanner.begin_last(wire.len() as u64);
            for input in black_box(&wire).chunks(16 << 10) {
                black_box(scanner.scan(input));
            }
            scanner.findings()
        });
    });
    group.finish();
}

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("commands");
    group.bench_function("parse RCPT", |b| {
        b.iter(|| Command::parse(black_box(b"RCPT TO:<some.body@recipient.example>")));
    });
    let wire =
        b"MAIL FROM:<sender@client.example> SIZE=4096\r\nRCPT TO:<some.body@recipient.example>\r\nDATA\r\n";
    let options = Options::new(Domain::parse("mx.example").expect("a domain")).shared();
    group.bench_function("a whole transaction", |b| {
        b.iter_batched_ref(
            || {
                let (mut session, _) = Session::open(options.clone());
                let Action::Judge(stage) = session.on_line(b"EHLO client.example") else {
                    panic!("not judged")
                };
                let _ = session.on_verdict(stage, Ok(()));
                (session, Vec::with_capacity(1024))
            },
            |(session, output)| {
                output.clear();
                let mut lines = LineScanner::new(2048);
                let mut input = black_box(wire.as_slice());
                while let Line::Complete { len } = lines.find(input) {
                    let mut action = session.on_line(&input[..len - 2]);
                    input = &input[len..];
                    loop {
                        action = match action {
                            Action::Judge(stage) => session.on_verdict(stage, Ok(())),
                            Action::Receive(reply) => {
                                reply.write_to(output);
                                session.on_data_end(Ok(()))
                            }
                            Action::Commit(envelope) => {
                                black_box(envelope);
                                session.on_commit(Ok(QueueId::new(JournalShard(0), 1)))
                            }
                            Action::Reply(reply) => {
                                reply.write_to(output);
                                break;
                            }
                            other @ (Action::Read
                            | Action::Close(_)
                            | Action::ReceiveChunk { .. }
                            | Action::DiscardChunk { .. }
                            | Action::Release(_)
                            | Action::Fetch(_)
                            | Action::Reverse(_)
                            | Action::Impersonate(_)
                            | Action::StartTls(_)) => panic!("{other:?}"),
                        }
                    }
                }
                output.len()
            },
            BatchSize::NumIterations(1000),
        );
    });
    group.finish();
}

criterion_group!(benches, mail_data, commands);
criterion_main!(benches);
