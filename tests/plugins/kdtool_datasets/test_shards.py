"""Files that hold many images: which are taken."""

import os

import pytest

from kdtool import Error
from kdtool_datasets.shards import find_shards


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in the file system")
@pytest.mark.parametrize("suffix", [".parquet", ".tar"])
def test_a_pipe_in_a_folder_is_not_opened(tmp_path, suffix):
    os.mkfifo(tmp_path / f"train-0{suffix}")
    with pytest.raises(Error, match=rf"^[^\n]*train-0\{suffix}: is no regular file; remove or replace it$"):
        find_shards(tmp_path, suffix)
