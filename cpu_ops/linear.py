"""`linear` on the CPU: a kernel for few tokens; many are a prompt."""

from torch import Tensor

from cpu_ops.add import add
from cpu_ops.describe import CODES, check_meets, input_places, known
from cpu_ops.kernels.linear import linear as linear_kernel
from cpu_ops.prompt import prompt_linear
from cpu_ops.scratch import scratch
from cpu_ops.tape import fresh, run
from models.formats import Input
from models.rows import Rows

FEW_TOKENS = 16  # up to here the kernels win


def linear(rows: Rows, x: Input, bias: Tensor | None = None) -> Tensor:
    """rows [n, K], x [T, K], bias float32 [n] -> float32 [T, n]. Up to FEW_TOKENS tokens each one's bits are its own."""
    if len(x) > FEW_TOKENS or rows.format.name not in CODES:
        return prompt_linear(rows, x, bias)
    check_meets(rows, x)
    out = fresh(len(x), len(rows))
    matrix, places = known(rows), input_places(x)
    run(linear_kernel, matrix.address, *places, *room_for(matrix.prepared_bytes, places, len(x)), len(x), out.data_ptr())
    return out if bias is None else add(out, bias)


def room_for(prepared_bytes: int, places: tuple[int, int, int, int], tokens: int) -> tuple[int, int]:
    """Address and stride of prepared tokens: in scratch memory, or the values themselves where nothing is prepared."""
    return (scratch(tokens * prepared_bytes // 4).data_ptr(), prepared_bytes) if prepared_bytes else places[:2]
