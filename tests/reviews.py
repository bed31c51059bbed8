"""A few dozen reviews, in the official archive's form, for whole runs that are about the way and not the model."""

from pathlib import Path

from tests.archives import archive

REVIEWS_PER_LABEL = 40


def few_reviews(path: Path) -> Path:
    """Write the archive to *path*: as many good ones as bad ones in either half."""
    words = {"pos": "good", "neg": "bad"}
    files = {
        f"aclImdb/{half}/{label}/{number}_9.txt": f"a {word} film, number {number} in {half}".encode()
        for half in ("train", "test")
        for label, word in words.items()
        for number in range(REVIEWS_PER_LABEL)
    }
    path.write_bytes(archive(files))
    return path
