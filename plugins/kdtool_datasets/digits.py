"""The handwritten digits of scikit-learn (E. Alpaydin and C. Kaynak, UCI, 1998): 1,797 gray images of 8x8 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdtool import Dataset, UsageError

if TYPE_CHECKING:
    from kdtool.data import RawData

# The data set has no test split of its own; this one does not depend on --split-seed.
TEST_FRACTION = 0.2
TEST_SEED = 0


class Digits(Dataset):
    """Read scikit-learn's 1,797 digits of 8x8 pixels; a fixed fifth of every class is the test split."""

    def load(self, argument: str, root: Path | None) -> RawData:
        """Return the digits, which are part of scikit-learn; ``root`` is not used."""
        import torch
        from sklearn.datasets import load_digits

        from kdtool.data import RawData, RawSplit

        if argument:
            raise UsageError(f"takes no argument, got {argument!r}; write --data digits")
        digits = load_digits()
        # scikit-learn's pixel values are 0 to 16.
        gray = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
        all_images = RawSplit(gray.unsqueeze(1), torch.from_numpy(digits.target).long())
        train, test = all_images.hold_out(TEST_FRACTION, TEST_SEED)
        classes = tuple(str(digit) for digit in range(10))
        return RawData(train, None, test, classes, channels=1, image_size=8, padding=1)
