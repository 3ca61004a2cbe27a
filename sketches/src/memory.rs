//! Vectors as long as an input or a setting says. Where there is no memory for one, the program is asked what to do, instead
//! of ending as Rust does it: a database server has to go on.

use std::sync::OnceLock;

static OUT_OF_MEMORY: OnceLock<fn(usize) -> !> = OnceLock::new();

/// Says what to do where so many bytes cannot be had: to unwind, say. Without it there is a panic.
pub fn on_out_of_memory(handler: fn(usize) -> !) {
    OUT_OF_MEMORY.get_or_init(|| handler);
}

/// An empty vector with room for `capacity` elements.
pub(crate) fn vec<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::new();
    if vec.try_reserve_exact(capacity).is_err() {
        let bytes = capacity.saturating_mul(size_of::<T>());
        match OUT_OF_MEMORY.get() {
            Some(handler) => handler(bytes),
            None => panic!("no memory for {bytes} bytes"),
        }
    }
    vec
}

/// The elements of an iterator that has at most `most`.
pub(crate) fn collect<T>(most: usize, elements: impl Iterator<Item = T>) -> Vec<T> {
    let mut vec = vec(most);
    vec.extend(elements.take(most));
    vec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_no_abort() {
        assert_eq!(collect(3, 0..2), [0, 1]);
        assert!(std::panic::catch_unwind(|| vec::<u64>(1 << 58)).is_err());
    }
}
