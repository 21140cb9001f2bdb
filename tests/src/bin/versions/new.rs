//! The types as they are.

mod case;

use std::process::ExitCode;

use case::{case, cases};

case!(
    added_optional,
    "added_optional",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub note: Option<String>,
            pub id: u32,
        }
    },
    [Value { note: Some("fast".into()), id: 8 }]
);

case!(
    added_required,
    "added_required",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
            pub qty: u32,
        }
    },
    [Value { id: 8, qty: 2 }]
);

case!(
    added_default,
    "added_default",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
            #[serde(default)]
            pub qty: u32,
        }
    },
    [Value { id: 8, qty: 2 }]
);

case!(
    removed,
    "removed",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
        }
    },
    [Value { id: 8 }]
);

case!(
    reordered,
    "reordered",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub name: String,
            pub to: u32,
            pub from: u32,
        }
    },
    [Value { name: "m".into(), to: 4, from: 3 }]
);

case!(
    renamed,
    "renamed",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            #[serde(alias = "count")]
            pub qty: u32,
        }
    },
    [Value { qty: 8 }]
);

case!(
    widened,
    "widened",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub qty: u64,
            pub price: f32,
        }
    },
    [Value { qty: 400, price: 1.5 }, Value { qty: 70_000, price: 1.5 }]
);

case!(
    narrowed,
    "narrowed",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub lines: Vec<Line>,
        }
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Line {
            pub qty: i8,
        }
    },
    [Value { lines: vec![Line { qty: 6 }] }]
);

case!(
    to_option,
    "to_option",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub note: Option<String>,
        }
    },
    [Value { note: Some("b".into()) }, Value { note: None }]
);

case!(
    from_option,
    "from_option",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
            #[serde(default)]
            pub qty: u32,
        }
    },
    [Value { id: 8, qty: 9 }]
);

case!(
    new_variant,
    "new_variant",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) enum Value {
            Points(u32),
            Cash,
            Card { last: u16, brand: Option<String> },
        }
    },
    [Value::Cash, Value::Card { last: 8, brand: None }, Value::Points(3)]
);

case!(
    other_variant,
    "other_variant",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) enum Value {
            Points(u32),
            Cash,
            #[serde(other)]
            Unknown,
        }
    },
    [Value::Cash, Value::Points(3)]
);

case!(
    changed_type,
    "changed_type",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub lines: Vec<Line>,
        }
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Line {
            pub qty: String,
        }
    },
    [Value { lines: vec![Line { qty: "8".into() }] }]
);

case!(
    nested,
    "nested",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub orders: std::collections::BTreeMap<String, Order>,
        }
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Order {
            pub to: Option<Address>,
        }
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Address {
            pub zip: Option<String>,
            #[serde(alias = "street")]
            pub road: String,
        }
    },
    [
        Value { orders: [("b".to_owned(), Order { to: Some(Address { zip: Some("1".into()), road: "Short".into() }) })].into() },
        Value { orders: [("c".to_owned(), Order { to: None })].into() }
    ]
);

case!(
    recursive,
    "recursive",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub below: Vec<Value>,
            pub label: Option<String>,
            pub n: u64,
        }
    },
    [Value { below: vec![Value { below: vec![], label: Some("leaf".into()), n: 5 }], label: None, n: 4 }]
);

case!(
    tuple_growth,
    "tuple_growth",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub pair: (u32, String, Option<u32>),
        }
    },
    [Value { pair: (8, "b".into(), None) }]
);

case!(
    array_growth,
    "array_growth",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub rgb: [u8; 4],
        }
    },
    [Value { rgb: [1, 2, 3, 4] }]
);

case!(
    array_to_list,
    "array_to_list",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub rgb: Vec<u32>,
        }
    },
    [Value { rgb: vec![4, 5, 6] }, Value { rgb: vec![7] }]
);

case!(
    must_understand,
    "must_understand",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
            #[farcall(must_understand)]
            pub dry_run: Option<bool>,
        }
    },
    [Value { id: 8, dry_run: Some(true) }]
);

/// A method that goes away, one that comes, a parameter that is added.
pub(crate) mod methods {
    use farcall::prelude::*;

    #[farcall::service(name = "methods")]
    pub(crate) trait Case {
        async fn pay(&self, order: u64, coupon: Option<String>, #[serde(default)] urgent: bool) -> Reply<String>;
        async fn arrives(&self) -> Reply<u32>;
    }

    struct Provider;

    impl Case for Provider {
        async fn pay(&self, order: u64, coupon: Option<String>, urgent: bool) -> Reply<String> {
            Ok(format!("{order} {coupon:?} {urgent}"))
        }

        async fn arrives(&self) -> Reply<u32> {
            Ok(2)
        }
    }

    pub(super) fn serve(builder: farcall::ServerBuilder) -> farcall::ServerBuilder {
        builder.serve(CaseServer::new(Provider))
    }

    pub(super) fn call(address: &str) -> Result<(), RpcError> {
        let client = CaseClient::connect(address).wait()?;
        crate::case::show("methods", "pay", client.pay(8, Some("ten".into()), true).wait());
        crate::case::show("methods", "arrives", client.arrives().wait());
        Ok(())
    }
}

/// Application errors that grow, come and go.
pub(crate) mod errors {
    use farcall::prelude::*;

    #[farcall::error]
    #[derive(Debug)]
    pub(crate) enum PayError {
        Late(u32),
        Declined { reason: String, code: Option<u8> },
        Closed,
    }

    #[farcall::service(name = "errors")]
    pub(crate) trait Case {
        async fn grows(&self, n: u32) -> Reply<u32, PayError>;
        async fn comes(&self) -> Reply<u32, PayError>;
        async fn goes(&self) -> Reply<u32>;
    }

    struct Provider;

    impl Case for Provider {
        async fn grows(&self, n: u32) -> Reply<u32, PayError> {
            match n {
                0 => Err(PayError::Declined { reason: "rich".into(), code: Some(3) })?,
                1 => Err(PayError::Late(9))?,
                n => Ok(n),
            }
        }

        async fn comes(&self) -> Reply<u32, PayError> {
            Err(PayError::Closed)?
        }

        async fn goes(&self) -> Reply<u32> {
            Ok(4)
        }
    }

    pub(super) fn serve(builder: farcall::ServerBuilder) -> farcall::ServerBuilder {
        builder.serve(CaseServer::new(Provider))
    }

    pub(super) fn call(address: &str) -> Result<(), RpcError> {
        let client = CaseClient::connect(address).wait()?;
        (0..3).for_each(|n| crate::case::show("errors", "grows", client.grows(n).wait()));
        crate::case::show("errors", "comes", client.comes().wait());
        crate::case::show("errors", "goes", client.goes().wait());
        Ok(())
    }
}

/// Items of streams, and the errors that end them.
pub(crate) mod streams {
    use farcall::prelude::*;

    #[farcall::data]
    #[derive(Debug)]
    pub(crate) struct Item {
        pub label: Option<String>,
        pub n: u32,
    }

    #[farcall::error]
    #[derive(Debug)]
    pub(crate) enum Broken {
        Full { at: u64, why: Option<String> },
    }

    #[farcall::service(name = "streams")]
    pub(crate) trait Case {
        async fn down(&self, count: u16) -> Reply<Streaming<Item, Broken>>;
        async fn up(&self, name: String, items: Streaming<Item>) -> Reply<String>;
        async fn odd(&self) -> Reply<Streaming<String>>;
    }

    struct Provider;

    impl Case for Provider {
        async fn down(&self, count: u16) -> Reply<Streaming<Item, Broken>> {
            Ok(Streaming::produce(move |out| async move {
                for n in 0..count {
                    out.send(Item { label: Some("new".into()), n: n.into() }).await?;
                }
                Err(Broken::Full { at: count.into(), why: Some("so".into()) })?
            }))
        }

        async fn up(&self, name: String, mut items: Streaming<Item>) -> Reply<String> {
            let mut seen = format!("{name}:");
            while let Some(item) = items.next().await {
                seen += &format!(" {:?}", item?);
            }
            Ok(seen)
        }

        async fn odd(&self) -> Reply<Streaming<String>> {
            Ok(Streaming::items(["one".to_owned()]))
        }
    }

    pub(super) fn serve(builder: farcall::ServerBuilder) -> farcall::ServerBuilder {
        builder.serve(CaseServer::new(Provider))
    }

    pub(super) fn call(address: &str) -> Result<(), RpcError> {
        let client = CaseClient::connect(address).wait()?;
        match client.down(2).wait() {
            Err(e) => crate::case::show::<(), RpcError>("streams", "down", Err(e)),
            Ok(mut items) => {
                while let Some(item) = items.next().wait() {
                    crate::case::show("streams", "down", item);
                }
            }
        }
        let items = Streaming::items([5, 70_000].map(|n| Item { label: None, n }));
        crate::case::show("streams", "up", client.up("new".into(), items).wait());
        crate::case::show("streams", "odd", client.odd().wait().map(drop));
        Ok(())
    }
}

cases!(
    added_optional,
    added_required,
    added_default,
    removed,
    reordered,
    renamed,
    widened,
    narrowed,
    to_option,
    from_option,
    new_variant,
    other_variant,
    changed_type,
    nested,
    recursive,
    tuple_growth,
    array_growth,
    array_to_list,
    must_understand,
    methods,
    errors,
    streams
);

fn main() -> ExitCode {
    case::run(serve, call)
}
