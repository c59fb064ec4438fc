// A Tidemill worker in JavaScript: claims plain jobs from one queue, runs its own tools, settles through the functions.
// Usage: REDIS_URL=… QUEUE=node node worker.js
import { setTimeout as wait } from 'node:timers/promises';
import { dueMs, Malformed, mayReplyTo, read, refusal } from './contract.js';
import {
  announce, ask, bury, call, cancel, CONSUMER, createGroup, DAY_MS, db, defer, fail, GROUP, handBack, isTransient, key, NAMESPACE, PREFIX, readBytes,
  refusePart, STREAM, succeed,
} from './settle.js';
import { ToolError, TOOLS } from './tools.js';

const SLOTS = Number(process.env.SLOTS ?? 4);
const GRACE_MS = Number(process.env.GRACE_MS ?? 5000);
const held = new Map();
let cancelled = new Map();
let draining = false;
let number = 0;
let since = 0;
let clockMs = 0;
let freed = () => {};

/** Redis's time: the clock of this machine decides nothing. */
const now = () => clockMs + performance.now();

/** Tells that this process lives, and learns what was cancelled. */
async function beat() {
  if (number % 30 === 0) await announce(TOOLS, SLOTS);
  number += 1;
  const [time, ...ids] = await call('tm1_beat', [key('beats'), key('cancelled')], [CONSUMER, number, since]);
  since = Number(time);
  clockMs = since - performance.now();
  for (const id of ids) cancelled.set(id, since);
  cancelled = new Map([...cancelled].filter(([, at]) => since - at < DAY_MS));
  for (const one of held.values()) if (cancelled.has(one.id)) one.stop.abort('cancelled');
}

async function beatEachSecond() {
  while (!draining || held.size > 0) {
    await wait(1000, undefined, { ref: false });
    await beat();
  }
}

/** Claims as many entries as there are free slots, and gives the cursor of the next claim. */
async function claim(reader, cursor) {
  const room = SLOTS - held.size;
  if (room === 0) {
    await new Promise((resolve) => (freed = resolve));
    return cursor;
  }
  let reply;
  try {
    const read = ['XREADGROUP', 'GROUP', GROUP, CONSUMER, 'COUNT', room, 'BLOCK', 1000, 'STREAMS', STREAM, cursor];
    reply = await readBytes(reader, ...read);
  } catch (error) {
    if (error.message.startsWith('NOGROUP')) {
      await createGroup();
      return cursor;
    }
    if (!isTransient(error)) throw error;
    await wait(50 + Math.random() * 450);
    return '0'; // the lost reply may have given us entries: ask what is ours
  }
  const entries = reply ? reply[0][1] : [];
  for (const [entry, flat] of entries) if (!held.has(String(entry))) await take(String(entry), flat);
  return cursor === '>' || entries.length === 0 ? '>' : String(entries.at(-1)[0]);
}

async function take(entry, flat) {
  if (!flat?.length) return ask('XACK', STREAM, GROUP, entry); // deleted after it was delivered
  const pairs = [];
  for (let i = 0; i < flat.length; i += 2) pairs.push([flat[i], flat[i + 1]]);
  const run = pairs.find(([name]) => name.equals(Buffer.from('run')));
  if (run) return refusePart(entry, run[1].toString().split(' ')[0]);
  try {
    const job = read(pairs);
    if (!mayReplyTo(job.reply_to ?? '', NAMESPACE, PREFIX)) throw new Malformed('invalid_reply_to', "reply_to may not be one of Tidemill's own keys");
    const first = job._entry ?? entry;
    return await begin({ entry, first, job, input: job.input, id: job.id ?? first, attempt: (job._attempts ?? 0) + 1, stop: new AbortController() });
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return bury({ entry, id: entry, job: {} }, error.code, error.message);
  }
}

async function begin(one) {
  const { job } = one;
  const born = Number(one.first.split('-')[0]);
  const due = dueMs(job, born);
  if (job.id !== undefined) {
    const [fresh] = await call('tm1_accept', [STREAM, key(`id:${one.id}`)], [GROUP, 1, one.entry, one.first, DAY_MS]);
    if (fresh === 0) return console.log('dropped', one.id);
  }
  if (cancelled.has(one.id)) return cancel(one);
  if (due > now()) return defer(one, 'ready', { atMs: due, note: 'delayed' });
  const refused = refusal(job, TOOLS, job.deadline_ms !== undefined && now() > born + job.deadline_ms);
  if (refused) {
    const [state, code, reason] = refused;
    return bury(one, code, reason, { state, attempts: one.attempt - 1 });
  }
  held.set(one.entry, one);
  run(one).finally(() => {
    held.delete(one.entry);
    freed();
  });
}

async function run(one) {
  const timer = setTimeout(() => one.stop.abort('timeout'), Math.min(one.job.timeout_ms ?? 30_000, 2 ** 31 - 1));
  try {
    const output = await TOOLS[one.job.tool]({ input: one.input, attempt: one.attempt, signal: one.stop.signal });
    await succeed(one, output);
  } catch (error) {
    const why = one.stop.signal.reason;
    if (why === 'cancelled') await cancel(one);
    else if (why === 'timeout') await fail(one, 'timeout', 'the attempt ran longer than its timeout', { state: 'timed_out', now: now() });
    else if (error instanceof ToolError) await fail(one, error.code, error.message, { retry: error.retry, now: now() });
    else await fail(one, 'internal', `${error.name}: ${error.message}`, { now: now() }); // a fault of the tool must not stop the worker
  } finally {
    clearTimeout(timer);
  }
}

for (const name of ['SIGTERM', 'SIGINT']) {
  process.on(name, () => {
    draining = true;
    freed();
  });
}
await db.connect();
const reader = db.duplicate(); // a blocking read holds up everything behind it on its connection
reader.on('error', () => {});
await reader.connect();
await createGroup();
await beat();
console.log('ready', CONSUMER);
const heart = beatEachSecond();
for (let cursor = '>'; !draining; ) cursor = await claim(reader, cursor);
const end = now() + GRACE_MS;
while (held.size > 0 && now() < end) await wait(10);
const left = [...held.values()];
held.clear();
await heart;
await handBack(left);
process.exit(0);
