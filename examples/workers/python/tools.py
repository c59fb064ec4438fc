"""The tools that this worker brings to the pool. A tool takes a call and gives what becomes its JSON output."""


class ToolError(Exception):
    """A failed attempt: a stable code, a sentence, and whether trying again can help."""

    def __init__(self, code, reason, retry=True):
        super().__init__(reason)
        self.code, self.retry = code, retry


def reverse(call):
    """`{"text": "abc"}` gives `{"text": "cba"}`, after `after_ms`."""
    text = call.input.get("text") if isinstance(call.input, dict) else None
    if not isinstance(text, str):
        raise ToolError("invalid_input", "the input needs a member text, a string", retry=False)
    call.wait(call.input.get("after_ms", 0) / 1000)
    return {"text": text[::-1]}


def flaky(call):
    """Fails the first `failures` attempts, then tells which attempt went well."""
    if call.attempt <= call.input["failures"]:
        raise ToolError("flaky", f"attempt {call.attempt} failed on purpose")
    return {"attempt": call.attempt}


TOOLS = {"text.reverse": reverse, "demo.flaky": flaky}
