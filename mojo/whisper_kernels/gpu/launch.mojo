"""Kernels as structs, and the one way in which they are launched.

A kernel's fields are what it is given; calling it with a block's index does the work of that block
(`thread_block.mojo`). A GPU gets all blocks at once; a CPU, which runs them for tests, loops over them.
"""

from max.algorithm import sync_parallelize
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx
from max.gpu.host import DeviceContext, FuncAttribute
from max.gpu.host.info import is_cpu
from max.gpu.primitives.grid_controls import pdl_launch_attributes
from std.builtin.device_passable import DevicePassable, DeviceTypeEncoder
from std.reflection import reflect
from std.sys import inlined_assembly
from std.utils.static_tuple import StaticTuple


trait Kernel(TrivialRegisterPassable):
    """The work of one block of threads, as a function of the block's index."""

    comptime threads: Int
    """Of a block."""

    def __call__(self, block: Int):
        """Does the work of a block."""
        ...


@fieldwise_init
struct Passed[K: Kernel](DevicePassable, TrivialRegisterPassable):
    """A kernel on its way to a GPU, which gets its bytes.

    These are no default methods of `Kernel`: Mojo 1.2 crashes where a file that uses such a trait
    comes before the trait's own in the alphabet.
    """

    comptime device_type: AnyType = Self
    var kernel: Self.K

    def _to_device_type(self, mut encoder: Some[DeviceTypeEncoder], target: MutOpaquePointer[_]):
        encoder.encode(self, target)

    @staticmethod
    def get_type_name() -> String:
        """What MAX calls it in errors."""
        return "Kernel"


comptime THREADS = 512
"""Threads that a multiprocessor has room for by default: each can have 128 registers."""


comptime ALONE = 0
"""A kernel begins when the one before it has ended."""
comptime EARLY = 1
"""It is brought to the multiprocessors before, and waits there."""
comptime EARLY_READER = 2
"""Likewise, and it calls `wait_for_kernel_before` itself: until then it may read weights."""


@always_inline
def wait_for_kernel_before():
    """Until the kernel before this one has ended, and what it has written is there.

    Then the next kernel may come, which does not touch what this one writes before its own wait.
    The assembly is written out because other memory accesses must not move beyond it.

    Source: PTX ISA, griddepcontrol.
    """
    inlined_assembly[
        "griddepcontrol.wait;", NoneType, constraints="~{memory}", has_side_effect=True
    ]()
    inlined_assembly[
        "griddepcontrol.launch_dependents;",
        NoneType,
        constraints="~{memory}",
        has_side_effect=True,
    ]()


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(K.threads)),
    `nvvm.minctasm`=SIMDLength(resident),
)
@__name(t"{reflect[K].name()}_{start}")
def run[K: Kernel, resident: Int, start: Int = ALONE](passed: Passed[K]):
    """What a thread of a GPU does. Profilers show it under the kernel's own name, with how it
    starts."""
    comptime if start == EARLY:
        wait_for_kernel_before()
    passed.kernel(Int(block_idx.x))


def launch[
    K: Kernel,
    //,
    target: StaticString,
    shared_bytes: Int = 0,
    resident: Int = max(1, THREADS // K.threads),
    start: Int = ALONE,
](kernel: K, blocks: Int, ctx: DeviceContext, high: Int = 1) raises:
    """Runs blocks `0 ... blocks - 1` of a kernel.

    A kernel for GPUs alone may have a grid that is `high` blocks high, and asks for `block_idx.y`.
    `shared_bytes` are what it takes by `external_memory`: more than the 48 KiB that arrays may have.
    A thread gets only so many registers that a multiprocessor has room for `resident` blocks.
    Only Hopper GPUs and later ones `start` a kernel otherwise than `ALONE`, and only one without
    `shared_bytes`.
    """
    if blocks == 0 or high == 0:
        return
    comptime if is_cpu[target]():

        def work(block: Int) {imm}:
            kernel(block)

        if blocks == 1:
            work(0)
        else:
            sync_parallelize(work, blocks)
    else:
        comptime if shared_bytes > 0:
            ctx.enqueue_function[run[K, resident]](
                Passed(kernel),
                grid_dim=(blocks, high),
                block_dim=K.threads,
                shared_mem_bytes=shared_bytes,
                func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(UInt32(shared_bytes)),
            )
        elif start != ALONE:
            ctx.enqueue_function[run[K, resident, start]](
                Passed(kernel),
                grid_dim=(blocks, high),
                block_dim=K.threads,
                attributes=pdl_launch_attributes(),
            )
        else:
            ctx.enqueue_function[run[K, resident]](
                Passed(kernel), grid_dim=(blocks, high), block_dim=K.threads
            )
