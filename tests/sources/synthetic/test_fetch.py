"""Raw data are fetched by the script of the checkout or of the installed package."""

import pytest

from jaxcurate.checks import InputError
from jaxcurate.sources import fetch_raw
from jaxcurate.sources.synthetic import fetch

TELL = 'echo "fetching $*"'
FAIL = 'echo "first line" >&2; echo "fetch: error: no network" >&2; exit 2'


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Returns a function that puts a script beside or into a package, which is in `site/`."""
    package, here = tmp_path / "site" / "jaxcurate", tmp_path / "here"
    package.mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("JAXCURATE_DATA", raising=False)
    monkeypatch.setattr(fetch, "_PACKAGE", package)

    def put(script, above):
        (above / "scripts").mkdir()
        (above / "scripts" / "fetch").write_text(f"#!/usr/bin/env bash\n{script}\n")

    return package, here, put


def test_a_checkout_keeps_its_data(place, capfd):
    package, _, put = place
    put(TELL, package.parent)
    data = package.parent / "data"
    assert fetch_raw(["clipart", "emoji"]) == data
    assert capfd.readouterr().out == f"fetching {data} --only=clipart,emoji\n"


def test_an_installed_package_puts_data_into_the_current_folder(place, capfd):
    package, here, put = place
    put(TELL, package)
    assert fetch_raw(["clipart"]) == here / "data"
    assert capfd.readouterr().out == f"fetching {here}/data --only=clipart\n"


def test_a_named_folder_and_the_variable_come_first(place, monkeypatch, tmp_path):
    package, here, put = place
    put(TELL, package)
    monkeypatch.setenv("JAXCURATE_DATA", str(tmp_path / "chosen"))
    assert fetch_raw(["clipart"]) == tmp_path / "chosen"
    assert fetch_raw(["clipart"], "named") == here / "named"


def test_a_failure_is_the_line_of_the_script(place):
    package, _, put = place
    put(FAIL, package)
    with pytest.raises(InputError, match=r"^fetch: error: no network$"):
        fetch_raw(["clipart"])


def test_a_missing_script_is_told(place):
    with pytest.raises(InputError, match="scripts/fetch is neither in"):
        fetch_raw(["clipart"])


def test_the_real_script_keeps_what_is_there(tmp_path, capfd):
    whole = tmp_path / "raw" / "clipart"
    whole.mkdir(parents=True)
    (whole / ".whole").touch()
    assert fetch_raw(["clipart"], tmp_path) == tmp_path
    assert capfd.readouterr().out == f"clipart: already in {whole}\n"
