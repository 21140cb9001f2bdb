use super::*;

fn service() -> ServiceKey {
    ServiceKey { name: "a.Pay".into(), group: String::new(), version: String::new() }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test took too long") })
}

struct File(PathBuf);

impl File {
    fn new(name: &str) -> File {
        File(std::env::temp_dir().join(format!("farcall-static-{name}-{}", std::process::id())))
    }

    fn open(&self) -> Static {
        Static::open(&format!("static:file:{}?poll_ms=10", self.0.display()).parse().unwrap()).unwrap()
    }

    /// By a rename over it.
    fn replace(&self, text: &str) {
        let other = self.0.with_extension("new");
        std::fs::write(&other, text).unwrap();
        std::fs::rename(&other, &self.0).unwrap();
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn addresses(entries: &[Arc<Entry>]) -> Vec<&str> {
    entries.iter().map(|e| e.addresses[0].address.as_str()).collect()
}

#[test]
fn a_list_in_the_url_is_every_services() {
    run(async {
        let registry = Static::open(&"static:tcp://10.0.0.1:9000,unix:/run/x?zone=a&weight=7".parse().unwrap()).unwrap();
        let list = registry.list(&service()).await.unwrap();
        assert_eq!(addresses(&list.entries), ["tcp://10.0.0.1:9000", "unix:/run/x"]);
        assert!(list.entries.iter().all(|e| e.labels["zone"] == "a" && e.weight == 7 && e.service == service()));
        assert_eq!(list.completeness, Completeness::Complete);
        let mut updates = registry.subscribe(&service(), None).await.unwrap();
        assert!(matches!(updates.next().await.unwrap(), Update::All(all) if all.entries == list.entries));
        let entry = list.entries[0].clone();
        let e = registry.publish(entry).await.err().unwrap();
        assert_eq!(e.code(), Code::Unimplemented, "{e}");
        assert!(e.message().contains("write it into the list"), "{e}");
    });
}

#[test]
fn a_wrong_url_is_refused() {
    for (url, why) in [
        ("static:", "the scheme is missing"),
        ("static:tcp://a:1,b", "\"b\""),
        ("static:file:", "write \"static:file:/PATH\""),
        ("static:tcp://a:1?poll_ms=5", "no parameter \"poll_ms\""),
        ("static:file:/x?poll_ms=x", "number of milliseconds"),
        ("static:tcp://a:1?weight=x", "weight"),
        ("static:tcp://a:1?zone=a%20b", "space"),
        ("static:tcp://a:1,tcp://a:1", "twice"),
    ] {
        let e = Static::open(&url.parse().unwrap()).unwrap_err();
        assert!(e.message().contains(why) && e.code() == Code::InvalidArgument, "{url}: {e}");
    }
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    run(async {
        let file = File::new("changes");
        file.replace("tcp://a:1\ntcp://b:2 zone=x\n");
        let registry = file.open();
        let mut updates = registry.subscribe(&service(), None).await.unwrap();
        let Update::All(all) = updates.next().await.unwrap() else { panic!("the first is all there is") };
        assert_eq!(addresses(&all.entries), ["tcp://a:1", "tcp://b:2"]);
        // Replaced: one is new, one has changed, one is gone.
        file.replace("tcp://b:2 zone=y\ntcp://c:3\n[a.Other]\ntcp://d:4\n");
        let mut put = Vec::new();
        for _ in 0..3 {
            match updates.next().await.unwrap() {
                Update::Put(entry) => put.push((entry.addresses[0].address.clone(), entry.labels.get("zone").cloned())),
                Update::Gone(key, how) => assert_eq!((key, how), (all.entries[0].key(), Gone::Withdrawn)),
                other => panic!("{other:?}"),
            }
        }
        put.sort();
        assert_eq!(put, [("tcp://b:2".into(), Some("y".into())), ("tcp://c:3".into(), None)]);
        // Written anew in its place.
        std::fs::write(&file.0, "tcp://c:3\n").unwrap();
        assert!(matches!(updates.next().await.unwrap(), Update::Gone(_, Gone::Withdrawn)));
        let other = ServiceKey { name: "a.Other".into(), ..service() };
        assert!(registry.services().await.unwrap().is_empty());
        file.replace("[a.Other]\ntcp://d:4\n");
        assert_eq!(registry.services().await.unwrap(), [ServiceSummary { service: other, entries: 1, consumers: 0 }]);
    });
}

/// It is an error that names file and line, and not a list; when it is good again, it is taken.
#[test]
fn a_bad_file_is_no_list() {
    run(async {
        let file = File::new("bad");
        let registry = file.open();
        let missing = registry.list(&service()).await.unwrap_err();
        assert_eq!(missing.code(), Code::Unavailable, "{missing}");
        file.replace("tcp://a:1\n");
        let mut updates = registry.subscribe(&service(), None).await.unwrap();
        updates.next().await.unwrap();
        for (text, why) in [("tcp://a:1\nnonsense here\n", "line 2"), ("", "it is empty"), ("tcp://a:1 \u{0}x", "NAME=VALUE")] {
            file.replace(text);
            let e = updates.next().await.unwrap_err();
            assert!(e.code() == Code::Unavailable && e.message().contains(why), "{e}");
            assert!(e.message().contains("the last good list stays") && e.message().contains("farcall-static-bad"), "{e}");
            assert!(registry.subscribe(&service(), None).await.is_err());
            // As long as it is bad, it is said.
            assert!(updates.next().await.is_err());
        }
        std::fs::write(&file.0, vec![b'x'; MAX_FILE as usize + 1]).unwrap();
        assert!(registry.list(&service()).await.unwrap_err().message().contains("more than"));
        std::fs::write(&file.0, b"tcp://a:1 zone=\xff").unwrap();
        assert!(registry.list(&service()).await.unwrap_err().message().contains("UTF-8"));
        file.replace("tcp://z:9\n");
        let mut updates = registry.subscribe(&service(), None).await.unwrap();
        assert!(matches!(updates.next().await.unwrap(), Update::All(all) if addresses(&all.entries) == ["tcp://z:9"]));
    });
}
