//! `farcall call`: a call without a stub.

use std::io::{Read, Write};
use std::sync::Arc;

use farcall::{Code, CodecId, Invoke, Key, RawCall, RawItem, RawReply, RawStream, RpcError, Stage};

use crate::args::{Arguments, Call};
use crate::failure::Failure;
use crate::{find, json, provider};

/// Makes the call; its result is to be printed.
pub(crate) async fn run(options: Call) -> Result<String, Failure> {
    let written = read(options.arguments)?;
    if let Some(written) = &written {
        json::check(written).map_err(Failure::Usage)?;
    }
    let key = options.key.map(Key::named).transpose().map_err(|e| Failure::Usage(format!("--key: {}", e.message())))?;
    let (meta, services) = provider::ask(&options.address, &options.access, options.timeout).await?;
    let target = (options.service.as_str(), options.method.as_str());
    let service = find::service(&services, target, options.group.as_deref(), options.version.as_deref())?;
    let row = find::method(service, &options.method)?;
    let method = &service.methods[row];
    let args = json::arguments(written.as_deref(), method).map_err(|why| Failure::Usage(format!("{}.{}: {why}", target.0, target.1)))?;
    let call = RawCall {
        service: Arc::new(service.to_descriptor()),
        method: row,
        codec: CodecId::Json,
        args: args.into(),
        metadata: options.metadata,
        deadline: options.deadline,
        key,
    };
    let keyed = call.key.is_some();
    let reply = meta.channel().invoke(call).await.map_err(|error| Failure::Rpc { error, keyed })?;
    if method.oneway {
        // Frames are handled in order: once this is answered, the provider has the call.
        meta.services().deadline(options.timeout).await?;
        return Ok(String::new());
    }
    match reply {
        RawReply::Ok(body) => pretty(&body),
        RawReply::AppError(body) => pretty(&body).and_then(|error| Err(Failure::App(error.trim_end().to_owned()))),
        RawReply::Stream(stream) => print(stream).await.map(|()| String::new()),
    }
}

/// Prints the items of a stream as they come.
async fn print(mut stream: RawStream) -> Result<(), Failure> {
    while let Some(item) = stream.next().await {
        match item {
            RawItem::Item(body) => {
                let mut out = std::io::stdout().lock();
                out.write_all(pretty(&body)?.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Io)?;
            }
            RawItem::AppError(body) => return Err(Failure::App(pretty(&body)?.trim_end().to_owned())),
            RawItem::Failed(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn read(arguments: Arguments) -> Result<Option<String>, Failure> {
    match arguments {
        Arguments::None => Ok(None),
        Arguments::Text(text) => Ok(Some(text)),
        Arguments::Stdin => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(Failure::Io)?;
            Ok(Some(text))
        }
    }
}

fn pretty(body: &[u8]) -> Result<String, Failure> {
    json::pretty(body)
        .map_err(|e| RpcError::new(Code::Internal, format!("the provider's answer is not JSON: {e}")).with_stage(Stage::Result).into())
}
