"""Names are the field's terms, docstrings name shapes, and each rule sees a violation."""

import ast

import pytest

from tests.house import names
from tests.house.names import defined
from tests.house.sources import ROOT, parsed, python_files

TENSORS = '"""The float images."""'


def test_no_package_that_is_done_defines_a_banned_name() -> None:
    found = [
        problem
        for path in python_files("guard", "workers")
        if names.done(path, names.TO_DO)
        for problem in names.has_banned_names(path, parsed(path))
    ]

    assert found == []


def test_docstring_summaries_are_one_sentence_on_one_line() -> None:
    found = [
        problem
        for path in python_files("guard", "workers")
        if names.done(path, names.SUMMARIES_TO_DO)
        for problem in names.summarises_badly(path, parsed(path))
    ]

    assert found == []


def test_public_docstrings_of_methods_name_shape_type_or_range_of_tensors() -> None:
    found = [
        problem
        for path in python_files("guard/ml", "guard/detectors", "guard/defenses")
        for problem in names.hides_tensors(path, parsed(path))
    ]

    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "words = 1",
        "told: int = 1",
        "for picture in images: pass",
        "def said(): pass",
        "def f(clean_pictures): pass",
        "def f(*, word=1): pass",
        "class PictureSet: pass",
        "self.heard = 1",
        "import numpy as words",
        "try: pass\nexcept OSError as told: pass",
        "[word for word in labels]",
        "if (word := f()): pass",
        "with f() as _WORDS: pass",
        "match x:\n    case [1, *words]: pass",
    ],
)
def test_a_banned_name_is_noticed(source: str) -> None:
    assert list(names.has_banned_names("guard/ml/x.py", ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    ["keywords = 1", "password = 1", "f(words=1)", "x = told", "label = 'words'", "wording = 1"],
)
def test_other_names_and_uses_are_allowed(source: str) -> None:
    assert list(names.has_banned_names("guard/ml/x.py", ast.parse(source))) == []


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """A sentence that goes on\n    in a second line."""',
        'def f():\n    """A title without an end"""',
        'class A:\n    """The classes.\n\n    And how many there are.\n    """',
        'async def f():\n    """The classes.\n\n    Which are few.\n    """',
        '"""The classes.\n\nOr none.\n"""',
    ],
)
def test_a_summary_that_is_not_a_sentence_on_a_line_is_noticed(source: str) -> None:
    assert list(names.summarises_badly("guard/ml/x.py", ast.parse(source)))


def test_a_one_line_summary_with_a_longer_text_is_allowed() -> None:
    source = 'def f():\n    """The classes.\n\n    Andrews curves of several\n    lines.\n    """'

    assert list(names.summarises_badly("guard/ml/x.py", ast.parse(source))) == []


@pytest.mark.parametrize(
    "source",
    [
        "def f(images: Tensor) -> None: pass",
        'def f(images: Tensor) -> None:\n    """What it does."""',
        'def f() -> list[torch.Tensor]:\n    """What it gives."""',
        'class A:\n    """What it is."""\n    images: Tensor',
        'class A:\n    def f(self, *images: Tensor) -> None:\n        """What it does."""',
        "class A(nn.Module):\n    def forward(self, images: Tensor) -> Tensor: pass",
    ],
)
def test_a_docstring_that_hides_its_tensors_is_noticed(source: str) -> None:
    assert list(names.hides_tensors("guard/ml/x.py", ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "def _f(images: Tensor) -> None: pass",
        "def f(images: list[int]) -> None: pass",
        f"def f(images: Tensor) -> None:\n    {TENSORS}",
        'def f(images: Tensor) -> None:\n    """Images N,C,H,W."""',
        'def f(images: Tensor) -> None:\n    """Images (T, C, H, W)."""',
        f"class A(nn.Module):\n    {TENSORS}\n    def forward(self, images: Tensor): pass",
        (
            f"class A:\n    def f(self, x: Tensor):\n        {TENSORS}\n"
            "class B(A):\n    def f(self, x: Tensor): pass"
        ),
    ],
)
def test_a_docstring_that_names_its_tensors_is_allowed(source: str) -> None:
    assert list(names.hides_tensors("guard/ml/x.py", ast.parse(source))) == []


def test_every_exception_is_still_needed() -> None:
    for part in names.TO_DO | names.SUMMARIES_TO_DO:
        assert (ROOT / part).exists()
    for path, kept in names.KEPT.items():
        assert kept.keys() <= {name for node in ast.walk(parsed(path)) for name in defined(node)}
