"""The registry: where data is looked for, and what a check says of it."""

import pytest

from simcse.errors import DataError, UsageError
from simcse.io import benchmarks
from simcse.io.benchmarks import (
    KnownFile,
    check_datasets,
    data_folder,
    known_files,
    load_sts_task,
)
from simcse.io.files import sha256_file

ROWS = "s\t1\ta\tb\ns\t2\tc\td\n"


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Two rows are the known text of every file named here."""
    path = tmp_path / "two.tsv"
    path.write_text(ROWS)
    files = [
        KnownFile("sts/sts12.tsv", 2, sha256_file(path)),
        KnownFile("sts/sickr-all.tsv", 6, None),
        KnownFile("nli/nli_for_simcse.csv", 1, None),
    ]
    files += [KnownFile(f"sts/{name}.tsv", 2, sha256_file(path)) for name in benchmarks.SICK_SPLITS]
    monkeypatch.setattr(benchmarks, "known_files", lambda: {file.path: file for file in files})
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path))
    (tmp_path / "sts").mkdir()
    (tmp_path / "nli").mkdir()
    return tmp_path


def test_known_files_are_well_formed():
    files = known_files()
    assert files["sts/sts12.tsv"].rows == 3108
    assert sum(files[f"sts/{name}.tsv"].rows for name in benchmarks.SICK_SPLITS) == 9927
    assert all(file.sha256 is None or len(file.sha256) == 64 for file in files.values())
    assert all(file.rows > 0 for file in files.values())


def test_data_folder_goes_from_named_to_cache(tmp_path, monkeypatch):
    project = tmp_path / "projects" / "mine" / "below"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SIMCSE_DATA", raising=False)
    assert data_folder() == tmp_path / "cache" / "simcse" / "data"
    shared = tmp_path / "projects" / "shared" / "data"
    shared.mkdir(parents=True)
    assert data_folder() == shared
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path / "environment"))
    assert data_folder() == tmp_path / "environment"
    assert data_folder(tmp_path / "argument") == tmp_path / "argument"


def test_check_tells_what_matches(known):
    (known / "sts" / "sts12.tsv").write_text(ROWS)
    (known / "sts" / "sickr-train.tsv").write_text(ROWS.upper())
    (known / "sts" / "sickr-dev.tsv").write_text(ROWS[:8])
    (known / "sts" / "sickr-test.tsv").write_bytes(b"\xff")
    (known / "nli" / "nli_for_simcse.csv").write_text('sent0,sent1,hard_neg\n"a\nb",p,n\n')
    states = {status.known.path: status for status in check_datasets(known)}
    assert {path: status.state for path, status in states.items()} == {
        "sts/sts12.tsv": "present",
        "sts/sickr-all.tsv": "missing",
        "nli/nli_for_simcse.csv": "present",
        "sts/sickr-train.tsv": "wrong hash",
        "sts/sickr-dev.tsv": "wrong rows",
        "sts/sickr-test.tsv": "unreadable",
    }
    assert states["sts/sickr-dev.tsv"].problem == "expected 2, found 1"
    assert [path for path, status in states.items() if status.is_wrong] == [
        f"sts/{name}.tsv" for name in benchmarks.SICK_SPLITS
    ]


def test_loading_notes_another_text_and_refuses_other_rows(known):
    path = known / "sts" / "sts12.tsv"
    path.write_text(ROWS)
    assert load_sts_task("sts12").notes == ()
    path.write_text(ROWS.upper())
    assert load_sts_task("sts12").notes == (f"{path} has the right rows but not the known SHA-256",)
    path.write_text(ROWS + ROWS)
    with pytest.raises(DataError, match=r"sts12.tsv: expected 2 rows, found 4"):
        load_sts_task("sts12")


def test_sickr_all_is_one_file_or_the_three_splits(known):
    for name in benchmarks.SICK_SPLITS:
        (known / "sts" / f"{name}.tsv").write_text(ROWS)
    joined = load_sts_task("sickr-all")
    assert (joined.name, len(joined.scores), joined.path) == ("sickr-all", 6, known / "sts")
    (known / "sts" / "sickr-all.tsv").write_text(ROWS * 3)
    single = load_sts_task("sickr-all")
    assert single.path == known / "sts" / "sickr-all.tsv"
    assert single.first == joined.first


def test_unknown_names_and_missing_files(known):
    with pytest.raises(UsageError, match=r"unknown STS set 'sts-12'; did you mean 'sts12'\?"):
        load_sts_task("sts-12")
    with pytest.raises(UsageError, match="natural, senteval"):
        load_sts_task("sts12", text="moses")
    with pytest.raises(DataError, match=r"no data set .*sts12.tsv; `simcse data fetch`"):
        load_sts_task("sts12", text="senteval")


@pytest.mark.data
@pytest.mark.skipif(not (data_folder() / "sts").is_dir(), reason="no data folder")
@pytest.mark.parametrize("text", ["natural", "senteval"])
def test_real_sets_are_the_known_ones(text):
    for name, rows in {"sts12": 3108, "stsb-dev": 1500, "sickr-all": 9927}.items():
        task = load_sts_task(name, text=text)
        assert len(task.scores) == rows
        assert task.notes == ()
    assert not [status for status in check_datasets(data_folder()) if status.is_wrong]
