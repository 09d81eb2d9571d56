"""Model names: where each is found, and which wins."""

from pathlib import Path

import pytest

from simcse.errors import ResourceError, UsageError
from simcse.model.encoder import SentenceEncoder
from simcse.model.huggingface import locate


def test_a_typo_lists_what_was_tried(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"'\./typo': tried the bundled names \(mini\) and .*/typo"
    ):
        locate("./typo")
    with pytest.raises(UsageError, match="has the form owner/name"):
        locate("nothing-of-this-name")
    with pytest.raises(UsageError, match="tried"):
        locate(tmp_path / "not" / "there")


def test_a_plain_name_is_found_among_the_stored_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = tmp_path / "shared" / "models" / "worn"
    (tmp_path / "project").mkdir()
    stored.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("SIMCSE_MODELS", raising=False)
    assert locate("worn") == stored
    with pytest.raises(UsageError, match=r"tried .*/project/new, then .*/shared/models/new;"):
        locate("new")
    with pytest.raises(UsageError, match="no model './worn'"):
        locate("./worn")  # a path says where it is

    monkeypatch.setenv("SIMCSE_MODELS", str(tmp_path / "other"))
    with pytest.raises(UsageError, match=r"then .*/other/worn;"):
        locate("worn")
    (tmp_path / "other" / "worn").mkdir(parents=True)
    assert locate("worn") == tmp_path / "other" / "worn"
    Path("worn").mkdir()
    assert locate("worn") == Path("worn")


def test_a_hub_id_without_a_network_is_a_resource_error() -> None:
    with pytest.raises(ResourceError, match=r"no folder 'nobody/nothing', and it could not"):
        SentenceEncoder.load("nobody/nothing")


def test_a_bundled_model_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simcse.model.huggingface.resources.files", lambda _: tmp_path)
    with pytest.raises(ResourceError, match="'mini' is not installed"):
        SentenceEncoder.load()


def test_the_bundled_name_wins_over_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundled" / "mini").mkdir(parents=True)
    (tmp_path / "mini").mkdir()
    monkeypatch.setattr("simcse.model.huggingface.resources.files", lambda _: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert locate("mini") == tmp_path / "bundled" / "mini"
    assert locate("./mini") == Path("mini")
