//! The fields of a message: name and value pairs in the order they came, in one buffer that is used again and again.

use bytes::BufMut;

/// Header or trailer fields, in order. Names keep the case they came in and are compared without it (RFC 9110 §5.1).
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where a field is in the buffer, as the line of HTTP/1 that it is written as: `NAME: VALUE`, ended by CRLF.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    colon: u32,
    /// Behind its CRLF.
    end: u32,
}

impl Entry {
    fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        slice(bytes, self.start, self.colon)
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        slice(bytes, self.colon + 2, self.end - 2)
    }
}

impl Fields {
    /// Forgets all, and keeps the memory, unless it is a lot.
    pub fn clear(&mut self) {
        if self.bytes.capacity() > KEPT {
            *self = Self::default();
            return;
        }
        self.bytes.clear();
        self.entries.clear();
    }

    /// Makes room for so many more, whose names and values have so many bytes together.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.entries.reserve(fields);
        self.bytes.reserve(bytes + fields * (COLON.len() + CRLF.len()));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a field at the end. Name and value are taken as they are: what comes from outside was checked before.
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let start = self.bytes.len();
        self.bytes.reserve(name.len() + value.len() + COLON.len() + CRLF.len());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(COLON);
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(CRLF);
        // A head is bounded to far less than 4 GiB.
        let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.entries.push(Entry {
            start: at(start),
            colon: at(start + name.len()),
            end: at(self.bytes.len()),
        });
    }

    /// Puts this field in place of all of its name.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.remove(name);
        self.append(name, value);
    }

    /// Takes out all of this name. True when there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.entries.len();
        self.retain(|other, _| !other.eq_ignore_ascii_case(name.as_bytes()));
        self.entries.len() < before
    }

    /// Keeps those fields of which this holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.entries.retain(|entry| keep(entry.name(bytes), entry.value(bytes)));
    }

    /// The value of the first of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The value of the first of this name, where it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The values of all of this name, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is = |entry: &&Entry| {
            // Most differ in length.
            (entry.colon - entry.start) as usize == name.len()
                && entry.name(&self.bytes).eq_ignore_ascii_case(name.as_bytes())
        };
        self.entries.iter().filter(is).map(|entry| entry.value(&self.bytes))
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (entry.name(&self.bytes), entry.value(&self.bytes)))
    }

    /// The elements of the comma-separated lists that all fields of this name hold together, trimmed, empty ones left out
    /// (RFC 9110 §5.6.1).
    pub fn elements<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Writes them as lines of HTTP/1, each ended by CRLF.
    pub fn write_to(&self, out: &mut impl BufMut) {
        self.write_those(|_| true, out);
    }

    /// The same of those whose names `keep` holds of. What lies side by side in the buffer is written at once.
    pub(super) fn write_those(&self, keep: impl Fn(&[u8]) -> bool, out: &mut impl BufMut) {
        let (mut start, mut end) = (0, 0);
        for entry in self.entries.iter().filter(|entry| keep(entry.name(&self.bytes))) {
            if entry.start != end {
                out.put_slice(slice(&self.bytes, start, end));
                start = entry.start;
            }
            end = entry.end;
        }
        out.put_slice(slice(&self.bytes, start, end));
    }

    /// How many bytes all of them have as lines, at most.
    pub(super) fn written(&self) -> usize {
        self.bytes.len()
    }
}

/// How many bytes are kept for the next fields.
const KEPT: usize = 8 * 1024;
const COLON: &[u8] = b": ";
const CRLF: &[u8] = b"\r\n";

fn slice(bytes: &[u8], start: u32, end: u32) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_order_and_case_and_are_found_without_case() {
        let mut fields = Fields::default();
        fields.append("Accept", "a");
        fields.append("X-One", "1, ,2");
        fields.append("x-one", "3");
        assert_eq!(fields.get("ACCEPT"), Some(&b"a"[..]));
        assert_eq!(fields.all("X-ONE").collect::<Vec<_>>(), [&b"1, ,2"[..], b"3"]);
        assert_eq!(fields.elements("x-one").collect::<Vec<_>>(), [b"1", b"2", b"3"]);
        fields.set("x-One", "4");
        let mut out = Vec::new();
        fields.write_to(&mut out);
        assert_eq!(out, b"Accept: a\r\nx-One: 4\r\n");
        assert!(fields.remove("accept") && !fields.remove("accept") && fields.len() == 1);
    }

    #[test]
    fn those_that_are_kept_are_written_and_no_others() {
        let mut fields = Fields::default();
        for name in ["a", "b", "c", "d", "e"] {
            fields.append(name, name.to_uppercase());
        }
        let written = |fields: &Fields, but: &str| {
            let mut out = Vec::new();
            fields.write_those(|name| !but.as_bytes().contains(&name[0]), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(&fields, "ac"), "b: B\r\nd: D\r\ne: E\r\n");
        assert_eq!(written(&fields, "e"), "a: A\r\nb: B\r\nc: C\r\nd: D\r\n");
        assert_eq!(written(&fields, "abcde"), "");
        fields.remove("b");
        fields.append("f", "");
        assert_eq!(written(&fields, ""), "a: A\r\nc: C\r\nd: D\r\ne: E\r\nf: \r\n");
        assert_eq!(fields.iter().last(), Some((&b"f"[..], &b""[..])));
    }
}
