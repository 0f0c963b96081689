"""Prepare a notebook on Colab or Kaggle: restart, choose the GPU, keep the runs, find HF_TOKEN."""

import contextlib
import os
import sys
from pathlib import Path

from r1nb.errors import UserError
from r1nb.machine.engine import use_one_gpu

DRIVE, KAGGLE = Path("/content/drive"), Path("/kaggle/working")


def prepare_notebook(drive: bool = False) -> None:
    """Choose the GPU and the folder of the runs, and read the secret HF_TOKEN if there is one.

    With `drive`, Colab mounts your Google Drive and keeps the runs there. Raises UserError if the session has
    to restart, because the installation replaced packages that it had imported. Kaggle's Save Version cannot
    restart, so there it goes on.
    """
    kaggle = os.environ.get("KAGGLE_KERNEL_RUN_TYPE")  # Interactive, or Batch for Save Version
    if names := replaced():
        menu = "Run > Restart & clear cell outputs" if kaggle else "Runtime > Restart session"
        why = f"the installation replaced {', '.join(names)}, already imported here"
        if kaggle != "Batch":
            raise UserError(f"Restart the session once ({menu}) and run the notebook from the top: {why}.")
        print(f"If something fails below, this may be why: {why}.")
    use_one_gpu()
    if token := _secret(kaggle):
        os.environ.setdefault("HF_TOKEN", token)
    if drive and not kaggle:
        from google.colab import drive as google_drive

        google_drive.mount(str(DRIVE))
    if kaggle:
        runs, kept = KAGGLE / "runs", "which outlasts the session with Persistence: Files, or by Save Version"
    elif drive or (DRIVE / "MyDrive").is_dir():
        runs, kept = DRIVE / "MyDrive" / "r1nb", "on your Google Drive"
    else:
        runs, kept = Path.cwd() / "runs", "which ends with the session: DRIVE = True keeps them on your Drive"
    if "runs_dir=" not in (given := os.environ.get("R1NB_SET", "")):
        os.environ["R1NB_SET"] = f"{given} runs_dir={runs}".strip()
        print(f"Runs are kept in {runs}, {kept}. An unfinished run is resumed from its last checkpoint.")


def replaced() -> list[str]:
    """The packages that were imported before r1nb, and whose files are newer than this process."""
    import psutil

    started, names = psutil.Process().create_time(), list(sys.modules)
    found = []
    for name in names[: names.index("r1nb")]:
        file = getattr(sys.modules[name], "__file__", None) or ""
        installed = "." not in name and "-packages" in file and os.path.exists(file)
        if installed and os.path.getmtime(file) > started:
            found.append(name)
    return found


def _secret(kaggle: str | None) -> str | None:
    """The user's secret HF_TOKEN; None if there is none, or if this notebook may not read it."""
    with contextlib.suppress(Exception):  # both services have errors of their own
        if kaggle:
            from kaggle_secrets import UserSecretsClient

            return UserSecretsClient().get_secret("HF_TOKEN")
        from google.colab import userdata

        return userdata.get("HF_TOKEN")
    return None
