//! Where keys and their state lie, and whose they are.

use super::*;

fn settings(directory: &Path) -> RotationSettings {
    let dkim = Dkim {
        name: "Shop".into(),
        domain: Domain::parse("Example.ORG").ok(),
        selector: "rp-{date}".into(),
        rotate: Some(Duration::from_secs(86_400)),
        algorithms: vec![DkimAlgorithm::Rsa2048, DkimAlgorithm::Ed25519],
        ..Dkim::default()
    };
    let by_hand = Dkim { rotate: None, ..dkim.clone() };
    RotationSettings {
        data_directory: directory.to_owned(),
        dkim: vec![by_hand, dkim],
        rotation: DkimRotation::default(),
        providers: Vec::new(),
    }
}

#[test]
fn where_things_lie() {
    let mut settings = settings(Path::new("/data"));
    assert_eq!(settings.key_file("example.org", "rp-1"), Path::new("/data/dkim/rp-1.example.org.pem"));
    assert_eq!(settings.key_file("../a/b", "c"), Path::new("/data/dkim/c..._a_b.pem"));
    settings.rotation.directory = Some("/keys".into());
    assert_eq!(settings.key_file("example.org", "rp-1"), Path::new("/keys/rp-1.example.org.pem"));
    assert!(settings.rotates());
    let ids: Vec<_> = settings.dkim.iter().flat_map(RotationSettings::ids).map(|(id, _)| id).collect();
    let id = |kind| RotationId { entry: "shop".into(), domain: "example.org".into(), kind };
    assert_eq!(ids, [id(KeyKind::Rsa2048), id(KeyKind::Ed25519)]);
}

/// A state that makes no sense is not taken for none: keys would begin anew, and mail go unsigned.
#[test]
fn a_state_that_makes_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    assert_eq!(settings.read().unwrap(), Rotations::default());
    std::fs::write(settings.file(), Rotations::default().to_text()).unwrap();
    assert_eq!(settings.read().unwrap(), Rotations::default());
    std::fs::write(settings.file(), "").unwrap();
    assert!(settings.read().unwrap_err().to_string().contains("line 1 makes no sense"));
}
