"""Guess the scripts and the language of a text, to find rows that do not belong."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Unicode blocks: first code point and script; "" is no letter.
_BLOCKS = (
    (0x0, ""), (0x41, "Latin"), (0x5B, ""), (0x61, "Latin"), (0x7B, ""), (0xAA, "Latin"),
    (0xAB, ""), (0xC0, "Latin"), (0xD7, ""), (0xD8, "Latin"), (0xF7, ""), (0xF8, "Latin"),
    (0x250, "Latin"), (0x2B0, ""), (0x370, "Greek"), (0x400, "Cyrillic"), (0x530, "Armenian"),
    (0x590, "Hebrew"), (0x600, "Arabic"), (0x700, "other"), (0x900, "Devanagari"),
    (0x980, "other"), (0xE00, "Thai"), (0xE80, "other"), (0x10A0, "Georgian"), (0x1100, "Hangul"),
    (0x1200, "other"), (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, ""), (0x2C60, "Latin"),
    (0x2C80, "other"), (0x2E00, ""), (0x3040, "Kana"), (0x3100, "other"), (0x3400, "Han"),
    (0xA000, "other"), (0xA720, "Latin"), (0xA800, "other"), (0xAC00, "Hangul"), (0xD800, ""),
    (0xF900, "Han"), (0xFB00, "Latin"), (0xFB1D, "Hebrew"), (0xFB50, "Arabic"), (0xFE00, ""),
    (0xFE70, "Arabic"), (0xFF00, ""), (0xFF21, "Latin"), (0xFF3B, ""), (0xFF41, "Latin"),
    (0xFF5B, ""), (0xFF66, "Kana"), (0xFFE0, ""), (0x10000, "other"), (0x1F000, ""),
    (0x20000, "Han"), (0x30000, "Han"), (0x32000, "other"),
)  # fmt: skip
SCRIPTS = tuple(dict.fromkeys(script for _, script in _BLOCKS if script))
_TABLE_SIZE = 0x10000
_STARTS = np.array([start for start, _ in _BLOCKS])
_NUMBERS = np.array([SCRIPTS.index(name) if name else len(SCRIPTS) for _, name in _BLOCKS])
_BASIC = _NUMBERS[np.searchsorted(_STARTS, np.arange(_TABLE_SIZE), side="right") - 1].astype("u1")

# The most frequent words of each language that few of the others share.
_FUNCTION_WORDS = {
    "English": "the of and to in is was that for with on are by this from at which not have it "
    "what how why do does i you can my",
    "German": "der die das und ist nicht ein eine mit den von zu auf dem sich des auch wird sie",
    "French": "le la les des et est une dans pour que du qui pas sur au plus avec par il ce",
    "Spanish": "el los las una y es por para con del se no al como su más fue lo pero este",
    "Italian": "il di che è un una per non con sono del della nel gli anche si dei alla ha più",
    "Portuguese": "o os um uma não com para do da em por mais foi como dos ao é seu na pelo",
    "Dutch": "het een van en is dat niet op te zijn met voor die er aan ook als bij werd naar",
    "Swedish": "och att det som är en på för av med den till inte har ett om var från",
    "Polish": "w i na z się do nie jest to że o jak po przez co za od dla był ale",
    "Turkish": "bir ve bu için ile da de olarak çok daha olan ne gibi var en kadar sonra",
}
_WORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}
_BY_SCRIPT = {"Kana": "Japanese", "Han": "Chinese", "Hangul": "Korean", "Thai": "Thai"}
UNKNOWN = "unknown"
MIN_WORDS = 5  # of a text whose language is guessed


def script_letters(texts: Sequence[str]) -> NDArray[np.int64]:
    """(N, S) letters of each text by script, in the order of `SCRIPTS`."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
    script = _BASIC[np.minimum(codes, _TABLE_SIZE - 1)]
    above = np.flatnonzero(codes >= _TABLE_SIZE)
    script[above] = _NUMBERS[np.searchsorted(_STARTS, codes[above], side="right") - 1]
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    width = len(SCRIPTS) + 1
    counts = np.bincount(owner * width + script, minlength=len(texts) * width)
    return counts.reshape(len(texts), width)[:, :-1]


def guess_language(text: str, script: str) -> str:
    """Guess the language of a text, by function words where the script is Latin.

    A short text, or one without function words of a known language, is "unknown".
    """
    if script != "Latin":
        return _BY_SCRIPT.get(script, script)
    words = text.lower().split()
    if len(words) < MIN_WORDS:
        return UNKNOWN
    hits = {language: sum(word in known for word in words) for language, known in _WORDS.items()}
    best = max(hits, key=hits.__getitem__)
    return best if hits[best] else UNKNOWN
