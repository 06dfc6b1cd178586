"""The verbs that get data: download, convert-urls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cig.cli.flags import FetchFlags, Flag, Several, output_file
from cig.download import FetchSettings
from cig.errors import IncompleteError, UsageError, some
from cig.io import outputs


def download(
    name: str | None = None,
    /,
    *,
    dataset: str | None = None,
    dataset_path: Annotated[Path | None, Parameter(alias="--dataset-dir")] = None,
    categories: Annotated[tuple[str, ...], Several] = (),
    splits: Annotated[tuple[str, ...], Several] = (),
    mirror: Annotated[tuple[str, ...], Flag] = (),
    annotations_from: str | None = None,
    urls_from: str | None = None,
    pictures_from: str | None = None,
    from_dir: Path | None = None,
    from_zip: Annotated[tuple[Path, ...], Flag] = (),
    link: Annotated[bool, Flag] = False,
    delete_zip: Annotated[bool, Flag] = False,
    flat: Annotated[bool, Flag] = False,
    placeholder_at: int | None = None,
    retry_final: Annotated[bool, Flag] = False,
    no_pictures: Annotated[bool, Parameter(name="--no-pictures", negative="")] = False,
    settings: FetchFlags = FetchSettings(),
    json: Annotated[Path | None, output_file(outputs.OUTCOME)] = None,
) -> None:
    """Gets a dataset's annotations and pictures: what is there is kept, a rerun goes on. Exit code 1: incomplete.

    Parameters
    ----------
    name
        fashioniq, circo, cirr, genecis, imagenet-r, lasco, coco-composition, circus; or NAME/SPLIT.
    dataset
        The same, where it is not given as the first argument.
    dataset_path
        The dataset's own folder, which is made; or the parent of a folder of its name. Default: ./datasets/NAME.
    categories
        FashionIQ: some of dress, shirt, toptee. Default: all.
    splits
        Some of its splits. Default: all; of CIRR val and test1.
    mirror
        Where pictures may be had, too: an address with {asin}, {name} (of the file), {url} or {quoted} in it. Several
        are tried in order, after the address of the list, unless that is put among them as {url}.
    annotations_from
        The address that annotation files are below. Default: the official repository.
    urls_from
        FashionIQ: the address that the lists asin2url.CATEGORY.txt are below.
    pictures_from
        CIRCO: the address that COCO's zips/ and annotations/ are below. Default: http://images.cocodataset.org.
    from_dir
        Pictures that you have: a folder, searched with all below it, links to folders apart. Each is checked before it
        is taken.
    from_zip
        Pictures that you have, in a zip (not FashionIQ); may be given several times. It is never deleted.
    link
        With --from-dir: hard links, where the disk allows them, not copies.
    delete_zip
        Delete a zip that was downloaded once all of it was unpacked and checked.
    flat
        FashionIQ: all pictures into images/downloaded/, not into a folder a category.
    placeholder_at
        FashionIQ: content that so many addresses serve is the shop's placeholder, and is set apart. Default: 5.
    retry_final
        Ask again, too, for what was found to be gone or a placeholder.
    no_pictures
        Annotations alone.
    json
        Write what there is and what is lacking here, with every name.
    """
    from cig.download import download_dataset, need_complete
    from cig.io.images import limit_pixels

    limit_pixels(settings.max_pixels)
    if not (name or dataset) or (name and dataset and name != dataset):
        raise UsageError("which dataset? Give it as the first argument or by --dataset: cig download fashioniq")
    outcome = download_dataset(
        str(name or dataset),
        dataset_path,
        settings,
        json=json,
        categories=categories,
        splits=splits,
        mirror=mirror,
        annotations_from=annotations_from,
        urls_from=urls_from,
        pictures_from=pictures_from,
        from_dir=from_dir,
        from_zip=from_zip,
        link=link,
        delete_zip=delete_zip,
        flat=flat,
        placeholder_at=placeholder_at,
        retry_final=retry_final,
        no_pictures=no_pictures,
    )
    print(outcome.text)
    need_complete(str(name or dataset), outcome)


def convert_urls(file: Path, out: Annotated[Path, output_file(outputs.ADDRESSES)], /) -> None:
    """Turns a list of FashionIQ's addresses into its other form: asin2url.dress.txt <-> dress.json.

    Lines that are not valid are left out and named; then the exit code is 1.

    Parameters
    ----------
    file
        A .txt (ASIN, tab, URL; a line each), or a .json ([{"asin": ..., "url": ...}]).
    out
        The list to write: .txt or .json.
    """
    from cig.download._url_lists import convert

    converted = convert(file, out)
    print(f"{out}: {len(converted.urls):,} ids of {converted.lines:,} lines")
    if converted.refused:
        raise IncompleteError(f"{len(converted.refused):,} lines of {file} are not valid: {some(converted.refused)}")
