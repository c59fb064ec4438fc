//! `echo`: its output is its input, the very bytes, in the very encoding; nothing is parsed.

use std::sync::Arc;

use tidemill_tool::{Call, Tool, ToolFuture};

/// Gives its input back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Tool for Echo {
    fn kind(&self) -> &'static str {
        "inline"
    }

    fn call(self: Arc<Self>, call: Call) -> ToolFuture {
        Box::pin(std::future::ready(Ok(call.input)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_tool::{Context, Encoding, Payload, ToolError};

    #[tokio::test]
    async fn the_output_is_the_very_bytes_even_when_they_mean_nothing() -> Result<(), ToolError> {
        for input in
            [Payload::json(&b"{ not json"[..]), Payload::encoded(Encoding::MsgPack, &b"\xc1\x00"[..])]
        {
            let output =
                Arc::new(Echo).call(Call { input: input.clone(), context: Context::default() }).await?;
            assert_eq!(output, input);
            assert_eq!(output.bytes().as_ptr(), input.bytes().as_ptr(), "the bytes were copied");
        }
        Ok(())
    }
}
