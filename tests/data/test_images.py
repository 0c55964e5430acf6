from __future__ import annotations

import io
import os
import random
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from megdet.data import images as module
from megdet.data.image_header import UnreadableImage, check_image_header
from megdet.data.images import load_image, resize, resized_size


def picture(height: int = 90, width: int = 140) -> Image.Image:
    """Coarse coloured blocks: every corner differs, so a turn or a mirror image shows."""
    blocks = np.random.default_rng(0).integers(0, 256, size=(height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(blocks.repeat(10, axis=0).repeat(10, axis=1))


def jpeg(image: Image.Image, *, orientation: int = 1, progressive: bool = False) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", quality=92, exif=exif, progressive=progressive)
    return file.getvalue()


def by_pil(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_grey_cmyk_and_exif_rotated_images_are_upright_rgb_as_pil_reads_them(
    tmp_path: Path, mode: str, orientation: int
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(picture().convert(mode), orientation=orientation))
    expected = by_pil(path.read_bytes())
    assert expected.shape == ((90, 140, 3) if orientation <= 4 else (140, 90, 3))
    image = load_image(path, expected.shape[:2])
    assert image.dtype == torch.uint8
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 2


def test_the_annotated_size_decides_whether_exif_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(picture(), orientation=6))
    upright, stored = load_image(path, (140, 90)), load_image(path, (90, 140))
    assert torch.equal(upright, stored.rot90(-1, dims=(1, 2)))
    with pytest.raises(UnreadableImage, match="140x90 pixels, its annotation says 91x90"):
        load_image(path, (90, 91))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_exchanged_sides_are_seen_in_the_header_where_exif_turns_nothing(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "image"
    for orientation, fits in ((None, False), (1, False), (3, False), (6, True)):
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        picture().save(path, image_format, exif=exif)
        check_image_header(path, (90, 140))
        if fits:
            check_image_header(path, (140, 90))
        else:
            with pytest.raises(UnreadableImage, match="140x90 pixels, its annotation says 90x140"):
                check_image_header(path, (140, 90))


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_jpeg_is_unreadable_never_half_grey(tmp_path: Path, share: float, progressive: bool) -> None:
    data = jpeg(picture(), progressive=progressive)
    path = tmp_path / "image.jpg"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UnreadableImage, match="truncated"):
        load_image(path, (90, 140))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>404 Not Found</html>" * 50, id="a web page"),
        pytest.param(jpeg(picture())[:2000] + bytes(4000), id="a tail of zeros"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(100), id="a bare header"),
    ],
)
def test_what_is_no_image_is_unreadable(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage) as error:
        load_image(path, (90, 140))
    assert str(error.value)


def test_a_missing_file_is_unreadable_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        load_image(tmp_path / "image.jpg", (90, 140))


def test_another_format_under_a_jpeg_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    picture().save(path, "PNG")
    assert np.array_equal(load_image(path, (90, 140)).permute(1, 2, 0).numpy(), np.asarray(picture()))


LEVELS = (np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16 + 15).astype(np.uint16)
"""A ramp from black to white over 65,536 levels."""


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_never_clipped(tmp_path: Path, image_format: str) -> None:
    path = tmp_path / "grey"
    Image.fromarray(LEVELS).save(path, image_format)
    expected = [[round(level / 257) for level in row] for row in LEVELS.tolist()]
    image = load_image(path, (64, 64))
    assert (expected[0][0], expected[-1][-1]) == (0, 255)
    assert image.tolist() == [expected] * 3


@pytest.mark.parametrize("big_endian", [False, True])
def test_16_bit_grey_is_turned_as_exif_says(tmp_path: Path, big_endian: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(LEVELS[:40])
    if big_endian:
        picture = Image.frombytes("I;16B", (64, 40), LEVELS[:40].astype(">u2").tobytes())
        picture.save(tmp_path / "grey.tif")
        assert np.abs(load_image(tmp_path / "grey.tif", (40, 64))[0].numpy() * 257.0 - LEVELS[:40]).max() <= 129
        return
    picture.save(tmp_path / "grey.png", exif=exif)
    upright, stored = (load_image(tmp_path / "grey.png", size) for size in ((64, 40), (40, 64)))
    assert torch.equal(upright, stored.rot90(-1, dims=(1, 2)))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colour_is_scaled_within_a_level(tmp_path: Path, channels: int) -> None:
    """Pillow writes no such file, so the PNG is put together here."""
    pixels = np.stack([LEVELS, LEVELS[::-1], LEVELS.T, np.full_like(LEVELS, 65535)], axis=-1)
    pixels = {2: pixels[..., [0, 3]], 3: pixels[..., :3], 4: pixels}[channels]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 64, 64, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    image = load_image(tmp_path / "a.png", (64, 64)).permute(1, 2, 0).numpy()
    expected = pixels[..., [0, 0, 0]] if channels == 2 else pixels[..., :3]
    assert np.abs(image - expected / 257).max() <= 1


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, kind: Any) -> None:
    Image.fromarray(np.linspace(0, 70000, 64 * 64).reshape(64, 64).astype(kind)).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableImage, match=r"whose black and white nobody knows; save it with 8 or 16 bits"):
        load_image(tmp_path / "a.tif", (64, 64))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    grey = np.full((40, 40), 60, dtype=np.uint8)
    picture, more = Image.fromarray(grey), {}
    if mode in ("RGBA", "LA"):
        picture = picture.convert(mode)
        alpha = np.full((40, 40), 255, dtype=np.uint8)
        alpha[:20], alpha[:20, :20] = 0, 128
        picture.putalpha(Image.fromarray(alpha))
    else:  # one colour is transparent
        grey[:20] = 10
        picture = Image.fromarray(grey).convert(mode)
        transparent = picture.getpixel((0, 0))
        more = {"transparency": transparent}
    picture.save(tmp_path / "a.png", **more)
    image = load_image(tmp_path / "a.png", (40, 40))
    assert (image[:, 20:] == 60).all() and (image[:, :20, 20:] == 255).all()
    if mode in ("RGBA", "LA"):
        assert (image[:, :20, :20].int() - round(255 + (60 - 255) * 128 / 255)).abs().max() <= 1


def test_one_bit_is_black_and_white_and_a_palette_its_colours(tmp_path: Path) -> None:
    Image.fromarray(np.eye(40, dtype=bool)).save(tmp_path / "bit.png")
    assert load_image(tmp_path / "bit.png", (40, 40))[1].tolist() == (255 * np.eye(40, dtype=int)).tolist()
    coloured = picture().quantize(16)
    coloured.save(tmp_path / "palette.gif")
    expected = np.asarray(coloured.convert("RGB"))
    assert np.array_equal(load_image(tmp_path / "palette.gif", (90, 140)).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("side", "said"), [(9000, "9000x9000 pixels, its annotation says 80x64"), (20000, "400000000")]
)
def test_a_giant_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, said: str
) -> None:
    data = bytearray(jpeg(picture()))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", side, side)
    (tmp_path / "giant.jpg").write_bytes(data)
    monkeypatch.setattr(module, "_decode", lambda *args, **more: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage, match=said):
        load_image(tmp_path / "giant.jpg", (64, 80))


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket", "loop"])
def test_what_is_no_file_is_unreadable_at_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("a.jpg")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    with pytest.raises(UnreadableImage, match=r"not a regular file|symbolic links|No such device"):
        load_image(path, (64, 80))


def test_a_file_that_would_start_another_program_is_no_image(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 80), dtype=np.uint8)).save(tmp_path / "a.eps")
    with pytest.raises(UnreadableImage, match="not an image of a known format"):
        load_image(tmp_path / "a.eps", (64, 80))


@pytest.mark.parametrize("error", [struct.error, IndexError, ZeroDivisionError, KeyError, MemoryError, AssertionError])
def test_whatever_a_decoder_raises_is_an_unreadable_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(image: Image.Image) -> None:
        raise error

    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    with pytest.raises(UnreadableImage, match=error.__name__):
        load_image(tmp_path / "a.png", (90, 140))


def _originals() -> list[bytes]:
    """Small images of all kinds, as files."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    small = picture(40, 60)
    sixteen = Image.fromarray(LEVELS[:40, :60])
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (small, "JPEG", {"exif": exif}), (small, "JPEG", {"progressive": True}), (small.convert("CMYK"), "JPEG", {}),
        (small, "PNG", {"exif": exif}), (small.convert("P"), "PNG", {"transparency": 3}),
        (small.convert("LA"), "PNG", {}),
        (sixteen, "PNG", {}), (sixteen, "TIFF", {}), (small, "TIFF", {"exif": exif, "compression": "tiff_lzw"}),
        (small, "TIFF", {"compression": "jpeg"}), (small, "BMP", {}), (small, "GIF", {}), (small, "WEBP", {}),
        (small, "JPEG2000", {}), (small, "AVIF", {}), (small, "PPM", {}), (small, "TGA", {}),
    ]  # fmt: skip
    files = []
    for image, image_format, more in kinds:
        file = io.BytesIO()
        image.save(file, image_format, **more)
        files.append(file.getvalue())
    return files


def _damaged(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place = rng.randrange(min(len(damaged), rng.choice([40, 200, len(damaged)])))
        kind = rng.random()
        if kind < 0.6:
            damaged[place] = rng.choice([0, 255, rng.randrange(256)])
        elif kind < 0.8:
            damaged[place:place] = rng.randbytes(rng.randrange(1, 8))
        else:
            del damaged[place + 1 : place + 40]
    return bytes(damaged)


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_damaged_image_is_read_or_unreadable_and_nothing_else(tmp_path: Path, count: int) -> None:
    originals, read = _originals(), 0
    for seed in range(count):
        rng = random.Random(seed)
        path = tmp_path / "image"
        path.write_bytes(_damaged(rng, rng.choice(originals)))
        size = rng.choice([(40, 60), (40, 60), (60, 40)])
        try:
            image = load_image(path, size)
        except UnreadableImage as error:
            assert str(error), seed
        else:
            assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, *size)), seed
            read += 1
    assert 0.05 * count < read < 0.8 * count


@pytest.mark.parametrize(("min_size", "max_size"), [(800, 1333), (128, 192), (600, 1000)])
def test_resized_sizes_are_torchvisions(min_size: int, max_size: int) -> None:
    transform = GeneralizedRCNNTransform(min_size, max_size, [0.0], [1.0]).eval()
    sizes = np.random.default_rng(1).integers(40, 700, size=(25, 2)).tolist()
    for size in [*sizes, (480, 640), (427, 640), (640, 427), (375, 500), (100, 640)]:
        expected = transform.resize(torch.zeros(1, *size), None)[0].shape[1:]
        assert resized_size(tuple(size), min_size=min_size, max_size=max_size) == tuple(expected)


@pytest.mark.parametrize(("min_size", "max_size"), [(60, 100), (160, 300)], ids=["smaller", "larger"])
def test_resize_is_pils_antialiased_bilinear_within_a_level(min_size: int, max_size: int) -> None:
    original = picture()
    resized = resize(torch.from_numpy(np.array(original)).permute(2, 0, 1), min_size=min_size, max_size=max_size)
    height, width = resized_size((90, 140), min_size=min_size, max_size=max_size)
    expected = np.asarray(original.resize((width, height), Image.Resampling.BILINEAR))
    assert resized.dtype == torch.uint8
    assert np.abs(resized.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1
