"""A few queries over many keys, which are read once for all of the queries.

A block takes a head, up to `group` queries that share their keys, and a split of the keys. Where
the keys are split among blocks, a second kernel merges what these found.
"""

from ...common.views import FloatView, View
from .keys_values import KeysValues
from .mma import PRODUCT_HEAD_SIZE, PRODUCT_THREADS, attend_by_products
from .simt import SIMT_THREADS, attend_by_threads


def has_products(tensor_cores: Int, head_size: Int) -> Bool:
    """Whether tensor cores (`linear.layer.linear`) can multiply the heads."""
    return tensor_cores > 0 and head_size == PRODUCT_HEAD_SIZE


def attention_threads(products: Bool) -> Int:
    """Of a block."""
    return PRODUCT_THREADS if products else SIMT_THREADS


@always_inline
def attend[
    K: KeysValues, //, group: Int, head_size: Int, products: Bool, split: Bool = False
](
    keys: K,
    queries: View[K.dtype],
    stride: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    output: View[K.dtype],
    output_stride: Int,
    sums_of_split: Optional[FloatView] = None,
    split_stride: Int = 0,
):
    """Queries `[first, last)`, `stride` apart, over the keys `[begin, end)`.

    Where these are all keys, the result goes to `output`. With `split` each query's sum of values,
    largest score and sum of weights go to `sums_of_split` instead.
    """
    comptime if products:
        attend_by_products[group, split](
            keys,
            queries,
            stride,
            first,
            last,
            begin,
            end,
            output,
            output_stride,
            sums_of_split,
            split_stride,
        )
    else:
        attend_by_threads[group, head_size, split](
            keys,
            queries,
            stride,
            first,
            last,
            begin,
            end,
            output,
            output_stride,
            sums_of_split,
            split_stride,
        )
