//! An access unit under way: the units that are whole, and the one whose fragments are coming.

use bytes::{BufMut, Bytes, BytesMut};

use super::Bad;

const LENGTH_BYTES: usize = 4;

/// An access unit under way.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    /// NAL units with four-byte lengths, or OBUs with sizes.
    pub(super) payload: BytesMut,
    /// Parameter sets by kind: they live in the track's parameters.
    pub(super) sets: [Vec<Bytes>; 3],
    set_bytes: usize,
    pub(super) is_key: bool,
    pub(super) has_picture: bool,
    /// Shown before the keyframe it comes after, and refers to what came before that.
    pub(super) is_leading: bool,
    /// The unit whose fragments are coming.
    pub(super) fragment: Option<BytesMut>,
}

impl Assembly {
    /// Whether nothing more has to come.
    pub(super) const fn is_whole(&self) -> bool {
        self.fragment.is_none()
    }

    /// What it holds.
    pub(super) fn bytes(&self) -> usize {
        let fragment = self.fragment.as_ref().map_or(0, BytesMut::len);
        self.payload.len() + self.set_bytes + fragment
    }

    /// A parameter set.
    pub(super) fn set(&mut self, kind: usize, nal: &[u8]) {
        if let Some(sets) = self.sets.get_mut(kind) {
            sets.push(Bytes::copy_from_slice(nal));
            self.set_bytes += size_of::<Bytes>() + nal.len();
        }
    }

    /// A whole NAL unit.
    pub(super) fn nal(&mut self, nal: &[u8]) -> Result<(), Bad> {
        let length = u32::try_from(nal.len()).map_err(|_huge| Bad)?;
        self.payload.reserve(LENGTH_BYTES + nal.len());
        self.payload.put_u32(length);
        self.payload.put_slice(nal);
        Ok(())
    }

    /// A piece of the unit whose fragments are coming: the first with what stands before it, or
    /// one that goes on. Gives the unit when it was the last.
    pub(super) fn fragment(
        &mut self,
        head: Option<&[u8]>,
        body: &[u8],
        is_last: bool,
    ) -> Result<Option<BytesMut>, Bad> {
        match (head, &mut self.fragment) {
            (Some(head), none @ None) => *none = Some(BytesMut::from(head)),
            (None, Some(_)) => {}
            _ => return Err(Bad),
        }
        if let Some(unit) = &mut self.fragment {
            unit.put_slice(body);
        }
        Ok(if is_last { self.fragment.take() } else { None })
    }

    /// The elements of an aggregation packet: NAL units, each after its length of two bytes.
    pub(super) fn aggregate(
        &mut self,
        list: &[u8],
        whole: impl Fn(&mut Self, &[u8]) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        let mut rest = list;
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (nal, after) = after.split_at_checked(length).ok_or(Bad)?;
            whole(self, nal)?;
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(Bad) }
    }
}
