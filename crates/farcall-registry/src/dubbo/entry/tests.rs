use super::*;
use crate::entry::MethodPrints;

/// Providers as Dubbo 2.7, 3.0 to 3.3 and dubbo-go write them, made from the documented forms, with the key each stands for.
const FOREIGN: &[(&str, &str)] = &[
    (
        "dubbo://192.168.1.9:20880/org.example.demo.DemoService?anyhost=true&application=demo-provider&background=false&deprecated=false\
         &dubbo=2.0.2&dynamic=true&generic=false&interface=org.example.demo.DemoService&methods=sayHello,sayHelloAsync&pid=19559\
         &release=3.0.8&service-name-mapping=true&side=provider&timestamp=1654938441023",
        "org.example.demo.DemoService",
    ),
    (
        "dubbo://10.1.2.3:20880/org.example.Greet?anyhost=true&application=greet&default=true&deprecated=false&dubbo=2.0.2&dynamic=true\
         &generic=false&group=blue&interface=org.example.Greet&methods=*&pid=1&release=2.7.15&revision=1.2.0&side=provider\
         &timestamp=1630000000000&version=1.2.0&weight=200",
        "blue/org.example.Greet:1.2.0",
    ),
    (
        "tri://172.17.0.4:50051/org.example.Greet?application=greet&background=false&deprecated=false&dubbo=2.0.2&dynamic=true\
         &generic=false&interface=org.example.Greet&ipv6=fd00:0:0:0:0:0:0:4&methods=greet,greetStream&prefer.serialization=hessian2,fastjson2\
         &release=3.2.4&serialization=protobuf&side=provider&timestamp=1690000000000&version=0.0.0",
        "org.example.Greet",
    ),
    (
        "rest://10.0.0.1:8888/services/users?application=rest&deprecated=false&dubbo=2.0.2&extension=org.example.Filter,org.example.Log\
         &interface=org.example.UserService&methods=get&server=tomcat&side=provider&threads=500",
        "org.example.UserService",
    ),
    (
        "dubbo://[fd00:0:0:0:0:0:0:1]:20880/org.example.Six?application=six&dubbo.tag=gray&ext.protocol=tri&interface=org.example.Six\
         &timestamp=1700000000001&zone=hangzhou",
        "org.example.Six",
    ),
    // Not in order, a key twice, one without a value, one without `=`.
    ("dubbo://10.0.0.2:20880/org.example.Odd?side=provider&application=odd&tag=&flag&tag=b&interface=org.example.Odd", "org.example.Odd"),
    ("injvm://127.0.0.1/org.example.Local?disabled=true", "org.example.Local"),
    ("dubbo://user:secret@h.example:20880/ctx/org.example.Pass?interface=org.example.Pass", "org.example.Pass"),
];

#[test]
fn other_peoples_nodes_come_back_byte_by_byte() {
    for (url, key) in FOREIGN {
        let node = percent::encode(url);
        let entry = entry_of_node(&node).unwrap();
        assert_eq!(entry.service.to_string(), *key);
        assert_eq!(node_name(&entry).unwrap(), node);
    }
}

/// As dubbo-go writes them: values escaped inside the URL, and Go's choice of what is escaped at all.
#[test]
fn nodes_of_dubbo_go_come_back_byte_by_byte() {
    let url = "dubbo://10.0.0.7:20000/org.example.Greet?app.version=~1&application=go&group=&interface=org.example.Greet&methods=A%2CB\
               &owner=a%26b&release=dubbo-golang-3.1.0&timestamp=1690000000";
    let go = percent::encode(url).replace("%7E", "~");
    let entry = entry_of_node(&go).unwrap();
    assert!(entry.params.contains_key(NODE), "it cannot be made again from its parameters");
    assert_eq!(entry.params["owner"], "a%26b");
    assert_eq!(node_name(&entry).unwrap(), go);
}

#[test]
fn what_we_know_of_other_peoples_providers_is_read() {
    let entry = entry_of_node(&percent::encode(FOREIGN[1].0)).unwrap();
    assert_eq!((entry.weight, entry.incarnation, entry.application.as_str()), (200, 1_630_000_000_000_000, "greet"));
    assert_eq!(entry.address("dubbo"), Some("tcp://10.1.2.3:20880"));
    let six = entry_of_node(&percent::encode(FOREIGN[4].0)).unwrap();
    assert_eq!(six.address("tri"), Some("tcp://[fd00:0:0:0:0:0:0:1]:20880"));
    assert_eq!(six.labels, BTreeMap::from([("tag".into(), "gray".into()), ("zone".into(), "hangzhou".into())]));
    let local = entry_of_node(&percent::encode(FOREIGN[6].0)).unwrap();
    assert!(!local.enabled);
    // The same provider is the same instance for every reader, another port another one.
    let again = entry_of_node(&percent::encode(&FOREIGN[1].0.replace("weight=200", "weight=300"))).unwrap();
    assert_eq!(again.instance, entry.instance);
    let other = entry_of_node(&percent::encode(&FOREIGN[1].0.replace(":20880", ":20881"))).unwrap();
    assert_ne!(other.instance, entry.instance);
}

#[test]
fn what_is_changed_of_other_peoples_providers_is_written() {
    for (url, _) in FOREIGN {
        let mut entry = entry_of_node(&percent::encode(url)).unwrap();
        (entry.weight, entry.enabled) = (7, !entry.enabled);
        let again = entry_of_node(&node_name(&entry).unwrap()).unwrap();
        assert_eq!((again.weight, again.enabled, &again.addresses), (7, entry.enabled, &entry.addresses), "{url}");
    }
}

fn full() -> Entry {
    let method = |name: &str, n: u8| MethodPrints { name: name.into(), args: [n; 16], result: [n + 1; 16], error: [0; 16], bits: 4 };
    let at = |protocol: &str, address: &str| Advertised { protocol: protocol.into(), address: address.into() };
    Entry {
        service: ServiceKey { name: "org.example.Payment".into(), group: "eu,west".into(), version: "2.0".into() },
        instance: InstanceId([0xfb; 16]),
        incarnation: 1_700_000_000_123_456,
        application: "the shop & co=1".into(),
        addresses: vec![at("farcall", "unix:/run/pay,1.sock"), at("farcall", "tcp://[fd00::1]:9000"), at("http", "tcp://10.0.0.1:9001")],
        labels: BTreeMap::from([("tag".into(), "gray".into()), ("zone".into(), "a?b&c".into()), ("空".into(), "".into())]),
        weight: 0,
        enabled: false,
        host: Some(Host { boot: [7; 16], network: u64::MAX }),
        methods: vec![method("note", 1), method("pay,all", 2)],
        params: BTreeMap::from([("interface".into(), "x".into()), ("a=b".into(), "%".into())]),
    }
}

#[test]
fn our_entries_come_back_whole() {
    let mut plain = full();
    plain.labels.clear();
    plain.params.clear();
    plain.addresses = implied_addresses("10.0.0.1:9000").to_vec();
    (plain.host, plain.weight, plain.enabled) = (None, 100, true);
    let mut none = full();
    none.addresses.clear();
    let mut only_unix = full();
    only_unix.addresses.truncate(1);
    let mut odd = full();
    odd.addresses[0].address = "tcp://u@h:1".into();
    for entry in [full(), plain, none, only_unix, odd] {
        let node = node_name(&entry).unwrap();
        assert!(!node.contains('/'));
        assert_eq!(entry_of_node(&node).unwrap(), entry, "{node}");
    }
}

#[test]
fn our_nodes_read_as_dubbo_writes_its_own() {
    let mut entry = full();
    entry.service = ServiceKey { name: "org.example.Payment".into(), group: "eu".into(), version: "2.0".into() };
    entry.labels.remove("空");
    let node = node_name(&entry).unwrap();
    let url: Url = percent::decode(&node).unwrap().parse().unwrap();
    assert_eq!(url.base(), "farcall://[fd00::1]:9000/org.example.Payment");
    for (key, value) in [
        ("interface", "org.example.Payment"),
        ("group", "eu"),
        ("version", "2.0"),
        ("side", "provider"),
        ("timestamp", "1700000000123"),
        ("weight", "0"),
        ("enabled", "false"),
        ("dubbo.tag", "gray"),
    ] {
        assert_eq!(url.param(key), Some(value));
    }
    let keys: Vec<&String> = url.params.iter().flatten().map(|(key, _)| key).collect();
    assert!(keys.is_sorted(), "{keys:?}");
}

#[test]
fn a_table_that_is_too_long_is_left_out_and_a_long_entry_refused() {
    let mut entry = full();
    entry.methods = (0..2000u32)
        .map(|n| MethodPrints { name: format!("m{n:04}"), args: [n as u8; 16], result: [0; 16], error: [0; 16], bits: 0 })
        .collect();
    let read = entry_of_node(&node_name(&entry).unwrap()).unwrap();
    assert_eq!(read.methods, [], "unknown, not wrong");
    entry.labels.insert("long".into(), "x".repeat(MAX_NAME));
    let e = node_name(&entry).unwrap_err();
    assert_eq!(e.code(), Code::ResourceExhausted);
    assert!(e.message().contains("shorten its labels"), "{e}");
}

#[test]
fn a_node_that_does_not_read_says_why() {
    let base = "farcall://10.0.0.1:1/p?interface=p&farcall.incarnation=1";
    for (text, why) in [
        ("no url".to_owned(), "protocol"),
        ("dubbo:///org.example.X".to_owned(), "without a host"),
        ("dubbo://h:1".to_owned(), "without an interface"),
        (base.to_owned(), "16 bytes"),
        (format!("{base}&farcall.instance=AAAA"), "16 bytes"),
        (format!("{base}x&farcall.instance={}", "A".repeat(22)), "incarnation"),
        (format!("{base}&farcall.instance={}&farcall.addresses=a", "A".repeat(22)), "addresses"),
        (format!("{base}&farcall.instance={}&x=%25zz", "A".repeat(22)), "escaped"),
    ] {
        let e = entry_of_node(&percent::encode(&text).replace("%2525", "%25")).unwrap_err();
        assert!(e.to_string().contains(why), "{text}: {e}");
    }
    assert!(entry_of_node("%zz").is_err());
    assert!(entry_of_node(&"x".repeat(1 << 20)).is_err());
}

/// Nodes of ours with one byte changed, cut or doubled: read or refused, never a panic.
#[test]
fn mutants_are_read_or_refused() {
    let node = node_name(&full()).unwrap().into_bytes();
    let mut seed = 1u64;
    for _ in 0..5_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (at, byte) = ((seed >> 33) as usize % node.len(), (seed >> 20) as u8);
        let mut mutant = node.clone();
        match seed >> 62 {
            0 => mutant[at] = byte & 0x7f,
            1 => mutant.truncate(at),
            2 => drop(mutant.remove(at)),
            _ => mutant.insert(at, byte & 0x7f),
        }
        if let Ok(entry) = entry_of_node(&String::from_utf8(mutant).unwrap()) {
            // What was read can be written, and is then the same.
            if let Ok(again) = node_name(&entry) {
                assert_eq!(entry_of_node(&again).unwrap(), entry);
            }
        }
    }
}
