"""Read raw rows as a datasets.Dataset, from a file, a folder or the Hub."""

import ast
import contextlib
import csv
import json
import re
import warnings
from pathlib import Path

import datasets
import pandas
import pyarrow.parquet

from r1nb.errors import UserError, first_line

SHARD = re.compile(r"-\d{5}-of-(\d{5})$")  # as in the Hub's train-00000-of-00002.parquet


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
    if len({part.suffix for part in parts}) > 1:
        names = " and in ".join(part.name for part in parts)
        raise UserError(f"The split {split} is in {names}: keep only one of these files.")
    if (shard := SHARD.search(parts[0].stem)) and len(parts) != int(shard[1]):
        raise UserError(f"{path} has {len(parts)} of the {int(shard[1])} files of {split}: add the others.")
    rows, name = [row for part in parts for row in _read(part)], parts[0].name
    if not any(rows):
        raise UserError(f"{name} is empty: it holds no rows.")
    return _table(rows, name), name


def _read(path: Path) -> list[dict]:
    if path.suffix not in READERS:
        raise UserError(f"{path.name}: use a file that ends in {', '.join(READERS)}.")
    try:
        return READERS[path.suffix](path)
    except (ValueError, Warning) as error:  # pyarrow's and pandas' own errors are ValueErrors
        raise UserError(f"{path.name} cannot be read: {first_line(error)}.") from None


def _table(rows: list[dict], name: str):
    """The rows as a Dataset with all their columns; what a row lacks is None."""
    columns = []
    for column in dict.fromkeys(key for row in rows for key in row):
        try:
            columns.append(datasets.Dataset.from_dict({column: [row.get(column) for row in rows]}))
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f"{name} cannot be read: the column {column} mixes types or holds a number that is too large "
                f"({first_line(error)}): write all its values as text."
            ) from None
    return datasets.concatenate_datasets(columns, axis=1)


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
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[dict]:
    """Read every cell as text, so that 007 and 1,080 stay as they are; only lists and structs are parsed."""
    try:
        with warnings.catch_warnings(), path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
            _refuse_twice(header)
            if len(header) == 1 and (mark := next((mark for mark in ";\t" if mark in header[0]), None)):
                raise ValueError(f"its cells are separated by {mark!r}: separate them by commas")
            file.seek(0)
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # a row longer than the header
            table = pandas.read_csv(file, dtype=str, keep_default_na=False, index_col=False)
    except UnicodeDecodeError:
        raise ValueError("it is not in UTF-8: save it as 'CSV UTF-8'") from None
    except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
        raise ValueError(f"{first_line(error)} Put quotes around each cell that contains a comma") from None
    return [{column: _cell(cell) for column, cell in row.items()} for row in table.to_dict("records")]


def _refuse_twice(columns: list[str]) -> None:
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise ValueError(f"two columns are called {twice[0]}: rename one")


def _cell(text: str):
    """A cell that holds the text of a Python list or dict of texts is parsed: ['2'], but not [0, 5]."""
    if re.match(r"\s*\[*\{?\s*['\"]", text) and text[0] in "[{" and not re.search(r"['\"]\s+['\"]", text):
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
    return text


def _read_parquet(path: Path) -> list[dict]:
    _refuse_twice(pyarrow.parquet.read_schema(path).names)
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
            f"{name} is no file or folder here, and it cannot be fetched from the Hub: check its name, or "
            "the network."
        ) from None
