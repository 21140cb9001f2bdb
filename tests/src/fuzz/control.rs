//! The small things in frames, and what people write.

use bytes::Bytes;
use farcall::{Address, Code, Detail, Metadata, RpcError, Trace};
use farcall_wire::{CallKey, CallOptions, Failure, Hello, KeyMoment, control};

use super::session::limits;

/// As a peer sends it.
pub(super) fn failure() -> Vec<u8> {
    let detail = Detail { type_name: "t".into(), value: vec![1, 2] };
    Failure::from_error(&RpcError::new(Code::Internal, "it broke").with_detail(detail)).encode()
}

/// All kinds.
pub(super) fn options() -> CallOptions {
    let mut metadata = Metadata::default();
    metadata.set("tenant", "blue").unwrap();
    let key = CallKey { bytes: b"key"[..].into(), attempted: Some(KeyMoment { record: 1, ms: 2 }) };
    let trace = Some(Trace { trace_id: [1; 16], span_id: [2; 8], flags: 1 });
    CallOptions { metadata: Some(metadata), trace, key: Some(Box::new(key)), ..CallOptions::default() }
}

/// The first byte says what the others are.
pub(super) fn control(input: &[u8]) -> bool {
    let Some((what, rest)) = input.split_first() else { return false };
    match what % 4 {
        0 => {
            let Ok(hello) = Hello::decode(rest) else { return false };
            assert!(hello.software.len() <= 3 * 128);
            Hello::decode(&hello.encode()).expect("what was read can be written");
        }
        1 => {
            let Ok(options) = CallOptions::take(&mut Bytes::copy_from_slice(rest), 1000) else { return false };
            if !options.is_default() {
                CallOptions::take(&mut options.encode().into(), 1000).expect("what was read can be written");
            }
        }
        2 => {
            let Ok(failure) = Failure::decode(rest) else { return false };
            let error = failure.into_error();
            Failure::decode(&Failure::from_error(&error).encode()).expect("what was read can be written");
        }
        _ => return control::on_go_away(&Bytes::copy_from_slice(rest)).is_ok(),
    }
    true
}

pub(super) fn control_seeds() -> Vec<Vec<u8>> {
    let hello = Hello::new([7; 16], 1, &limits()).encode();
    let go_away = [&5u64.to_le_bytes()[..], &[14], b"leaving"].concat();
    let parts = [hello, options().encode(), failure(), go_away];
    parts.iter().zip(0u8..).map(|(part, what)| [&[what][..], part].concat()).collect()
}

/// What people write, which is what registries send.
pub(super) fn address(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let address = text.parse::<Address>();
    if let Ok(address) = &address {
        assert_eq!(&address.to_string().parse::<Address>().expect("what is shown can be read"), address);
    }
    let (key, value) = text.split_once('=').unwrap_or_default();
    let mut metadata = Metadata::default();
    let set = metadata.set(key, value).is_ok();
    if set {
        assert_eq!(metadata.get(key), Some(value));
    }
    address.is_ok() || set
}

pub(super) fn address_seeds() -> Vec<Vec<u8>> {
    ["tcp://127.0.0.1:80", "tcp://[::1]:9000", "tcp://host.example:1", "unix:/run/x.sock", "mem:name", "key=value"]
        .map(|text| text.as_bytes().to_vec())
        .into()
}
