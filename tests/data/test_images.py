from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from megdet.data.images import UnreadableImage, load_image, resize, resized_size


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
