//! A client of the MinKMS protocol, written from its description and knowing nothing of the
//! server's code: its protobuf is its own.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use crate::rig;

/// Codes of commands.
pub(crate) const CLUSTER_STATUS: u16 = 3;
pub(crate) const ENCLAVE_CREATE: u16 = 101;
pub(crate) const ENCLAVE_DELETE: u16 = 102;
pub(crate) const ENCLAVE_STATUS: u16 = 103;
pub(crate) const ENCLAVE_LIST: u16 = 104;
pub(crate) const KEY_CREATE: u16 = 201;
pub(crate) const KEY_DELETE: u16 = 202;
pub(crate) const KEY_IMPORT: u16 = 203;
pub(crate) const KEY_STATUS: u16 = 204;
pub(crate) const KEY_ENCRYPT: u16 = 205;
pub(crate) const KEY_DECRYPT: u16 = 206;
pub(crate) const KEY_GENERATE: u16 = 207;
pub(crate) const KEY_LIST: u16 = 208;
pub(crate) const KEY_LIST_VERSIONS: u16 = 209;
pub(crate) const KEY_MAC: u16 = 210;
pub(crate) const POLICY_CREATE: u16 = 301;
pub(crate) const POLICY_DELETE: u16 = 302;
pub(crate) const POLICY_ASSIGN: u16 = 303;
pub(crate) const POLICY_GET: u16 = 304;
pub(crate) const POLICY_STATUS: u16 = 305;
pub(crate) const POLICY_LIST: u16 = 306;
pub(crate) const IDENTITY_CREATE: u16 = 401;
pub(crate) const IDENTITY_DELETE: u16 = 402;
pub(crate) const IDENTITY_STATUS: u16 = 403;
pub(crate) const IDENTITY_LIST: u16 = 404;

/// A message under construction.
#[derive(Clone, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

pub(crate) fn message() -> Message {
    Message::default()
}

/// A message with a name in field 1.
pub(crate) fn named(name: &str) -> Message {
    message().bytes(1, name)
}

impl Message {
    pub(crate) fn bytes(mut self, field: u8, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.0.push(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(crate) fn number(mut self, field: u8, value: u64) -> Self {
        self.0.push(field << 3);
        self.varint(value);
        self
    }

    pub(crate) fn message(self, field: u8, value: Self) -> Self {
        self.bytes(field, value.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

pub(crate) fn frame(command: u16, message: &Message) -> Vec<u8> {
    let length = u32::try_from(message.0.len()).unwrap();
    [
        &command.to_be_bytes()[..],
        &length.to_be_bytes(),
        &message.0,
    ]
    .concat()
}

/// A message that was received: its fields in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(u64, Field)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Fields {
    pub(crate) fn parse(mut message: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let tag = read_varint(&mut message);
            let field = match tag & 7 {
                0 => Field::Number(read_varint(&mut message)),
                2 => {
                    let length = read_varint(&mut message) as usize;
                    let (value, rest) = message.split_at(length);
                    message = rest;
                    Field::Bytes(value.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            fields.push((tag >> 3, field));
        }
        Self(fields)
    }

    pub(crate) fn number(&self, number: u64) -> u64 {
        let found = self.0.iter().find(|(field, _)| *field == number);
        match found {
            Some((_, Field::Number(value))) => *value,
            None => 0,
            other => panic!("field {number} is {other:?}"),
        }
    }

    pub(crate) fn all(&self, number: u64) -> Vec<&[u8]> {
        let of_number = self.0.iter().filter(|(field, _)| *field == number);
        let bytes = of_number.map(|(_, value)| match value {
            Field::Bytes(bytes) => bytes.as_slice(),
            Field::Number(_) => panic!("field {number} is a number"),
        });
        bytes.collect()
    }

    pub(crate) fn bytes(&self, number: u64) -> &[u8] {
        self.all(number).first().copied().unwrap_or_default()
    }

    pub(crate) fn text(&self, number: u64) -> &str {
        std::str::from_utf8(self.bytes(number)).unwrap()
    }

    pub(crate) fn messages(&self, number: u64) -> Vec<Self> {
        self.all(number).into_iter().map(Self::parse).collect()
    }

    pub(crate) fn message(&self, number: u64) -> Self {
        Self::parse(self.bytes(number))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn read_varint(message: &mut &[u8]) -> u64 {
    let length = message.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (bytes, rest) = message.split_at(length);
    *message = rest;
    let bits = bytes.iter().rev().map(|byte| u64::from(byte & 0x7f));
    bits.fold(0, |value, bits| value << 7 | bits)
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

/// Status and text of an error: what clients compare.
pub(crate) type Refused = (u16, String);

/// A connection as one identity to one enclave; an empty name is the system.
pub(crate) struct Client {
    pub(crate) connection: rig::Client,
    pub(crate) enclave: &'static str,
}

impl Client {
    pub(crate) const fn new(connection: rig::Client, enclave: &'static str) -> Self {
        Self {
            connection,
            enclave,
        }
    }

    /// The path of commands. Go's client leaves out the slash where there is no enclave.
    pub(crate) fn path(&self) -> String {
        match self.enclave {
            "" => "/v1/kms".into(),
            enclave => format!("/v1/kms/{enclave}"),
        }
    }

    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = Full::new(body.into()).boxed();
        let (head, body) = self.connection.open(method, path, body).await.into_parts();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    /// Sends a body of frames and takes the answer apart as Go's client does.
    pub(crate) async fn post(&mut self, body: Vec<u8>) -> Result<Vec<(u16, Fields)>, Refused> {
        let path = self.path();
        let answer = self.send("POST", &path, body).await;
        assert_eq!(
            answer.headers["content-length"],
            answer.body.len().to_string().as_str()
        );
        assert!(!answer.headers.contains_key("content-encoding"));
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        if answer.status != 200 {
            let message = Fields::parse(&answer.body).text(1).to_owned();
            return Err((answer.status, message));
        }
        let (mut frames, mut rest) = (Vec::new(), &answer.body[..]);
        while !rest.is_empty() {
            let (code, more) = rest.split_first_chunk::<2>().unwrap();
            let (length, more) = more.split_first_chunk::<4>().unwrap();
            let (message, more) = more.split_at(u32::from_be_bytes(*length) as usize);
            frames.push((u16::from_be_bytes(*code), Fields::parse(message)));
            rest = more;
        }
        Ok(frames)
    }

    /// Sends a batch of one command and gives its answers.
    pub(crate) async fn batch(
        &mut self,
        command: u16,
        messages: &[Message],
    ) -> Result<Vec<Fields>, Refused> {
        let body: Vec<u8> = messages
            .iter()
            .flat_map(|one| frame(command, one))
            .collect();
        let frames = self.post(body).await?;
        assert_eq!(frames.len(), messages.len());
        assert!(frames.iter().all(|(code, _)| *code == command));
        Ok(frames.into_iter().map(|(_, fields)| fields).collect())
    }

    pub(crate) async fn call(&mut self, command: u16, message: Message) -> Result<Fields, Refused> {
        let mut answers = self.batch(command, &[message]).await?;
        Ok(answers.pop().unwrap())
    }

    /// A change: its answer is an empty message.
    pub(crate) async fn change(&mut self, command: u16, message: Message) -> Result<(), Refused> {
        let answer = self.call(command, message).await?;
        assert!(answer.is_empty());
        Ok(())
    }

    /// The names (field 1) of a whole listing, page by page as an iterator of Go's client.
    pub(crate) async fn list(&mut self, command: u16, prefix: &str, limit: u64) -> Vec<String> {
        let (mut names, mut from) = (Vec::new(), String::new());
        loop {
            let request = named(prefix).bytes(2, &from).number(3, limit);
            let page = self.call(command, request).await.unwrap();
            let items = page.messages(1);
            names.extend(items.iter().map(|item| item.text(1).to_owned()));
            page.text(2).clone_into(&mut from);
            if from.is_empty() {
                return names;
            }
            assert!(!items.is_empty(), "clients take an empty page for the end");
        }
    }
}
