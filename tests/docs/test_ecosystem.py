"""The examples with other tools run, as they stand in the docs."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "ecosystem.md").read_text(encoding="utf-8")
EXAMPLES = {
    title: code
    for title, code in re.findall(r"^## ([^\n]+)$[^#]*?^```python\n(.*?)^```$", PAGE, re.S | re.M)
}
PRINTED = {  # what shows that it did its work
    "scikit-learn": "['sport' 'money']",
    "pandas": "Someone makes music.",
    "DuckDB": "[('Someone makes music.'",
    "Polars": "Someone makes music.",
}


def test_every_example_is_known():
    assert set(EXAMPLES) == set(PRINTED)


@pytest.mark.parametrize("title", PRINTED)
def test_an_example_runs(title, tmp_path, monkeypatch, capsys):
    code = EXAMPLES[title]
    for package in re.findall(r"^import (\w+)", code, re.M):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "ecosystem.md", "exec"), {})
    assert PRINTED[title] in capsys.readouterr().out


def test_the_notebook_runs(capsys):
    notebook = json.loads((DOCS / "tour.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 5
    space = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"tour.ipynb[{number}]", "exec"), space)
    assert "Someone is making music." in capsys.readouterr().out
    assert space["sentences"][space["ranking"][0]] in space["sentences"][2:4]
    assert space["predicted"].tolist() == ["sport", "money"]
