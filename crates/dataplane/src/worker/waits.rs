//! WAIT and WAITAOF: how many replicas have what this client wrote, the least of all shards it wrote to.
//!
//! A server counts for the connection that asks, and a client's writes go on connections that it shares. So the
//! question goes on one of its own, behind a message to a shard channel that nobody hears: that is replicated
//! like a write, behind all that was written before, and makes the server count from there. All that the client
//! sent before is answered by then.
//!
//! The rule: what was written to a master that has been replaced since is never vouched for, for the new one
//! may lack it, whatever its own replicas have. Called by `dispatch`; `blocking` has what WAIT shares with other
//! requests that wait.

use super::Worker;
use super::dispatch::{Request, Step};
use super::pinned::Own;
use crate::backend::Pin;
use crate::blocking::Blocking;
use crate::client::Gate;
use crate::coalesce::{Given, Split};
use crate::command::{Access, Merge};
use crate::inflight::{Owner, Slot};
use crate::reactor::Handle;
use crate::resp;

/// SPUBLISH of nothing: a pattern hears no shard channel.
const MARK: &[u8] = b"*3\r\n$8\r\nSPUBLISH\r\n$12\r\n__shoal:wait\r\n$0\r\n\r\n";

/// What WAIT is answered if the server refused the mark before it; the server then counts from nowhere.
pub(super) fn refusal(reply: &[u8]) -> Option<Box<[u8]>> {
    let said = String::from_utf8_lossy(reply.strip_prefix(b"-")?.trim_ascii_end());
    let line = format!("-ERR WAIT needs SPUBLISH, which the server refuses: {said}\r\n");
    Some(line.into_bytes().into())
}

/// Whether a WAIT is answered with at least the numbers that it asks for.
pub(super) fn is_satisfied(asked_for: &[i64], reply: &[u8]) -> bool {
    let lines = reply.split(|&byte| byte == b'\n');
    let mut found =
        lines.filter_map(|line| resp::number(line.strip_prefix(b":")?.trim_ascii_end()));
    !asked_for.is_empty()
        && asked_for
            .iter()
            .all(|&asked| found.next().is_some_and(|it| it >= asked))
}

impl Worker {
    pub(super) fn dispatch_wait(
        &mut self,
        handle: Handle,
        pool: usize,
        merge: Merge,
        request: Request<'_>,
    ) -> Step {
        if let Some(step) = self.not_alone(handle) {
            return step;
        }
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let (lane, writes) = (client.lane, client.writes);
        let of_pool = &self.snapshot.pools[pool].shards;
        if let Some(&lost) = of_pool.iter().find(|&&shard| writes.is_lost(shard)) {
            let refusal = format!(
                "-ERR shard \"{}\" has had another master since this client wrote to it, or was lost for a moment: \
                 what it wrote before may be lost\r\n",
                self.snapshot.shard_name(lost)
            );
            self.forget_blocking(handle);
            if let Some(client) = self.client(handle) {
                client.writes.forget();
            }
            return self.answer(handle, refusal.as_bytes());
        }
        let mut asked: Vec<usize> = of_pool
            .iter()
            .copied()
            .filter(|&it| writes.concern(it))
            .collect();
        if asked.is_empty() {
            asked = of_pool.to_vec();
        }
        let mut ready = Vec::with_capacity(asked.len());
        let mut lacks = None;
        for &shard in &asked {
            let has = self.own_at(handle, shard);
            match self.pin(has, shard, lane, Pin::Blocked) {
                Own::Ready(backend) => {
                    self.keep_own(handle, shard, backend);
                    ready.push(backend);
                }
                Own::Opening(backend) => {
                    self.keep_own(handle, shard, backend);
                    lacks = Some(shard);
                }
                Own::Later => lacks = Some(shard),
                Own::Never(reason) => {
                    self.forget_blocking(handle);
                    return self.cannot_forward(handle, &reason);
                }
            }
        }
        if let Some(shard) = lacks {
            return self.wait_to_block(handle, shard, request);
        }
        self.ask_replicas(handle, merge, &asked, &ready, request);
        Step::Taken
    }

    fn ask_replicas(
        &mut self,
        handle: Handle,
        merge: Merge,
        asked: &[usize],
        ready: &[Handle],
        request: Request<'_>,
    ) {
        let numbers = (1..request.args.len() - 1).map(|at| resp::number(request.arg(at)));
        let asked_for = numbers.map(|it| it.unwrap_or(i64::MAX)).collect();
        let Some(client) = self.client(handle) else {
            return;
        };
        let split = Split::every(merge, asked, Given::Nothing);
        let sequence = client.slots.push(Slot::Split(Box::new(split)));
        client.gate = Gate::Full { resume_at: 0 };
        if let Some(waits) = &mut client.blocking {
            waits.sequence = Some(sequence);
            waits.asked_for = asked_for;
        }
        for (part, &backend) in (0_u16..).zip(ready) {
            let owner = Owner::Client {
                client: handle,
                sequence,
                part,
            };
            self.send(backend, Owner::Mark, Access::Read, MARK);
            self.send(backend, owner, Access::Read, request.frame);
            self.leave_pinned(backend);
        }
    }

    /// The connection that the client has for this to a shard.
    fn own_at(&mut self, handle: Handle, shard: usize) -> Option<Handle> {
        let waits = self.client(handle)?.blocking.as_ref();
        waits.filter(|it| !it.is_sent())?.own_at(shard)
    }

    fn keep_own(&mut self, handle: Handle, shard: usize, backend: Handle) {
        let now = self.now.nanos;
        if let Some(client) = self.client(handle) {
            let waits = match client.blocking.take() {
                Some(waits) if !waits.is_sent() => waits,
                _ => Box::new(Blocking::new(now, None)),
            };
            client.blocking.insert(waits).keep(shard, backend);
        }
    }
}
