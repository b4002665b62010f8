"""How data of TensorFlow Datasets are read: prepared array_record files, no TensorFlow, no download."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_split(
    dataset: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    decoders: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Read all records of one split of a data set that has been prepared before.

    Only files are looked at, never the code that builds the data set (as `tfds.data_source` would), so nothing can
    start a download.

    Args:
        dataset: TFDS's name of it, with the major version that the task knows, e.g. "mnist:3.*.*".
        split: TFDS's name of the split; its slices ("train[:10%]") work as well.
        data_dir: folder of prepared data sets; None takes TFDS's own default.
        decoders: passed to TFDS, by feature.

    Returns:
        The records in stored order, each a dict by feature; texts come as bytes.

    Raises:
        ValueError: if the data set is not prepared there, or not as array_record files.
    """
    from tensorflow_datasets.core import read_only_builder, registered
    from tensorflow_datasets.core.file_adapters import FileFormat
    from tensorflow_datasets.core.utils import file_utils

    folder = None if data_dir is None else Path(data_dir).expanduser()
    try:
        # Any, because TFDS's logging decorators hide the signatures of its methods.
        builder: Any = read_only_builder.builder_from_files(dataset, data_dir=folder)
    except registered.DatasetNotFoundError as error:
        looked_at = " and ".join(map(str, file_utils.list_data_dirs(given_data_dir=folder)))
        raise ValueError(f"{dataset} is not prepared in {looked_at}: {_how_to_prepare(dataset, folder)}") from error
    formats = builder.info.available_file_formats()
    if FileFormat.ARRAY_RECORD not in formats:
        stored_as = " and ".join(sorted(file_format.value for file_format in formats))
        raise ValueError(
            f"{dataset} is prepared in {builder.data_dir} as {stored_as}, not as array_record: "
            f"give another data_dir and {_how_to_prepare(dataset, 'ANOTHER_DATA_DIR')}"
        )
    source = builder.as_data_source(split, decoders=decoders, file_format=FileFormat.ARRAY_RECORD)
    # Six times as fast as iterating, because the file is then read in one go.
    return source.__getitems__(range(len(source)))


def _how_to_prepare(dataset: str, folder: str | os.PathLike[str] | None) -> str:
    """Word the commands that prepare a data set, to be pasted into a shell."""
    options = [repr(dataset.partition(":")[0]), "file_format='array_record'"]
    if folder is not None:
        options.append(f"data_dir={os.fspath(folder)!r}")
    program = f"import tensorflow_datasets as tfds; tfds.builder({', '.join(options)}).download_and_prepare()"
    return (
        f"install the extra `prepare` (`pip install -e '.[prepare]'` in a checkout), then run `python -c \"{program}\"`"
    )
