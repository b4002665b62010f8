"""Data that are not there are named and never downloaded, and TensorFlow is never imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnn_dynamics.tasks import make_task


@pytest.mark.parametrize(
    ("name", "dataset"), [("sequential_mnist", "mnist"), ("imdb_sentiment", "imdb_reviews/plain_text")]
)
def test_data_that_are_not_prepared_are_named_and_never_downloaded(name, dataset, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def download(*args, **kwargs):
        raise AssertionError("a download was started")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)
    with pytest.raises(ValueError, match="is not prepared") as caught:
        make_task(name, data_dir=tmp_path)
    (sentence,) = caught.value.args
    assert f"is not prepared in {tmp_path}: install the extra `prepare` (`pip install -e '.[prepare]'`" in sentence
    assert f"tfds.builder('{dataset}', file_format='array_record', data_dir='{tmp_path}')" in sentence
    assert list(tmp_path.iterdir()) == []


def test_data_in_another_format_are_named(tiny_data, tmp_path):
    info = "mnist/3.0.1/dataset_info.json"
    (tmp_path / info).parent.mkdir(parents=True)
    for file in (tiny_data / info).parent.iterdir():
        (tmp_path / info).with_name(file.name).write_bytes(file.read_bytes())
    (tmp_path / info).write_text((tiny_data / info).read_text().replace("array_record", "tfrecord"))
    with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path))}/mnist/3.0.1 as tfrecord, not as array_record"):
        make_task("sequential_mnist", data_dir=tmp_path)


def test_tensorflow_is_never_imported_nor_any_reader_before_its_task(tiny_data, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('TensorFlow was imported')")
    program = """if True:
        import sys
        from rnn_dynamics.tasks import TASKS, make_task
        early = {"grain", "sklearn", "tensorflow_datasets", "PIL"} & set(sys.modules)
        assert not early, early
        for name in ("sequential_mnist", "imdb_sentiment"):
            next(make_task(name, data_dir=sys.argv[1]).batches("train", 4, seed=0))
        assert "tensorflow" not in sys.modules
    """
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(tmp_path), str(root), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", program, tiny_data], check=True, env={**os.environ, "PYTHONPATH": path})
