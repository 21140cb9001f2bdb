//! What can be measured, one file each. To add one: its file, with the commands that it brings, and its line in [`ALL`].
//! What it asks of a peer beyond [`Peer`](crate::peers::Peer) becomes a function of [`Entry`](crate::peers::Entry).
use crate::command::Command;

pub(crate) mod calls;
mod fair;
mod idle;
mod registry;
mod slow_reader;
pub(crate) mod soak;
mod streams;

/// Of each scenario the command for people first, then those of the processes that it starts.
pub(crate) const ALL: &[&[Command]] =
    &[calls::COMMANDS, streams::COMMANDS, fair::COMMANDS, slow_reader::COMMANDS, idle::COMMANDS, soak::COMMANDS, registry::COMMANDS];
