//! Requests as bytes, made before the clock starts, and the ciphertexts of answers.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{KmsArgs, Operation, Wire};
use crate::wire::Answer;

/// The context of every operation: as a MinIO server sends it for an object.
const CONTEXT: &[u8] = br#"{"lake":"lake/tables/part-00000.parquet"}"#;
/// The codes of MinKMS.
const DECRYPT: u16 = 206;
const GENERATE: u16 = 207;

/// A request that can be sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// Asks for data keys under `key`.
pub(super) fn generate(args: &KmsArgs, key: &str) -> Prepared {
    let context = STANDARD.encode(CONTEXT);
    let body = match args.wire {
        Wire::Kes => text(&json!({ "context": context })),
        Wire::Native if args.batch == 1 => text(&json!({ "context": context })),
        Wire::Native => {
            let item = json!({ "key": key, "context": context });
            text(&json!({ "items": vec![item; args.batch] }))
        }
        Wire::Minkms => {
            let mut message = Vec::new();
            field(&mut message, 1, key.as_bytes());
            field(&mut message, 3, CONTEXT);
            // Field 4, a number: 32 bytes.
            message.extend_from_slice(&[0x20, 32]);
            frame(GENERATE, &message).repeat(args.batch)
        }
    };
    request(args, key, Operation::Generate, body)
}

/// Asks for what is in `ciphertext`, which was made under `key`.
pub(super) fn decrypt(args: &KmsArgs, key: &str, ciphertext: &[u8]) -> Prepared {
    let (context, encoded) = (STANDARD.encode(CONTEXT), STANDARD.encode(ciphertext));
    let body = match args.wire {
        Wire::Kes => text(&json!({ "context": context, "ciphertext": encoded })),
        Wire::Native if args.batch == 1 => {
            text(&json!({ "context": context, "ciphertext": encoded }))
        }
        Wire::Native => {
            let item = json!({ "key": key, "context": context, "ciphertext": encoded });
            text(&json!({ "items": vec![item; args.batch] }))
        }
        Wire::Minkms => {
            let mut message = Vec::new();
            field(&mut message, 1, key.as_bytes());
            field(&mut message, 3, ciphertext);
            field(&mut message, 4, CONTEXT);
            frame(DECRYPT, &message).repeat(args.batch)
        }
    };
    request(args, key, Operation::Decrypt, body)
}

fn request(args: &KmsArgs, key: &str, operation: Operation, body: Vec<u8>) -> Prepared {
    let verb = match operation {
        Operation::Generate => "generate",
        Operation::Decrypt => "decrypt",
    };
    let enclave = &args.enclave;
    let path = match args.wire {
        Wire::Kes => format!("/v1/key/{verb}/{key}"),
        Wire::Minkms => format!("/v1/kms/{enclave}"),
        Wire::Native if args.batch == 1 => format!("/v1/enclaves/{enclave}/keys/{key}/{verb}"),
        Wire::Native => format!("/v1/enclaves/{enclave}/bulk/{verb}"),
    };
    let kind = match args.wire {
        Wire::Minkms => "application/octet-stream",
        Wire::Native | Wire::Kes => "application/json",
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        args.server,
        body.len()
    );
    Prepared {
        head: head.into_bytes(),
        body,
    }
}

/// The first ciphertext of an answer to [`generate`].
pub(super) fn ciphertext(args: &KmsArgs, answer: &Answer) -> Result<Vec<u8>> {
    ensure!(
        answer.status == 200,
        "the key manager answers {}: {}",
        answer.status,
        answer.text()
    );
    if args.wire == Wire::Minkms {
        return first_field(answer.body.get(6..).unwrap_or_default(), 3)
            .context("no ciphertext in the answer");
    }
    let body: Value = serde_json::from_slice(&answer.body).context("the answer is no JSON")?;
    let text = [&body["ciphertext"], &body["items"][0]["ok"]["ciphertext"]]
        .into_iter()
        .find_map(Value::as_str)
        .context("no ciphertext in the answer")?;
    STANDARD.decode(text).context("the ciphertext is no base64")
}

/// Whether an answer is one to a whole batch. What failed alone in a batch is seen where the body
/// was kept, which is so before the clock starts.
pub(super) fn check(args: &KmsArgs, answer: &Answer) -> Result<()> {
    ensure!(
        answer.status == 200,
        "the key manager answers {}: {}",
        answer.status,
        answer.text()
    );
    ensure!(
        args.wire != Wire::Native || !answer.text().contains("\"error\""),
        "an operation of a batch failed: {}",
        answer.text()
    );
    // Each item holds 32 bytes at least.
    let least = 32 * args.batch as u64;
    ensure!(
        answer.body_bytes >= least,
        "an answer of {} bytes to {} operations",
        answer.body_bytes,
        args.batch
    );
    Ok(())
}

fn text(body: &Value) -> Vec<u8> {
    body.to_string().into_bytes()
}

/// A protobuf field of bytes. Names and contexts are shorter than 128 bytes.
fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}

fn frame(code: u16, message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u32).to_be_bytes();
    [&code.to_be_bytes(), &length[..], message].concat()
}

/// The first field of that number that holds bytes.
fn first_field(mut rest: &[u8], wanted: u8) -> Result<Vec<u8>> {
    while let [key, tail @ ..] = rest {
        let (number, kind) = (key >> 3, key & 7);
        let (length, tail) = varint(tail)?;
        match kind {
            0 => rest = tail,
            2 => {
                let (bytes, tail) = tail.split_at_checked(length).context("a cut field")?;
                if number == wanted {
                    return Ok(bytes.to_vec());
                }
                rest = tail;
            }
            _ => bail!("a field of an unexpected kind"),
        }
    }
    bail!("no such field")
}

fn varint(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((number, &bytes[at + 1..]));
        }
    }
    bail!("a cut number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_behind_others() {
        let mut message = vec![0x08, 0x96, 0x01];
        field(&mut message, 2, &[7; 200]);
        field(&mut message, 3, b"abc");
        assert_eq!(first_field(&message, 3).unwrap(), b"abc");
        assert_eq!(first_field(&message, 2).unwrap(), [7; 200]);
        assert!(first_field(&message, 4).is_err());
        assert!(first_field(&message[..9], 3).is_err());
    }
}
