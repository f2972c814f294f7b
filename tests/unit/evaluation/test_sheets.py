import numpy as np
from PIL import Image

from tlhub.evaluation.sheets import sheet


def test_a_sheet_shows_the_original_first_and_its_views_beside_it(tmp_path):
    rows = np.zeros((2, 3, 16, 24, 3), np.uint8)
    rows[0, 0], rows[0, 1:], rows[1, 0], rows[1, 1:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
    path = sheet(rows, tmp_path / "sheet.png")
    page = np.asarray(Image.open(path).convert("RGB"))
    height, width, _ = page.shape
    assert width == 495
    upper, lower = int(height * 0.4), int(height * 0.8)
    assert [tuple(page[row, int(width * (column + 0.5) / 3)]) for row in (upper, lower) for column in range(3)] == [
        (255, 0, 0), (0, 255, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 0)]
    assert (page[:30].min(axis=2) < 100).mean() > 0.01, "the columns have names"


def test_one_picture_is_a_sheet(tmp_path):
    assert sheet(np.zeros((1, 1, 8, 8, 3), np.uint8), tmp_path / "sheet.png").exists()
