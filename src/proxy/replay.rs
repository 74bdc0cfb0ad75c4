//! The body of a request, kept as far as it may have to be sent again.

use bytes::Bytes;

use crate::wire::{Fields, Length};

/// The body of a request: what of it has come from the client, and whether it could be sent from its beginning once more.
#[derive(Debug)]
pub(super) struct Body {
    /// What is known of its length.
    pub(super) length: Length,
    /// From its beginning; empty once it is too long to be kept.
    kept: Vec<Bytes>,
    keep_at_most: u64,
    /// How much of it may be sent again.
    repeat_at_most: u64,
    whole: bool,
    /// The trailers, once all of it has come.
    ended: Option<Option<Fields>>,
    /// How many bytes have come.
    pub(super) received: u64,
}

impl Body {
    /// A body of which nothing has come; at most so many bytes of it are kept.
    pub(super) fn new(length: Length, keep_at_most: u64) -> Self {
        let ended = (length == Length::None).then_some(None);
        let repeat_at_most = keep_at_most;
        Self { length, kept: Vec::new(), keep_at_most, repeat_at_most, whole: true, ended, received: 0 }
    }

    /// So many bytes of it are kept at least: for a copy.
    pub(super) fn keep_at_least(&mut self, least: u64) {
        self.keep_at_most = self.keep_at_most.max(least);
    }

    /// Whether all that has come is still there, and it is not more than may be sent again.
    pub(super) fn can_be_repeated(&self) -> bool {
        self.whole && self.received <= self.repeat_at_most
    }

    /// All of it, where all has come and is still there.
    pub(super) fn all(&self) -> Option<&[Bytes]> {
        (self.whole && self.ended.is_some()).then_some(self.kept.as_slice())
    }

    /// The piece at this place of what was kept.
    pub(super) fn kept(&self, place: usize) -> Option<&Bytes> {
        self.kept.get(place)
    }

    /// How many pieces are kept.
    pub(super) fn kept_count(&self) -> usize {
        self.kept.len()
    }

    /// Content has come, and is being sent.
    pub(super) fn came(&mut self, data: &Bytes) {
        self.received += data.len() as u64;
        if self.whole && self.received <= self.keep_at_most {
            self.kept.push(data.clone());
        } else {
            self.whole = false;
            self.kept = Vec::new();
        }
    }

    /// All of it has come.
    pub(super) fn end(&mut self, trailers: Option<Fields>) {
        self.ended = Some(trailers);
    }

    /// The trailers, if all of it has come.
    pub(super) fn ended(&self) -> Option<Option<&Fields>> {
        self.ended.as_ref().map(Option::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_up_to_its_limit() {
        let mut body = Body::new(Length::Unknown, 4);
        body.came(&Bytes::from_static(b"ab"));
        body.came(&Bytes::from_static(b"cd"));
        assert!(body.can_be_repeated() && body.ended().is_none());
        assert_eq!((body.kept(1), body.kept_count()), (Some(&Bytes::from_static(b"cd")), 2));
        body.came(&Bytes::from_static(b"e"));
        assert!(!body.can_be_repeated());
        assert_eq!((body.kept(0), body.kept_count(), body.received), (None, 0, 5));
        body.end(None);
        assert!(body.ended().is_some());
        assert!(Body::new(Length::None, 0).ended().is_some());
    }

    #[test]
    fn what_is_kept_for_a_copy_is_not_sent_again_for_that() {
        let mut body = Body::new(Length::Unknown, 2);
        body.keep_at_least(4);
        body.came(&Bytes::from_static(b"ab"));
        assert!(body.can_be_repeated() && body.all().is_none(), "it has not ended");
        body.came(&Bytes::from_static(b"cd"));
        body.end(None);
        assert!(!body.can_be_repeated());
        assert_eq!(body.all(), Some(&[Bytes::from_static(b"ab"), Bytes::from_static(b"cd")][..]));
        body.came(&Bytes::from_static(b"e"));
        assert_eq!(body.all(), None);
    }
}
