//! Whatever a next hop sends, in whatever pieces: bounded replies, and a client that keeps its count.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::{BodyType, Recipient, ReversePath, Utf8};
use sasl::{BindingType, ChannelBinding, Credentials, Mechanism, Secret};
use smtp::client::{
    Action, Chaining, Channel, Chunking, Client, Limits, Login, Options, Protocol, Reply, ReplyError,
    ReplyLimits, ReplyReader, Secrecy, TlsFailure, TlsLevel, Transaction, TransactionOutcome,
};

const LIMITS: ReplyLimits = ReplyLimits { line_max: 512, lines_max: 16, text_max: 1024 };

fuzz_target!(|bytes: &[u8]| {
    let (&luck, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let replies = read(bytes, bytes.len().max(1));
    assert_eq!(replies, read(bytes, 1 + usize::from(luck % 7)), "pieces make a difference");
    converse(luck, replies);
});

fn read(bytes: &[u8], piece: usize) -> Vec<Result<Reply, ReplyError>> {
    let (mut reader, mut replies) = (ReplyReader::new(LIMITS), Vec::new());
    for mut input in bytes.chunks(piece) {
        while let Some(reply) = reader.read(&mut input).transpose() {
            if let Ok(reply) = &reply {
                assert!((200..600).contains(&reply.code()) && reply.text().len() <= LIMITS.text_max);
                assert!(!reply.text().contains(|c: char| c.is_control() && c != '\n'));
                assert!(reply.status().is_none_or(|status| u16::from(status.0) == reply.code() / 100));
                assert!(!reply.to_string().contains('\n'));
            }
            let failed = reply.is_err();
            replies.push(reply);
            if failed {
                return replies;
            }
        }
    }
    replies
}

fn converse(luck: u8, replies: Vec<Result<Reply, ReplyError>>) {
    let is_lucky = |bit: u8| luck >> bit & 1 == 1;
    let mut client = Client::new(Options {
        protocol: if luck % 3 == 0 { Protocol::Lmtp } else { Protocol::Smtp },
        hostname: "client.example".into(),
        tls: if is_lucky(0) { TlsLevel::Opportunistic } else { TlsLevel::Required },
        chunking: if is_lucky(1) { Chunking::WhenOffered } else { Chunking::WhenNeeded },
        chaining: if is_lucky(2) { Chaining::On } else { Chaining::Off },
        login: is_lucky(4).then(login),
        limits: Limits { transactions_max: 5, outstanding_max: 1 + usize::from(luck >> 5), eager_max: 50 },
    });
    let channel = if is_lucky(3) { Channel::Tls } else { Channel::Clear };
    let (mut replies, mut out, mut in_flight) = (replies.into_iter(), Vec::new(), 0);
    let mut action = client.on_connected(channel);
    loop {
        out.clear();
        action = match action {
            Action::Read(_) if client.takes_next() => {
                in_flight += 1;
                client.on_transaction(transaction(), &mut out)
            }
            Action::Read(_) => match replies.next() {
                Some(Ok(reply)) => client.on_reply(reply, &mut out),
                Some(Err(error)) => client.on_garbage(error),
                None if is_lucky(4) => client.on_timeout(),
                None => client.on_closed(),
            },
            Action::StartTls if is_lucky(4) => client.on_tls(Ok(()), &mut out),
            Action::StartTls => client.on_tls(Err(TlsFailure("no".into())), &mut out),
            Action::Derive(derivation) => client.on_derived(&derivation.derive(), &mut out),
            Action::SendContent(_) => client.on_content_sent(&mut out),
            Action::Finished(outcome) => {
                in_flight -= 1;
                if let TransactionOutcome::Answered(answers) = outcome {
                    assert_eq!(answers.len(), 2);
                }
                client.on_finished(&mut out)
            }
            Action::Ready => {
                in_flight += 1;
                client.on_transaction(transaction(), &mut out)
            }
            Action::Close(_) => return assert_eq!(in_flight, 0, "a transaction was not reported"),
        };
    }
}

fn login() -> Login {
    let secret = Secret::Password("pencil".into());
    Login {
        credentials: Credentials::new("user", secret).expect("fine credentials"),
        mechanisms: Mechanism::ALL.into_iter().collect(),
        secrecy: Secrecy::None,
        nonce: "n".into(),
        binding: Some(ChannelBinding::new(BindingType::TlsExporter, *b"octets")),
    }
}

fn transaction() -> Transaction {
    let recipient = |address: &str| Recipient::new(address.parse().expect("a fine address"));
    Transaction {
        reverse_path: ReversePath::Null,
        recipients: vec![recipient("bob@mx.example"), recipient("carl@mx.example")],
        size: 50,
        body: BodyType::EightBitMime,
        unconverted: None,
        utf8: Utf8::NotNeeded,
        ret: None,
        envelope_id: None,
        by: None,
        priority: mail::TransferPriority::default(),
        tls: mail::TlsDemand::None,
        upstream: None,
    }
}
