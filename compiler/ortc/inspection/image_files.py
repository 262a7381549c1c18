"""The images of a directory, found by their names."""

from pathlib import Path

from ortc.common.errors import StageError

IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Suffixes, in lower case, of the files of a directory that are samples; other files are passed over."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""What Pillow may take such a file for, whatever its name says: for others it starts programs, such as Ghostscript."""


def image_files(directory: Path) -> list[Path]:
    """The images of a directory and of those below it, by relative path; nothing hidden.

    Raises:
        StageError: there are none, or the name of one is not UTF-8.
    """
    found = {
        path.relative_to(directory).as_posix(): path
        for path in directory.rglob("*")
        if path.suffix.lower() in IMAGES and path.is_file()
    }
    names = sorted(name for name in found if not any(part.startswith(".") for part in name.split("/")))
    if not names:
        raise StageError(
            f"the samples `{directory.name}` are a directory without images",
            help=f"images are {', '.join(IMAGES)} in it or below it; give other data as .npz with an array an input",
        )
    for name in names:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise StageError(
                f"the name of the image `{ascii(name)[1:-1]}` of the samples is not UTF-8", help="rename it"
            ) from error
    return [found[name] for name in names]
