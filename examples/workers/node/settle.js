// How jobs end: each settlement is one command or one function call, and whoever no longer owns the entry is refused.
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import { createClient, ErrorReply, RESP_TYPES } from 'redis';

export const NAMESPACE = process.env.TIDEMILL_NAMESPACE ?? 'tm';
export const PREFIX = `${NAMESPACE}:{0}:`;
export const QUEUE = process.env.QUEUE ?? 'node';
export const STREAM = `${PREFIX}jobs:${QUEUE}`;
export const CONSUMER = `${hostname()}-${process.pid}-${randomBytes(4).toString('hex')}`;
export const GROUP = 'workers';
export const DAY_MS = 86_400_000;
const DEAD_CAP = 100_000;

export const db = createClient({ url: process.env.REDIS_URL ?? 'redis://127.0.0.1:6379/0', RESP: 2 });
db.on('error', (error) => console.error('redis:', error.message)); // the client connects again by itself
const bytes = { typeMapping: { [RESP_TYPES.BLOB_STRING]: Buffer } };

export const key = (name) => PREFIX + name;
export const isTransient = (error) => !(error instanceof ErrorReply) || /^(READONLY|LOADING|OOM|BUSY|MASTERDOWN|MISCONF)\b/.test(error.message);

/** Asks until there is an answer: every function may be repeated, and a repeated settlement is merely stale. */
export async function ask(...command) {
  for (let pause = 50; ; pause = Math.min(pause * 2, 5000)) {
    try {
      return await db.sendCommand(command.map(String));
    } catch (error) {
      if (!isTransient(error)) throw error;
      await wait(Math.random() * pause);
    }
  }
}

export const call = (name, keys, args) => ask('FCALL', name, keys.length, ...keys, ...args);
export const readBytes = (client, ...command) => client.sendCommand(command.map(String), bytes);

export async function createGroup() {
  await ask('XGROUP', 'CREATE', STREAM, GROUP, 0, 'MKSTREAM').catch((error) => {
    if (!error.message.startsWith('BUSYGROUP')) throw error;
  });
}

export async function announce(tools, slots) {
  const about = { consumer: CONSUMER, role: 'worker', host: hostname(), pid: process.pid, queues: [QUEUE], slots };
  await ask('HSET', key('members'), CONSUMER, JSON.stringify(about));
  await ask('SADD', key('queues'), QUEUE);
  await ask('HSET', key('tools'), ...Object.keys(tools).flatMap((name) => [name, '{"kind":"node"}']));
}

// a stale outcome is dropped: somebody else has the job, and its outcome is the one that counts
const tell = (one, owned, word) => console.log(owned ? word : 'stale', one.id);

/** The result without its end time and closing brace, which the function adds. */
const head = (one, state, output, error, attempts) =>
  JSON.stringify({ id: one.id, state, output, error, attempts }).slice(0, -1);
const resultOf = (one) => [key(`result:${one.id}`), one.job.reply_to ?? STREAM];
const wants = (one) => [one.job.result_ttl_ms ?? 0, one.job.reply_to === undefined ? 0 : 1];

export async function succeed(one, output) {
  if (one.job.result_ttl_ms !== undefined || one.job.reply_to !== undefined) {
    return complete(one, head(one, 'succeeded', output ?? null, null, one.attempt), 'done');
  }
  const owned = await ask('XACK', STREAM, GROUP, one.entry);
  await ask('XDEL', STREAM, one.entry);
  tell(one, owned === 1, 'done');
}

export const cancel = (one) =>
  complete(one, head(one, 'cancelled', null, { code: 'cancelled', message: 'cancelled by request' }, one.attempt), 'cancelled');

async function complete(one, text, word) {
  const keys = resultOf(one).slice(0, one.job.reply_to === undefined ? 1 : 2); // a reply only where one is wanted
  const [owned] = await call('tm1_complete', [STREAM, ...keys], [GROUP, ...wants(one), 1, one.entry, text]);
  tell(one, owned === 1, word);
}

/** Another attempt when one is left, waiting in Redis; else the dead letters. */
export async function fail(one, code, reason, { retry = true, state = 'failed', now }) {
  if (!retry || one.attempt >= (one.job.max_attempts ?? 3)) return bury(one, code, reason, { state, attempts: one.attempt });
  const inMs = Math.floor(Math.random() * Math.min(500 * 2 ** (one.attempt - 1), 30_000));
  const changes = ['_attempts', one.attempt, '_first_ms', one.job._first_ms ?? Math.floor(now)];
  return defer(one, 'retrying', { inMs, note: `${code}: ${reason}`, changes });
}

export async function defer(one, state, { inMs = 0, atMs = 0, note = '', changes = [] }) {
  const keys = [STREAM, key(`due:${QUEUE}`), key(`deferred:${QUEUE}`), key('queues'), STREAM, STREAM, STREAM];
  const entry = [one.entry, `j:${one.id}`, inMs, atMs, state, note, '', '', 0, one.attempt, changes.length, ...changes];
  const [owned] = await call('tm1_defer', keys, [GROUP, CONSUMER, QUEUE, 1, ...entry]);
  tell(one, owned === 1, state);
}

export async function bury(one, code, reason, { state = 'failed', attempts = 0 } = {}) {
  const text = head(one, state, null, { code, message: reason }, attempts);
  const args = [GROUP, DEAD_CAP, 1, one.entry, code, reason, attempts, text, ...wants(one)];
  const [owned] = await call('tm1_bury', [STREAM, key('dead'), ...resultOf(one)], args);
  tell(one, owned === 1, `buried ${code}`);
}

/** A step of a workflow needs the workflow's expressions, which this worker cannot evaluate: the run fails, with the reason. */
export async function refusePart(entry, run) {
  const reply = (await ask('HGET', key(`run:${run}`), 'rp')) ?? STREAM;
  // where something is done at a run's end, its own entries go to this queue
  const home = await ask('HGET', key(`run:${run}`), 'cl');
  const keys = [`run:${run}`, `audit:${run}`, 'live', 'ended', 'cancelled', 'dead', `result:${run}`].map(key);
  keys.push(reply, key('runs'), key(home ? `jobs:${home}` : `run:${run}`));
  const reason = `queue ${QUEUE} is served by a worker that runs plain jobs only`;
  const error = JSON.stringify({ code: 'unsupported_part', message: reason });
  await call('tm1_end_run', keys, [run, 'failed', CONSUMER, error, 'unsupported_part', reason, '', DEAD_CAP, 0]);
  await ask('XACK', STREAM, GROUP, entry);
  await ask('XDEL', STREAM, entry);
}

/** Gives what was not finished back at once, under new entries, and leaves the pool. */
export async function handBack(calls) {
  const keys = [STREAM, key('beats'), ...calls.flatMap(() => [STREAM, STREAM, STREAM])];
  const entries = calls.flatMap((one) => [one.entry, '', '', one.attempt]);
  if (calls.length > 0) await call('tm1_release', keys, [GROUP, CONSUMER, CONSUMER, '', 0, calls.length, ...entries]);
  await call('tm1_forget', [key('beats'), key('members'), STREAM], [CONSUMER, '', 1, GROUP]);
}
