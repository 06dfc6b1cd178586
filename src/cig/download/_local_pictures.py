"""Import FashionIQ's pictures from a folder of the user's: matched by name, checked, copied or linked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from cig.download._fashioniq_pictures import PictureStore
from cig.download._folder_scan import scan_folder
from cig.download._picture_checks import Refused, examine_files
from cig.runtime import progress


@dataclass
class FolderImport:
    """What became of the pictures of a folder.

    Attributes:
        taken: how many pictures.
        kept: names in the folder whose picture was in the dataset already.
        refused: file -> what is wrong with it.
        foreign: pictures whose id is not wanted.
        links: to folders, which are not followed.
        unreadable: folders that cannot be listed.
    """

    folder: Path
    taken: int = 0
    kept: Collection[str] = ()
    refused: dict[Path, str] = field(default_factory=dict)
    foreign: Collection[str] = ()
    links: Collection[str] = ()
    unreadable: Collection[str] = ()


def import_pictures(store: PictureStore, folder: Path, ids: Collection[str], *, most: int, link: bool) -> FolderImport:
    """Copy or link the pictures that the store lacks and the folder has.

    Args:
        most: bytes of a picture.
        link: make hard links, where the disk allows them.
    """
    scan = scan_folder(folder, ids)
    kept = [name for name in scan.best() if store.has(name)]
    result = FolderImport(folder, kept=kept, foreign=scan.foreign, links=scan.links, unreadable=scan.unreadable)
    for files in (scan.pictures, scan.others):  # files without the suffix of a picture only for what is still lacking
        wanted = {Path(path): name for name, paths in files.items() if store.lacking(name) for path in paths}
        for path, content in progress(examine_files(wanted, most), len(wanted), f"adopt from {folder}", unit="picture"):
            if isinstance(content, Refused):
                result.refused[path] = content.kind
            elif store.lacking(wanted[path]):
                store.put(wanted[path], content, str(path), link=path if link else None)
                result.taken += 1
            elif store.ledger.lines[wanted[path]].digest != content.digest:
                result.refused[path] = "another file of its id was taken"
    return result
