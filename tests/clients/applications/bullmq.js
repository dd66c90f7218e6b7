// BullMQ: jobs with results, a delayed one, one that fails twice, a flow. Arguments: PORT [PREFIX].
//
// Prints "done", or how a server refused, and does it again for each line that it reads.

'use strict';

const assert = require('node:assert/strict');
const { createInterface } = require('node:readline');
const { FlowProducer, Queue, QueueEvents, Worker } = require('bullmq');

const [port, prefix] = process.argv.slice(2);
const options = { connection: { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null }, prefix };
const TIMEOUT = 30_000;

const queue = new Queue('sums', options);
const flows = new FlowProducer(options);
const events = new QueueEvents('sums', options);
queue.setMaxListeners(0); // one for each job that is waited for

async function main() {
  await events.waitUntilReady();
  const worker = new Worker('sums', work, { ...options, concurrency: 4 });
  const parts = [worker, events, flows, queue];
  for (const part of parts) part.on('error', () => {}); // as its connection is lost; BullMQ connects again
  await giveWork(1);
  let rounds = 1;
  for await (const _line of createInterface({ input: process.stdin })) await giveWork(++rounds);
  await Promise.all(parts.map((part) => part.close()));
}

async function giveWork(round) {
  const jobs = await Promise.all(numbers(30).map((number) => queue.add('plus', { number })));
  jobs.push(await queue.add('plus', { number: 30 }, { delay: 1000 }));
  jobs.push(await queue.add('plus', { number: 31, failures: 2 }, { attempts: 3, backoff: 50 }));
  const children = numbers(5).map((number) => ({ name: 'plus', queueName: 'sums', data: { number } }));
  const flow = await flows.add({ name: 'total', queueName: 'sums', children });
  const results = await Promise.all(jobs.map((job) => job.waitUntilFinished(events, TIMEOUT)));
  assert.deepEqual(results, numbers(32).map((number) => number + 1));
  assert.equal(await flow.job.waitUntilFinished(events, TIMEOUT), 15);
  const counts = await queue.getJobCounts('completed', 'failed', 'wait');
  assert.deepEqual(counts, { completed: 38 * round, failed: 0, wait: 0 });
  console.log('done');
}

async function work(job) {
  if (job.name === 'total') {
    return Object.values(await job.getChildrenValues()).reduce((total, value) => total + value, 0);
  }
  if (job.attemptsMade < (job.data.failures ?? 0)) throw new Error('not yet');
  return job.data.number + 1;
}

function numbers(count) {
  return Array.from({ length: count }, (_, number) => number);
}

main().catch((error) => {
  console.log(error.message);
  process.exit(error.message.includes('CROSSSLOT') ? 0 : 1);
});
