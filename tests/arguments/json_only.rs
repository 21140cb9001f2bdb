//! Types with serde's derives alone: the methods that have one travel as JSON, in the midst of others that do not.

use std::collections::BTreeMap;

use farcall::prelude::*;
use farcall::{CodecId, Stub};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::run;

/// What the compact codec cannot carry at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Filter {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Scalar>,
}

#[farcall::error]
#[derive(Debug, Clone, PartialEq)]
enum Refused {
    Empty { field: String },
}

#[farcall::service]
trait Search {
    /// All it got.
    async fn search(&self, filter: Filter, limit: u32) -> Reply<Vec<Value>, Refused>;
    /// Its argument is borrowed as well.
    async fn count(&self, filter: &Filter, unit: &str) -> Reply<String>;
    async fn all(&self, filters: Streaming<Filter>) -> Reply<Streaming<Scalar>>;
    async fn plain(&self, n: u64) -> Reply<u64>;
    #[farcall(oneway)]
    async fn forget(&self, filter: Filter);
}

struct Index;

impl Search for Index {
    async fn search(&self, filter: Filter, limit: u32) -> Reply<Vec<Value>, Refused> {
        if filter.rest.is_empty() {
            Err(Refused::Empty { field: filter.name.clone() })?;
        }
        Ok(vec![json!({ "filter": filter, "limit": limit })])
    }

    async fn count(&self, filter: &Filter, unit: &str) -> Reply<String> {
        Ok(format!("{} {unit}", filter.rest.len()))
    }

    async fn all(&self, mut filters: Streaming<Filter>) -> Reply<Streaming<Scalar>> {
        let mut found = Vec::new();
        while let Some(filter) = filters.next().await {
            found.extend(filter?.rest.into_values());
        }
        Ok(Streaming::items(found))
    }

    async fn plain(&self, n: u64) -> Reply<u64> {
        Ok(n + 1)
    }

    async fn forget(&self, _: Filter) {}
}

fn filter() -> Filter {
    let rest = [("size".to_owned(), Scalar::Number(7)), ("colour".to_owned(), Scalar::Text("red".into()))];
    Filter { name: "shoes".into(), rest: rest.into() }
}

async fn check(client: &SearchClient) {
    let found = client.search(filter(), 5).await.unwrap();
    assert_eq!(found, [json!({ "filter": { "name": "shoes", "size": 7, "colour": "red" }, "limit": 5 })]);
    let refused = client.search(Filter { rest: BTreeMap::new(), ..filter() }, 5).await.unwrap_err();
    assert!(matches!(refused, Error::App(Refused::Empty { field }) if field == "shoes"));
    assert_eq!(client.count(&filter(), "filters").await.unwrap(), "2 filters");
    let mut all = client.all(Streaming::items([filter()])).await.unwrap();
    assert_eq!(all.next().await.unwrap().unwrap(), Scalar::Text("red".into()));
    assert_eq!(all.next().await.unwrap().unwrap(), Scalar::Number(7));
    assert!(all.next().await.is_none());
    assert_eq!(client.plain(1).await.unwrap(), 2);
    client.forget(filter()).await.unwrap();
}

#[test]
fn they_travel_as_json() {
    run(async {
        let server = Server::builder().serve(SearchServer::new(Index)).listen("mem:json-only").await.unwrap();
        let client = SearchClient::connect(server.address()).await.unwrap();
        check(&client).await;
        check(&SearchClient::local(Index)).await;
        // The methods beside them go on as they were, in whatever is asked for.
        assert_eq!(client.plain(1).codec(CodecId::Xdr).await.unwrap(), 2);
        assert_eq!(client.search(filter(), 1).codec(CodecId::Json).await.unwrap().len(), 1);
    });
}

#[test]
fn another_codec_is_refused_by_name() {
    run(async {
        let server = Server::builder().serve(SearchServer::new(Index)).listen("mem:json-only-codec").await.unwrap();
        let client = SearchClient::connect(server.address()).await.unwrap();
        for codec in [CodecId::Xdr, CodecId::Protobuf] {
            let error = client.count(&filter(), "x").codec(codec).await.unwrap_err();
            assert_eq!((error.code(), error.certainty()), (Code::InvalidArgument, farcall::Certainty::NotSent));
            let expected = format!("Search.count has a type without a schema, so it travels as JSON and not as {codec}");
            assert!(error.message().starts_with(&expected), "{error}");
        }
    });
}

/// A schema says which types they are; two sides agree that it is JSON, and not on what is in it.
#[test]
fn their_schema_says_json() {
    let methods = &SearchClient::descriptor().methods;
    let shown: Vec<(String, String, bool)> = methods.iter().map(|m| (m.args.describe(), m.result.type_name(), m.is_json_only())).collect();
    assert!(shown[0].0.contains("filter: JSON,\n    limit: u32,"), "{}", shown[0].0);
    assert_eq!(shown[0].1, "JSON");
    assert_eq!(shown.iter().map(|shown| shown.2).collect::<Vec<_>>(), [true, true, true, false, true]);
    assert_eq!(SearchClient::descriptor().name, <SearchClient as Stub>::descriptor().name);
}
