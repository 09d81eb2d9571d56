"""Augmentations that replace words: which, how often, by what, and that a seed decides it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse.data.augment import augmentation, replace_by_predictions, replace_by_synonyms
from simcse.data.augment.wordnet import DEBIAN, wordnet_synonyms
from simcse.errors import ArtifactError, ConfigError, DataError
from wordnet import write_wordnet

SENTENCES = st.lists(st.text("ab-,. \t\u00a0A", max_size=30), max_size=6)
RATES = st.floats(0, 0.99)
SEEDS = st.integers(0, 2**32)
NEW = "zz"


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def predict_new(texts, random):
    """Say the same word everywhere, and check the form of what is asked."""
    assert all(len(text) % 2 for text in texts)
    return [[NEW] * (len(text) // 2) for text in texts]


def only_of_a(word):
    return (NEW,) if word and not word.strip("a") else ()


def letters(word: str) -> bool:
    return any(character.isalpha() for character in word)


@given(SENTENCES, RATES, SEEDS)
def test_predictions_replace_a_share_of_the_words_and_leave_the_rest(sentences, rate, seed):
    changed = replace_by_predictions(sentences, rate, draw(seed), predict=predict_new)
    for before, after in zip(sentences, changed, strict=True):
        words, new = before.split(), after.split()
        assert len(new) == len(words)
        replaced = [i for i in range(len(words)) if words[i] != new[i]]
        assert all(new[i].lower().strip("-,.") == NEW for i in replaced)
        known = sum(map(letters, words))
        assert abs(len(replaced) - len(words) * rate) < 1 or len(replaced) == known


@given(SENTENCES, st.none() | RATES, SEEDS)
def test_synonyms_replace_only_words_that_have_some(sentences, rate, seed):
    changed = replace_by_synonyms(sentences, rate, draw(seed), synonyms=only_of_a)
    for before, after in zip(sentences, changed, strict=True):
        words, new = before.split(), after.split()
        assert len(new) == len(words)
        replaced = [i for i in range(len(words)) if words[i] != new[i]]
        able = [i for i, word in enumerate(words) if only_of_a(word.strip("-,.").lower())]
        assert set(replaced) <= set(able)
        wanted = 1 if rate is None else len(words) * rate
        assert abs(len(replaced) - wanted) < 1 or len(replaced) == len(able)


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.3])
@pytest.mark.parametrize("kind", ["synonyms", "predictions"])
def test_the_rate_is_met_in_expectation_and_every_word_is_as_likely(kind, rate):
    count, words = 20_000, [["a"] * 7]
    if kind == "synonyms":
        texts = replace_by_synonyms(["a a a a a a a"] * count, rate, draw(), synonyms=only_of_a)
    else:
        texts = replace_by_predictions(["a a a a a a a"] * count, rate, draw(), predict=predict_new)
    places = Counter(i for text in texts for i, word in enumerate(text.split()) if word == NEW)
    for place in range(len(words[0])):
        assert abs(places[place] / count - rate) < 5 * (rate * (1 - rate) / count) ** 0.5


def test_without_a_rate_one_word_is_replaced_and_each_synonym_is_as_likely():
    synonyms = {"b": ("x", "y", "z"), "d": ("x", "y", "z")}
    count = 6000
    texts = replace_by_synonyms(
        ["a b c d"] * count, None, draw(), synonyms=lambda word: synonyms.get(word, ())
    )
    found = Counter(texts)
    assert len(found) == 6
    for text, times in found.items():
        words = text.split()
        assert [i for i in range(4) if words[i] != "abcd"[i]] in ([1], [3])
        assert abs(times - count / 6) < 5 * (count * 5 / 36) ** 0.5


def test_capitals_and_punctuation_stay_and_new_words_may_have_spaces():
    def put(word, new):
        return replace_by_synonyms([word], None, draw(), synonyms=lambda _: (new,))[0]

    assert put('"Dog,', "hound dog") == '"Hound dog,'
    assert put("DOG!", "hound dog") == "HOUND DOG!"
    assert put("(dog)", "Canis familiaris") == "(Canis familiaris)"
    assert put("A", "one") == "One"


def test_texts_are_cut_at_the_words_to_be_replaced():
    seen = []

    def predict(texts, random):
        seen.extend(texts)
        return [["first"] for _ in texts]  # fewer than asked: the rest was too long

    text = "The dog, a cat."
    changed = replace_by_predictions([text, ""], 0.99, draw(), predict=predict)
    assert "".join(seen[0]) == text
    assert len(seen) == 1
    assert seen[0][1::2] == ["The", "dog", "a", "cat"][: len(seen[0]) // 2]
    assert changed == ["First dog, a cat.", ""]


def test_wordnet_gives_the_lemmas_of_all_senses(tmp_path):
    synonyms = wordnet_synonyms(write_wordnet(tmp_path / "wordnet"))
    assert synonyms("dog") == ("hound dog", "rascal")
    assert synonyms("dogs") == ("dog", "hound dog", "rascal")
    assert synonyms("ran") == ("dash", "run")
    assert synonyms("car") == ("motor-car",)
    assert synonyms("large") == ("big",)
    assert synonyms("soon") == ("shortly",)
    assert synonyms("cat") == synonyms("unicorn") == synonyms("12") == synonyms("the") == ()


def test_a_folder_without_wordnet_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="apt-get install wordnet-base"):
        wordnet_synonyms(tmp_path)
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path / "named"))
    with pytest.raises(DataError, match="no WordNet in .*named"):
        augmentation("synonym", None)
    write_wordnet(tmp_path / "named")
    assert augmentation("synonym", None)(["the soon"], draw()) == ["the shortly"]


@pytest.mark.parametrize("name", ["index.noun", "data.verb", "adj.exc"])
def test_a_damaged_wordnet_is_named(tmp_path, name):
    folder = write_wordnet(tmp_path)
    (folder / name).write_text("x\n" if name.endswith("noun") else "")
    if name.endswith("exc"):
        (folder / name).unlink()
    with pytest.raises(ArtifactError, match="not a complete WordNet"):
        wordnet_synonyms(folder)("run")


def test_the_real_wordnet():
    if not (DEBIAN / "index.noun").is_file():
        pytest.skip("needs Debian's wordnet-base")
    synonyms = wordnet_synonyms(Path(DEBIAN))
    assert {"automobile", "railcar", "cable car"} <= set(synonyms("cars"))
    assert {"big", "bombastic"} <= set(synonyms("large"))
    assert synonyms("in") == synonyms("zxqv") == ()


def test_a_seed_gives_the_same_again_and_another_something_else(tmp_path):
    texts = ["dog car run big soon dogs"] * 50
    folder = write_wordnet(tmp_path)
    for rate in (None, 0.3):
        augment = augmentation("synonym", rate, wordnet=folder)
        assert augment(texts, draw(1)) == augment(texts, draw(1)) != augment(texts, draw(2))
        assert augment([], draw()) == []


def test_what_is_missing_is_said():
    with pytest.raises(ConfigError, match="mlm needs a masked-language model"):
        augmentation("mlm", 0.15)
    with pytest.raises(ConfigError, match="crop takes no model"):
        augmentation("crop", 0.15, model="mini")
    with pytest.raises(ConfigError, match="mlm needs a rate"):
        augmentation("mlm", None, model="mini")
