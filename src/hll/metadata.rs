//! What a sketch says about itself.

use pgrx::pg_sys::Datum;
use sketches::hll::{Body, params};

use super::stored;
use crate::sql_function;

sql_function!(
    /// `hll_schema_version(hll)`: the storage version of the value as it is kept.
    hll_schema_version,
    |call| {
        let bytes = call.bytes(0);
        stored(&bytes);
        Datum::from(bytes[0] as i32 >> 4)
    }
);

sql_function!(
    /// `hll_type(hll)`: 0 undefined, 1 empty, 3 sparse, 4 full.
    hll_type,
    |call| Datum::from(match stored(&call.bytes(0)).body {
        Body::Undefined => 0,
        Body::Empty => 1,
        Body::Sparse { .. } => 3,
        Body::Dense(_) => 4,
    })
);

sql_function!(
    /// `hll_log2m(hll)`
    hll_log2m,
    |call| Datum::from(stored(&call.bytes(0)).params.log2m as i32)
);

sql_function!(
    /// `hll_regwidth(hll)`
    hll_regwidth,
    |call| Datum::from(stored(&call.bytes(0)).params.regwidth as i32)
);

sql_function!(
    /// `hll_expthresh(hll, OUT specified, OUT effective)`: what the sketch carries, and the number of values
    /// up to which it really counts exactly.
    hll_expthresh,
    |call| {
        let bytes = call.bytes(0);
        let sketch = stored(&bytes).params;
        call.row(&[
            Some(Datum::from(sketch.expthresh_value())),
            Some(Datum::from(params::max_sparse(sketch.log2m) as i64)),
        ])
    }
);

sql_function!(
    /// `hll_sparseon(hll)`
    hll_sparseon,
    |call| Datum::from(stored(&call.bytes(0)).params.sparseon as i32)
);
