//! What is compiled once more for processors that can do more than the least one.

use sketches::hll::registers::{self, merge_stored};

/// Has registers merged in the way that suits this processor best.
pub fn suit() {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature.
        registers::merge_by(|words, stored| unsafe { merge_avx2(words, stored) });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn merge_avx2(words: &mut [u64], stored: &[u8]) {
    // A stored sketch is hardly ever in the caches: ask for all of it at once, not for one line after the other.
    for line in stored.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
    merge_stored(words, stored);
}
