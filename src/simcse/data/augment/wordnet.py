"""Synonyms from WordNet, read by nltk from a folder on this machine."""

import functools
import importlib
import io
import os
from pathlib import Path
from typing import Any

from simcse.data.augment.replacement import Synonyms
from simcse.errors import ArtifactError, DataError, ResourceError

DEBIAN = Path("/usr/share/wordnet")
FOLDER_VARIABLE = "WNSEARCHDIR"  # as for WordNet's own programs
_LEXICOGRAPHER_FILES = 45  # lexnames(5WN)

# WordNet has open classes only; its entries for these words have other meanings ("a": angstrom).
_FUNCTION_WORDS = frozenset(
    "a about above after against all am an and another any are as at be because been before being "
    "below between both but by can cannot could did do does doing down during each either every "
    "few for from further had has have having he her here hers herself him himself his how i if in "
    "into is it its itself me might mine more most must my myself neither no nor not of off on "
    "once one only or other our ours ourselves out over own same shall she should so some such "
    "than that the their theirs them themselves then there these they this those through to too "
    "under until up upon us was we were what when where whether which while who whom whose why "
    "will with within without would you your yours yourself yourselves".split()
)


def wordnet_synonyms(folder: Path | None = None) -> Synonyms:
    """Return a function that gives a word's synonyms: the other lemmas of all senses, sorted.

    As in Wei and Zou 2019 (EDA) no sense is chosen, and a form such as "dogs" has the synonyms of
    its base form. Function words, and words with other characters than letters, have none.

    Args:
        folder: holds ``index.noun``, ``data.noun`` and so on, of WordNet 3.0, 3.1 or another in
            their format; else the environment's WNSEARCHDIR, else Debian's.

    Raises:
        ResourceError: nltk is not installed.
        DataError: there is no WordNet in the folder.
        ArtifactError: it is damaged.
    """
    folder = folder or Path(os.environ.get(FOLDER_VARIABLE, DEBIAN))
    reader = _open(folder)

    @functools.cache
    def synonyms(word: str) -> tuple[str, ...]:
        if word in _FUNCTION_WORDS or not word.replace("-", "").isalpha():
            return ()
        try:
            found = {name for sense in reader.synsets(word) for name in sense.lemma_names()}
        except Exception as error:  # noqa: BLE001 - nltk raises anything on a damaged file
            raise ArtifactError(
                f"{folder} is not a complete WordNet: {word!r}: {error!r}"
            ) from error
        texts = (name.replace("_", " ") for name in found)
        return tuple(sorted(text for text in texts if text.lower() != word))

    return synonyms


def _open(folder: Path) -> Any:  # noqa: ANN401 - nltk has no types
    try:
        paths = importlib.import_module("nltk.data").path
        wordnet = importlib.import_module("nltk.corpus.reader.wordnet")
    except ImportError as error:
        raise ResourceError(
            "synonyms need an extra: pip install 'simcse-next[synonyms]'"
        ) from error

    class Reader(wordnet.WordNetCorpusReader):  # type: ignore[misc,name-defined] # has no types
        """WordNet alone, in memory: Debian's folder lacks what nltk's own copy adds."""

        def open(self, file: str) -> io.StringIO:
            """Read a file, or make up the names of the lexicographer files, which are not used."""
            if file == "lexnames":
                return io.StringIO("".join(f"{i:02} - 0\n" for i in range(_LEXICOGRAPHER_FILES)))
            # One character a byte, because WordNet's offsets are in bytes.
            return io.StringIO((folder / file).read_bytes().decode("latin-1"))

        def map_wn(self, version: str = "wordnet") -> None:
            """Do nothing: other languages are not read."""

    if not (folder / "index.noun").is_file():
        raise DataError(
            f"no WordNet in {folder}: `apt-get install wordnet-base` puts it into {DEBIAN}; "
            f"or name a folder with index.noun, data.noun, ... by --wordnet or {FOLDER_VARIABLE}"
        )
    root = str(folder.resolve())
    if root not in paths:
        paths.append(root)  # nltk opens no files outside these
    try:
        return Reader(root, False)  # False: no other languages, and no warning about them
    except Exception as error:  # noqa: BLE001 - nltk raises anything on a damaged file
        raise ArtifactError(f"{folder} is not a complete WordNet: {error!r}") from error
