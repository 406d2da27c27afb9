"""The accused images of a sift as a table in a file, for whoever cleans the training set."""

import csv
import io
import json
from typing import Any

from guard.core.sift import SiftReport

#: A spreadsheet takes a cell that begins so for a formula; names in a set are its uploader's.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def suspects_file(report: SiftReport, ending: str) -> bytes:
    """The suspects, the most conspicuous first, as `.parquet`, `.json` or `.csv`.

    Columns: index (the place in the set as it was read), source, label, label_name, estimated and
    its name (empty where unsure), fdr (0..1), proof, and the p value of each method.

    Raises:
        ValueError: another ending.
    """
    rows = _rows(report)
    if ending == ".json":
        return (json.dumps(rows, indent=2, allow_nan=False) + "\n").encode()
    if ending == ".csv":
        return _csv(rows, _columns(report))
    if ending == ".parquet":
        return _parquet(rows, _columns(report))
    raise ValueError(f"no such file of suspects: {ending}")


def _methods(report: SiftReport) -> list[str]:
    return sorted({name for one in report.suspects for name in one.numbers})


def _columns(report: SiftReport) -> dict[str, type]:
    return {
        "index": int,
        "source": str,
        "label": int,
        "label_name": str,
        "estimated": int,
        "estimated_name": str,
        "fdr": float,
        "proof": bool,
        **dict.fromkeys((f"p_{name}" for name in _methods(report)), float),
    }


def _rows(report: SiftReport) -> list[dict[str, Any]]:
    names = report.training_set.class_names
    return [
        {
            "index": one.index,
            "source": one.source,
            "label": one.label,
            "label_name": names[one.label],
            "estimated": one.estimated,
            "estimated_name": None if one.estimated is None else names[one.estimated],
            "fdr": one.fdr,
            "proof": one.proof,
            **{f"p_{name}": one.numbers.get(name) for name in _methods(report)},
        }
        for one in report.suspects
    ]


def _csv(rows: list[dict[str, Any]], columns: dict[str, type]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns))
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _parquet(rows: list[dict[str, Any]], columns: dict[str, type]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {int: pa.int64(), str: pa.string(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()
