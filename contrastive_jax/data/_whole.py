"""Images for an encoder that is trained: every one of a data set, with its name, or those that a caller has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contrastive_jax.data import _check, _folder, _layout, _npz, _pixels, _spec, _stored, _walk
from contrastive_jax.data._source import Source, labels_of, name_of, num_classes_of
from contrastive_jax.errors import MissingExtraError, SourceError


class WholeSource:
    """Several sources of images of one shape, one after the other.

    Args:
        parts: (what the names of its images begin with, source) of each.
    """

    def __init__(self, parts: Sequence[tuple[str, Source]]):
        sources = [source for _, source in parts]
        self.name = name_of(sources[0])
        self.image_shape = sources[0].image_shape
        self.names = [f"{prefix}/{index}" for prefix, source in parts for index in range(len(source))]
        labels = [labels_of(source) for source in sources]
        self.labels = None if any(x is None for x in labels) else np.concatenate([x for x in labels if x is not None])
        self.num_classes = None if self.labels is None else max(num_classes_of(source) or 0 for source in sources)
        self.sources = sources
        self._starts = np.cumsum([0, *(len(source) for source in sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, int [b]: uint8 [b, h, w, c]."""
        indices = np.asarray(indices)
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for source, start, stop in zip(self.sources, self._starts[:-1], self._starts[1:], strict=True):
            rows = (indices >= start) & (indices < stop)
            if rows.any():
                images[rows] = _check.take(source, indices[rows] - start)
        return images


class FolderSource:
    """Every image below a folder or several, decoded whenever it is taken: nothing is kept.

    Args:
        name: what was loaded.
        roots: the folders.
        paths: of the images.
        labels: int [n]; None for none.
        image_shape: (h, w, c) of every image.
        stored_size: side that the images are resized to; None leaves them as they are.
    """

    def __init__(
        self,
        name: str,
        roots: list[str],
        paths: list[str],
        labels: np.ndarray | None,
        *,
        image_shape: tuple[int, int, int],
        stored_size: int | None,
    ):
        self.name, self.image_shape, self.labels = name, image_shape, labels
        self.num_classes = None if labels is None else int(labels.max()) + 1
        # Below one folder the rest of the path says which image it is.
        self.names = [_folder.relative_to(path, roots)[1] for path in paths] if len(roots) == 1 else paths
        self._roots, self._paths, self._stored_size = roots, paths, stored_size

    def __len__(self) -> int:
        return len(self._paths)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, int [b]: uint8 [b, h, w, c]."""
        return np.stack(list(_stored._READERS.map(self._decode, np.asarray(indices).tolist())))

    def identity(self) -> str:
        """What identifies the images without reading them: the names and sizes of the files."""
        return f"files {_folder._digest_of_files(self._paths, self._roots)}"

    def _decode(self, index: int) -> np.ndarray:
        path = self._paths[index]
        try:
            return _pixels.decode(path, shape=self.image_shape, stored_size=self._stored_size)
        except MissingExtraError:
            raise
        except Exception as error:  # whatever Pillow raises, this file is why
            raise _folder._broken(path, error) from error


def open_whole_folder(spec: _spec.Spec, *, image_size: int | None, stored_size: int | None) -> FolderSource:
    """Every image below the folders at any depth, in the order of their paths; labels where each lies in a class."""
    name, roots = f"folder:{spec.rest}", _spec.parse_folders(spec.rest)
    for root in roots:
        if not os.path.isdir(root):
            raise SourceError(f"{root}: expected a folder of images, got no such folder")
    paths = [path for root in roots for path in sorted(_walk.images_below(root, _walk.Passed()))]
    if not paths:
        raise SourceError(
            f"{' and '.join(roots)}: expected a folder of images ({_pixels.FORMATS}), got one without any"
        )
    shapes = _folder._shapes(paths)
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=name)
    height, width = next(iter(shapes)) if side is None else (side, side)
    shape = (height, width, _folder._CHANNELS)
    labels = _find_labels(roots, paths) if spec.labels else None
    return FolderSource(name, roots, paths, labels, image_shape=shape, stored_size=side)


def _find_labels(roots: list[str], paths: list[str]) -> np.ndarray | None:
    try:
        layout = _folder.read_layouts(roots, labels=True)
    except SourceError:  # no classes
        return None
    known: dict[str, int] = {}
    for files in (layout.train, layout.test):
        if isinstance(files, _layout.Files) and files.labels is not None:
            known |= dict(zip(files.paths, files.labels.tolist(), strict=True))
    return np.array([known[path] for path in paths], np.int32) if all(path in known for path in paths) else None


def open_whole_npz(path: str, *, image_size: int | None, stored_size: int | None, labels: bool = True) -> WholeSource:
    """The images of `image` and, if it is there, of `image_test`, in the order of the file."""
    file, name = Path(path).expanduser(), f"npz:{path}"
    arrays = _npz._read(file)
    keys = [key for key in ("image", "image_test") if key in arrays]
    if not keys:
        raise SourceError(f"{file}: expected an array 'image', got {sorted(arrays) or 'none that is known'}")
    images = {key: _check.image_array(f"{file}: {key}", arrays[key]) for key in keys}
    found = {key: arrays.get(key.replace("image", "label")) if labels else None for key in keys}
    shapes = [x.shape[1:3] for x in images.values()]
    side = _stored.stored_side(shapes, image_size=image_size, stored_size=stored_size, name=str(file))
    resized = {key: x if side is None else _stored.resized(x, side) for key, x in images.items()}
    return WholeSource([(key, _stored.ArraySource(resized[key], found[key], name=name)) for key in keys])


def store(images: np.ndarray, *, image_size: int, stored_size: int | None = None) -> np.ndarray:
    """Images as a source of theirs would store them, see `load`: as they are, or as squares near what views need.

    Args:
        images: uint8 [n, h, w, c] with c 1 or 3.
        image_size: side of the views in pixels.
        stored_size: side of the square that each is resized to, in place of the rule.

    Example:
        >>> from contrastive_jax.data import sources
        >>> sources.store(np.zeros((2, 30, 40, 3), np.uint8), image_size=14).shape
        (2, 16, 16, 3)
    """
    side = _stored.stored_side([images.shape[1:3]], image_size=image_size, stored_size=stored_size, name="images")
    return images if side is None or not len(images) else _stored.resized(images, side)
