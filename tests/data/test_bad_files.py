"""Files that are not what they seem: read as one would expect, or refused by name; nothing runs, memory is bounded."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from contrastive_jax.data import _npz, sources
from contrastive_jax.errors import SourceError
from tests.data.test_sources import refused, save_npz

SIXTEEN = np.arange(0, 65536, 4096, dtype=np.uint16).reshape(4, 4)
COLOURS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)


def encoded(pixels, form, mode=None, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels, mode).save(stream, form, **options)
    return stream.getvalue()


def plain(mode, colour, form, **options):
    stream = io.BytesIO()
    Image.new(mode, (8, 8), colour).save(stream, form, **options)
    return stream.getvalue()


def png(width, height, depth, colour_type, rows):
    """A PNG of which Pillow would not write its like."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sixteen_bit_rgb():
    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in SIXTEEN)
    return png(4, 4, 16, 2, rows)


def rotated_by_its_metadata():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(COLOURS, "PNG", exif=exif)


def animation(form):
    return plain("RGB", "red", form, save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])


def folder_of(tmp_path, name, data):
    """A folder with one class and one image, and the image's file."""
    file = tmp_path / "train" / "a" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return f"folder:{tmp_path}", file


def only_image(tmp_path, name, data, **options):
    return sources.load(folder_of(tmp_path, name, data)[0], split="train", **options).take(np.arange(1))[0]


RED = np.uint8([255, 0, 0])
GREY = np.repeat((SIXTEEN >> 8).astype(np.uint8)[..., None], 3, axis=2)
UNUSUAL = {
    "sixteen_bits.png": (encoded(SIXTEEN, "PNG"), GREY),
    "sixteen_bits.tif": (encoded(SIXTEEN, "TIFF"), GREY),
    "sixteen_bits.pgm": (b"P5 4 4 65535\n" + SIXTEEN.astype(">u2").tobytes(), GREY),
    "sixteen_bit_rgb.png": (sixteen_bit_rgb(), GREY),
    "cmyk.tif": (plain("CMYK", (255, 0, 0, 0), "TIFF"), np.uint8([0, 255, 255])),
    "cmyk.jpg": (plain("CMYK", (0, 255, 0, 0), "JPEG", quality=100), np.uint8([255, 0, 255])),
    "transparent.png": (plain("RGBA", (200, 100, 50, 0), "PNG"), np.uint8([200, 100, 50])),
    "animated.gif": (animation("GIF"), RED),
    "animated.png": (animation("PNG"), RED),
    "rotated.png": (rotated_by_its_metadata(), COLOURS),
    "one_pixel.png": (encoded(RED.reshape(1, 1, 3), "PNG"), RED.reshape(1, 1, 3)),
    "wide.png": (encoded(np.tile(RED, (1, 20_000, 1)), "PNG"), np.tile(RED, (1, 20_000, 1))),
    "a_bitmap.png": (encoded(COLOURS, "BMP"), COLOURS),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_images_are_read(name, tmp_path):
    data, want = UNUSUAL[name]
    image = only_image(tmp_path, name, data)
    np.testing.assert_array_equal(image, np.broadcast_to(want, image.shape))
    assert want.ndim == 1 or image.shape == want.shape


def test_a_wide_image_is_stored_square(tmp_path):
    image = only_image(tmp_path, "wide.png", encoded(np.tile(RED, (10, 20_000, 1)), "PNG"), stored_size=16)
    np.testing.assert_array_equal(image, np.broadcast_to(RED, (16, 16, 3)))


REFUSED_IMAGES = {
    "text.png": (b"a text", "cannot identify"),
    "empty.jpg": (b"", "cannot identify"),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "cannot identify"),
    "integers.tif": (encoded(SIXTEEN.astype(np.int32), "TIFF"), "32-bit numbers"),
    "floats.tif": (encoded(SIXTEEN.astype(np.float32), "TIFF"), "32-bit numbers"),
    "cut.png": (encoded(COLOURS, "PNG")[:-40], ""),
    "cut.jpg": (encoded(COLOURS, "JPEG")[:-40], "truncated"),
    "bomb.png": (png(20_000, 20_000, 8, 2, b""), "400000000 pixels"),
    "smaller_bomb.png": (png(13_000, 13_000, 8, 2, b""), ""),
}


@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_bad_images_are_refused_by_name(name, tmp_path):
    data, found = REFUSED_IMAGES[name]
    with pytest.raises(SourceError) as caught:
        only_image(tmp_path, name, data)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "train" / "a" / name)) and "\n" not in message
    assert found in message and "expected a whole BMP, GIF, JPEG" in message


def test_an_image_that_became_another_is_named(tmp_path):
    spec, file = folder_of(tmp_path, "0.png", encoded(COLOURS, "PNG"))
    source = sources.load(spec, split="train")
    file.write_bytes(plain("RGB", "red", "PNG"))
    with pytest.raises(SourceError, match=r"0\.png.*expected shape \[9, 7, 3\], got \[8, 8, 3\]"):
        source.take(np.arange(1))


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def npy_header(shape, descr="'|u1'"):
    """A .npy whose header announces `shape`, with ten bytes of it."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(10)


LABELS = npy(np.array([0, 1] * 10))


def zipped(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return f"npz:{path}"


BAD_MEMBERS = {
    "huge": (npy_header((10**6, 10**5, 3)), "300000000000 bytes; it holds 10"),
    "negative": (npy_header((-2, -5)), "got one that cannot be read"),
    "float_nan": (npy(np.full((20, 2, 2), np.nan, np.float32)), "expected uint8"),
    "objects": (npy_header((2,), "'|O'"), "Python objects"),
    "fields": (npy_header((1,), "[('a', 'u1', (10,))]"), "expected uint8"),
    "code": (npy_header("__import__('os').abort()"), "got one that cannot be read"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(20), "version"),
    "no_array": (b"text", "got one that cannot be read"),
    "pickle": (pickle.dumps([1, 2]), "got one that cannot be read"),
}


@pytest.mark.parametrize("member", BAD_MEMBERS)
def test_bad_arrays_are_refused_by_name(member, tmp_path):
    data, found = BAD_MEMBERS[member]
    refused(zipped(tmp_path / "a.npz", image=data, label=LABELS), tmp_path / "a.npz", found, "expected")


def test_labels_beyond_any_number_of_classes_are_refused(tmp_path):
    """As int32, which they become, this one would be 1."""
    labels = np.array([0, 2**32 + 1], np.uint64)
    refused(save_npz(tmp_path / "a.npz", image=np.zeros((2, 2, 2), np.uint8), label=labels), "a.npz", 2**32 + 1)


class Harm:
    """What a pickle could do: make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["pickle", "npy", "npz", "member"])
def test_no_pickle_is_executed(form, tmp_path):
    file, harm = tmp_path / "a.npz", Harm(tmp_path / "harmed")
    match form:
        case "pickle":
            file.write_bytes(pickle.dumps(harm))
        case "npy":
            file.write_bytes(npy(np.array([harm], object)))
        case "npz":
            np.savez(file, image=np.zeros((2, 2, 2), np.uint8), label=np.array([harm] * 2, object))
        case "member":
            zipped(file, image=pickle.dumps(harm), label=LABELS)
    refused(f"npz:{file}", file, "got one that cannot be read")
    assert not harm.folder.exists()
    pickle.loads(pickle.dumps(harm))
    assert harm.folder.exists()


FUZZED = {
    **{form: encoded(COLOURS, form) for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")},
    "JPEG progressive": encoded(COLOURS, "JPEG", progressive=True),
    "PNG palette": plain("P", 3, "PNG"),
}


@st.composite
def damage(draw, data):
    """`data` cut short somewhere, some of its bytes changed."""
    damaged = bytearray(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)
    for _ in range(draw(st.integers(0, 8)) if damaged else 0):
        damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged)


many = hypothesis.settings(max_examples=10 * hypothesis.settings().max_examples)


@pytest.mark.parametrize("form", FUZZED)
@many
@hypothesis.given(st.data())
def test_damaged_images_are_read_or_refused(form, tmp_path_factory, data):
    spec, file = folder_of(tmp_path_factory.mktemp("fuzz"), "0.png", data.draw(damage(FUZZED[form])))
    try:
        image = sources.load(spec, split="train", stored_size=8).take(np.arange(1))[0]
    except SourceError as error:
        assert str(error).startswith(str(file))
    else:
        assert image.shape == (8, 8, 3) and image.dtype == np.uint8


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@many
@hypothesis.given(st.data())
def test_damaged_npz_are_read_or_refused(compression, tmp_path_factory, data):
    file = tmp_path_factory.mktemp("fuzz") / "a.npz"
    zipped(file, compression, image=npy(np.arange(20 * 9, dtype=np.uint8).reshape(20, 3, 3)), label=LABELS)
    file.write_bytes(data.draw(damage(file.read_bytes())))
    try:
        source = sources.load(f"npz:{file}", split="train")
    except SourceError as error:
        assert str(error).startswith(str(file))
    else:
        images = source.take(np.arange(len(source)))
        assert images.dtype == np.uint8 and images.shape == (len(source), *source.image_shape)
        assert len(source.labels) == len(source)


@pytest.mark.parametrize("bomb", ["zeros", "header"])
def test_npz_bombs_are_refused_before_anything_is_allocated(bomb, tmp_path, monkeypatch):
    file = tmp_path / "a.npz"
    if bomb == "zeros":
        monkeypatch.setattr(_npz, "_ALWAYS_BYTES", 2**20)
        zipped(file, image=npy(np.zeros((2**10, 2**8, 2**8), np.uint8)), label=LABELS)
        assert file.stat().st_size < 2**17
    else:
        zipped(file, image=npy_header((10**6, 10**5, 3)), label=LABELS)
    tracemalloc.start()
    refused(f"npz:{file}", file, "bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


MEMORY_PROBE = """
import resource, sys
import numpy as np
from contrastive_jax.data import sources
from contrastive_jax.errors import SourceError
def most(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = most()
try:
    print(sources.load(sys.argv[1], split="train", stored_size=16).take(np.arange(1)).mean())
except SourceError as error:
    print(error)
print(most() - before)
"""


@pytest.mark.parametrize(
    ("side", "colour_type", "says", "megabytes"),
    [(20_000, 3, "400000000 pixels", 20), (13_000, 3, "89478485", 20), (9_459, 0, "0.0", 500)],
)
def test_memory_of_the_largest_images_is_bounded(side, colour_type, says, megabytes, tmp_path):
    """Beyond 89 million pixels from the header alone; up to there at a few bytes a pixel."""
    rows = bytes(side * (side + 1)) if says == "0.0" else b""
    spec, _ = folder_of(tmp_path, "0.png", png(side, side, 8, colour_type, rows))
    done = subprocess.run([sys.executable, "-c", MEMORY_PROBE, spec], capture_output=True, text=True, check=True)
    said, kilobytes = done.stdout.splitlines()
    assert says in said
    assert int(kilobytes) < 1000 * megabytes
