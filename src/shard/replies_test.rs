//! The rules that are built in, against what servers say.

use delivery::Refused;
use mail::{Category, Status};

use super::*;

#[test]
fn every_built_in_rule_has_its_example() {
    let rules = reply_rules(&Config::default()).unwrap();
    let astray: Vec<_> = rules
        .astray()
        .iter()
        .map(|astray| format!("{} is taken by {:?}", astray.rule, astray.taken_by.as_deref()))
        .collect();
    assert!(astray.is_empty(), "{}", astray.join("\n"));
}

#[test]
fn the_operators_rules_come_first_and_take_the_place_of_ours() {
    let own = |name: &str, example: &str| ReplyRule {
        name: name.into(),
        codes: vec![550],
        example: example.into(),
        ..ReplyRule::default()
    };
    let all = reply_rules(&Config::default()).unwrap().rules().len();
    let reply_rules_of = |rules: Vec<ReplyRule>| Config { reply_rules: rules, ..Config::default() };
    let config = reply_rules_of(vec![own("mine", "551 no")]);
    let rules = reply_rules(&config).unwrap();
    assert_eq!((rules.rules().len(), &*rules.rules()[0].name), (all + 1, "mine"));
    let words = reply_rules_astray(&config).unwrap();
    assert!(words.iter().any(|(key, _)| key == "reply-rule.mine"), "{words:?}");
    let replaced = reply_rules(&reply_rules_of(vec![own("GMAIL-no-user", "550 no")])).unwrap();
    assert_eq!((replaced.rules().len(), &*replaced.rules()[0].name), (all, "GMAIL-no-user"));
}

/// What others say than the examples, in the words of many servers: a category, and a reply that is about it.
const MORE: &str = r#"
bad-mailbox 550 5.1.1 <x@example.org>... User unknown
bad-mailbox 550 5.1.1 User unknown
bad-mailbox 550 No such user here
bad-mailbox 550 Unrouteable address
bad-mailbox 550 5.1.1 sorry, no mailbox here by that name. (#5.1.1)
bad-mailbox 554 delivery error: dd Requested mail action aborted, mailbox not found - mta1.mail.yahoo.com
bad-mailbox 552 1 Requested mail action aborted, mailbox not found
bad-mailbox 550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient nobody@example.com not found by SMTP address lookup
bad-mailbox 450 4.1.1 <x@example.org>: Recipient address rejected: unverified address: unknown user: "x"
bad-mailbox 550 5.7.1 No such user!
bad-mailbox 550 5.1.1 unknown or illegal alias: x@icloud.com
bad-mailbox 550 5.1.1 <x@mac.com>: user does not exist
bad-mailbox 550 Requested action not taken: mailbox unavailable
bad-mailbox 550 Invalid recipient <x@example.org> (#5.1.1)
bad-mailbox 550 5.1.1 Recipient address rejected: User unknown in local recipient table
inactive-mailbox 550 5.1.6 recipient no longer on server: x@example.org
bad-mailbox 554 5.1.1 The email account that you tried to reach does not exist.
inactive-mailbox 550 5.2.1 The email account that you tried to reach is disabled. https://support.google.com/mail/?p=DisabledUser
inactive-mailbox 550 5.2.1 <x>: Account inactive
inactive-mailbox 550 5.2.1 This mailbox has been blocked due to inactivity (UserSearch)
inactive-mailbox 550 Account blocked due to inactivity
quota 552 5.2.2 Mailbox size limit exceeded 1234
quota 452 4.2.2 Mailbox full
quota 550 5.2.2 <x@example.org>: Quota exceeded (mailbox for user is full)
quota 554 5.2.2 user over quota; cannot receive new mail
quota 522 Recipient has exceeded mailbox limit
bad-domain 550 5.1.2 no such domain
bad-domain 550 Sorry, I couldn't find any host by that name. (#5.1.2)
dns 450 4.1.8 <bob@x.invalid>: Sender address rejected: Domain not found
dns 450 4.7.1 Client host rejected: cannot find your hostname, [192.0.2.1]
dns 504 5.5.2 <localhost>: Helo command rejected: need fully-qualified hostname
dns 550 Inconsistent/Missing DNS PTR record (192.0.2.1)
spam-content 550 5.7.1 Message rejected as spam by Content Filtering.
spam-content 554 5.7.1 [P4] Message blocked due to spam content in the message.
spam-content 550 High probability of spam
spam-content 554 5.7.1 Message contains malware
spam-content 552 5.2.0 suspected spam
spam-reputation 554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using bl.spamcop.net; Blocked - see https://www.spamcop.net/bl.shtml?192.0.2.1
spam-reputation 550 5.7.1 Service unavailable, Client host [192.0.2.1] blocked using Spamhaus. To request removal from this list see https://www.spamhaus.org/query/ip/192.0.2.1 (AS16012609)
spam-reputation 553 5.3.0 rejected - see http://www.spamhaus.org/query/bl?ip=192.0.2.1
spam-reputation 550 5.7.0 Blocked - see https://support.proofpoint.com/dnsbl-lookup.cgi?ip=192.0.2.1
spam-reputation 550 Dynamic IPs/open relays blocked. Contact <openrelay@abuse.earthlink.net>.
spam-reputation 550 "JunkMail rejected - mail.example.net [192.0.2.1] is in an RBL, see https://example"
spam-reputation 421 4.7.1 [192.0.2.1] is temporarily blocked due to poor reputation
authentication 550 5.7.1 Email rejected per DMARC policy for example.org
authentication 550 5.7.1 Unauthenticated email from example.org is not accepted due to domain's DMARC policy.
authentication 550 SPF check failed
authentication 550 5.7.1 Sender ID (PRA) Not Permitted SPF
authentication 550 5.7.27 Your email has been blocked because the sender is unauthenticated; SPF did not pass
authentication 550 5.7.1 [SPF] example.net is not allowed to send mail from 192.0.2.1
rate 421 4.7.0 [GL01] Message from (192.0.2.1) temporarily deferred
rate 421 4.7.0 Too many connections from your host. #4.4.5
rate 450 4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend your message at a later time. https://support.google.com/mail/?p=ReceivingRate
rate 421 4.7.28 unusual rate of unsolicited mail originating from your DKIM domain
rate 452 4.5.3 Too many recipients
rate 421 too many messages in this session
rate 421 Too many concurrent SMTP connections; please try again later.
rate 452 4.5.3 Error: too many recipients
rate 451 4.7.650 rate limited due to IP reputation
rate 550 5.4.5 Daily user sending limit exceeded. https://support.google.com/mail/?p=DailyLimit
rate 450 4.7.0 Error: message rate limit exceeded
greylisted 451 4.7.1 Greylisting in action, please come back later
greylisted 450 4.7.1 <x>: Recipient address rejected: Greylisted for 5 minutes
greylisted 451 temporarily greylisted, please try again
greylisted 450 4.2.0 Greylisted, see http://isg.ee.ethz.ch/tools/postgrey/help/example.html
greylisted 451 4.3.0 Please try again in 300 seconds
too-large 552 5.3.4 Message too big for system
too-large 552 Message size exceeds maximum permitted
too-large 552 sorry, that message size exceeds my databytes limit (#5.3.4)
too-large 552 5.2.3 Message exceeds local size limit
protocol 503 5.5.1 Bad sequence of commands
protocol 502 5.5.2 Error: command not recognized
protocol 554 SMTP synchronization error
relaying 550 5.7.1 Relaying denied
relaying 553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)
relaying 550 5.7.1 Unable to relay
relaying 550 relay not permitted
loop 554 5.4.6 Too many hops
loop 554 5.4.14 Hop count exceeded - possible mail loop
loop 550 Too many "Received" headers - suspected mail loop
tls 530 5.7.0 Must issue a STARTTLS command first
tls 454 4.7.0 TLS not available
policy 550 Administrative prohibition
policy 550 5.7.1 Policy rejection on the target address
policy 554 5.7.1 <x@example.org>: Recipient address rejected: Access denied
policy 553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)
policy 550 5.7.1 Message rejected due to local policy
policy 550 Sender verify failed
policy 550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction check failed because the sender was not authenticated when sending to this group
system 451 4.3.2 Please try again later
system 451 Temporary local problem - please try later
system 452 4.3.1 Insufficient system storage
system 421 4.3.2 Service not available, closing transmission channel
system 451 4.3.0 Error: queue file write error
message-format 550 5.7.1 Messages with multiple addresses in From: header are not accepted
message-format 554 5.6.0 Message contains bare LF
spam-content 550 5.7.1 Our system has detected that this message is likely unsolicited mail. https://support.google.com/mail/?p=UnsolicitedMessageError
authentication 421 4.7.0 This message does not pass authentication checks (SPF and DKIM both do not pass)
authentication 550 5.7.1 This message does not have authentication information or fails to pass authentication checks. To best protect our users from spam, the message has been blocked.
spam-content 554 5.7.1 Message rejected because of unacceptable content. For help, please quote incident ID 123.
bad-mailbox 550 5.4.1 All recipient addresses rejected : Access denied. AS(201806281)
policy 550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy
bad-mailbox 550 permanent failure for one or more recipients (bob@example.net:550 5.1.1 User unknown)
policy 554 Denied [f3d] (Mode: normal)
spam-reputation 550 5.2.1 Mailbox unavailable. Your IP address 192.0.2.1 is on the black list
bad-mailbox 553 5.3.0 <bob@example.net>... Addressee unknown, relay=[192.0.2.1]
policy 571 Message Refused
dns 550 invalid DNS PTR resource record, IP=192.0.2.1
system 421 Service not available, closing transmission channel
system 450 mailbox unavailable
relaying 454 4.7.1 Relay access denied
"#;

/// All that is registered of an address (RFC 3463 §3.2, RFC 7505; IANA's "SMTP Enhanced Status Codes"), and what it is about. That
/// an address is valid (X.1.5) is no refusal: what one with it is about, the reply code says, and where there is none, it is about an address.
const ADDRESS_STATUSES: [(u16, Category); 12] = [
    (0, Category::BadMailbox),
    (1, Category::BadMailbox),
    (2, Category::BadDomain),
    (3, Category::BadMailbox),
    (4, Category::BadMailbox),
    (5, Category::BadMailbox),
    (6, Category::InactiveMailbox),
    (7, Category::MessageFormat),
    (8, Category::Dns),
    (9, Category::Protocol),
    (10, Category::BadDomain),
    // What nobody knows is as X.1.0 to us, and to others as their reply code.
    (77, Category::BadMailbox),
];

#[test]
fn what_is_wrong_with_an_address_its_status_says() {
    let rules = reply_rules(&Config::default()).unwrap();
    for (detail, expected) in ADDRESS_STATUSES {
        for class in [4, 5] {
            let status = Some(Status(class, 1, detail));
            let local = Refused::kept("nope", status, "", "example.org");
            assert_eq!(rules.classify(&local).category, expected, "by us: {status:?}");
            let reply = format!("550 {class}.1.{detail} nope");
            let mut remote = Refused::kept(&reply, status, "mx.example.net", "example.org");
            remote.at = Some(At::Rcpt);
            assert_eq!(rules.classify(&remote).category, expected, "{reply}");
        }
    }
}

#[test]
fn an_address_that_looks_like_an_option_is_a_bad_one() {
    let rules = reply_rules(&Config::default()).unwrap();
    let judged = |status: Status, who: &str| {
        let text = format!("the address of the {who} begins with - and is not given to a program");
        let outcome = delivery::Outcome::failed(status, text);
        let judgement = rules.judge(&outcome, "example.org", delivery::Owner::default()).unwrap();
        (judgement.category, judgement.rule.unwrap().to_string())
    };
    assert_eq!(judged(Status(5, 1, 3), "recipient"), (Category::BadMailbox, "local-mailbox".into()));
    assert_eq!(judged(Status(5, 1, 7), "sender"), (Category::MessageFormat, "local-sender".into()));
}

#[test]
fn other_words_are_understood_too() {
    let rules = reply_rules(&Config::default()).unwrap();
    let mut wrong = Vec::new();
    for (expected, reply) in MORE.lines().filter_map(|line| line.split_once(' ')) {
        let mut refused = Refused::kept(reply, None, "mx.example.net", "example.org");
        refused.at = Some(if expected.ends_with("-mailbox") { At::Rcpt } else { At::Content });
        let judged = rules.classify(&refused);
        if judged.category.word() != expected {
            wrong.push(format!("{reply}: {} by {:?}, not {expected}", judged.category, judged.rule));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
