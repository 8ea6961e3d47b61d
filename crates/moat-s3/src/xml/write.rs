//! Appends XML to one buffer. A page of LIST is written without an allocation per key.

/// The namespace of S3's documents.
pub(super) const S3_NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

const DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// What to do with a byte of text.
const PLAIN: u8 = 0;
const ESCAPE: u8 = 1;
const LEAD_OF_NONCHARACTER: u8 = 2;

const CLASS: [u8; 256] = {
    let mut table = [PLAIN; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = ESCAPE;
        byte += 1;
    }
    table[b'\t' as usize] = PLAIN;
    table[b'\n' as usize] = PLAIN;
    table[b'&' as usize] = ESCAPE;
    table[b'<' as usize] = ESCAPE;
    table[b'>' as usize] = ESCAPE;
    table[b'"' as usize] = ESCAPE;
    table[0xEF] = LEAD_OF_NONCHARACTER;
    table
};

/// A buffer that XML is appended to. The caller closes what it opens.
#[derive(Debug)]
pub struct XmlWriter {
    out: Vec<u8>,
}

impl XmlWriter {
    /// An empty document with the XML declaration, and room for `capacity` bytes.
    pub fn document(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity + DECLARATION.len());
        out.extend_from_slice(DECLARATION);
        Self { out }
    }

    /// `<name>`.
    pub fn open(&mut self, name: &str) {
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'>');
    }

    /// `<name xmlns="...">` with S3's namespace.
    pub fn open_root(&mut self, name: &str) {
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b" xmlns=\"");
        self.out.extend_from_slice(S3_NAMESPACE.as_bytes());
        self.out.extend_from_slice(b"\">");
    }

    /// `</name>`.
    pub fn close(&mut self, name: &str) {
        self.out.extend_from_slice(b"</");
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'>');
    }

    /// `<name>text</name>`, escaped.
    pub fn text(&mut self, name: &str, text: &str) {
        self.open(name);
        self.escaped(text);
        self.close(name);
    }

    /// The element, if there is a value.
    pub fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// `<name>12</name>`.
    pub fn number(&mut self, name: &str, value: u64) {
        self.open(name);
        self.decimal(value);
        self.close(name);
    }

    /// `<name>true</name>`.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.open(name);
        self.raw(if value { "true" } else { "false" });
        self.close(name);
    }

    /// Text that needs no escaping.
    pub(crate) fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// The buffer, for writers that append in their own way.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn decimal(&mut self, value: u64) {
        let mut digits = [0u8; 20];
        let mut start = digits.len();
        let mut rest = value;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[start..]);
    }

    /// Appends text, escaped for content and for attributes.
    ///
    /// XML 1.0 cannot hold most control characters, not even as references, but S3 keys can hold
    /// them; S3 writes numeric references all the same and so do we. Strict parsers fail on such
    /// a page; `encoding-type=url` is their way out.
    pub fn escaped(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut copied = 0;
        for (at, &b) in bytes.iter().enumerate() {
            let (replacement, length): (&[u8], usize) = match CLASS[usize::from(b)] {
                PLAIN => continue,
                ESCAPE => (escape_of(b), 1),
                _ if bytes[at..].starts_with(b"\xEF\xBF\xBE") => (b"&#xFFFE;", 3),
                _ if bytes[at..].starts_with(b"\xEF\xBF\xBF") => (b"&#xFFFF;", 3),
                _ => continue,
            };
            self.out.extend_from_slice(&bytes[copied..at]);
            if replacement.is_empty() {
                self.control_reference(b);
            } else {
                self.out.extend_from_slice(replacement);
            }
            copied = at + length;
        }
        self.out.extend_from_slice(&bytes[copied..]);
    }

    /// `&#x1F;`.
    fn control_reference(&mut self, b: u8) {
        self.raw("&#x");
        if b >= 16 {
            self.out.push(b'1');
        }
        self.out.push(b"0123456789ABCDEF"[usize::from(b & 15)]);
        self.out.push(b';');
    }

    /// The document.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// The escape of a byte of class [`ESCAPE`]; empty for control characters.
const fn escape_of(b: u8) -> &'static [u8] {
    match b {
        b'&' => b"&amp;",
        b'<' => b"&lt;",
        b'>' => b"&gt;",
        b'"' => b"&quot;",
        // A bare carriage return would be read back as a line feed.
        b'\r' => b"&#13;",
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str) -> String {
        let mut xml = XmlWriter { out: Vec::new() };
        xml.escaped(text);
        String::from_utf8(xml.finish()).unwrap()
    }

    #[test]
    fn markup_and_control_characters_are_escaped() {
        assert_eq!(escaped("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c'");
        assert_eq!(escaped("\u{1}\u{1f}\r\n\t\0"), "&#x1;&#x1F;&#13;\n\t&#x0;");
        assert_eq!(
            escaped("é\u{ff5e}\u{fffe}x\u{ffff}"),
            "é\u{ff5e}&#xFFFE;x&#xFFFF;"
        );
        assert_eq!(escaped(""), "");
    }

    #[test]
    fn elements_are_written() {
        let mut xml = XmlWriter::document(0);
        xml.open_root("R");
        xml.number("N", u64::MAX);
        xml.number("Z", 0);
        xml.boolean("B", false);
        xml.optional("O", None);
        xml.close("R");
        assert_eq!(
            String::from_utf8(xml.finish()).unwrap(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<R xmlns=\"http://s3.amazonaws.com/doc/\
             2006-03-01/\"><N>18446744073709551615</N><Z>0</Z><B>false</B></R>"
        );
    }
}
