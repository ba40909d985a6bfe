//! The memory that the engine lives in: an image of it is taken once, and putting the image back makes everything that the
//! engine holds what it was then, for the price of a copy.
//!
//! The engine keeps its whole state in memory that it asked an allocator for. Here that memory is one region at one place, so
//! its pointers are right again when its bytes are. What the engine does not ask an allocator for (closures of ours, the
//! bytecode of bundles) is not part of an image and must live as long as the process.
//!
//! The engine parts small things among pages by itself; what it asks for here are those pages and what is larger. So blocks
//! come in classes, a freed one waits for the next of its class, and nothing is ever joined.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait, and bytes that others wrote are copied")]

use std::{
    cell::{Cell, RefCell},
    ptr,
    rc::Rc,
};

use super::limits::REGION_BYTES;

/// Bytes of a word.
const WORD: usize = 8;
/// Words before each block: how many it has, and its class. Two, so that blocks begin at multiples of sixteen.
const HEAD: usize = 2;
/// Classes up to [`FINE_MOST`] are so many words apart.
const FINE: usize = 32;
/// The largest block, in words, of a class that is a multiple of [`FINE`].
const FINE_MOST: usize = 1 << 10;
/// Larger blocks come in four sizes for each doubling.
const STEPS: usize = 4;
/// How many classes there are. The last has blocks of 512 MB, which is more than is ever asked for.
const CLASSES: usize = FINE_MOST / FINE + STEPS * 16;

/// The region and its book. There is one in a process, which lasts as long.
#[derive(Clone)]
pub(super) struct Arena(Rc<Region>);

struct Region {
    words: &'static [Cell<u64>],
    book: RefCell<Book>,
}

/// Which parts of the region are blocks and which of those are free.
#[derive(Clone, Copy)]
struct Book {
    /// Where nothing has been given out yet, in words.
    top: usize,
    /// The highest that `top` ever was.
    peak: usize,
    /// The first free block of each class; 0 for none. It holds the next.
    free: [usize; CLASSES],
}

/// What the region held at one instant.
pub(super) struct Image {
    words: Box<[u64]>,
    book: Book,
}

impl Image {
    /// How long it is.
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * WORD
    }
}

impl Arena {
    /// An empty region. The kernel gives it memory where it is touched.
    pub(super) fn new() -> Self {
        let words = Cell::from_mut(Box::leak(vec![0; REGION_BYTES / WORD].into_boxed_slice())).as_slice_of_cells();
        // Nothing begins at 0, which stands for none.
        Self(Rc::new(Region { words, book: RefCell::new(Book { top: HEAD, peak: HEAD, free: [0; CLASSES] }) }))
    }

    /// What the region holds now. The engine must be at rest: nobody is in a context of it.
    pub(super) fn image(&self) -> Image {
        let book = *self.0.book.borrow();
        Image { words: self.0.words[..book.top].iter().map(Cell::get).collect(), book }
    }

    /// Makes the region hold what it held when `image` was taken of it. The engine must be at rest, and a value of it that was
    /// not there then must not be used again.
    pub(super) fn put_back(&self, image: &Image) {
        let words = &self.0.words[..image.words.len()];
        // SAFETY: both are as long as the image, and an image lies outside the region. Cells may be written through a shared
        // reference, by one thread, which the `Rc` holds us to.
        unsafe { ptr::copy_nonoverlapping(image.words.as_ptr(), words.as_ptr().cast_mut().cast::<u64>(), words.len()) };
        let mut book = self.0.book.borrow_mut();
        let peak = book.peak;
        *book = Book { peak, ..image.book };
    }

    /// The most bytes that were ever in use.
    pub(super) fn peak_bytes(&self) -> usize {
        self.0.book.borrow().peak * WORD
    }

    /// A block for the engine; null when there is no room.
    fn allocate(&self, bytes: usize) -> *mut u8 {
        self.0.take(bytes).map_or_else(ptr::null_mut, |at| self.0.pointer(at))
    }
}

impl Region {
    /// A block of at least `bytes`, by the place of its first word.
    fn take(&self, bytes: usize) -> Option<usize> {
        let (class, length) = class(bytes.div_ceil(WORD).max(1))?;
        let mut book = self.book.borrow_mut();
        let at = match book.free[class] {
            0 => {
                let at = book.top + HEAD;
                let top = at.checked_add(length).filter(|top| *top <= self.words.len())?;
                (book.top, book.peak) = (top, book.peak.max(top));
                self.words[at - 2].set(length as u64);
                self.words[at - 1].set(class as u64);
                at
            }
            at => {
                book.free[class] = self.number(at);
                at
            }
        };
        Some(at)
    }

    fn give_back(&self, at: usize) {
        let class = self.number(at - 1);
        let mut book = self.book.borrow_mut();
        self.words[at].set(book.free[class] as u64);
        book.free[class] = at;
    }

    /// Makes the block that was given out last longer where it is; whether it could.
    fn extend(&self, at: usize, bytes: usize) -> bool {
        let old = self.number(at - 2);
        let mut book = self.book.borrow_mut();
        let Some((class, length)) = class(bytes.div_ceil(WORD)) else { return false };
        if book.top != at + old || at + length > self.words.len() {
            return false;
        }
        (book.top, book.peak) = (at + length, book.peak.max(at + length));
        self.words[at - 2].set(length as u64);
        self.words[at - 1].set(class as u64);
        true
    }

    /// A word of the book's own, as it was set.
    fn number(&self, at: usize) -> usize {
        usize::try_from(self.words[at].get()).unwrap_or(usize::MAX)
    }

    fn pointer(&self, at: usize) -> *mut u8 {
        // Of the whole region, so that it may reach every word of its block.
        self.words.as_ptr().wrapping_add(at).cast_mut().cast()
    }

    fn place(&self, pointer: *mut u8) -> usize {
        (pointer.addr() - self.words.as_ptr().addr()) / WORD
    }
}

/// The class of a block of so many words, and the words that all its blocks have. None for more than there can be.
fn class(words: usize) -> Option<(usize, usize)> {
    if words <= FINE_MOST {
        let class = words.div_ceil(FINE);
        return Some((class - 1, class * FINE));
    }
    // The step above FINE_MOST × 2^doubling × (1 + step/4), the least that is enough.
    let doubling = ((words - 1) / FINE_MOST).ilog2() as usize;
    let step = (FINE_MOST << doubling) / STEPS;
    let steps = (words - (FINE_MOST << doubling)).div_ceil(step);
    let class = FINE_MOST / FINE + doubling * STEPS + steps - 1;
    (class < CLASSES).then_some((class, (FINE_MOST << doubling) + steps * step))
}

// SAFETY: a block lies in the region, which is never given back, and overlaps no other that is in use; it is as long as
// its head says, and begins at a multiple of sixteen bytes from the region's begin, which a `u64` may have.
unsafe impl rquickjs::allocator::Allocator for Arena {
    fn alloc(&mut self, size: usize) -> *mut u8 {
        self.allocate(size)
    }

    fn calloc(&mut self, count: usize, size: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(size) else { return ptr::null_mut() };
        let block = self.allocate(bytes);
        if !block.is_null() {
            let at = self.0.place(block);
            self.0.words[at..at + bytes.div_ceil(WORD)].iter().for_each(|word| word.set(0));
        }
        block
    }

    unsafe fn dealloc(&mut self, block: *mut u8) {
        if !block.is_null() {
            self.0.give_back(self.0.place(block));
        }
    }

    unsafe fn realloc(&mut self, block: *mut u8, size: usize) -> *mut u8 {
        if block.is_null() {
            return self.allocate(size);
        }
        let at = self.0.place(block);
        let length = self.0.number(at - 2);
        if size.div_ceil(WORD) <= length || self.0.extend(at, size) {
            return block;
        }
        let moved = self.allocate(size);
        if !moved.is_null() {
            let to = self.0.place(moved);
            for (from, to) in self.0.words[at..at + length].iter().zip(&self.0.words[to..]) {
                to.set(from.get());
            }
            self.0.give_back(at);
        }
        moved
    }

    unsafe fn usable_size(block: *mut u8) -> usize {
        let head = block.wrapping_sub(HEAD * WORD).cast::<[u8; WORD]>();
        // SAFETY: the caller has the block from here, so its head is before it.
        let words = u64::from_ne_bytes(unsafe { head.read() });
        usize::try_from(words).unwrap_or(0) * WORD
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rquickjs::allocator::Allocator;

    use super::*;

    proptest! {
        #[test]
        fn a_class_has_room_and_little_more(words in 1_usize..32 << 20) {
            let (number, length) = class(words).unwrap();
            prop_assert!(number < CLASSES && length >= words, "{number} {length}");
            prop_assert!(length <= words + FINE.max(words / STEPS), "{length} for {words}");
            prop_assert_eq!(class(length), Some((number, length)));
            prop_assert_eq!(class(length + 1).unwrap().0, number + 1);
        }
    }

    /// Writes `byte` over a whole block.
    fn fill(block: *mut u8, size: usize, byte: u8) {
        // SAFETY: the tests fill blocks that they have and that are so long.
        unsafe { block.write_bytes(byte, size) };
    }

    fn holds(block: *mut u8, size: usize, byte: u8) -> bool {
        // SAFETY: as above, and they were filled or zeroed before.
        unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|found| *found == byte)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_keep_what_they_hold_and_an_image_brings_it_back(
            deeds in prop::collection::vec((0_u8..4, 0_usize..64, 1_usize..40_000), 1..200),
            cut in 0_usize..200,
        ) {
            let mut arena = Arena::new();
            let mut blocks: Vec<(*mut u8, usize, u8)> = Vec::new();
            let mut then = None;
            for (number, (deed, which, size)) in deeds.into_iter().enumerate() {
                if number == cut {
                    then = Some((arena.image(), blocks.clone()));
                }
                let byte = u8::try_from(number % 251).unwrap();
                let at = if blocks.is_empty() { 0 } else { which % blocks.len() };
                match deed {
                    0 => {
                        let block = arena.calloc(size, 1);
                        prop_assert!(holds(block, size, 0));
                        fill(block, size, byte);
                        blocks.push((block, size, byte));
                    }
                    1 => {
                        let block = arena.alloc(size);
                        fill(block, size, byte);
                        blocks.push((block, size, byte));
                    }
                    2 if !blocks.is_empty() => {
                        let (block, _, _) = blocks.swap_remove(at);
                        // SAFETY: it is of this arena, and forgotten here.
                        unsafe { arena.dealloc(block) };
                    }
                    3 if !blocks.is_empty() => {
                        let (block, old, kept) = blocks[at];
                        // SAFETY: it is of this arena, and replaced here.
                        let moved = unsafe { arena.realloc(block, size) };
                        prop_assert!(holds(moved, old.min(size), kept));
                        fill(moved, size, byte);
                        blocks[at] = (moved, size, byte);
                    }
                    _ => {}
                }
                for (block, size, byte) in &blocks {
                    prop_assert!(holds(*block, *size, *byte));
                    // SAFETY: it is of this arena.
                    let usable = unsafe { Arena::usable_size(*block) };
                    prop_assert!(usable >= *size);
                }
            }
            if let Some((image, blocks)) = then {
                arena.put_back(&image);
                for (block, size, byte) in blocks {
                    prop_assert!(holds(block, size, byte));
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut arena = Arena::new();
        assert!(arena.alloc(REGION_BYTES).is_null());
        assert!(arena.alloc(usize::MAX).is_null());
        assert!(arena.calloc(usize::MAX, 2).is_null());
        assert!(!arena.alloc(REGION_BYTES / 4).is_null());
    }
}
