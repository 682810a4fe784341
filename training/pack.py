"""Rebuild the pictures that the released model learned from, out of Debian packages.

    python -m training.pack --out data

Three packages are fetched with ``apt-get download`` (1.5 GB, nothing is installed) and read with
``dpkg-deb``:

    endless-sky-high-dpi    landscape photographs, mostly of morguefile and Unsplash
    flightgear-data-base    the colours of Earth (NASA Earth Observatory, Natural Earth)
    marble-qt-data          the heights of Earth, sea floor included (Natural Earth)

The captions were written by hand and lie beside this file. They also say which photographs are
packed: cities, stations, spacecraft and planets are left out.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageFilter

from handscroll.errors import HandscrollError, InvalidRequest, Unavailable

CAPTIONS = Path(__file__).with_name("landscape_captions.csv")

PHOTOGRAPHS = "endless-sky-high-dpi"
COLOURS = "flightgear-data-base"
HEIGHTS = "marble-qt-data"

EARTH_PX = (10800, 5400)
TILE_PX = 675

_PUBLIC = "public domain (per Debian copyright file)"
_CREDITS = (
    ("bwerner*", "CC-BY-SA-3.0", "Berthold Werner"),
    ("dmottl*", "CC-BY-SA-3.0", "Dmitry A. Mottl"),
    ("myrabella*", "CC-BY-SA-3.0", "Myrabella"),
    ("*-harro", "CC-BY-SA-4.0", "@harro.eu"),
    ("*-sfiera", "CC-BY-SA-4.0", "Chris Pickel"),
    ("*-spfld", "CC-BY-SA-4.0", "Eric Denni"),
    ("*-striker", "CC-BY-SA-4.0", "Michael Wilso"),
    ("lava5", "CC-BY-SA-4.0", "Michael Zahniser"),
    ("desert0", _PUBLIC, "NASA"),
    ("lava0", _PUBLIC, "USGS"),
    ("*", _PUBLIC, "various, of morguefile and Unsplash"),
)
"""Names without extension, licences and authors, first match; from the package's copyright file."""

Image.MAX_IMAGE_PIXELS = None  # the Earth map is 58 megapixels, and ours


def fetch(package: str, folder: Path) -> Path:
    """Download a package into a folder, or find it there, and return its file."""
    if not list(folder.glob(f"{package}_*.deb")):
        typer.echo(f"downloading {package}")
        result = subprocess.run(
            [_tool("apt-get"), "download", package], cwd=folder, capture_output=True, text=True
        )
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise Unavailable(
                f"apt-get cannot download {package} ({reason}); is the package list up to date?"
            )
    return next(folder.glob(f"{package}_*.deb"))


def members(package: Path, wanted: str) -> Iterator[tuple[re.Match[str], bytes]]:
    """The files of a package whose path matches a pattern, with their contents.

    The package is read as a stream: unpacked, it would take another three gigabytes.
    """
    command = [_tool("dpkg-deb"), "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    match = re.search(wanted, member.name)
                    file = archive.extractfile(member) if match else None
                    if match and file:
                        yield match, file.read()
        except tarfile.TarError as error:
            raise Unavailable(f"{package.name} is damaged: {error}") from error
        process.stdout.read()  # the padding, or dpkg-deb would end with a broken pipe
        if process.wait():
            raise Unavailable(f"{package.name} is damaged: dpkg-deb cannot read all of it")


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"{name} is not installed; this needs Debian, or a system like it")
    return path


def pack_landscapes(package: Path, out: Path) -> None:
    """Write the photographs that have captions, the captions, and whom to thank for what."""
    with CAPTIONS.open(encoding="utf-8", newline="") as file:
        names = [Path(row["file"]).stem for row in csv.DictReader(file)]
    missing = set(names)
    for match, data in members(package, r"/images/land/([^/]+)@2x\.jpg$"):
        if match[1] in missing:
            missing.remove(match[1])
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            picture.save(out / f"{match[1]}.webp", quality=88)
    if missing:
        raise Unavailable(f"{package.name} lacks {len(missing)} pictures, such as {min(missing)}")

    shutil.copyfile(CAPTIONS, out / "captions.csv")
    version = package.name.split("_")[1].rsplit("-", 1)[0]
    with (out / "attribution.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["file", "category", "licence", "author", "debian_package", "original_name"]
        )
        for name in names:
            category = re.sub(r"\d.*", "", name)
            licence, author = next(
                credit for pattern, *credit in _CREDITS if fnmatchcase(name, pattern)
            )
            origin = (f"{PHOTOGRAPHS} {version}", f"{name}@2x.jpg")
            writer.writerow([f"{name}.webp", category, licence, author, *origin])


def pack_earth(colours: Path, heights: Path, out: Path) -> None:
    """Write the heights of Earth, and its colours shaded by the slope of the heights."""
    height, tiles = Image.new("L", EARTH_PX), 0
    for match, data in members(heights, r"/srtm/3/(\d+)/\d+_(\d+)\.jpg$"):
        corner = int(match[2]) * TILE_PX, int(match[1]) * TILE_PX
        height.paste(Image.open(io.BytesIO(data)).convert("L"), corner)
        tiles += 1
    if tiles * TILE_PX**2 != height.width * height.height:
        raise Unavailable(f"{heights.name} has {tiles} tiles of heights, not enough for the Earth")
    halved = height.resize((EARTH_PX[0] // 2, EARTH_PX[1] // 2), Image.Resampling.LANCZOS)
    halved.save(out / "earth_heights.webp", quality=85)

    found = next((data for _, data in members(colours, r"/Globe/globe_colors\.jpg$")), None)
    if found is None:
        raise Unavailable(f"{colours.name} lacks globe_colors.jpg")
    colour = Image.open(io.BytesIO(found)).convert("RGB")
    relief = shaded(colour.resize(EARTH_PX, Image.Resampling.BICUBIC), height)
    # The map was first kept as a JPEG; without that detour the bytes would not be the same again.
    detour = io.BytesIO()
    relief.save(detour, "JPEG", quality=92)
    Image.open(detour).save(out / "earth_relief.webp", quality=88)


def shaded(colour: Image.Image, height: Image.Image) -> Image.Image:
    """Light a map from the north-west: slopes that face the light are brighter."""
    # The heights come from JPEG tiles; the blur keeps their blocks out of the slopes.
    smooth = np.asarray(height.filter(ImageFilter.GaussianBlur(1.2))).astype(np.float32)
    southward, eastward = np.gradient(smooth)
    shade = np.clip(1 + 0.08 * (southward + eastward), 0.45, 1.6)
    relief = np.array(colour)
    for channel in range(3):
        relief[..., channel] = np.clip(relief[..., channel] * shade, 0, 255)
    return Image.fromarray(relief)


def main(
    out: Annotated[Path, typer.Option(help="folder to write; must be new or empty")],
    packages: Annotated[
        Path | None,
        typer.Option(help="folder to keep the packages in, or find them", exists=True),
    ] = None,
) -> None:
    """Rebuild the training pictures from Debian packages."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidRequest(f"{out} is there already; remove it, or name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, so that the finished pack is moved into place in one step.
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
        debs = packages or Path(temporary)
        pack = Path(temporary) / "pack"
        for folder in ("landscapes", "earth"):
            (pack / folder).mkdir(parents=True)
        photographs, colours, heights = (
            fetch(package, debs) for package in (PHOTOGRAPHS, COLOURS, HEIGHTS)
        )
        typer.echo("packing the landscapes")
        pack_landscapes(photographs, pack / "landscapes")
        typer.echo("packing the Earth")
        pack_earth(colours, heights, pack / "earth")
        pack.replace(out)
    typer.echo(f"{out}: ready")


if __name__ == "__main__":
    try:
        typer.run(main)
    except HandscrollError as error:
        sys.exit(f"error: {error}")
