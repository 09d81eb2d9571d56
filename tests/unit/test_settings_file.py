"""Settings files in TOML."""

import pytest

from simcse.errors import ConfigError
from simcse.io.settings import read_toml


def test_a_file_becomes_nested_values(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(
        'seed = 3 # été\r\n[optim]\r\nlr = 3e-5\r\nname = "été"\r\n[data]\r\nlist = [1, 2]'.encode()
    )
    assert read_toml(path) == {
        "seed": 3,
        "optim": {"lr": 3e-5, "name": "été"},
        "data": {"list": [1, 2]},
    }


def test_an_empty_file_sets_nothing(tmp_path):
    (tmp_path / "run.toml").touch()
    assert read_toml(tmp_path / "run.toml") == {}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"seed = 1\nseed = 2\n", r"run\.toml: .*line 2"),
        (b"seed = \n", r"run\.toml: .*line 1"),
        (b'name = "\xff"', r"run\.toml: .*0xff"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_by_place(tmp_path, data, problem):
    (tmp_path / "run.toml").write_bytes(data)
    with pytest.raises(ConfigError, match=problem) as error:
        read_toml(tmp_path / "run.toml")
    assert error.value.exit_code == 2


@pytest.mark.parametrize(("name", "why"), [("none.toml", "No such file"), ("", "Is a directory")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, why):
    with pytest.raises(ConfigError, match=f"cannot read settings .*{why}"):
        read_toml(tmp_path / name)


def test_a_byte_order_mark_is_stripped(tmp_path):
    """As in every text the project reads (D2); Windows editors write one."""
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfseed = 3\n")
    assert read_toml(tmp_path / "run.toml") == {"seed": 3}
