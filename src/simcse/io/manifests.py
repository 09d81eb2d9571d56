"""Folders that prove themselves whole: a manifest with the SHA-256 of every other file."""

import json
from pathlib import Path

from simcse.errors import ArtifactError
from simcse.io.checkpoints import check_checksums, checksums, read_json
from simcse.io.files import write_text

MANIFEST = "manifest.json"
FORMAT = 1


def write_manifest(folder: Path) -> None:
    """Note the SHA-256 of all files that are in ``folder`` now."""
    manifest = {"format": FORMAT, "sha256": checksums(folder)}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def check_manifest(folder: Path) -> None:
    """Compare ``folder`` with its manifest.

    Raises:
        ArtifactError: the manifest is missing or damaged, or a file is not the one it names.
    """
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise ArtifactError(f"{folder / MANIFEST}: expected format {FORMAT}, got {found!r}")
    noted = manifest.get("sha256")
    if not (isinstance(noted, dict) and noted):
        raise ArtifactError(f"{folder / MANIFEST} is damaged: it names no files")
    check_checksums(folder, noted)
