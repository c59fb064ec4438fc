// Enqueues a JSON job, a MessagePack job and a run of a workflow, and prints each result as it arrives.
// Usage: REDIS_URL=redis://127.0.0.1:6379/0 node enqueue.js [json] [msgpack] [run]
import { randomUUID } from 'node:crypto';
import { encode } from '@msgpack/msgpack';
import { createClient } from 'redis';

const tidemill = `${process.env.TIDEMILL_NAMESPACE ?? 'tm'}:{0}:`;
const db = createClient({ url: process.env.REDIS_URL ?? 'redis://127.0.0.1:6379/0' });
await db.connect();
const caller = `node-${randomUUID()}`;
const replyTo = `${tidemill}reply:${caller}`;

async function enqueue(stream, kind, fields) {
  // an id of our own makes it safe to send twice, and names the result
  const job = { id: `${caller}-${kind}`, result_ttl_ms: '60000', reply_to: replyTo, ...fields };
  for (let i = 0; i < 2; i++) await db.xAdd(tidemill + stream, '*', job);
}

async function* results(count, withinMs = 30_000) {
  const end = performance.now() + withinMs;
  for (let last = '0'; count > 0; ) {
    if (performance.now() > end) throw new Error(`${count} results did not arrive: does a worker serve the queue?`);
    const streams = (await db.xRead({ key: replyTo, id: last }, { BLOCK: 1000 })) ?? [];
    for (const { id, message } of streams.flatMap((stream) => stream.messages)) {
      last = id;
      count--;
      yield JSON.parse(message.result);
    }
  }
}

const kinds = process.argv.length > 2 ? process.argv.slice(2) : ['json', 'msgpack', 'run'];
for (const kind of kinds) {
  if (kind === 'json') {
    await enqueue('jobs:default', kind, { tool: 'echo', input: JSON.stringify({ from: 'node', n: 1 }) });
  } else if (kind === 'msgpack') {
    const input = Buffer.from(encode({ from: 'node', n: 2 }));
    await enqueue('jobs:default', kind, { tool: 'echo', enc: 'msgpack', input });
  } else {
    await enqueue('runs', kind, { workflow: 'greet', input: JSON.stringify({ name: 'node' }) });
  }
}
for await (const result of results(kinds.length)) {
  const kept = await db.get(`${tidemill}result:${result.id}`);
  if (kept !== JSON.stringify(result)) throw new Error(`the kept result is not the one that was sent: ${kept}`);
  console.log(result.id.split('-').at(-1), JSON.stringify(result));
}
await db.del(replyTo);
await db.close();
