//! The shelf on a disk: what is kept once, what has to go, and what is damaged.

use report::received::{Aggregate, Failure, Proof, Row};

use super::*;

fn head(key: &str, domain: &str, reporter: &str, day: &str) -> Head {
    Head {
        key: key.into(),
        kind: Kind::Dmarc,
        domain: domain.into(),
        organization: "Org".into(),
        contact: "".into(),
        id: key.into(),
        begin: format!("{day}T00:00:00Z").into(),
        end: format!("{day}T23:59:59Z").into(),
        messages: 3,
        failed: 1,
        reporter: reporter.into(),
        proof: Proof::Dkim,
        from: "a@b".into(),
        received: format!("{day}T23:59:59Z").into(),
        mail: "0".into(),
        reason: "".into(),
    }
}

fn told(messages: u64) -> Vec<u8> {
    let row = |count, dkim| Row {
        source: [192, 0, 2, 1].into(),
        count,
        disposition: "none".into(),
        dkim,
        spf: false,
        reasons: Vec::new(),
        header_from: "example.org".into(),
        envelope_from: "".into(),
        envelope_to: "".into(),
        signatures: Vec::new(),
        senders: Vec::new(),
    };
    let aggregate = Aggregate { rows: vec![row(messages, true), row(1, false)], ..Aggregate::default() };
    serde_json::to_vec(&Told::Dmarc(aggregate)).unwrap()
}

fn all() -> ReportQuery {
    ReportQuery { limit: 100, ..ReportQuery::default() }
}

fn keys(shelf: &Shelf, query: &ReportQuery) -> Vec<String> {
    shelf.list(query).unwrap().reports.iter().map(|head| head.key.to_string()).collect()
}

#[test]
fn a_report_is_kept_once_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reports-in");
    let shelf = Shelf::new(path.clone());
    assert_eq!(keys(&shelf, &all()), [""; 0]);
    let one = head("aa", "example.org", "google.com", "2026-11-27");
    assert_eq!(shelf.put(&one, &told(2)).unwrap(), Kept::New);
    assert_eq!(shelf.put(&one, &told(2)).unwrap(), Kept::Before);
    // Another process, beside it or later.
    let other = Shelf::new(path);
    assert_eq!(other.put(&one, &told(2)).unwrap(), Kept::Before);
    let two = head("bb", "example.net", "", "2026-11-28");
    assert_eq!(other.put(&two, &told(7)).unwrap(), Kept::New);
    assert_eq!(keys(&shelf, &all()), ["bb", "aa"]);
    assert_eq!(keys(&shelf, &ReportQuery { limit: 1, ..all() }), ["bb"]);
    let next = shelf.list(&ReportQuery { limit: 1, ..all() }).unwrap().next;
    assert_eq!(keys(&shelf, &ReportQuery { limit: 1, cursor: next, ..all() }), ["aa"]);
    let about = |domain: &str| ReportQuery { domain: Some(domain.into()), ..all() };
    assert_eq!(keys(&shelf, &about("example.org")), ["aa"]);
    let since = Timestamp::from_rfc3339("2026-11-28T00:00:00Z");
    assert_eq!(keys(&shelf, &ReportQuery { since, ..all() }), ["bb"]);
    let shown = shelf.show("aa").unwrap().unwrap();
    assert_eq!((shown.head, shown.told.map(|told| told.counts())), (one, Some((3, 1))));
    assert_eq!(shelf.show("cc").unwrap(), None);
    let summary = shelf.summary(&all(), Grouping::Address).unwrap();
    assert_eq!((summary.reports, summary.messages, summary.passed), (2, 11, 9));
    let summary = shelf.summary(&about("example.org"), Grouping::Network).unwrap();
    assert_eq!((summary.reports, summary.messages, summary.sources.len()), (1, 3, 1));
    assert_eq!((&*summary.sources[0].source, summary.sources[0].failed), ("192.0.2.0/24", 1));
    // A report on a domain tells of those below it, by their own names alone.
    assert_eq!(shelf.summary(&about("sub.example.org"), Grouping::Address).unwrap().reports, 0);
    let below = String::from_utf8(told(9))
        .unwrap()
        .replace("\"header_from\":\"example.org\"", "\"header_from\":\"a.sub.example.org\"");
    shelf.put(&head("dd", "example.org", "", "2026-11-28"), below.as_bytes()).unwrap();
    let summary = shelf.summary(&about("sub.example.org"), Grouping::Address).unwrap();
    assert_eq!((summary.reports, summary.messages, summary.reporters[0].messages), (1, 10, 10));
}

#[test]
fn who_sends_most_loses_first() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(directory.path().join("reports-in"));
    shelf.put(&head("00", "example.org", "google.com", "2026-11-01"), &told(1)).unwrap();
    for number in 10..20 {
        // Names below one domain are one sender.
        let reporter = format!("r{number}.flood.example");
        shelf.put(&head(&number.to_string(), "example.org", &reporter, "2026-11-28"), &told(1)).unwrap();
    }
    let (files, bytes) = shelf.size();
    assert_eq!((files, bytes), (11, 11 * BLOCK));
    assert_eq!(shelf.make_room(4 * BLOCK, 100).unwrap(), 7);
    assert_eq!(keys(&shelf, &all()), ["17", "18", "19", "00"]);
    assert_eq!(shelf.make_room(u64::MAX, 2).unwrap(), 2);
    assert_eq!(keys(&shelf, &all()), ["19", "00"]);
    assert_eq!(shelf.size(), (2, 2 * BLOCK));
    // Whoever comes later finds the same.
    let later = Shelf::new(directory.path().join("reports-in"));
    assert_eq!(later.make_room(u64::MAX, 100).unwrap(), 0);
    assert_eq!(later.size(), (2, 2 * BLOCK));
}

/// Whoever has a short domain of a country has as many names below it as he likes: they are one sender all the same.
#[test]
fn names_below_one_domain_are_one_sender() {
    for (one, other, is_one) in [
        ("a.qzx.io", "b.qzx.io", true),
        ("a.example.co.uk", "b.c.example.co.uk", true),
        ("a.co.uk", "b.co.uk", false),
        ("google.com", "mail.google.com", true),
        ("a.example", "b.example", false),
    ] {
        assert_eq!(share_of(one) == share_of(other), is_one, "{one} {other}");
    }
}

/// A process was killed when its report had its name, and not yet lost the one that it was written under; the next one has its number, as
/// in a container.
#[test]
fn what_a_killed_process_has_left_is_not_written_into() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reports-in");
    let one = head("aa", "example.org", "google.com", "2026-11-27");
    Shelf::new(path.clone()).put(&one, &told(2)).unwrap();
    let day = path.join("2026-11-27");
    let name = names(&day).unwrap().remove(0);
    fs::hard_link(day.join(name), day.join(format!(".{}-1.new", std::process::id()))).unwrap();
    let shelf = Shelf::new(path);
    assert_eq!(shelf.put(&head("bb", "example.net", "", "2026-11-27"), &told(7)).unwrap(), Kept::New);
    assert_eq!(shelf.show("aa").unwrap().unwrap().head, one);
    assert_eq!(&*shelf.show("bb").unwrap().unwrap().head.domain, "example.net");
}

#[test]
fn a_summary_reads_so_much_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut shelf = Shelf::new(directory.path().join("reports-in"));
    for day in ["2026-11-26", "2026-11-27", "2026-11-28"] {
        shelf.put(&head(&day.replace('-', ""), "example.org", "", day), &told(1)).unwrap();
    }
    let of = |shelf: &Shelf| {
        let summary = shelf.summary(&all(), Grouping::Address).unwrap();
        (summary.reports, summary.cut)
    };
    assert_eq!(of(&shelf), (3, false));
    shelf.summed_max = told(1).len() + 1;
    assert_eq!(of(&shelf), (2, true));
}

#[test]
fn what_is_too_old_goes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reports-in");
    let shelf = Shelf::new(path.clone());
    for day in ["2026-11-01", "2026-11-20"] {
        shelf.put(&head(&day.replace('-', ""), "example.org", "", day), &told(1)).unwrap();
    }
    std::fs::write(path.join("2026-11-20/.1-1.new"), "half").unwrap();
    let now = Timestamp::from_rfc3339("2026-11-25T00:00:00Z").unwrap();
    shelf.tidy(now, Duration::from_secs(10 * 86_400)).unwrap();
    assert_eq!(keys(&shelf, &all()), ["20261120"]);
    assert!(!path.join("2026-11-01").exists());
    assert_eq!(shelf.size().0, 1);
    // What a process has left half written goes as soon as nobody can be writing it.
    let later = Timestamp::from_rfc3339("2100-01-01T00:00:00Z").unwrap();
    shelf.tidy(later, Duration::from_secs(100 * 366 * 86_400)).unwrap();
    assert!(!path.join("2026-11-20/.1-1.new").exists());
    assert_eq!(shelf.size().0, 1);
}

#[test]
fn what_is_damaged_costs_itself_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("reports-in");
    let shelf = Shelf::new(path.clone());
    shelf.put(&head("aa", "example.org", "", "2026-11-27"), &told(1)).unwrap();
    shelf.put(&head("bb", "example.org", "", "2026-11-27"), &told(1)).unwrap();
    let day = path.join("2026-11-27");
    let name = names(&day).unwrap().into_iter().find(|name| name.ends_with("-aa.gz")).unwrap();
    let whole = std::fs::read(day.join(&name)).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(day.join(&name), &whole[..cut]).unwrap();
        assert_eq!(shelf.summary(&all(), Grouping::Address).unwrap().reports, 1, "cut after {cut} octets");
    }
    std::fs::write(day.join(&name), b"nothing of ours").unwrap();
    assert_eq!(keys(&shelf, &all()), ["bb"]);
}

#[test]
fn a_mail_that_is_no_report_is_shown_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::new(directory.path().join("reports-in"));
    let unread =
        Head { kind: Kind::Unread, reason: "no-report: x".into(), ..head("ee", "", "", "2026-11-27") };
    shelf.put(&unread, b"Subject: \xff\r\n\r\nx\r\n").unwrap();
    let failure = Told::Failure(Box::new(Failure { incidents: 2, ..Failure::default() }));
    let failed = Head { kind: Kind::Failure, ..head("ff", "example.org", "", "2026-11-27") };
    shelf.put(&failed, &serde_json::to_vec(&failure).unwrap()).unwrap();
    let mail = shelf.show("ee").unwrap().unwrap().content.unwrap();
    assert_eq!(BASE64_STANDARD.decode(mail).unwrap(), b"Subject: \xff\r\n\r\nx\r\n");
    // As programs are answered it is read by ours.
    for key in ["ee", "ff"] {
        let shown = shelf.show(key).unwrap().unwrap();
        let text = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<ShownReport>(&text).unwrap(), shown);
    }
    assert_eq!(shelf.show("ff").unwrap().unwrap().told, Some(failure));
    assert_eq!(keys(&shelf, &ReportQuery { kind: Some(Kind::Unread), ..all() }), ["ee"]);
    assert_eq!(shelf.summary(&all(), Grouping::Address).unwrap().failures[0].count, 2);
}
