"""Write the label files of an open-vocabulary data set whose usual preparation is a script.

Files that are there and whole stay as they are, so an interrupted conversion is continued by
starting it again. A file gets its name when it is complete, and is read again before it counts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import CommandError
from .options import new_parser

if TYPE_CHECKING:
    import numpy as np

IGNORED = 65535
#: COCO's numbers, less one, of what became no class of its 80 things.
COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82)
COCO_THINGS = [value for value in range(90) if value not in COCO_GAPS]
ADE_SIDE = 512  # pixels: the usual preparation makes no short side longer than this


class LabelSource(NamedTuple):
    """What one label file is made from.

    Attributes:
        source: The file with the labels as they are published.
        target: The label file to write.
        images: The image and the copy of it to write; None where the image stays as it is.
    """

    source: Path
    target: Path
    images: tuple[Path, Path] | None = None


def coco_object(root: Path) -> list[LabelSource]:
    """COCO-Object, from the label files of COCO-Stuff 164k."""
    files = sorted((root / "annotations/val2017").glob("*.png"))
    files = [file for file in files if not file.stem.endswith("TrainIds")]
    return [
        LabelSource(file, file.with_name(f"{file.stem}_instanceTrainIds.png")) for file in files
    ]


def context459(root: Path) -> list[LabelSource]:
    """Pascal Context with 459 classes, from ``trainval`` of its authors."""
    listed = root / "ImageSets/SegmentationContext/val.txt"
    if not listed.is_file():
        raise FileNotFoundError(
            f"the list of images {listed} does not exist: mmseg's "
            "tools/dataset_converters/pascal_context.py writes it"
        )
    folder = root / "annotations_detectron2/pc459_val"
    names = listed.read_text().split()
    return [LabelSource(root / f"trainval/{name}.mat", folder / f"{name}.tif") for name in names]


def ade20k_847(root: Path) -> list[LabelSource]:
    """ADE20K-Full, from the color images beside its photographs."""
    samples = []
    for source in sorted((root / "images/ADE/validation").rglob("*_seg.png")):
        name = source.name.removesuffix("_seg.png")
        copy = root / f"images_detectron2/validation/{name}.jpg"
        target = root / f"annotations_detectron2/validation/{name}.tif"
        samples.append(LabelSource(source, target, (source.with_name(f"{name}.jpg"), copy)))
    return samples


def convert_coco_object(sample: LabelSource) -> np.ndarray:
    """1 to 80 for the things of COCO, 0 for all else, (H, W), uint8."""
    import numpy as np

    values = _read(sample.source)
    table = np.zeros(256, np.uint8)
    table[COCO_THINGS] = np.arange(1, len(COCO_THINGS) + 1)
    if values.dtype != np.uint8 or values.ndim != 2 or np.isin(values, COCO_GAPS).any():
        raise CommandError(f"{sample.source} is not one of COCO-Stuff's published label files")
    return table[values]


def convert_context459(sample: LabelSource) -> np.ndarray:
    """The number of the class less one, 65535 where there is none, (H, W), uint16."""
    import numpy as np
    from scipy.io import loadmat

    try:
        values = loadmat(sample.source)["LabelMap"].astype(np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"{sample.source} holds no label map: {error}") from error
    if values.min() < 0 or values.max() > 459:
        raise CommandError(f"{sample.source} holds other values than the 459 classes")
    return np.where(values == 0, IGNORED, values - 1).astype(np.uint16)


def convert_ade20k_847(sample: LabelSource) -> np.ndarray:
    """Class indices, 65535 for other objects, (h, w), uint16; also writes the image at this size.

    Red tells the hundreds of an object's number and green the rest: 256 * (red // 10) + green.
    """
    import mmcv
    import numpy as np
    from PIL import Image

    from mmseg_otseg.imaging.outputs import save_image

    from .ade20k_ids import ADE20K_IDS

    assert sample.images is not None
    (photo, copy), colors = sample.images, _read(sample.source)
    image = _read(photo, "RGB")
    if colors.ndim != 3 or colors.shape[:2] != image.shape[:2]:
        raise CommandError(f"{sample.source} is not the color image of {photo}")
    table = np.full(26 * 256, IGNORED, np.uint16)
    table[ADE20K_IDS] = np.arange(len(ADE20K_IDS))
    labels = table[colors[..., 0] // 10 * np.uint16(256) + colors[..., 1]]
    height, width = labels.shape
    factor = ADE_SIDE / min(height, width)
    if factor < 1:  # with the interpolations of the usual preparation
        size = (round(factor * width), round(factor * height))
        labels = mmcv.imresize(labels, size, interpolation="nearest")
        image = mmcv.imresize(image, size)
    save_image(Image.fromarray(image), copy)
    return labels


#: Which files are converted, how, and what to do if they are not there.
CONVERTERS: dict[str, tuple[Callable, Callable, str]] = {
    "coco_object": (
        coco_object,
        convert_coco_object,
        "unpack stuffthingmaps_trainval2017.zip of COCO-Stuff into annotations/",
    ),
    "context459": (
        context459,
        convert_context459,
        "unpack trainval.tar.gz of Pascal Context there",
    ),
    "ade20k_847": (
        ade20k_847,
        convert_ade20k_847,
        "unpack ADE20K_2021_17_01 of the ADE20K data set there",
    ),
}


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("data", choices=CONVERTERS, help="the data set")
    parser.add_argument(
        "--root", type=Path, help="its folder. Default: the one in configs/open_vocabulary"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="threads")
    return parser.parse_args()


def convert_data(name: str, root: Path, workers: int = 1) -> tuple[int, int]:
    """Write the label files of a data set that are not there yet.

    Args:
        name: One of ``CONVERTERS``.
        root: Folder of the data set.
        workers: Threads.

    Returns:
        How many label files there are, and how many of them were written by this call.

    Raises:
        FileNotFoundError: If the published files are missing.
        CommandError: If one of them is not what it should be.
        OSError: If a file cannot be written, or is not read as it was written.
    """
    from rich.progress import track

    samples_of, convert, download = CONVERTERS[name]
    samples = samples_of(root)
    missing = [str(s.source) for s in samples if not s.source.is_file()]
    if missing or not samples:
        where = f"{len(missing)} files, such as {missing[0]}," if missing else f"the data of {name}"
        raise FileNotFoundError(
            f"{where} in {root} ({root.absolute()}) cannot be found: {download}, or give --root"
        )
    with ThreadPoolExecutor(workers) as pool:
        written = pool.map(lambda sample: _write(sample, convert), samples)
        return len(samples), sum(track(written, f"converting {name}", len(samples)))


def _write(sample: LabelSource, convert: Callable[[LabelSource], np.ndarray]) -> bool:
    """Write the label file of a sample, unless it is there; whether it was written."""
    import numpy as np
    from PIL import Image

    from mmseg_otseg.imaging.outputs import save_image

    files = [sample.target] if sample.images is None else [sample.target, sample.images[1]]
    if all(map(_is_whole, files)):
        return False
    labels = convert(sample)
    save_image(Image.fromarray(labels), sample.target)
    if not np.array_equal(_read(sample.target), labels):
        raise OSError(f"{sample.target} does not hold what was written to it: check the disk")
    return True


def _is_whole(file: Path) -> bool:
    try:
        return _read(file).size > 0
    except (OSError, SyntaxError):  # Pillow's, about a broken PNG
        return False


def _read(file: Path, mode: str | None = None) -> np.ndarray:
    """The values of an image file, in a mode of Pillow's if one is given."""
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image if mode is None else image.convert(mode))


def main() -> None:
    args = parse_args()
    from .open_vocabulary import read_data_config

    root = args.root or Path(read_data_config(args.data).data_root)
    total, written = convert_data(args.data, root, args.workers)
    print(f"{args.data}: {total} label files in {root}, {written} of them new")
