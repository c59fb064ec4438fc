// The tools that this worker brings to the pool. A tool takes a call and gives what becomes its JSON output.
import { setTimeout as wait } from 'node:timers/promises';

/** A failed attempt: a stable code, a sentence, and whether trying again can help. */
export class ToolError extends Error {
  constructor(code, reason, retry = true) {
    super(reason);
    this.code = code;
    this.retry = retry;
  }
}

export const TOOLS = {
  /** `{"text": "abc"}` gives `{"text": "cba"}`, after `after_ms`. */
  'text.reverse': async ({ input, signal }) => {
    if (typeof input?.text !== 'string') throw new ToolError('invalid_input', 'the input needs a member text, a string', false);
    await wait(input.after_ms ?? 0, undefined, { signal });
    return { text: [...input.text].reverse().join('') };
  },
  /** Fails the first `failures` attempts, then tells which attempt went well. */
  'demo.flaky': async ({ input, attempt }) => {
    if (attempt <= input.failures) throw new ToolError('flaky', `attempt ${attempt} failed on purpose`);
    return { attempt };
  },
};
