"""Raw rows as a datasets.Dataset: from a file, a folder, or the Hub."""

import json
import re
import warnings
from pathlib import Path

from r1nb.errors import UserError, first_line

SHARD = re.compile(r"-\d{5}-of-\d{5}$")
SUFFIXES = (".jsonl", ".csv", ".parquet")


def read_local(path: Path, split: str) -> tuple:
    """(raw rows, what to call them) of a file, or of a split's file or files in a folder."""
    from datasets import Dataset, concatenate_datasets

    if path.is_dir():
        splits: dict[str, list[Path]] = {}
        for file in sorted(path.iterdir()):
            if file.suffix in SUFFIXES:  # train.jsonl, or the Hub's train-00000-of-00002.parquet
                splits.setdefault(SHARD.sub("", file.stem), []).append(file)
        if split not in splits:
            raise UserError(f"{split}.jsonl is not in {path}; splits there: {', '.join(splits) or 'none'}.")
        if len(splits[split]) > 1:
            parts = [read_local(file, "train")[0] for file in splits[split]]
            return concatenate_datasets(parts), splits[split][0].name
        (path,) = splits[split]
    elif split != "train":
        raise UserError(
            f"{path.name} is one file, whose only split is 'train': take a slice of it, as in "
            f"'train[-100:]', instead of {split!r}."
        )
    try:
        if path.suffix == ".jsonl":
            return Dataset.from_list(read_jsonl(path)), path.name
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return Dataset.from_list(pyarrow.parquet.read_table(path).to_pylist()), path.name
        if path.suffix == ".csv":
            import pandas

            # As text, so that 007 and 1,080 stay what they are.
            with warnings.catch_warnings():
                warnings.simplefilter("error", pandas.errors.ParserWarning)  # a row longer than the header
                table = pandas.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
            if not len(table):
                raise UserError(f"{path.name} holds no rows below its header.")
            return Dataset.from_pandas(table), path.name
    except UserError:
        raise
    except (ValueError, Warning) as error:  # pyarrow's and pandas' own errors are ValueErrors
        raise UserError(f"{path.name} cannot be read: {first_line(error)}.") from None
    raise UserError(f"{path.name}: use a file that ends in {', '.join(SUFFIXES)}.")


def read_jsonl(path: Path) -> list[dict]:
    """The objects of a file, one a line."""
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError:  # not JSON, or not UTF-8
            shown = line[:40].decode("utf-8", "replace")
            raise UserError(f"{path.name}, line {number} is not JSON in UTF-8: {shown!r}.") from None
        if not isinstance(row, dict):
            raise UserError(f"{path.name}, line {number} is no JSON object but a {type(row).__name__}.")
        if rows and (missing := rows[0].keys() - row.keys()):
            raise UserError(
                f"{path.name}, line {number} lacks {', '.join(sorted(missing))}; it has {', '.join(row)}."
            )
        rows.append(row)
    if not rows:
        raise UserError(f"{path.name} is empty: it needs one JSON object a line.")
    return rows


def read_hub(name: str, subset: str | None, split: str):
    import datasets

    try:
        return datasets.load_dataset(name, subset, split=split)
    except ValueError as error:
        raise UserError(f"{name} has no such split or subset: {first_line(error)}") from None
    except OSError:  # ConnectionError is one
        raise UserError(
            f"{name} cannot be fetched from the Hub: without network, set dataset to a file or folder "
            "that holds its rows."
        ) from None
