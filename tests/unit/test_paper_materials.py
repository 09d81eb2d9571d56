"""Training files of grids: made once, by what makes them elsewhere, refused where they must be."""

import pytest

from simcse.errors import ConfigError, DataError, ResourceError
from simcse.io.records import read_examples
from simcse.paper import materials
from simcse.paper.grid import Material
from simcse.paper.materials import Materials, MissingError, corpus_sentences

SENTENCES = [f"sentence {i} has words that are {i * 7} and {i * 3}" for i in range(30)]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(SENTENCES) + "\n")
    return path


def test_a_file_is_made_once_and_again_for_other_rows(corpus, tmp_path):
    crop = Material(make="crop", rate=0.3)
    made = Materials(tmp_path / "made").prepare(crop, corpus, 10)
    rows = read_examples(made.path)
    assert [row.anchor for row in rows] == SENTENCES[:10]
    assert all(row.positive in row.anchor for row in rows)
    before = made.path.stat().st_mtime_ns
    again = Materials(tmp_path / "made").prepare(crop, corpus, 10)
    assert (again, again.path.stat().st_mtime_ns) == (made, before)
    other = Materials(tmp_path / "made").prepare(Material(make="crop", rate=0.2), corpus, 10)
    more = Materials(tmp_path / "made").prepare(crop, corpus, None)
    assert len({made.sha256, other.sha256, more.sha256}) == 3
    elsewhere = Materials(tmp_path / "elsewhere").prepare(crop, corpus, 10)
    assert elsewhere.sha256 == made.sha256


def test_the_corpus_itself_is_not_copied(corpus, tmp_path):
    made = Materials(tmp_path / "made").prepare(Material(), corpus, 10)
    assert made.path == corpus
    assert not (tmp_path / "made").exists()


def test_labeled_rows_become_pairs_and_triplets(tmp_path):
    path = tmp_path / "nli.tsv"
    rows = [
        f"{label}\tpremise {i}\t{label} {i}"
        for i in range(4)
        for label in ("entailment", "neutral", "contradiction")
    ]
    path.write_text("\n".join(rows) + "\n")
    made = Materials(tmp_path / "made")
    neutral = made.prepare(Material(make="nli", positives="neutral"), path, 2)
    assert [row.positive for row in read_examples(neutral.path)][:2] == ["neutral 0", "neutral 1"]
    wanted = Material(make="nli", positives="entailment", hard_negatives=("contradiction",))
    triplets = read_examples(made.prepare(wanted, path, None).path)
    assert triplets[3].negatives == ("contradiction 3",)


def test_a_shuffled_corpus_has_no_neighbors(corpus, tmp_path):
    with pytest.raises(DataError, match="not in document order"):
        Materials(tmp_path / "made").prepare(Material(make="neighbors", ahead=1), corpus, None)
    assert not list((tmp_path / "made").glob("*.json"))


def test_what_is_not_installed_or_named_is_missing(corpus, tmp_path, monkeypatch):
    with pytest.raises(MissingError, match="name one by --masked-model"):
        Materials(tmp_path / "made").prepare(Material(make="mlm", rate=0.1), corpus, None)

    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    with pytest.raises(MissingError, match="wordnet-base|synonyms"):
        Materials(tmp_path / "made").prepare(Material(make="synonym"), corpus, None)

    def absent(*_arguments, **_options):
        raise ResourceError("WordNet is not installed: apt install wordnet-base")

    monkeypatch.setattr(materials, "augmentation", absent)
    with pytest.raises(MissingError, match="apt install wordnet-base"):
        Materials(tmp_path / "made").prepare(Material(make="synonym"), corpus, None)


def test_pairs_are_not_augmented(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("one sentence\tanother\n")
    with pytest.raises(DataError, match="expected one sentence a row"):
        Materials(tmp_path / "made").prepare(Material(make="delete-one"), path, None)


def test_a_layer_is_fitted_on_different_sentences(tmp_path):
    path = tmp_path / "triplets.tsv"
    path.write_text("a\tb\tc\na\td\te\nf\tg\th\n")
    assert corpus_sentences(path, 2) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    "values",
    [
        {"make": "neighbors"},
        {"make": "crop", "ahead": 1},
        {"make": "nli"},
        {"positives": "neutral"},
        {"hard_negatives": ("neutral",)},
    ],
)
def test_material_says_what_it_needs(values):
    with pytest.raises(ConfigError, match="goes with make"):
        Material(**values)
