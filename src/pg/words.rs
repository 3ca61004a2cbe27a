//! Transition states: blocks of 64-bit words in the aggregate's memory context, where `work_mem` sees them. The low half
//! of the first word holds the number of words, the rest of the block is the owner's.
//!
//! In the `internal` value, the address of the block leaves sixteen bits to what is needed for every row, so that the block
//! itself, which is hardly ever in the processor's caches, need not be read for it: how many halves of words behind the
//! first word the owner has opened, and the owner's tag. A state from another process is the bytea that it was sent as.

use std::ptr::NonNull;

use pg_sys::Datum;
use pgrx::pg_sys;

use super::aggregate::AggregateContext;
use super::call::Call;
use super::memory;
use super::varlena::Bytes;

/// The bits of an address; above them the bits of the tag, one that says what it is the address of, then the open halves.
const ADDRESS_BITS: u32 = 48;
const TAG_BITS: u32 = 11;
/// Says that the address is that of a bytea.
const SERIALIZED: u64 = 1 << (ADDRESS_BITS + TAG_BITS);
const OPEN_SHIFT: u32 = ADDRESS_BITS + TAG_BITS + 1;

/// A block of words.
#[derive(Clone, Copy)]
pub struct Words(NonNull<u64>);

impl Words {
    /// A zeroed block of `len` words (but for the low half of the first, which holds `len`) that lives as long
    /// as the aggregate's states. A power of two wastes nothing.
    #[inline]
    pub fn alloc(context: AggregateContext, len: usize) -> Self {
        // SAFETY: the context is live, and the block has room for its first word.
        unsafe {
            let base: NonNull<u64> = memory::alloc_zeroed(context.raw(), len * 8).cast();
            base.write(len as u64);
            Words(base)
        }
    }

    /// The value of the block, with the first `open` halves of words behind its first word open, at most 15, and a tag of
    /// eleven bits.
    #[inline]
    pub fn value(self, open: usize, tag: u16) -> Value {
        let address = self.0.as_ptr() as u64;
        assert!(address >> ADDRESS_BITS == 0, "an address has 48 bits");
        assert!(open < 16 && open <= 2 * (self.len() - 1), "no more is open than there is");
        let mut value = Value(address | (open as u64) << OPEN_SHIFT);
        value.set_tag(tag);
        value
    }

    #[inline]
    fn len(&self) -> usize {
        // SAFETY: alloc() wrote the length, and the owner leaves that half alone.
        unsafe { *self.0.as_ptr() as u32 as usize }
    }

    #[inline]
    pub fn words(&self) -> &[u64] {
        // SAFETY: alloc() made a block of that many words.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.len()) }
    }

    #[inline]
    pub fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in words(); a transition function has the state for itself while it runs.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.len()) }
    }

    /// The bytes behind the first word.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        let words = &self.words()[1..];
        // SAFETY: the bytes of these words.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let words = &mut self.words_mut()[1..];
        // SAFETY: as in bytes().
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
    }

    /// Gives the memory back at once, after the contents moved to a larger block.
    pub fn free(self) {
        // SAFETY: the block came from palloc and nothing refers to it any more.
        unsafe { memory::free(self.0.cast()) }
    }
}

/// A block as an `internal` value.
#[derive(Clone, Copy)]
pub struct Value(u64);

impl Value {
    #[inline]
    pub fn datum(self) -> Datum {
        Datum::from(self.0)
    }

    /// The value of a serialized state, for the combine function that is called next: a bytea, which lives as long.
    pub fn serialized(bytea: Datum) -> Value {
        let address = bytea.value() as u64;
        assert!(address >> ADDRESS_BITS == 0, "an address has 48 bits");
        Value(address | SERIALIZED)
    }

    /// The bytes of a serialized state; `None` for a block.
    #[inline]
    pub fn wire(self) -> Option<Bytes> {
        // SAFETY: Value::serialized() had a bytea there, and PostgreSQL combines states before it gives up what they came in.
        (self.0 & SERIALIZED != 0).then(|| unsafe { Bytes::from_datum(Datum::from(self.address())) })
    }

    #[inline]
    fn address(self) -> u64 {
        self.0 & ((1 << ADDRESS_BITS) - 1)
    }

    /// The block of a state that is not serialized.
    #[inline]
    pub fn block(self) -> Words {
        Words(NonNull::new(self.address() as *mut u64).expect("a state is never NULL here"))
    }

    #[inline]
    pub fn tag(self) -> u16 {
        (self.0 >> ADDRESS_BITS) as u16 & ((1 << TAG_BITS) - 1)
    }

    /// Exchanges the tag; what is open stays so.
    #[inline]
    pub fn set_tag(&mut self, tag: u16) {
        debug_assert!(tag >> TAG_BITS == 0);
        let tag = (tag & ((1 << TAG_BITS) - 1)) as u64;
        self.0 = self.0 & !(((1 << TAG_BITS) - 1) << ADDRESS_BITS) | tag << ADDRESS_BITS;
    }

    /// How many halves of words are open.
    #[inline]
    fn open(self) -> usize {
        (self.0 >> OPEN_SHIFT) as usize
    }

    /// The open halves of words, without a look at the block.
    #[inline]
    pub fn halves(&mut self) -> &mut [u32] {
        let start = self.block().0.as_ptr().wrapping_add(1);
        // SAFETY: Words::value() made sure that the block has so many halves behind its first word, and only it makes
        // values; a transition function has the state for itself while it runs.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.open()) }
    }

    /// The bytes of the open halves.
    #[inline]
    pub fn open_bytes(&mut self) -> &mut [u8] {
        let halves = self.halves();
        // SAFETY: the bytes of these halves.
        unsafe { std::slice::from_raw_parts_mut(halves.as_mut_ptr().cast(), size_of_val(halves)) }
    }
}

impl Call {
    /// The block behind argument `i`, which the SQL declaration gives the type `internal`; not NULL.
    #[inline]
    pub fn words(self, i: usize) -> Value {
        // PostgreSQL passes `internal` values only from functions of the same aggregate, and those make them with
        // Value::datum().
        Value(self.datum(i).value() as u64)
    }
}
