//! SCAN over the shards of a pool, one after the other, by a cursor that says everything (see `cursor`).
//!
//! The rule it keeps: a server's cursor is continued only on the connection to the very run of the server that it is
//! from. Every connection that scans asks for the run id once, before its first step, and the run is compared when
//! the step's reply comes: a reply of another run is thrown away and the shard begins again. A step is never sent
//! twice: one whose connection was lost gives no keys and its own cursor back, and the client goes on.

use super::Worker;
use super::dispatch::{Request, Step};
use super::hold::Room;
use crate::backend::Run;
use crate::command::Command;
use crate::cursor::{self, Cursor, MOST_SHARDS};
use crate::inflight::{Owner, SCAN_STEP, Slot};
use crate::reactor::Handle;

const NO_KEYS: &[u8] = b"*0\r\n";

impl Worker {
    pub(super) fn dispatch_scan(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        request: Request<'_>,
    ) -> Step {
        let shards = &self.snapshot.pools[pool].by_name;
        if shards.len() > MOST_SHARDS {
            let line = format!(
                "-ERR 'scan' is not supported by Shoal over {} shards\r\n",
                shards.len()
            );
            return self.answer(handle, line.as_bytes());
        }
        let Some(cursor) = Cursor::parse(request.arg(1)) else {
            return self.answer(handle, b"-ERR invalid cursor\r\n");
        };
        let Some(&shard) = shards.get(cursor.place) else {
            return self.answer(
                handle,
                b"-ERR invalid cursor: this pool has no such shard\r\n",
            );
        };
        let Some(lane) = self.client(handle).map(|client| client.lane) else {
            return Step::Taken;
        };
        let ready = match self.takes(shard, lane, command.access) {
            Room::Ready(backend) if !self.is_behind(handle, shard) => backend,
            Room::Never(reason) | Room::Failed(reason) => {
                let name = self.snapshot.shard_name(shard);
                let why = format!("shard \"{name}\": {reason}");
                return self.cannot_forward(handle, &why);
            }
            _ => return self.park(handle, shard, request.frame.len()),
        };
        let millis = self.now.millis;
        if let Some(backend) = self.backend(ready) {
            backend.ask_run(millis);
        }
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let owner = Owner::Client {
            client: handle,
            sequence: client.slots.push(Slot::Scan(cursor)),
            part: SCAN_STEP,
        };
        self.send(
            ready,
            owner,
            command.access,
            &request.with_argument(1, cursor.at.to_string().as_bytes()),
        );
        Step::Taken
    }

    /// The server's answer to the step that this slot waits for, on a connection to this run of it.
    pub(super) fn scanned(&mut self, handle: Handle, sequence: u32, run: Run, reply: &[u8]) {
        let shards = self.client(handle).map(|client| usize::from(client.pool));
        let shards = shards.map_or(0, |pool| self.snapshot.pools[pool].by_name.len());
        let Some(client) = self.client(handle) else {
            return;
        };
        let Some(&mut Slot::Scan(asked)) = client.slots.get_mut(sequence) else {
            return;
        };
        let reply = match run {
            _ if reply.starts_with(b"-") => reply.to_vec(),
            Run::Known(Some(run)) => step_reply(asked, run, shards, reply),
            _ => b"-ERR 'scan' needs INFO, which this server refuses\r\n".to_vec(),
        };
        client.deliver(sequence, &reply);
        self.delivered(handle);
    }

    /// The answer to a step that has to be asked for again.
    pub(super) fn scan_again(&mut self, handle: Handle, sequence: u32) {
        let Some(client) = self.client(handle) else {
            return;
        };
        if let Some(&mut Slot::Scan(asked)) = client.slots.get_mut(sequence) {
            let same = if asked.at == 0 {
                Cursor::start_of(asked.place)
            } else {
                asked
            };
            client.deliver(sequence, &reply_of(same, NO_KEYS));
            self.delivered(handle);
        }
    }
}

/// What a client gets for a server's answer.
fn step_reply(asked: Cursor, run: u32, shards: usize, reply: &[u8]) -> Vec<u8> {
    if asked.at != 0 && asked.run != run {
        return reply_of(Cursor::start_of(asked.place), NO_KEYS);
    }
    let Some((at, keys)) = cursor::parts(reply) else {
        return b"-ERR a shard answered in a form that cannot be merged\r\n".to_vec();
    };
    if at != 0 {
        return reply_of(Cursor { run, at, ..asked }, keys);
    }
    if asked.place + 1 < shards {
        return reply_of(Cursor::start_of(asked.place + 1), keys);
    }
    [b"*2\r\n$1\r\n0\r\n", keys].concat()
}

fn reply_of(cursor: Cursor, keys: &[u8]) -> Vec<u8> {
    let Some(number) = cursor.number() else {
        return b"-ERR the server's cursor is too large for one over several shards\r\n".to_vec();
    };
    let text = number.to_string();
    let mut reply = format!("*2\r\n${}\r\n{text}\r\n", text.len()).into_bytes();
    reply.extend_from_slice(keys);
    reply
}
