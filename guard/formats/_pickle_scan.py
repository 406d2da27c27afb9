"""Read a checkpoint's pickle as opcodes, and allow only what a plain state dict needs.

Nothing is executed. This allow-list stands in front of `torch.load(weights_only=True)`, which has
one of its own, so two readers must agree.
"""

import io
import pickletools
import struct
import warnings

from guard.core.contracts import Budget
from guard.formats._bytes import UPLOAD_INSTEAD, reject, show

#: Opcodes that torch.save writes (pickle protocol 2) for dicts, lists, tuples, strings, numbers and
#: tensors.
_OPCODES = frozenset(
    {
        "PROTO",
        "STOP",
        "MARK",
        "EMPTY_DICT",
        "EMPTY_LIST",
        "EMPTY_TUPLE",
        "SETITEM",
        "SETITEMS",
        "APPEND",
        "APPENDS",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
        "BINUNICODE",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "NEWTRUE",
        "NEWFALSE",
        "NONE",
        "GLOBAL",
        "REDUCE",
        "BUILD",
        "BINPERSID",
    }
)
_STORAGES = ["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"]
#: Everything a plain tensor is rebuilt with.
_GLOBALS = frozenset(
    [
        "collections OrderedDict",
        "torch Size",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
    ]
    + [f"torch {kind}Storage" for kind in _STORAGES]
    + ["_codecs encode"]  # how protocol 2 writes bytes, as in a NumPy number; torch allows it too
)
#: What trainers put beside the weights. Both readers skip it: the jail puts a stand-in that holds
#: nothing in its place, so that no code of these classes runs.
IGNORED = frozenset(
    [
        "argparse Namespace",
        "lightning.fabric.utilities.data AttributeDict",
        "lightning_fabric.utilities.data AttributeDict",
        "pytorch_lightning.utilities.parsing AttributeDict",
        "pathlib PosixPath",
        "pathlib WindowsPath",
        "pathlib PurePosixPath",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray scalar",
        "numpy dtype",
    ]
)
_STEPS_PER_TENSOR = 200
# Their text may go on behind the first bytes.
_LONG_TEXTS = tuple(bytes([code]) for code in b"XBT\x8d\x8e\x96")


def check_pickle(data: bytes, *, budget: Budget) -> None:
    """Refuse a pickle that names anything but tensors, containers and what is skipped.

    Raises:
        ArtifactRejected: `pickled_module` for a foreign name, `pickle_opcode`, `pickle_broken`,
            `pickle_too_long`.
    """
    stream = io.BytesIO(data)
    check_pickles(stream, 1, budget=budget)
    if stream.tell() != len(data):
        raise reject(
            "pickle_broken", f"The checkpoint's pickle goes on after its end; {UPLOAD_INSTEAD}."
        )


def check_pickles(stream: io.BytesIO, count: int, *, budget: Budget, whole: bool = True) -> None:
    """Refuse `count` pickles that follow each other in `stream`, as `check_pickle`.

    `whole` is False for the first bytes of a longer file, where a missing end means that the
    pickles are too long.
    """
    steps = 0
    try:
        # pickletools undoes escapes in names and only warns of those that do not exist.
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)
            for _ in range(count):
                steps = _check_operations(stream, steps, budget)
    except (ValueError, struct.error, OverflowError, EOFError, DeprecationWarning) as error:
        if whole:
            raise reject(
                "pickle_broken", f"The checkpoint's pickle is damaged; {UPLOAD_INSTEAD}."
            ) from error
        raise reject(
            "pickle_too_long",
            f"The checkpoint's pickles do not end within {budget.header_bytes} bytes; "
            f"{UPLOAD_INSTEAD}.",
        ) from error


def _check_operations(stream: io.BytesIO, steps: int, budget: Budget) -> int:
    """How many operations were read, `steps` among them; raises as `check_pickle`."""
    skipped = False
    for opcode, argument, _ in pickletools.genops(stream):
        steps += 1
        if steps > _STEPS_PER_TENSOR * budget.tensors:
            raise reject(
                "pickle_too_long",
                f"The checkpoint's pickle has too many steps; {UPLOAD_INSTEAD}.",
            )
        if opcode.name == "GLOBAL" and argument in IGNORED:
            skipped = True
        elif opcode.name == "GLOBAL" and argument not in _GLOBALS:
            name = show(str(argument).replace(" ", "."))
            raise reject(
                "pickled_module",
                f"The checkpoint holds the Python object {name}, not only tensors; "
                f"save model.state_dict() alone, or better {UPLOAD_INSTEAD}.",
            )
        if opcode.name not in _OPCODES and not (skipped and opcode.name == "NEWOBJ"):
            raise reject(
                "pickle_opcode",
                f"The checkpoint's pickle uses {opcode.name}, which plain weights never "
                f"need; {UPLOAD_INSTEAD}.",
            )
    return steps


def looks_pickled(head: bytes) -> bool:
    """Whether a file starts with a pickle's protocol mark and a valid first opcode.

    The opcode separates a pickle from a safetensors length that happens to start with the same
    bytes: such a length continues with zeros.
    """
    if len(head) < 2 or head[0] != 0x80 or head[1] > 5:
        return False
    steps = 0
    try:
        for _ in pickletools.genops(head):
            steps += 1
            if steps == 2:
                return True
    except (ValueError, struct.error, OverflowError, EOFError):
        pass
    return head[2:3] in _LONG_TEXTS
