"""The numbers of the contracts that plug-ins are written for, and which number a file asks for.

A contract is what the guard calls on a plug-in of a kind, and what the plug-in may count on. It is
`MAJOR.MINOR` and changes apart from the guard's release: a minor number adds something that old
plug-ins need not know, a major one changes something that they rely on.
"""

import ast
import re
from collections.abc import Mapping

from guard.core.errors import InputError

#: By the kind of plug-in, as folders of `GUARD_PLUGINS` are named.
CONTRACTS: Mapping[str, str] = {
    "detectors": "1.0",
    "defenses": "1.0",
    "publishers": "1.0",
    "sifters": "1.0",
    "retrainers": "1.0",
    "architectures": "1.0",
}
#: What a file that states none was written for, since there was no other when files stated none.
UNSTATED = "1.0"
STATEMENT = "CONTRACT"
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})")


def contract_of(source: bytes, kind: str, path: object) -> str:
    """The contract that a plug-in's file asks for, read from its text: nothing of it is run.

    Args:
        path: where the file is, for the sentence of a refusal.

    Raises:
        InputError: it asks for another major number than the guard has, or for a newer minor one,
            or does so by more than a plain text.
    """
    stated, here = _stated(source), CONTRACTS[kind]
    number = _NUMBER.fullmatch(stated)
    if number is None:
        raise _refused(path, f'states {STATEMENT} otherwise than as "MAJOR.MINOR"')
    major, minor = (int(part) for part in stated.split("."))
    ours = tuple(int(part) for part in here.split("."))
    if major != ours[0] or minor > ours[1]:
        raise _refused(path, f"is for contract {stated} of {kind}, and this guard has {here}")
    return stated


def _stated(source: bytes) -> str:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return UNSTATED  # what does not parse is refused when it is imported
    for line in tree.body:
        targets: list[ast.expr] = [line.target] if isinstance(line, ast.AnnAssign) else []
        targets += line.targets if isinstance(line, ast.Assign) else []
        if any(isinstance(one, ast.Name) and one.id == STATEMENT for one in targets):
            value = getattr(line, "value", None)
            found = value.value if isinstance(value, ast.Constant) else None
            return found if isinstance(found, str) else ""
    return UNSTATED


def _refused(path: object, why: str) -> InputError:
    return InputError(
        f"Plug-in {path} {why}; take the plug-in's release for this contract, or the guard's.",
        code="plugin_contract",
    )
