"""Files in every format that the readers take."""

import csv
import gzip
import io
import json

import pytest

TABLES = ["a.tsv", "a.tsv.gz", "a.csv", "a.csv.gz"]
FORMATS = [*TABLES, "a.jsonl", "a.jsonl.gz", "a.parquet"]


def write_table(path, names, rows):
    """Write rows in the format of the path; without ``names`` there is no header."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        names = names or [f"c{i}" for i in range(len(rows[0]))]
        columns = zip(*rows, strict=True)
        parquet.write_table(pyarrow.table(dict(zip(names, map(list, columns), strict=True))), path)
        return path
    out = io.StringIO()
    if kind == "csv":
        csv.writer(out).writerows([names, *rows] if names else rows)
    elif kind == "tsv":
        out.writelines("\t".join(map(str, row)) + "\n" for row in ([names] if names else []) + rows)
    else:
        records = [dict(zip(names, row, strict=True)) for row in rows] if names else rows
        out.writelines(json.dumps(record) + "\n" for record in records)
    data = out.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
