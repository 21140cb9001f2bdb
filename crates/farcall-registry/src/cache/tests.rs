use std::collections::BTreeMap;

use super::*;
use crate::entry::Advertised;

/// A folder, removed when dropped; and what was complained of.
struct Place {
    folder: PathBuf,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Watcher for Told {
    fn tell(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Place {
    fn new(name: &str) -> Place {
        let folder = std::env::temp_dir().join(format!("farcall-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Place { folder, told: Arc::default() }
    }

    fn open(&self) -> Cache {
        Cache::open(&self.folder, "shop/../desk", "", "farcall://a:1", &service())
    }

    fn load(&self, cache: &Cache) -> Vec<u64> {
        let loaded = cache.load(&service(), self.told.as_ref());
        loaded.entries.iter().map(|entry| entry.incarnation).collect()
    }

    fn save(&self, cache: &Cache, incarnations: &[u64], tombstones: &[u64]) {
        let entries = incarnations.iter().map(|n| Arc::new(entry(*n))).collect();
        let tombstones = tombstones.iter().map(|n| Tombstone { instance: InstanceId([9; 16]), incarnation: *n }).collect();
        let told: Arc<dyn Watcher> = self.told.clone();
        cache.save(&service(), entries, tombstones, &told);
        while cache.0.writing.lock().unwrap().under_way {
            std::thread::yield_now();
        }
    }

    fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.0.lock().unwrap())
    }
}

fn service() -> ServiceKey {
    ServiceKey { name: "org.example.Payment".into(), group: "g".into(), version: "1".into() }
}

fn entry(incarnation: u64) -> Entry {
    Entry {
        service: service(),
        instance: InstanceId([incarnation as u8; 16]),
        incarnation,
        application: "till".into(),
        addresses: vec![Advertised { protocol: "farcall".into(), address: "tcp://10.0.0.1:1".into() }],
        labels: BTreeMap::from([("zone".into(), "b".into())]),
        weight: 100,
        enabled: true,
        host: None,
        methods: Vec::new(),
        params: BTreeMap::new(),
    }
}

#[test]
fn a_list_outlives_its_process() {
    let place = Place::new("outlives");
    let cache = place.open();
    assert!(place.load(&cache).is_empty());
    place.save(&cache, &[1, 2], &[7]);
    drop(cache);
    let cache = place.open();
    assert_eq!(place.load(&cache), [1, 2]);
    assert_eq!(cache.load(&service(), place.told.as_ref()).tombstones, [Tombstone { instance: InstanceId([9; 16]), incarnation: 7 }]);
    assert!(cache.path().starts_with(place.folder.join("shop____desk/_")), "{:?}", cache.path());
    assert!(place.complaints().is_empty());
}

#[test]
fn an_empty_list_takes_a_full_ones_place_only_if_it_was_withdrawn() {
    let place = Place::new("empty");
    let cache = place.open();
    place.save(&cache, &[1], &[]);
    place.save(&cache, &[], &[]);
    assert_eq!(place.load(&cache), [1]);
    drop(cache);
    // Nor in the next process.
    let cache = place.open();
    assert_eq!(place.load(&cache), [1]);
    place.save(&cache, &[], &[]);
    assert_eq!(place.load(&cache), [1]);
    place.save(&cache, &[], &[1]);
    assert!(place.load(&cache).is_empty());
}

#[test]
fn two_processes_have_a_slot_each_and_a_new_one_finds_a_list() {
    let place = Place::new("slots");
    let (first, second) = (place.open(), place.open());
    assert_ne!(first.path(), second.path());
    place.save(&first, &[1], &[]);
    assert_eq!(place.load(&second), [1], "it has none of its own");
    place.save(&second, &[2], &[]);
    assert_eq!((place.load(&first), place.load(&second)), (vec![1], vec![2]));
    drop(first);
    assert_eq!(place.load(&place.open()), [1]);
    // What another registry said is another list.
    let other = Cache::open(&place.folder, "shop/../desk", "", "farcall://b:1", &service());
    assert!(place.load(&other).is_empty());
}

/// Whatever is wrong with the file, the one before is used, and it is said what is wrong.
#[test]
fn a_damaged_file_is_named_and_the_one_before_is_used() {
    let place = Place::new("damaged");
    let cache = place.open();
    place.save(&cache, &[1], &[]);
    place.save(&cache, &[2], &[]);
    let good = fs::read(cache.path()).unwrap();
    let check = |bytes: &[u8], why: &str| {
        fs::write(cache.path(), bytes).unwrap();
        assert_eq!(place.load(&cache), [1], "{why}");
        let complaints = place.complaints();
        assert!(complaints.len() == 1 && complaints[0].contains(why), "{why:?}: {complaints:?}");
        assert!(complaints[0].contains("org_example_Payment-"), "{complaints:?}");
    };
    check(b"", "it is cut short");
    check(b"hello world, this is something else altogether, and it is long enough", "it is no list of farcall's");
    let mut newer = good.clone();
    newer[7] += 1;
    check(&newer, "it has the format 2, and this program reads 1: another version wrote it");
    let mut other = good.clone();
    other[8] ^= 1;
    check(&other, "its entries have another form");
    for cut in HEAD..good.len() {
        check(&good[..cut], "its checksum is wrong");
    }
    for at in 24..good.len() {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        check(&flipped, "its checksum is wrong");
    }
    // A damaged file does not become the one before.
    fs::write(cache.path(), b"").unwrap();
    assert_eq!(place.load(&cache), [1]);
    place.save(&cache, &[3], &[]);
    fs::write(cache.path(), b"").unwrap();
    assert_eq!(place.load(&cache), [1]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_once_and_nothing_else_happens() {
    let place = Place::new("denied");
    fs::create_dir_all(&place.folder).unwrap();
    fs::write(place.folder.join("shop____desk"), b"a file where a folder should be").unwrap();
    let cache = place.open();
    assert!(place.load(&cache).is_empty());
    place.save(&cache, &[1], &[]);
    let complaints = place.complaints();
    assert!(
        complaints.len() == 1 && complaints[0].contains("lists are not kept") && complaints[0].contains("cannot be made"),
        "{complaints:?}"
    );
    // Or later on.
    let place = Place::new("gone");
    let cache = place.open();
    place.save(&cache, &[1], &[]);
    fs::remove_dir_all(&place.folder).unwrap();
    place.save(&cache, &[2], &[]);
    place.save(&cache, &[3], &[]);
    let complaints = place.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("the list is not kept") && complaints[0].contains(".part"), "{complaints:?}");
}

/// On a file system of 64 KiB; only root may make one.
#[test]
fn a_full_disk_is_named_and_the_last_good_list_stays() {
    let place = Place::new("full");
    fs::create_dir_all(&place.folder).unwrap();
    let mount = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).output().is_ok_and(|done| done.status.success());
    let folder = place.folder.display().to_string();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=64k", "farcall", &folder]) {
        println!("skipped: a small file system cannot be mounted here");
        return;
    }
    let cache = place.open();
    place.save(&cache, &[1], &[]);
    let many: Vec<u64> = (0..2000).collect();
    place.save(&cache, &many, &[]);
    let loaded = place.load(&cache);
    let complaints = place.complaints();
    drop(cache);
    assert!(mount(&["umount", &folder]));
    assert_eq!(loaded, [1]);
    assert!(complaints.len() == 1 && complaints[0].contains("No space left on device"), "{complaints:?}");
}

/// A folder that may only be read is read: a program in a container whose file system is read-only starts from the list that is there.
#[test]
fn a_folder_that_may_only_be_read_is_read() {
    let place = Place::new("readonly");
    fs::create_dir_all(&place.folder).unwrap();
    let run = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).output().is_ok_and(|done| done.status.success());
    let folder = place.folder.display().to_string();
    if !run(&["mount", "-t", "tmpfs", "-o", "size=1m", "farcall", &folder]) {
        println!("skipped: a file system cannot be mounted here");
        return;
    }
    let cache = place.open();
    place.save(&cache, &[1, 2], &[]);
    drop(cache);
    let readonly = run(&["mount", "-o", "remount,ro", &folder]);
    let cache = place.open();
    let loaded = place.load(&cache);
    place.save(&cache, &[3], &[]);
    let again = place.load(&cache);
    let complaints = place.complaints();
    drop(cache);
    assert!(run(&["umount", &folder]) && readonly);
    assert_eq!((loaded, again), (vec![1, 2], vec![1, 2]));
    assert!(complaints[0].contains("lists are not kept") && complaints[0].contains("Read-only file system"), "{complaints:?}");
}

#[test]
fn what_a_cache_holds_is_limited_by_name() {
    let place = Place::new("limits");
    let cache = place.open();
    // Sparse: it takes no room.
    File::create(cache.path()).unwrap().set_len(LARGEST_FILE + 1).unwrap();
    assert!(place.load(&cache).is_empty());
    let complaints = place.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("it is larger than 67108864 bytes"), "{complaints:?}");
    let others: Vec<Cache> = (1..MOST_SLOTS).map(|_| place.open()).collect();
    let one_more = place.open();
    place.load(&one_more);
    let complaints = place.complaints();
    assert!(complaints[0].contains("all 256 slots of") && complaints[0].contains("are taken by other processes"), "{complaints:?}");
    drop(others);
}
