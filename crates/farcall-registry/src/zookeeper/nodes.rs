//! What we do with nodes: one request each, by name.

use farcall_core::{Code, RpcError};

use crate::zookeeper::client::{Client, refused};
use crate::zookeeper::jute::{Malformed, Op, Reader, Refusal, Stat, Writer};

/// How a node is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It stays.
    Persistent = 0,
    /// It goes with the session.
    Ephemeral = 1,
}

/// Nodes of a directory.
#[derive(Debug, Default)]
pub(crate) struct Children {
    pub(crate) names: Vec<String>,
    /// The last change that the server knew of.
    pub(crate) zxid: i64,
}

pub(crate) fn malformed(what: &str) -> RpcError {
    RpcError::new(Code::Unavailable, format!("ZooKeeper: {what}: the answer does not read"))
}

/// Requests on nodes, with the access list that new ones get.
#[derive(Debug)]
pub(crate) struct Nodes<'a> {
    pub(crate) client: &'a Client,
    /// Whether only who has our credentials may use what we make.
    pub(crate) private: bool,
}

impl Nodes<'_> {
    /// The names below a directory, empty if there is no such; `watch` also asks to be told once of the next change.
    pub(crate) async fn children(&self, path: &str, watch: bool) -> Result<Children, RpcError> {
        let answer = self.client.call(Op::GetChildren2, |w| w.text(path).bool(watch)).await?;
        let zxid = answer.zxid;
        match answer.result {
            Ok(body) => {
                let names = Reader(&body).texts().map_err(|Malformed| malformed(path))?;
                Ok(Children { names, zxid })
            }
            Err(Refusal::NoNode) if watch => {
                // Told when it is made.
                match self.exists(path, true).await? {
                    None => Ok(Children { names: Vec::new(), zxid }),
                    // Made in between.
                    Some(_) => Box::pin(self.children(path, watch)).await,
                }
            }
            Err(Refusal::NoNode) => Ok(Children { names: Vec::new(), zxid }),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }

    /// What is told of a node, if there is one.
    pub(crate) async fn exists(&self, path: &str, watch: bool) -> Result<Option<Stat>, RpcError> {
        let answer = self.client.call(Op::Exists, |w| w.text(path).bool(watch)).await?;
        match answer.result {
            Ok(body) => Reader(&body).stat().map(Some).map_err(|Malformed| malformed(path)),
            Err(Refusal::NoNode) => Ok(None),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }

    /// A node's data, if there is one and it is text.
    pub(crate) async fn text(&self, path: &str) -> Result<Option<String>, RpcError> {
        let answer = self.client.call(Op::GetData, |w| w.text(path).bool(false)).await?;
        match answer.result {
            Ok(body) => Ok(Reader(&body).text().ok().map(str::to_owned)),
            Err(Refusal::NoNode) => Ok(None),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }

    /// Makes a node, and the directories above it. `Ok(Err(NodeExists))` is left to the caller. The session it was made in.
    pub(crate) async fn create(&self, path: &str, data: &[u8], life: Life) -> Result<Result<i64, Refusal>, RpcError> {
        let made = self.create_one(path, data, life).await?;
        if made != Err(Refusal::NoNode) {
            return Ok(made);
        }
        for (at, _) in path.match_indices('/').skip(1) {
            match self.create_one(&path[..at], b"", Life::Persistent).await? {
                Ok(_) | Err(Refusal::NodeExists) => {}
                // Below what we may not touch there may be what we may.
                Err(Refusal::NoAuth) => {}
                Err(refusal) => return Err(refused(&path[..at], refusal)),
            }
        }
        self.create_one(path, data, life).await
    }

    async fn create_one(&self, path: &str, data: &[u8], life: Life) -> Result<Result<i64, Refusal>, RpcError> {
        let answer = self.client.call(Op::Create, |w| {
            w.text(path).bytes(data);
            self.write_access(w);
            w.int(life as i32)
        });
        let answer = answer.await?;
        Ok(answer.result.map(|_| answer.session))
    }

    fn write_access(&self, writer: &mut Writer) {
        const ALL: i32 = 31;
        match self.private {
            true => writer.int(1).int(ALL).text("auth").text(""),
            false => writer.int(1).int(ALL).text("world").text("anyone"),
        };
    }

    /// Takes a node away; false if there was none.
    pub(crate) async fn delete(&self, path: &str) -> Result<bool, RpcError> {
        let answer = self.client.call(Op::Delete, |w| w.text(path).int(-1)).await?;
        match answer.result {
            Ok(_) => Ok(true),
            Err(Refusal::NoNode) => Ok(false),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }

    /// Sets a node's data; false if there is none.
    pub(crate) async fn set(&self, path: &str, data: &[u8]) -> Result<bool, RpcError> {
        let answer = self.client.call(Op::SetData, |w| w.text(path).bytes(data).int(-1)).await?;
        match answer.result {
            Ok(_) => Ok(true),
            Err(Refusal::NoNode) => Ok(false),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }

    /// Asks to be told of all that happens at a path and below, until the connection ends. False: the server is too old for it.
    pub(crate) async fn watch_below(&self, path: &str) -> Result<bool, RpcError> {
        const PERSISTENT_RECURSIVE: i32 = 1;
        let answer = self.client.call(Op::AddWatch, |w| w.text(path).int(PERSISTENT_RECURSIVE)).await?;
        match answer.result {
            Ok(_) => Ok(true),
            Err(Refusal::Unimplemented) => Ok(false),
            Err(refusal) => Err(refused(path, refusal)),
        }
    }
}
