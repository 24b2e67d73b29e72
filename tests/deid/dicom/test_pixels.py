"""Writing in pixels: found and blanked, nothing else changed; refused where it could not be."""

import shutil

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import JPEG2000Lossless, RLELossless
from scipy import ndimage

from deid.dicom.burned_in import text_mask
from deid.dicom.ocr import Tesseract
from deid.dicom.pixels import Scan, TextBlanker
from deid.errors import NotDeidentified
from tests.bench.deid_dicom import COVERED, measured
from tests.deid.dicom import unfamiliar_images
from tests.deid.dicom.burned_in_images import FONTS, VISIBLE, Written, image, images
from tests.deid.dicom.objects import CR, CT, SC, US, US_MULTI, Blind, base, with_pixels

CLEANING = TextBlanker(cleans=True, ocr=None)


def grey(written: Written, top: int = 255) -> NDArray[np.integer]:
    return (written.pixels * top).astype(np.uint8 if top < 256 else np.uint16)


def pixels(dataset: Dataset) -> NDArray[np.generic]:
    return np.asarray(dataset.pixel_array)


def lettered(kind: str, seed: int = 11) -> Written:
    return image(kind, np.random.default_rng(seed), lines=4)


@pytest.mark.parametrize(
    ("kind", "sop_class", "modality"),
    [("CR", CR, "CR"), ("CT", CT, "CT"), ("US", US, "US"), ("SC", SC, "OT")],
)
def test_writing_goes_and_every_other_pixel_stays(kind: str, sop_class: str, modality: str) -> None:
    written = lettered(kind)
    before = grey(written, 4095 if kind in ("CR", "CT") else 255)
    dataset = with_pixels(base(sop_class, modality=modality), before)
    TextBlanker(cleans=True, ocr=Blind()).clean(dataset)
    after = pixels(dataset)
    changed = after != before
    assert np.all(after[changed] == before.min())
    assert changed.mean() < 0.12
    for line in written.lines:
        dark = before[line.ink] == before.min()
        assert (changed[line.ink] | dark).mean() >= COVERED, line.text
    assert dataset.BurnedInAnnotation == "NO"


def test_an_image_without_writing_loses_little() -> None:
    written = image("CR", np.random.default_rng(4), lines=0)
    dataset = with_pixels(base(CR, modality="CR"), grey(written, 4095))
    before = bytes(dataset.PixelData)
    CLEANING.clean(dataset)
    assert (np.frombuffer(dataset.PixelData, "u2") != np.frombuffer(before, "u2")).mean() < 0.03


def test_colour_and_planes() -> None:
    written = lettered("SC", 12)
    before = np.repeat(grey(written)[..., None], 3, axis=2)
    before[..., 0] //= 2
    rows, columns = np.nonzero(written.lines[0].ink)
    top, left = max(rows.min() - 60, 0), max(columns.min() - 60, 0)
    before = before[top : rows.max() + 60, left : columns.max() + 60].copy()
    for planar in (0, 1):
        dataset = with_pixels(base(SC, modality="OT"), before)
        if planar:
            dataset.PlanarConfiguration = 1
            dataset.PixelData = np.moveaxis(before, -1, 0).tobytes()
        TextBlanker(cleans=True, ocr=Blind()).clean(dataset)
        after = pixels(dataset)
        changed = (after != before).any(axis=-1)
        assert changed.any()
        assert np.all(after[changed] == 0)


def test_what_is_written_on_one_frame_goes_from_all() -> None:
    written = lettered("CT", 13)
    plain = image("CT", np.random.default_rng(13), lines=0)
    frames = np.stack([grey(plain)] * 7)
    frames[3] = grey(written)
    dataset = with_pixels(base(US_MULTI, modality="US"), frames)
    TextBlanker(cleans=True, ocr=Blind()).clean(dataset)
    after = pixels(dataset)
    mask = (after[3] != frames[3]) | (frames[3] == 0)
    for line in written.lines:
        assert mask[line.ink].mean() >= COVERED, line.text
    changed = after != frames
    assert np.array_equal(
        changed.any(axis=0) | (frames == 0).all(axis=0), changed.any(axis=0) | (frames == 0).all(0)
    )
    assert (after[0][after[3] != frames[3]] == 0).all()


def test_a_dark_is_bright_in_inverted_images() -> None:
    written = lettered("CR", 14)
    dataset = with_pixels(base(CR, modality="CR"), grey(written, 4095))
    dataset.PhotometricInterpretation = "MONOCHROME1"
    before = pixels(dataset)
    CLEANING.clean(dataset)
    after = pixels(dataset)
    assert np.all(after[after != before] == before.max())


def at_risk() -> list[FileDataset]:
    """Objects whose pixels may show who it is."""
    plain = np.zeros((64, 64), np.uint8)
    found = [
        with_pixels(base(kind, modality=modality), plain)
        for kind, modality in ((US, "US"), (SC, "CT"), (CT, "XA"), (CT, "OT"), (CT, "ES"))
    ]
    said = with_pixels(base(CT), plain)
    said.BurnedInAnnotation = "YES"
    screen = with_pixels(base(CR, modality="CR"), plain)
    screen.ImageType = ["DERIVED", "SECONDARY"]
    return [*found, said, screen]


@pytest.mark.parametrize("place", range(7))
def test_images_at_risk_are_refused_without_ocr_and_without_cleaning(place: int) -> None:
    with pytest.raises(NotDeidentified, match="no-ocr"):
        CLEANING.clean(at_risk()[place])
    with pytest.raises(NotDeidentified, match="burned-in-text"):
        TextBlanker(cleans=False, ocr=Blind()).clean(at_risk()[place])
    TextBlanker(cleans=True, ocr=Blind()).clean(at_risk()[place])


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4, 6])  # what says YES is another matter
def test_a_header_that_says_nothing_is_burned_in_is_not_believed(place: int) -> None:
    dataset = at_risk()[place]
    dataset.BurnedInAnnotation = "NO"
    with pytest.raises(NotDeidentified, match="no-ocr"):
        CLEANING.clean(dataset)
    with pytest.raises(NotDeidentified, match="burned-in-text"):
        TextBlanker(cleans=False, ocr=None).clean(dataset)


def test_an_image_of_another_kind_passes_without_ocr() -> None:
    for said in (None, "NO"):
        dataset = with_pixels(base(CT), np.zeros((64, 64), np.uint8))
        dataset.BurnedInAnnotation = said
        CLEANING.clean(dataset)
        assert dataset.BurnedInAnnotation == "NO"
        TextBlanker(cleans=False, ocr=None).clean(dataset)


def test_only_images_at_risk_are_looked_at_where_that_is_asked() -> None:
    written = lettered("CT")
    dataset = with_pixels(base(CT), grey(written, 4095))
    before = bytes(dataset.PixelData)
    TextBlanker(cleans=True, ocr=None, scan=Scan.AT_RISK).clean(dataset)
    assert dataset.PixelData == before


def test_compressed_images_are_decoded_and_what_cannot_be_is_refused() -> None:
    written = lettered("CT")
    before = grey(written, 4095)
    dataset = with_pixels(base(CT), before)
    dataset.compress(RLELossless, generate_instance_uid=False)
    CLEANING.clean(dataset)
    after = pixels(dataset)
    assert not dataset.file_meta.TransferSyntaxUID.is_compressed
    assert np.all(after[after != before] == before.min())
    assert (after != before).any()
    broken = with_pixels(base(CT), before)
    broken.compress(RLELossless, generate_instance_uid=False)
    broken.file_meta.TransferSyntaxUID = JPEG2000Lossless
    with pytest.raises(NotDeidentified, match="no-decoder"):
        CLEANING.clean(broken)


def test_a_compressed_image_without_writing_stays_compressed() -> None:
    dataset = with_pixels(base(CT), np.zeros((64, 64), np.uint16))
    dataset.compress(RLELossless, generate_instance_uid=False)
    before = bytes(dataset.PixelData)
    CLEANING.clean(dataset)
    assert dataset.PixelData == before
    assert dataset.file_meta.TransferSyntaxUID == RLELossless


def test_overlays_in_unused_bits_go() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 4096
    dataset = with_pixels(base(CT), values | 0x8000)
    dataset.BitsStored, dataset.HighBit = 12, 11
    TextBlanker(cleans=False, ocr=None).clean(dataset)
    assert np.array_equal(np.frombuffer(dataset.PixelData, "<u2").reshape(64, 64), values)
    signed = with_pixels(base(CT), (values.astype(np.int16) - 2048))
    signed.BitsStored, signed.HighBit = 12, 11
    before = bytes(signed.PixelData)
    TextBlanker(cleans=False, ocr=None).clean(signed)
    assert signed.PixelData == before


def test_pixels_that_are_not_what_the_header_says_are_refused() -> None:
    dataset = with_pixels(base(CT), np.zeros((64, 64), np.uint16))
    dataset.Rows = 640
    with pytest.raises(NotDeidentified, match="pixels"):
        CLEANING.clean(dataset)


def test_less_makes_a_line_outside_the_regions_of_ultrasound() -> None:
    field = np.zeros((200, 300), np.float32)
    field[95:105:2, 100:104] = 0.11  # three faint marks: doubtful
    field[95:105, 110:114] = field[95:105, 120:124] = 0.11
    everywhere = np.ones(field.shape, bool)
    sure, bold = text_mask(field, None), text_mask(field, None, beside=everywhere)
    assert bold.sum() >= sure.sum()
    assert bold.any()


def test_lines_are_covered() -> None:
    """The measurement of `python -m tests.bench deid_dicom`, on few images and without OCR."""
    found = measured(images_of=4, seed=5, ocr=None, images=images)
    assert found.lines >= 12
    assert found.covered >= 0.9
    assert found.blanked <= 0.12  # 19 lines on four images


def test_lines_in_images_that_nothing_was_fitted_on_are_covered() -> None:
    """Other fonts, real slices, blocks of lines (`unfamiliar_images`); a plain page loses little."""
    found = measured(images_of=4, seed=6, ocr=None, images=unfamiliar_images.images)
    assert found.lines >= 12
    assert found.covered >= 0.9
    assert found.by_kind["page"][1] <= 0.15


def test_what_a_line_runs_into_stays() -> None:
    """Chains of characters that go on into edges and noise once took them along: .027 of these images."""
    rng = np.random.default_rng(501)
    lost = []
    for _ in range(4):
        written = image("CT", rng)
        mask = text_mask(written.pixels, None)
        for line in written.lines:
            assert mask[line.ink].mean() >= COVERED - 0.15, line.text
            rows, columns = np.nonzero(line.ink)
            mask[max(rows.min() - 9, 0) : rows.max() + 10, max(columns.min() - 9, 0) : columns.max() + 10] = (
                False
            )
        lost.append(mask.mean())
    assert np.mean(lost) < 0.02


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("top", [8, 12])
def test_a_line_is_blanked_to_its_end_where_a_table_crosses_it(turns: int, top: int) -> None:
    """Characters that touch what crosses them are no pieces of their own; their shade and row tell them."""
    canvas = Image.new("L", (300, 60), 0)
    draw = ImageDraw.Draw(canvas)
    draw.line([0, 20 + top, 300, 32 + top], fill=153, width=4)
    table = ndimage.gaussian_filter(np.asarray(canvas, dtype=np.float32) / 255, 0.8)
    word = Image.new("L", canvas.size, 0)
    ImageDraw.Draw(word).text((60, 20), "ROSSI, Siobhan H", fill=255, font=ImageFont.truetype(FONTS[0], 13))
    glyphs = np.asarray(word, dtype=np.float32) / 255
    shades = np.rot90(table * (1 - glyphs) + 0.32 * glyphs, turns)
    ink = np.rot90((glyphs > 0.35) & (np.abs(table - 0.32) >= VISIBLE), turns)
    mask = text_mask(np.ascontiguousarray(shades), None)
    assert mask[ink].mean() >= COVERED
    assert mask.mean() < 0.5


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs tesseract (Debian: tesseract-ocr)")
def test_words_are_read_where_they_stand() -> None:
    ocr = Tesseract.found()
    assert ocr is not None
    page = Image.new("L", (640, 200), 255)
    font = ImageFont.truetype(str(FONTS[0]), 32)
    ImageDraw.Draw(page).text((60, 80), "HOSPITAL 12345678", fill=0, font=font)
    boxes = ocr.words(np.asarray(page))
    covered = np.zeros((200, 640), bool)
    for box in boxes:
        covered[box.top : box.bottom, box.left : box.right] = True
    assert covered[np.asarray(page) < 128].mean() > 0.9


def test_an_ocr_that_fails_is_a_refusal() -> None:
    with pytest.raises(NotDeidentified, match="ocr-failed"):
        Tesseract("/does/not/exist").words(np.zeros((8, 8), np.uint8))
