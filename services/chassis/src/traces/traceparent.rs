//! The header `traceparent`: <https://www.w3.org/TR/trace-context/>.

use axum::http::HeaderValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// The trace id, the id of the caller's span, and the flags of `00-<32 hex>-<16 hex>-<2 hex>`.
pub(crate) fn split(text: &str) -> Option<[&str; 3]> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let nonzero = |part: &str| part.bytes().any(|byte| byte != b'0');
    let valid = hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && nonzero(trace)
        && hex(parent, 16)
        && nonzero(parent)
        && hex(flags, 2)
        // Only later versions may have more parts.
        && (version != "00" || parts.next().is_none());
    valid.then_some([trace, parent, flags])
}

/// The context of the caller's span.
pub(crate) fn read(text: &str) -> Option<SpanContext> {
    let [trace, parent, flags] = split(text)?;
    let (trace, parent) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(parent).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let is_sampled = flags.is_sampled();
    Some(SpanContext::new(trace, parent, TraceFlags::default().with_sampled(is_sampled), true, TraceState::NONE))
}

/// The header for what a span causes.
pub(crate) fn write(context: &SpanContext) -> HeaderValue {
    let mut text = *b"00-................................-................-..";
    write_hex(&context.trace_id().to_bytes(), &mut text[3..35]);
    write_hex(&context.span_id().to_bytes(), &mut text[36..52]);
    write_hex(&[context.trace_flags().to_u8()], &mut text[53..]);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits")
}

/// Each request has a header to write, also one that is not sampled. The formatter takes ten times as long.
fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        digits.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written() {
        for (text, sampled) in [
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", true),
            ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", false),
        ] {
            let context = read(text).expect("a traceparent");
            assert_eq!(
                (write(&context).to_str().ok(), context.is_sampled(), context.is_remote()),
                (Some(text), sampled, true)
            );
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        read("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").expect("a later version may have more");
    }
}
