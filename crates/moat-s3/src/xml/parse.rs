//! Parses a request document into a small tree of the elements that its reader knows.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

use crate::error::{ErrorCode, S3Error};

/// The deepest nesting; S3's deepest request document has six levels.
const DEPTH_MAX: usize = 16;

/// An element: its local name, its text, and its children.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The children of one name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The only child of a name, if there is one.
    ///
    /// # Errors
    /// `MalformedXML` if there are two.
    pub(super) fn only(&self, name: &str) -> Result<Option<&Self>, S3Error> {
        let mut found = self.children.iter().filter(|child| child.name == name);
        match (found.next(), found.next()) {
            (first, None) => Ok(first),
            _ => Err(malformed()),
        }
    }

    /// The text of the only child of a name, without white space around it.
    pub(super) fn trimmed(&self, name: &str) -> Result<Option<&str>, S3Error> {
        Ok(self.only(name)?.map(|child| child.text.trim()))
    }

    /// A child with `true` or `false`, in any case; absent means false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, S3Error> {
        match self.trimmed(name)? {
            None => Ok(false),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(malformed()),
        }
    }
}

/// `MalformedXML` with its default message.
pub(super) fn malformed() -> S3Error {
    ErrorCode::MalformedXml.into()
}

/// Parses `body`, whose root must be `root`. Elements whose name is not in `known` are skipped
/// with all that they hold, but count: there may be `elements_max` in all.
///
/// # Errors
/// `MalformedXML` for anything that is not such a document.
pub(super) fn parse(
    body: &[u8],
    root: &'static str,
    known: &[&'static str],
    elements_max: usize,
) -> Result<Element, S3Error> {
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        root,
        known,
        elements_left: elements_max,
        open: Vec::with_capacity(4),
        skipping: 0,
        done: None,
    };
    let mut reader = Reader::from_str(text);
    loop {
        let event = reader.read_event().map_err(|_| malformed())?;
        match event {
            Event::Start(start) => builder.start(start.local_name().as_ref())?,
            Event::End(_) => builder.end(),
            Event::Empty(start) => {
                builder.start(start.local_name().as_ref())?;
                builder.end();
            }
            Event::Text(text) => builder.text(&text.xml10_content())?,
            Event::CData(text) => builder.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let mut buffer = [0; 4];
                builder.text(resolve(&reference)?.encode_utf8(&mut buffer))?;
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::DocType(_) => return Err(malformed()),
            Event::Eof => return builder.finish(),
        }
    }
}

/// The character of a numeric reference or a predefined entity.
fn resolve(reference: &BytesRef<'_>) -> Result<char, S3Error> {
    let name = reference.xml10_content();
    if is_zero(&name) {
        return Ok('\0');
    }
    if let Some(character) = reference.resolve_char_ref().map_err(|_| malformed())? {
        return Ok(character);
    }
    match &*name {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(malformed()),
    }
}

/// Whether a reference is one to U+0000. No XML may hold it in any form, but S3 keys may, and our
/// own lists write it so: whoever copies a key from a list into a request must find it.
fn is_zero(reference: &str) -> bool {
    let digits = reference.strip_prefix('#').unwrap_or_default();
    let digits = digits.strip_prefix('x').unwrap_or(digits);
    !digits.is_empty() && digits.bytes().all(|b| b == b'0')
}

struct Builder<'k> {
    root: &'static str,
    known: &'k [&'static str],
    elements_left: usize,
    open: Vec<Element>,
    /// How many unknown elements are open, one in the other.
    skipping: usize,
    done: Option<Element>,
}

impl Builder<'_> {
    fn start(&mut self, name: &str) -> Result<(), S3Error> {
        self.elements_left = self.elements_left.checked_sub(1).ok_or_else(malformed)?;
        if self.open.len() + self.skipping >= DEPTH_MAX {
            return Err(malformed());
        }
        if self.skipping > 0 {
            self.skipping += 1;
            return Ok(());
        }
        let Some(parent) = self.open.last_mut() else {
            return self.start_root(name);
        };
        // Text between elements is layout.
        parent.text.clear();
        match self.known.iter().find(|known| **known == name) {
            Some(name) => self.open.push(Element {
                name,
                ..Element::default()
            }),
            None => self.skipping = 1,
        }
        Ok(())
    }

    fn start_root(&mut self, name: &str) -> Result<(), S3Error> {
        if self.done.is_some() || name != self.root {
            return Err(malformed());
        }
        self.open.push(Element {
            name: self.root,
            ..Element::default()
        });
        Ok(())
    }

    fn end(&mut self) {
        if self.skipping > 0 {
            self.skipping -= 1;
            return;
        }
        let Some(element) = self.open.pop() else {
            return;
        };
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.done = Some(element),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), S3Error> {
        if self.skipping > 0 {
            return Ok(());
        }
        match self.open.last_mut() {
            Some(element) => {
                element.text.push_str(text);
                Ok(())
            }
            None if text.trim().is_empty() => Ok(()),
            None => Err(malformed()),
        }
    }

    fn finish(self) -> Result<Element, S3Error> {
        match self.done {
            Some(root) if self.open.is_empty() && self.skipping == 0 => Ok(root),
            _ => Err(malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Element, S3Error> {
        parse(body.as_bytes(), "R", &["A", "B"], 100)
    }

    #[test]
    fn known_elements_are_kept_and_others_skipped() {
        let root = read(
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- c --><x:R xmlns:x=\"urn:x\"> <A> 1&amp;&#x32;<![CDATA[<3>]]> </A>\
             <C><A>no</A></C><B/></x:R>\n",
        )
        .unwrap();
        let names: Vec<_> = root.children.iter().map(|c| c.name).collect();
        assert_eq!(names, ["A", "B"]);
        assert_eq!(root.children[0].text, " 1&2<3> ");
        assert_eq!(root.trimmed("A").unwrap(), Some("1&2<3>"));
    }

    #[test]
    fn every_character_of_a_key_can_be_written_as_a_reference() {
        let root = read("<R><A>&#0;&#x00;&#1;&#xFFFE;\0</A></R>").unwrap();
        assert_eq!(root.children[0].text, "\0\0\u{1}\u{fffe}\0");
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        let deep = format!("<R>{}{}</R>", "<A>".repeat(16), "</A>".repeat(16));
        let many = format!("<R>{}</R>", "<A/>".repeat(100));
        let deep_unknown = format!("<R>{}{}</R>", "<X>".repeat(16), "</X>".repeat(16));
        for bad in [
            "",
            " ",
            "text",
            "<R>",
            "<R></A>",
            "<A/>",
            "<R/><R/>",
            "<R/>x",
            "<R>&other;</R>",
            "<R>&#;</R>",
            "<R>&#x;</R>",
            "<R>&x0;</R>",
            "<R>&#xD800;</R>",
            "<R>& </R>",
            "<!DOCTYPE R [<!ENTITY e \"x\">]><R>&e;</R>",
            &deep,
            &many,
            &deep_unknown,
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::MalformedXml, "{bad}");
        }
        assert!(parse(b"<R>\xff</R>", "R", &[], 10).is_err());
    }

    #[test]
    fn doubled_children_are_refused_where_one_is_wanted() {
        let root = read("<R><A>true</A><B>1</B><B>2</B></R>").unwrap();
        assert!(root.flag("A").unwrap());
        assert!(root.only("B").is_err());
        assert!(root.flag("B").is_err());
        assert!(!root.flag("C").unwrap());
    }
}
