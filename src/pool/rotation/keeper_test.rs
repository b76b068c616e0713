//! The keeper with a disk, and with a DNS and cores that are tables.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize},
};

use bridge::{Limits, Request};
use config::{DkimRotation, DnsProvider};
use dns::{Answer, Security};
use tempfile::TempDir;
use tls::{Authentication, Version};
use tokio::{net::TcpListener, sync::mpsc, time::advance};
use trust::KeyKind;

use super::*;

/// Records by their names.
type Zone = Arc<Mutex<BTreeMap<String, String>>>;

struct Desk {
    keeper: Keeper,
    shown: admin::Rotations,
    settings: RotationSettings,
    folder: TempDir,
    zone: Zone,
    /// Questions to the DNS.
    asked: Arc<AtomicUsize>,
    /// Whether cores take other keys, and how often they were to.
    takes: Arc<AtomicBool>,
    told: Arc<AtomicUsize>,
}

fn now() -> Timestamp {
    Timestamp::from_secs(20_000 * 86_400)
}

fn entry(name: &str, domain: &str, selector: &str) -> Dkim {
    Dkim {
        name: name.into(),
        domain: mail::Domain::parse(domain).ok(),
        selector: selector.into(),
        rotate: Some(Duration::from_secs(30 * 86_400)),
        algorithms: vec![DkimAlgorithm::Ed25519],
        ..Dkim::default()
    }
}

async fn answer(mut hatch: bridge::Hatch, zone: Zone, asked: Arc<AtomicUsize>) {
    while let Some(request) = hatch.recv().await {
        let Request::Ask(question, _, reply) = request else { panic!("that is not asked for here") };
        asked.fetch_add(1, Ordering::Relaxed);
        let text = zone.lock().unwrap().get(question.name.as_str()).cloned();
        let outcome = text
            .map_or(Outcome::NxDomain, |text| Outcome::Found(Records::Texts(vec![text.as_bytes().into()])));
        let ttl = Duration::from_secs(60);
        reply.send(Arc::new(Answer { outcome, security: Security::Unproven, alias_of: None, ttl }));
    }
}

impl Desk {
    fn new(dkim: Vec<Dkim>, providers: Vec<DnsProvider>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = RotationSettings {
            data_directory: folder.path().to_owned(),
            dkim,
            rotation: DkimRotation::default(),
            providers,
        };
        let (door, mut hatches) = Door::new(1, Limits::default());
        let (zone, asked) = (Zone::default(), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(answer(hatches.remove(0), zone.clone(), asked.clone()));
        let (to_sign, mut signing) = mpsc::channel::<SigningRequest>(1);
        let (takes, told) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (will, count) = (takes.clone(), told.clone());
        tokio::spawn(async move {
            while let Some(reply) = signing.recv().await {
                count.fetch_add(1, Ordering::Relaxed);
                let taken = if will.load(Ordering::Relaxed) { Ok(()) } else { Err("not now".into()) };
                let _ = reply.send(taken);
            }
        });
        let tls = tls::client_config(Authentication::Opportunistic, Version::Tls12, 1).unwrap();
        let fetching = PolicyFetching { tls, patience: Duration::from_secs(1), port: 443 };
        let shown = admin::Rotations::default();
        let rotation = crate::KeyRotation::new(settings.clone(), shown.clone(), now);
        let fetching = Arc::new(ArcSwap::from_pointee(fetching));
        let keeper = Keeper::new(rotation.0, door, fetching, to_sign);
        Self { keeper, shown, settings, folder, zone, asked, takes, told }
    }

    /// One that has a key which signs, and which the DNS shows.
    fn signing() -> Self {
        let desk = Self::new(vec![entry("org", "example.org", "rp-{date}")], Vec::new());
        let (directory, file) = (desk.settings.directory(), desk.settings.key_file("example.org", "rp-1"));
        let record = make_key(&directory, &file, KeyKind::Ed25519).unwrap();
        let since = now().0;
        let state = format!(
            "ringpost-dkim-keys 1\nrotation example.org ed25519 20241001 1 - org\n\
             key rp-1 signing {since} 0 0 - {record}\nend\n"
        );
        std::fs::write(desk.settings.file(), state).unwrap();
        desk.zone.lock().unwrap().insert("rp-1._domainkey.example.org".into(), record);
        desk
    }

    fn phases(&self) -> Vec<KeyPhase> {
        let rotations = self.settings.read().unwrap();
        rotations.0.values().flat_map(|rotation| rotation.keys()).map(|key| key.phase).collect()
    }

    /// What stands in the way of writing the state, also for root.
    fn obstacle(&self) -> PathBuf {
        self.folder.path().join(format!("dkim-keys.{}.new", std::process::id()))
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// s1.mail at example.org and s1 at mail.example.org would lie in one file: the second would take the private key of the first away.
#[tokio::test(start_paused = true)]
async fn no_two_keys_lie_in_one_file() {
    let entries = vec![
        entry("a", "example.org", "rp-{date}.mail"),
        entry("b", "mail.example.org", "rp-{date}"),
        entry("c", "EXAMPLE.org", "rp-{date}-c"),
    ];
    let mut desk = Desk::new(entries, Vec::new());
    desk.keeper.turn(false).await;
    let rotations = desk.settings.read().unwrap();
    let keys: Vec<_> =
        rotations.0.iter().flat_map(|(id, one)| one.keys().iter().map(move |key| (id, key))).collect();
    assert_eq!(keys.len(), 3);
    for (id, key) in keys {
        let file = desk.settings.key_file(&id.domain, &key.selector);
        assert!(super::super::read_key(&file, &key.record).is_ok(), "{id:?} {key:?}");
    }
}

/// A full disk is full for a while: neither the DNS is asked nor the log written to each second, and what was wished for is not lost.
#[tokio::test(start_paused = true)]
async fn a_disk_that_is_full_is_not_tried_each_second() {
    let mut desk = Desk::signing();
    desk.keeper.turn(false).await;
    assert!(desk.shown.wish("org"));
    std::fs::create_dir(desk.obstacle()).unwrap();
    desk.keeper.turn(true).await;
    let before = desk.asked();
    for _ in 0..250 {
        advance(Duration::from_secs(1)).await;
        desk.keeper.turn(false).await;
    }
    assert_eq!(desk.asked(), before, "it rests");
    std::fs::remove_dir(desk.obstacle()).unwrap();
    for _ in 0..60 {
        advance(Duration::from_secs(1)).await;
        desk.keeper.turn(false).await;
    }
    assert_eq!(desk.phases(), [KeyPhase::Signing, KeyPhase::Made], "as it was wished for");
}

/// The old one of two processes signs for as long as its last session goes on: it has the new key in the end, whatever is in the way
/// at first.
#[tokio::test(start_paused = true)]
async fn who_follows_tries_until_its_cores_have_the_key() {
    let mut desk = Desk::signing();
    let lock = disk::open(&desk.folder.path().join("dkim-keys.lock"), OFlags::RDWR | OFlags::CREATE).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    desk.takes.store(false, Ordering::Relaxed);
    let told = |desk: &Desk| desk.told.load(Ordering::Relaxed);
    for turn in 1..=3 {
        desk.keeper.turn(false).await;
        desk.keeper.turn(false).await;
        assert_eq!(told(&desk), turn, "and not each second");
        advance(desk.settings.rotation.interval).await;
    }
    desk.takes.store(true, Ordering::Relaxed);
    desk.keeper.turn(false).await;
    advance(desk.settings.rotation.interval).await;
    desk.keeper.turn(false).await;
    assert_eq!(told(&desk), 4, "and then it is left alone");
    assert_eq!(desk.asked(), 0, "who follows asks nobody");
}

/// Where the private key that signs is gone, the next start would fail: a new one is made while the old one still signs.
#[tokio::test(start_paused = true)]
async fn a_private_key_that_is_gone_is_replaced() {
    let mut desk = Desk::signing();
    let file = desk.settings.key_file("example.org", "rp-1");
    desk.keeper.turn(false).await;
    assert_eq!(desk.phases(), [KeyPhase::Signing]);
    // Of one that cannot be read for now nothing is known.
    let aside = desk.folder.path().join("aside");
    std::fs::rename(&file, &aside).unwrap();
    std::fs::create_dir(&file).unwrap();
    advance(desk.settings.rotation.interval).await;
    desk.keeper.turn(false).await;
    assert_eq!(desk.phases(), [KeyPhase::Signing]);
    std::fs::remove_dir(&file).unwrap();
    advance(desk.settings.rotation.interval).await;
    desk.keeper.turn(false).await;
    let trouble = |desk: &Desk| desk.shown.views()[0].keys[0].trouble.clone();
    assert!(trouble(&desk).unwrap().contains("it signs until the next start"), "{:?}", desk.shown.views());
    assert_eq!(desk.phases(), [KeyPhase::Signing, KeyPhase::Made]);
    // Somebody has found it.
    std::fs::rename(aside, file).unwrap();
    advance(desk.settings.rotation.interval).await;
    desk.keeper.turn(false).await;
    assert_eq!((trouble(&desk), desk.phases().len()), (None, 2));
}

/// A name server that does not answer for one key does not for a hundred others: a round asks it once.
#[tokio::test(start_paused = true)]
async fn a_provider_that_is_silent_is_asked_once_in_a_round() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let provider = DnsProvider {
        name: "ns".into(),
        server: listener.local_addr().ok(),
        timeout: Duration::from_secs(30),
        ..DnsProvider::default()
    };
    let entries = (0..5).map(|n| Dkim {
        publish: Some("ns".into()),
        ..entry(&format!("e{n}"), &format!("d{n}.example"), "rp-{date}")
    });
    let mut desk = Desk::new(entries.collect(), vec![provider]);
    // It takes connections, and says nothing on them.
    desk.keeper.turn(false).await;
    assert_eq!(desk.phases(), [KeyPhase::Made; 5]);
    assert_eq!(desk.keeper.updates.values().copied().collect::<Vec<_>>(), [(0, 1)]);
    let views = desk.shown.views();
    let troubled: Vec<_> = views.iter().filter_map(|view| view.keys[0].trouble.as_deref()).collect();
    assert!(matches!(troubled[..], [one] if one.starts_with("publish: ns: ")), "{troubled:?}");
}

/// What a wildcard has a key at is told once a day, and not once for each name that is tried.
#[tokio::test(start_paused = true)]
async fn names_that_are_taken_are_told_of_once() {
    let mut desk = Desk::new(vec![entry("org", "example.org", "rp-{date}")], Vec::new());
    for number in 1..=30 {
        let name = if number == 1 { "rp-20241004".to_owned() } else { format!("rp-20241004-{number}") };
        desk.zone.lock().unwrap().insert(format!("{name}._domainkey.example.org"), "v=DKIM1; p=abcd".into());
    }
    for _ in 0..20 {
        desk.keeper.turn(true).await;
    }
    assert!(desk.phases().is_empty());
    let told: Vec<_> = desk.keeper.told.keys().collect();
    assert_eq!(told, ["in-the-way org example.org"]);
}
