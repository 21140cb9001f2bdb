//! The types as they were.

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
            pub id: u32,
        }
    },
    [Value { id: 7 }]
);

case!(
    added_required,
    "added_required",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
        }
    },
    [Value { id: 7 }]
);

case!(
    added_default,
    "added_default",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
        }
    },
    [Value { id: 7 }]
);

case!(
    removed,
    "removed",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
            pub legacy: Vec<String>,
        }
    },
    [Value { id: 7, legacy: vec!["a".into()] }]
);

case!(
    reordered,
    "reordered",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub from: u32,
            pub to: u32,
            pub name: String,
        }
    },
    [Value { from: 1, to: 2, name: "n".into() }]
);

case!(
    renamed,
    "renamed",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub count: u32,
        }
    },
    [Value { count: 7 }]
);

case!(
    widened,
    "widened",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub qty: u16,
            pub price: f32,
        }
    },
    [Value { qty: 300, price: 0.5 }]
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
            pub qty: i64,
        }
    },
    [Value { lines: vec![Line { qty: 5 }, Line { qty: -5 }] }, Value { lines: vec![Line { qty: 5 }, Line { qty: 300 }] }]
);

case!(
    to_option,
    "to_option",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub note: String,
        }
    },
    [Value { note: "a".into() }]
);

case!(
    from_option,
    "from_option",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: Option<u32>,
            pub qty: Option<u32>,
        }
    },
    [Value { id: Some(7), qty: None }, Value { id: None, qty: None }]
);

case!(
    new_variant,
    "new_variant",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) enum Value {
            Cash,
            Card { last: u16 },
        }
    },
    [Value::Cash, Value::Card { last: 7 }]
);

case!(
    other_variant,
    "other_variant",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) enum Value {
            Cash,
            #[serde(other)]
            Unknown,
        }
    },
    [Value::Cash, Value::Unknown]
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
            pub qty: u32,
        }
    },
    [Value { lines: vec![Line { qty: 7 }] }]
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
            pub to: Address,
        }
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Address {
            pub street: String,
        }
    },
    [Value { orders: [("a".to_owned(), Order { to: Address { street: "Long".into() } })].into() }]
);

case!(
    recursive,
    "recursive",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub n: u32,
            pub below: Vec<Value>,
        }
    },
    [Value { n: 1, below: vec![Value { n: 2, below: vec![Value { n: 3, below: vec![] }] }] }]
);

case!(
    tuple_growth,
    "tuple_growth",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub pair: (u32, String),
        }
    },
    [Value { pair: (7, "a".into()) }]
);

case!(
    array_growth,
    "array_growth",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub rgb: [u8; 3],
        }
    },
    [Value { rgb: [1, 2, 3] }]
);

case!(
    array_to_list,
    "array_to_list",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub rgb: [u16; 3],
        }
    },
    [Value { rgb: [1, 2, 3] }]
);

case!(
    must_understand,
    "must_understand",
    {
        #[farcall::data]
        #[derive(Debug)]
        pub(crate) struct Value {
            pub id: u32,
        }
    },
    [Value { id: 7 }]
);

/// A method that goes away, one that comes, a parameter that is added.
pub(crate) mod methods {
    use farcall::prelude::*;

    #[farcall::service(name = "methods")]
    pub(crate) trait Case {
        async fn leaves(&self) -> Reply<u32>;
        async fn pay(&self, order: u64) -> Reply<String>;
    }

    struct Provider;

    impl Case for Provider {
        async fn leaves(&self) -> Reply<u32> {
            Ok(1)
        }

        async fn pay(&self, order: u64) -> Reply<String> {
            Ok(format!("{order}"))
        }
    }

    pub(super) fn serve(builder: farcall::ServerBuilder) -> farcall::ServerBuilder {
        builder.serve(CaseServer::new(Provider))
    }

    pub(super) fn call(address: &str) -> Result<(), RpcError> {
        let client = CaseClient::connect(address).wait()?;
        crate::case::show("methods", "leaves", client.leaves().wait());
        crate::case::show("methods", "pay", client.pay(7).wait());
        Ok(())
    }
}

/// Application errors that grow, come and go.
pub(crate) mod errors {
    use farcall::prelude::*;

    #[farcall::error]
    #[derive(Debug)]
    pub(crate) enum PayError {
        Declined { reason: String },
        Closed,
    }

    #[farcall::service(name = "errors")]
    pub(crate) trait Case {
        async fn grows(&self, n: u32) -> Reply<u32, PayError>;
        async fn comes(&self) -> Reply<u32>;
        async fn goes(&self) -> Reply<u32, PayError>;
    }

    struct Provider;

    impl Case for Provider {
        async fn grows(&self, n: u32) -> Reply<u32, PayError> {
            match n {
                0 => Err(PayError::Declined { reason: "poor".into() })?,
                1 => Err(PayError::Closed)?,
                n => Ok(n),
            }
        }

        async fn comes(&self) -> Reply<u32> {
            Ok(3)
        }

        async fn goes(&self) -> Reply<u32, PayError> {
            Err(PayError::Closed)?
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
        pub n: u16,
    }

    #[farcall::error]
    #[derive(Debug)]
    pub(crate) enum Broken {
        Full { at: u16 },
    }

    #[farcall::service(name = "streams")]
    pub(crate) trait Case {
        async fn down(&self, count: u16) -> Reply<Streaming<Item, Broken>>;
        async fn up(&self, name: String, items: Streaming<Item>) -> Reply<String>;
        async fn odd(&self) -> Reply<Streaming<u32>>;
    }

    struct Provider;

    impl Case for Provider {
        async fn down(&self, count: u16) -> Reply<Streaming<Item, Broken>> {
            Ok(Streaming::produce(move |out| async move {
                for n in 0..count {
                    out.send(Item { n }).await?;
                }
                Err(Broken::Full { at: count })?
            }))
        }

        async fn up(&self, name: String, mut items: Streaming<Item>) -> Reply<String> {
            let mut seen = format!("{name}:");
            while let Some(item) = items.next().await {
                seen += &format!(" {:?}", item?);
            }
            Ok(seen)
        }

        async fn odd(&self) -> Reply<Streaming<u32>> {
            Ok(Streaming::items([1, 2]))
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
        let items = Streaming::items([5, 6].map(|n| Item { n }));
        crate::case::show("streams", "up", client.up("old".into(), items).wait());
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
