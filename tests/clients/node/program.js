// What every Node.js program here does besides being a client: it is started, runs steps and prints a line for each.
//
// Owns: the JavaScript side of the contract that tests/clients/programs.py describes. The programs are started as
// `node FILE CLIENT HOST PORT [STEP...]`, with NODE_PATH naming the node_modules folder.

'use strict';

const assert = require('node:assert/strict');
const readline = require('node:readline');

const LONGEST_STEP = 15_000;

const [client, host, port, ...only] = process.argv.slice(2);
const given = { client, host, port: Number(port), password: process.env.REDIS_PASSWORD || undefined };

function say(line) {
  process.stdout.write(JSON.stringify(line) + '\n');
}

/** Comes back once `what` was done to the server that this program is connected to. */
async function askFor(what) {
  say({ ask: what });
  const input = readline.createInterface({ input: process.stdin });
  await new Promise((resolve) => {
    input.once('line', resolve);
    input.once('close', resolve);
  });
  input.close();
}

/** Fails unless both are the same, whatever kind of object a reply is. */
function same(found, wanted, what) {
  assert.deepEqual(plain(found), plain(wanted), `${what}: ${show(found)} instead of ${show(wanted)}`);
}

function plain(value) {
  if (Array.isArray(value)) return value.map(plain);
  return value && Object.getPrototypeOf(value) === null ? { ...value } : value;
}

function show(value) {
  return value instanceof Error ? String(value) : JSON.stringify(value);
}

function wait(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** The error that `promise` fails with; fails itself if there is none. */
async function failure(promise) {
  let value;
  try {
    value = await promise;
  } catch (error) {
    return error;
  }
  throw new Error(`no error but ${show(value)}`);
}

/** Polls until `poll` gives something true. */
async function until(poll, what, timeout = 10_000) {
  const end = Date.now() + timeout;
  for (;;) {
    const found = await poll();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${timeout} ms without ${what}`);
    await wait(20);
  }
}

async function run(steps) {
  for (const [step, body] of Object.entries(steps)) {
    if (only.length > 0 && !only.includes(step)) continue;
    let timer;
    const tooLong = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`nothing after ${LONGEST_STEP} ms`)), LONGEST_STEP);
    });
    try {
      say({ step, ok: true, detail: (await Promise.race([body(), tooLong])) || '' });
    } catch (error) {
      say({ step, ok: false, detail: `${error?.constructor?.name}: ${error?.message ?? error}` });
    } finally {
      clearTimeout(timer);
    }
  }
  process.exit(0); // whatever connections are still open
}

module.exports = { askFor, failure, given, run, same, say, until, wait };
