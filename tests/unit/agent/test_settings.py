"""What a user has set for pip reaches uv, and passwords reach nobody."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.agent.uv_settings import ProvisionError, handed_on, pip_settings, surroundings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home folder; without pip's settings at first."""
    return tmp_path / "home"


def settings(path: Path, text: str) -> Path:
    """Write a file of pip's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_folder_of_wheels_in_pips_file(make, wheel, ask, tmp_path: Path) -> None:
    """A package that exists only in the folder named by pip's file is found: uv alone would not read that file."""
    wheel(tmp_path / "corner", "onlyhere", "1.0", {"onlyhere.py": "ANSWER = 42\n"})
    file = settings(tmp_path / "pip.conf", f"[global]\nfind-links = {tmp_path / 'corner'}\n[install]\nno-index = yes\n")
    rc, out, err = make.run(PIP_CONFIG_FILE=str(file))
    assert (rc, err) == (0, "")
    assert re.search("from pip's settings, for uv: .*UV_FIND_LINKS", out)
    assert ask(make.made()[0], "import onlyhere; print(onlyhere.ANSWER)") == "42"


def test_the_local_build_of_a_version_is_taken(make, wheel, ask, tmp_path: Path) -> None:
    """A lock says 1.0; where the user's folder has 1.0+cpu beside 1.0, the former is installed."""
    for version in ("1.0", "1.0+cpu"):
        wheel(tmp_path / "corner", "onlyhere", version, {"onlyhere.py": f"VERSION = {version!r}\n"})
    assert make.run(PIP_FIND_LINKS=str(tmp_path / "corner"), PIP_NO_INDEX="1")[0] == 0
    assert ask(make.made()[0], "import onlyhere; print(onlyhere.VERSION)") == "1.0+cpu"


def test_an_index_with_a_password(make, shop) -> None:
    """It works, and while it works the password stands in no argv; afterwards in no line and no file."""
    process = make.start(PIP_INDEX_URL=shop.url(shop.password))
    assert shop.asked.wait(60)
    argvs = argvs_of(process.pid)
    shop.open.set()
    said = "".join(process.communicate(timeout=120))
    assert process.returncode == 0
    assert any(b"sync" in argv for argv in argvs)
    assert not [argv for argv in argvs if shop.password.encode() in argv]
    assert shop.password not in said
    kept = [path for path in make.envs.rglob("*") if path.is_file() and not path.is_symlink()]
    assert kept
    assert not [path for path in kept if shop.password.encode() in path.read_bytes()]


def argvs_of(session: int) -> list[bytes]:
    """Argument vectors of all processes of a session, as anybody on the machine can read them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                found.append((process / "cmdline").read_bytes())
    return found


def test_a_wrong_password_is_not_repeated(make, shop) -> None:
    """The error names the index without the password."""
    rc, out, err = make.run(PIP_INDEX_URL=shop.url("wr0ng@p"))
    assert rc == 1
    assert "127.0.0.1" in err
    assert "wr0ng" not in out + err


def test_a_second_index_counts_as_much_as_the_first(make, shop, wheel, tmp_path: Path) -> None:
    """As with pip: a package that the extra index has in another version only is found in the main one."""
    shop.open.set()
    extra = tmp_path / "extra/simple/onlyhere"
    old = wheel(extra, "onlyhere", "0.9", {"onlyhere.py": ""})
    (extra / "index.html").write_text(f'<a href="{old.name}">{old.name}</a>')
    env = {"PIP_INDEX_URL": shop.url(shop.password), "PIP_EXTRA_INDEX_URL": f"file://{extra.parent}"}
    assert make.run(**env, UV_INDEX_STRATEGY="first-index")[0] == 1  # uv's own way
    assert make.run(**env)[0] == 0
    assert make.run("onlyhere==0.9\n", **env)[0] == 0


def test_precedence_is_pips(home: Path, tmp_path: Path) -> None:
    """Variables before PIP_CONFIG_FILE before the user's files before the system's, `[install]` before `[global]`."""
    settings(tmp_path / "etc/pip/pip.conf", "[global]\ntrusted-host = shared\ncert = shared\nproxy = shared\ntimeout = 1\n")
    settings(home / ".pip/pip.conf", "[global]\ncert = old\nproxy = old\n")
    settings(home / ".config/pip/pip.conf", "[global]\nproxy = user\nextra_index_url = a\n  b\n[install]\nno-index = true\n")
    named = settings(tmp_path / "named.conf", "[global]\nno-index = false\nfind-links = named\n")
    environ = {"HOME": str(home), "XDG_CONFIG_DIRS": str(tmp_path / "etc"), "PIP_CONFIG_FILE": str(named)}
    found = pip_settings({**environ, "PIP_FIND_LINKS": "variable", "PIP_CERT": ""})
    mine = {name: found[name] for name in ("trusted-host", "cert", "proxy", "extra-index-url", "no-index", "find-links")}
    assert mine == {
        "trusted-host": "shared",
        "cert": "old",
        "proxy": "user",
        "extra-index-url": "a\nb",
        "no-index": "true",
        "find-links": "variable",
    }


def test_pips_files_can_be_switched_off(home: Path) -> None:
    """As with pip, PIP_CONFIG_FILE=/dev/null means none of them."""
    settings(home / ".config/pip/pip.conf", "[global]\nfind-links = user\n")
    assert "find-links" in pip_settings({"HOME": str(home)})
    assert "find-links" not in pip_settings({"HOME": str(home), "PIP_CONFIG_FILE": "/dev/null"})


def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path) -> None:
    """What pip could not read either is an error with its path; its text may hold a password."""
    file = settings(tmp_path / "pip.conf", "index-url = http://me:hush@host/simple\n")
    with pytest.raises(ProvisionError, match=re.escape(str(file))) as caught:
        pip_settings({"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(file)})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("pip", "made"),
    [
        ({"index-url": "u"}, {"UV_DEFAULT_INDEX": "u"}),
        ({"extra-index-url": "a b"}, {"UV_EXTRA_INDEX_URL": "a b", "UV_INDEX_STRATEGY": "unsafe-best-match"}),
        ({"find-links": "/a\nhttp://b"}, {"UV_FIND_LINKS": "/a,http://b"}),
        ({"cert": "/c.pem"}, {"SSL_CERT_FILE": "/c.pem"}),
        ({"trusted-host": "h"}, {"UV_INSECURE_HOST": "h"}),
        ({"proxy": "p"}, {"ALL_PROXY": "p"}),
        ({"timeout": "9"}, {}),
    ],
)
def test_every_setting_has_its_variable(pip: dict[str, str], made: dict[str, str]) -> None:
    """Of pip's settings those that say where packages come from are handed on, under uv's names."""
    assert handed_on(pip, {}) == made


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uvs_own_settings_win(name: str) -> None:
    """What is said to uv itself is not overruled by what is said to pip; the rest is handed on all the same."""
    pip = {"index-url": "pips", "find-links": "pips"}
    assert handed_on(pip, {name: "uvs"}) == {"UV_FIND_LINKS": "pips"}


@pytest.mark.parametrize(
    ("accelerator", "given", "backend"),
    [("cpu", {}, "cpu"), ("cuda", {}, None), ("cpu", {"UV_FIND_LINKS": "/w"}, None), ("cpu", {"UV_TORCH_BACKEND": "x"}, "x")],
)
def test_torch_without_settings(tmp_path: Path, accelerator: str, given: dict[str, str], backend: str | None) -> None:
    """On a CPU host torch comes from PyTorch's own CPU index, unless the user says where packages come from."""
    assert surroundings(tmp_path, accelerator, "3.11", given).get("UV_TORCH_BACKEND") == backend


def test_the_interpreters_of_pyenv_are_found(tmp_path: Path) -> None:
    """A version that pyenv holds can be had although it is not the one in use; what is on the PATH comes first."""
    for version in ("2.7.18", "3.11.7", "3.12.0", "3.12.1"):
        (tmp_path / "versions" / version / "bin").mkdir(parents=True)
    path = surroundings(tmp_path, "cpu", "3.12", {"PATH": "/usr/bin", "PYENV_ROOT": str(tmp_path)})["PATH"].split(":")
    assert path == ["/usr/bin", *(f"{tmp_path}/versions/{version}/bin" for version in ("3.12.0", "3.12.1"))]


def test_the_cache(tmp_path: Path) -> None:
    """The user's own cache of uv where files can be linked from it, else one beside the environments."""
    envs = tmp_path / "state/envs"
    envs.mkdir(parents=True)

    def cache(**environ: str) -> str:
        return surroundings(envs, "cpu", "3.11", {"HOME": str(tmp_path), **environ})["UV_CACHE_DIR"]

    assert cache() == str(tmp_path / ".cache/uv")
    assert cache(XDG_CACHE_HOME=str(tmp_path / "xdg")) == str(tmp_path / "xdg/uv")
    assert cache(XDG_CACHE_HOME="/proc") == str(tmp_path / "state/cache/uv")  # another file system
    assert cache(UV_CACHE_DIR="/proc/mine") == "/proc/mine"


def test_importing_it_is_cheap() -> None:
    """`tune submit` imports this module only to find an environment that is ready."""
    code = "import sys, orchestrator.agent.provision; print(*{'subprocess', 'configparser', 'argparse', 'uv'} & set(sys.modules))"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == ""
