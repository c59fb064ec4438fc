// Reads an entry as docs/protocol.md says: every field that the contract knows, strictly; nothing that it does not know.
import { decode } from '@msgpack/msgpack';

const NUMBER = /^[0-9]{1,20}$/;
const DIGIT = /^[0-9]$/;
const TARGET = /^[A-Za-z0-9._@/-]{1,128}$/;
const TEXT = /^[^]*$/;
const RULES = {
  tool: TARGET,
  workflow: TARGET,
  enc: /^(json|msgpack)$/,
  id: /^[A-Za-z0-9._:@/-]{1,128}$/,
  tenant: /^[!-~]{1,128}$/,
  user: /^[!-~]{1,128}$/,
  priority: DIGIT,
  queue: /^[A-Za-z0-9._-]{1,64}$/,
  mode: /^(classic|state_machine|optimized|hybrid)$/,
  labels: TEXT,
  delay_ms: NUMBER,
  run_at_ms: NUMBER,
  timeout_ms: NUMBER,
  deadline_ms: NUMBER,
  max_attempts: NUMBER,
  result_ttl_ms: NUMBER,
  reply_to: TEXT,
  traceparent: TEXT,
  tracestate: TEXT,
  v: TEXT,
  _entry: /^[0-9]{1,20}-[0-9]{1,20}$/,
  _attempts: NUMBER,
  _deaths: NUMBER,
  _first_ms: NUMBER,
  _why: TEXT,
  _ticket: TEXT,
  _score: TEXT,
};
const U32 = ['max_attempts', '_attempts', '_deaths'];
const MAX_FIELDS = 64;
const CRASH_BUDGET = 3;
const MAX_INPUT_BYTES = 1024 * 1024;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The entry is no job; it goes to the dead letters with this code and sentence. */
export class Malformed extends Error {
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

function areLabels(text) {
  let labels;
  try {
    labels = JSON.parse(text);
  } catch {
    return false;
  }
  if (labels === null || typeof labels !== 'object' || Array.isArray(labels)) return false;
  const entries = Object.entries(labels);
  const fits = (value) =>
    ['number', 'boolean'].includes(typeof value) ||
    (typeof value === 'string' && value !== '' && Buffer.byteLength(value) <= 256 && !/[\x00-\x1f\x7f-\x9f]/.test(value));
  return entries.length <= 32 && entries.every(([name, value]) => /^[A-Za-z0-9._/-]{1,64}$/.test(name) && fits(value));
}

/** The job of an entry's [name, value] pairs in bytes: its fields as text and numbers, `input` as a value. */
export function read(pairs) {
  if (pairs.length > MAX_FIELDS) throw new Malformed('malformed', `the entry has more than ${MAX_FIELDS} fields`);
  const job = {};
  let input = Buffer.from('{}');
  const seen = new Set();
  for (const [nameBytes, value] of pairs) {
    const name = nameBytes.toString('latin1');
    if (name !== 'input' && !Object.hasOwn(RULES, name)) {
      if (name.startsWith('x-') || name.startsWith('_')) continue;
      throw new Malformed('unknown_field', `field ${JSON.stringify(name.slice(0, 40))} is unknown; prefix your own with x-`);
    }
    if (seen.has(name)) throw new Malformed('malformed', `field ${name} is there twice`);
    seen.add(name);
    if (name === 'input') {
      if (value.length > MAX_INPUT_BYTES) {
        throw new Malformed('too_large', `the input has ${value.length} bytes; ${MAX_INPUT_BYTES} are allowed`);
      }
      input = value;
    } else {
      job[name] = field(name, value);
    }
  }
  if ('labels' in job && !areLabels(job.labels)) {
    throw new Malformed('malformed', 'field labels is no JSON object of at most 32 short texts, numbers or truth values');
  }
  if ('tool' in job === 'workflow' in job) throw new Malformed('malformed', 'the entry needs exactly one of tool and workflow');
  try {
    job.input = job.enc === 'msgpack' ? decode(input) : JSON.parse(utf8.decode(input));
  } catch (error) {
    throw new Malformed('malformed', `the input is not well-formed: ${error.message}`);
  }
  return job;
}

function field(name, bytes) {
  let text;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new Malformed('malformed', `field ${name} is not UTF-8`);
  }
  if (name === 'v' && text !== '1') throw new Malformed('unsupported_version', `contract version ${text} is not known here; 1 is`);
  if (!RULES[name].test(text)) throw new Malformed('malformed', `field ${name} has no valid value: ${text.slice(0, 40)}`);
  if (RULES[name] !== NUMBER && RULES[name] !== DIGIT) return text;
  if (BigInt(text) >= 1n << (U32.includes(name) ? 32n : 64n)) throw new Malformed('malformed', `field ${name} is too large a number`);
  return Number(text);
}

/** When the job may begin, by Redis's clock: the later of what it asks for; 0 when it asks for nothing, or has waited already. */
export function dueMs(job, bornMs) {
  if (job._why !== undefined) return 0;
  return Math.max(job.delay_ms === undefined ? 0 : bornMs + job.delay_ms, job.run_at_ms ?? 0);
}

/** Why the job cannot begin here: [state, code, sentence]; or undefined. */
export function refusal(job, tools, overdue) {
  if (overdue) return ['timed_out', 'deadline_exceeded', 'its deadline passed before it began'];
  if ((job._deaths ?? 0) >= CRASH_BUDGET) return ['failed', 'crash_budget', `${job._deaths} workers died while they held it`];
  if (job.workflow !== undefined) return ['failed', 'wrong_stream', 'runs are asked for in the stream runs'];
  if (Object.hasOwn(tools, job.tool)) return undefined;
  return ['failed', 'unknown_tool', `this worker has no tool ${job.tool}; it has ${Object.keys(tools).join(', ')}`];
}

/** Results go to streams outside the namespace, or to its reply streams: never where they could forge work. */
export function mayReplyTo(stream, namespace, prefix) {
  return !stream.startsWith(`${namespace}:{`) || stream.startsWith(`${prefix}reply:`);
}
