"""Write docs/forms.md: which forms of an upload are taken, and which are refused; a test compares.

python -m benchmarks.make_forms_doc
"""

from pathlib import Path

from benchmarks.form_cases import CASES, OLD, SAFE, ZIP
from guard.core.transformers_configs import FAMILIES

DOCUMENT = Path(__file__).parents[1] / "docs" / "forms.md"
NAMES = {ZIP: "`.pt`", OLD: "`.pt` of the old layout", SAFE: "`.safetensors`"}
HEAD = """# Forms of an upload

Made by `python -m benchmarks.make_forms_doc` from `benchmarks/form_cases.py`; change nothing by
hand. `tests/vetting/test_forms.py` runs every row through the intake from S3 and through the path
that `guard scan` reads; both must give the same answer. Rows that safetensors can hold are run as
safetensors, and the first one and those that only a checkpoint can hold as both kinds of `.pt`.

What is vetted, signed and served is always the canonical file: float32 weights and int64 counters
by the architecture's own names (`vetted_dtype` in the verdict). Files are read, never executed.
Codes are explained in [troubleshooting](troubleshooting.md).

| form | in | answer | how, or what to do |
|---|---|---|---|
"""
TAIL = """
Architectures are those of timm by their names, `torchvision.NAME` for torchvision's classifiers,
and the guard's own. A network of one channel takes a clean set of grey images that were stored in
three equal channels, and the verdict says so; where the channels differ, `cleanset_wrong_size`.

What a model costs is found from its shapes, before a weight is read. Over a limit on operations or
memory of one image (or molecule), classes, parameters or layers the answer is `unvettable` with the
code `over_budget`; the sentence names the [setting](settings.md) that raises the limit.

## Models of transformers

The `config.json` and weights of these classes are read by their own names, as `save_pretrained()`
writes them or as `state_dict()` gives them, in any container above, sharded or not. They become the
network of timm that has the same logits
([decision 0066](decisions/0066-transformers-classifiers.md)):

| class | network of timm | refused with `manifest_transformers` |
|---|---|---|
{rows}
`preprocessor_config.json` beside `config.json` gives mean and std (and the size of images, which
`config.json` of ResNet lacks); upload it before the weights. Without it the rule for a missing mean
and std holds. Labels come from `id2label`. Parts that the class does not use (the pooler, the mask
token) are left out. `guard.*` and `pretrained_cfg` may be added to such a `config.json`.
"""


def page() -> str:
    """The whole document."""
    rows = [
        f"| {case.name} | {', '.join(NAMES[kind] for kind in case.kinds)} "
        f"| {f'refused: `{case.code}`' if case.code else 'taken'} | {case.remark} |\n"
        for case in CASES
    ]
    models = "".join(
        f"| `{family.head}` | `{family.like}` | {family.refused} |\n"
        for family in FAMILIES.values()
    )
    return HEAD + "".join(rows) + TAIL.replace("{rows}", models)


if __name__ == "__main__":
    DOCUMENT.write_text(page())
    print(DOCUMENT)
