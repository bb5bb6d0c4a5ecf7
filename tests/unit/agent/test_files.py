"""Files and folders of a host are the user's alone, whatever else its process does meanwhile."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.agent.files import make_folder


def test_folders_made_at_once_leave_the_umask_alone(tmp_path) -> None:
    """Threads that make folders at the same moment: each folder is private, up to what was there, and the process's umask stays."""
    before = os.umask(0)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(make_folder, [f"{tmp_path}/{each % 50}/deep/er" for each in range(2000)]))
        during = os.umask(0)
    finally:
        os.umask(before)
    assert during == 0
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700}
    assert len(made) == 150


@pytest.mark.parametrize("path", ["file", "file/below", "link/below", "/proc/none", ""])
def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, monkeypatch, path) -> None:
    """A file in the way, a link that leads nowhere, a file system that makes none: an OSError, at once."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OSError, match=r"\[Errno"):
        make_folder(path)
