"""A WordNet of a few senses in WordNet's own format (wndb(5WN)), made up for the tests."""

from pathlib import Path

SENSES = {  # by part of speech: the words of each sense
    "noun": [["dog", "hound_dog"], ["dog", "rascal"], ["cat"], ["car", "motor-car"]],
    "verb": [["run", "dash"], ["walk"]],
    "adj": [["big", "large"]],
    "adv": [["soon", "shortly"]],
}
EXCEPTIONS = {"verb": "ran run\n"}
LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
NOTICE = "  1 This is not WordNet.\n"


def write_wordnet(folder: Path) -> Path:
    """Write the files that Debian's wordnet-base has, without those only nltk's copy has."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, senses in SENSES.items():
        data, offsets = NOTICE, dict[str, list[str]]()
        for words in senses:
            offset = f"{len(data.encode()):08}"
            spelled = " ".join(f"{word} 0" for word in words)
            data += f"{offset} 03 {LETTERS[kind]} {len(words):02x} {spelled} 000 | made up  \n"
            for word in words:
                offsets.setdefault(word, []).append(offset)
        index = NOTICE + "".join(
            f"{word} {LETTERS[kind]} {len(found)} 0 {len(found)} 0 {' '.join(found)}  \n"
            for word, found in sorted(offsets.items())
        )
        (folder / f"data.{kind}").write_text(data)
        (folder / f"index.{kind}").write_text(index)
        (folder / f"{kind}.exc").write_text(EXCEPTIONS.get(kind, ""))
    return folder
