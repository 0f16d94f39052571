"""Downloads: from the first mirror that answers, checked before they are given their name in the cache."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noiseopt.data.archives import naming
from noiseopt.errors import UserError


@dataclass(frozen=True)
class Download:
    """One file to fetch, and how it is known to be the right one.

    `md5`: of the file. `content_sha256`: of what the file decompresses to, for one that is published without
    a checksum and may be compressed anew. One of the two must be given.
    """

    file: str
    md5: str | None = None
    content_sha256: str | None = None


def fetch(download: Download, *, mirrors: tuple[str, ...], folder: Path) -> Path:
    """`folder / download.file`, fetched from the first of `mirrors` (addresses with a slash at the end).

    A file that is there already is checked, and fetched again where it is damaged. Raises UserError where no
    mirror gives the right file; nothing is left behind then.
    """
    import pooch  # Takes 0.2 s to import, and data that are on disk need no download.

    path = folder / download.file
    if download.content_sha256 is not None and path.is_file() and not _has_content(path, download):
        path.unlink()

    def get(url: str, file: str, pooch_: Any) -> None:
        pooch.HTTPDownloader(timeout=60)(url, file, pooch_)
        if download.content_sha256 is not None and not _has_content(Path(file), download):
            raise ValueError("its content is not that of the published file")

    failures = []
    for mirror in mirrors:
        url = mirror + download.file
        known_hash = None if download.md5 is None else f"md5:{download.md5}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pooch.retrieve(url, known_hash=known_hash, fname=download.file, path=folder, downloader=get)
        except (
            OSError,
            ValueError,
        ) as error:  # requests' exceptions are OSErrors; a wrong checksum is a ValueError.
            failures.append(f"{url}: {type(error).__name__}: {error}")
        else:
            return path
    raise UserError(
        f"{download.file} must come, undamaged, from one of its mirrors",
        got="; ".join(failures),
        fix="check the network, or put the files of the data set in a folder and pass it as data_dir "
        "(or NOISEOPT_DATA)",
    )


def _has_content(path: Path, download: Download) -> bool:
    digest = hashlib.sha256()
    try:
        with naming(path), gzip.open(path) as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
    except UserError:
        return False
    return digest.hexdigest() == download.content_sha256
