//! The fields of a message: name and value pairs in the order they came, in one buffer that is used again and again.

use bytes::BufMut;

/// Header or trailer fields, in order. Names keep the case they came in and are compared without it (RFC 9110 §5.1).
#[derive(Clone, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// Where a field's name and value are in the buffer.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name: (u32, u32),
    value: (u32, u32),
}

impl Fields {
    /// Forgets all, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Makes room for so many more, whose names and values have so many bytes together.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.entries.reserve(fields);
        self.bytes.reserve(bytes);
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
        let name = self.store(name.as_ref());
        let value = self.store(value.as_ref());
        self.entries.push(Entry { name, value });
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
        self.entries.retain(|entry| keep(slice(bytes, entry.name), slice(bytes, entry.value)));
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
        self.iter()
            .filter(move |(other, _)| {
                other.len() == name.len() && other.eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|(_, value)| value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (slice(&self.bytes, entry.name), slice(&self.bytes, entry.value)))
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
        for (name, value) in self.iter() {
            out.put_slice(name);
            out.put_slice(b": ");
            out.put_slice(value);
            out.put_slice(b"\r\n");
        }
    }

    fn store(&mut self, bytes: &[u8]) -> (u32, u32) {
        // A head is bounded to far less than 4 GiB.
        let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let start = at(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        (start, at(self.bytes.len()))
    }
}

fn slice(bytes: &[u8], (start, end): (u32, u32)) -> &[u8] {
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
}
