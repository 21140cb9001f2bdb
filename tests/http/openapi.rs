//! `/openapi.json` says what is true.

use std::collections::BTreeSet;

use farcall::http::Http;
use serde_json::{Value, json};

use super::client::{Http1, open};
use crate::support::run;

/// Every reference in a document.
fn references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| match value.as_str() {
            Some(to) if name == "$ref" => drop(into.insert(to.to_owned())),
            _ => references(value, into),
        }),
        Value::Array(elements) => elements.iter().for_each(|element| references(element, into)),
        _ => {}
    }
}

#[test]
fn the_description_is_whole() {
    run(async {
        let opened = open(Http::new()).await;
        let got = Http1::connect(&opened.socket).await.get("/openapi.json").await;
        assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")));
        let document = got.json();
        assert_eq!((&document["openapi"], &document["info"]["title"]), (&json!("3.1.0"), &json!("Payment, Counting")));
        let mut refs = BTreeSet::new();
        references(&document, &mut refs);
        assert!(refs.len() > 10, "{refs:?}");
        for reference in refs {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
        }
        let paths = document["paths"].as_object().unwrap();
        assert!(!paths.contains_key("/Counting/sum"), "it takes a stream");
        let operations = |path: &str| paths[path].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ");
        assert_eq!((operations("/Payment/pay"), operations("/Payment/status")), ("post".into(), "get post".into()));
        let pay = &paths["/Payment/pay"]["post"];
        assert_eq!(pay["summary"], "Charges the order. Runs to its end once started.");
        assert_eq!(pay["responses"]["200"]["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Receipt");
        assert_eq!(
            pay["responses"]["422"]["content"]["application/json"]["schema"]["properties"]["error"]["$ref"],
            "#/components/schemas/PayError"
        );
        let parameters = paths["/Counting/mirror"]["get"]["parameters"].as_array().unwrap();
        let shown: Vec<String> = parameters
            .iter()
            .filter(|p| p["in"] == "query")
            .map(|p| format!("{} {} {}", p["name"].as_str().unwrap(), p["required"], p["schema"]["type"]))
            .collect();
        assert_eq!(shown, [r#"text true "string""#, r#"list false "array""#, r#"wide false ["integer","string"]"#]);
        assert!(paths["/Counting/count"]["get"]["responses"]["200"]["content"]["text/event-stream"]["x-item"].is_object());
        assert!(paths["/Payment/note"]["post"]["responses"]["202"].is_object());
    });
}
