//! Which autonomous system a stranger is in: databases that MaxMind's own writer has made.

use std::path::Path;

use end_to_end::{Server, Sink, built, free_address, run, tool, until};

use crate::strangers::{House, records};

/// Writes a database of these networks and their numbers.
const WRITE: &str = "
use strict; use MaxMind::DB::Writer::Tree;
my %types = (autonomous_system_number => 'uint32', autonomous_system_organization => 'utf8_string');
my $tree = MaxMind::DB::Writer::Tree->new(ip_version => 6, record_size => 24, database_type => 'GeoLite2-ASN',
    languages => ['en'], description => { en => 'of a test' }, remove_reserved_networks => 0,
    alias_ipv6_to_ipv4 => 1, map_key_type_callback => sub { $types{$_[0]} });
my $file = shift;
while (my ($network, $number) = splice @ARGV, 0, 2) {
    $tree->insert_network($network, { autonomous_system_number => $number,
        autonomous_system_organization => qq(System $number) });
}
open my $out, '>:raw', qq($file.new) or die;
$tree->write_tree($out);
close $out or die;
rename qq($file.new), $file or die;
";

fn write(file: &Path, networks: &[&str]) {
    let file = file.to_str().unwrap();
    run(&tool("perl"), &[&["-e", WRITE, file], networks].concat(), "").good();
}

fn known(server: &Server, whose: &str) -> String {
    let config = server.place().join("ringpost.toml");
    run(&built("ringpost"), &["reputation", "--config", config.to_str().unwrap(), whose], "").good().stdout
}

#[test]
fn autonomous_systems_have_a_reputation_where_a_database_says_them() {
    let dns = free_address();
    let _unbound = records(dns, &[]);
    let mut house = House { server: Server::prepare(""), sink: Sink::start(), dns };
    let file = house.server.place().join("asn.mmdb");
    write(&file, &["198.51.100.0/24", "64496", "203.0.113.0/24", "64496", "2001:db8::/32", "64497"]);
    let database = format!("asn-database = {:?}\n", file.to_str().unwrap());
    let rules = format!(
        "[tls]\nwatch-interval = \"1s\"\n\
         [reputation]\nmode = \"score\"\nsample = 4\nweight-max = 9\nasn-weight-max = 3\n{database}"
    );
    let of_bob = "name = \"example.net\"\nrecipients = [\"bob\"]\n";
    let configuration = house.configuration(&rules).replacen("name = \"example.net\"\n", of_bob, 1);
    house.server.configure(&configuration);
    house.server.resume();

    // What one of its networks does, all of it has done, and it weighs less than that of the network.
    for number in 0..5 {
        assert_eq!(house.rcpt("198.51.100.1", "x@any.example", &format!("n{number}@example.net")).code, 550);
    }
    assert!(
        known(&house.server, "as64496").contains("AS64496  weighs +3;"),
        "{}",
        known(&house.server, "as64496")
    );
    let shown = known(&house.server, "203.0.113.9");
    assert!(
        shown.starts_with("AS64496  weighs +3; left of what it did:") && shown.contains("unknown 5.0"),
        "{shown}"
    );
    assert_eq!(house.rcpt("203.0.113.9", "x@any.example", "bob@example.net").code, 250);
    let seen = house.server.event("stranger_listed", |event| event["client"] == "203.0.113.9");
    assert_eq!(seen["lists"], "reputation:system:+3", "{seen}");
    assert_eq!(known(&house.server, "2001:db8::9"), "nothing is known of 2001:db8::9\n");

    // A new file is read as it comes, and one that is damaged is not.
    write(&file, &["198.51.100.0/24", "64496", "203.0.113.0/24", "64499"]);
    let read = house.server.event("asn_database_read", |_| true);
    assert_eq!(
        (&read["networks"], read["file"].as_str().unwrap().ends_with("asn.mmdb")),
        (&2.into(), true),
        "{read}"
    );
    assert_eq!(known(&house.server, "203.0.113.9"), "nothing is known of 203.0.113.9\n");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refused = house.server.event("asn_database_refused", |_| true);
    assert!(refused["error"].to_string().contains("it is no MaxMind DB, or a damaged one"), "{refused}");
    assert!(known(&house.server, "198.51.100.1").contains("AS64496"), "the old one stays");
    let config = house.server.place().join("ringpost.toml");
    let checked = run(&built("ringpost"), &["check", "--config", config.to_str().unwrap()], "");
    let told = format!("{}{}", checked.stdout, checked.stderr);
    assert!(told.contains("reputation.asn-database") && told.contains("it is no MaxMind DB"), "{told}");
    // Of a reload it is an error, and nothing changes; without the key nothing is known of systems.
    house.server.configure(&configuration.replace("sample = 4", "sample = 5"));
    let refused = house.server.reload();
    assert_eq!(refused["event"], "reload_refused", "{refused}");
    assert!(refused["error"].to_string().contains("asn.mmdb"), "{refused}");
    house.server.configure(&configuration.replace(&database, ""));
    assert_eq!(house.server.reload()["event"], "reloaded");
    until("it is forgotten", || (!known(&house.server, "198.51.100.1").contains("AS64496")).then_some(()));
    assert!(known(&house.server, "AS64496").contains("unknown 5.0"), "what it did is not");
}
