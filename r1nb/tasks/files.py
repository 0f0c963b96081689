"""Read raw rows as a datasets.Dataset, from a file, a folder or the Hub."""

import contextlib
import json
import re
import warnings
from pathlib import Path

import datasets
import pandas
import pyarrow.parquet

from r1nb.errors import UserError, first_line

SHARD = re.compile(r"-\d{5}-of-\d{5}$")  # as in the Hub's train-00000-of-00002.parquet


def read_local(path: Path, split: str) -> tuple:
    """Read a file, or all files of a split in a folder: (raw rows, the name of the first file)."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in READERS)
        parts = [file for file in files if SHARD.sub("", file.stem) == split]
        if not parts:
            splits = ", ".join(dict.fromkeys(SHARD.sub("", file.stem) for file in files))
            raise UserError(f"{split}.jsonl is not in {path}; splits there: {splits or 'none'}.")
    elif split != "train":
        raise UserError(f"{path.name} has one split: use 'train', or a slice, 'train[-9:]', not {split!r}.")
    else:
        parts = [path]
    return datasets.concatenate_datasets([_read(part) for part in parts]), parts[0].name


def _read(path: Path):
    if path.suffix not in READERS:
        raise UserError(f"{path.name}: use a file that ends in {', '.join(READERS)}.")
    try:
        if rows := READERS[path.suffix](path):
            return datasets.Dataset.from_list(rows)
    except (ValueError, Warning) as error:  # pyarrow's and pandas' own errors are ValueErrors
        raise UserError(f"{path.name} cannot be read: {first_line(error)}.") from None
    raise UserError(f"{path.name} is empty: it holds no rows.")


def _read_jsonl(path: Path) -> list[dict]:
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        row = None
        with contextlib.suppress(ValueError):  # not JSON, or not UTF-8
            # NaN, which is not JSON, but which pandas writes for a missing value, becomes null
            row = json.loads(line.decode("utf-8-sig"), parse_constant=lambda _: None)
        if not isinstance(row, dict):
            shown = line[:40].decode("utf-8", "replace")
            raise ValueError(f"line {number} is not a JSON object in UTF-8: {shown!r}")
        if rows and (missing := rows[0].keys() - row.keys()):
            raise ValueError(f"line {number} lacks {', '.join(sorted(missing))}; it has {', '.join(row)}")
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[dict]:
    """Read every cell as text, so that 007 and 1,080 stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pandas.errors.ParserWarning)  # a row longer than the header
        return pandas.read_csv(path, dtype=str, keep_default_na=False, index_col=False).to_dict("records")


def _read_parquet(path: Path) -> list[dict]:
    return pyarrow.parquet.read_table(path).to_pylist()


READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}  # by a file's ending


def read_hub(name: str, subset: str | None, split: str):
    """Read the raw rows of a dataset on the Hub."""
    try:
        return datasets.load_dataset(name, subset, split=split)
    except ValueError as error:
        raise UserError(f"{name} has no such split or subset: {first_line(error)}") from None
    except OSError:  # ConnectionError is one
        raise UserError(
            f"{name} cannot be fetched from the Hub: check the network, or use a file or folder."
        ) from None
