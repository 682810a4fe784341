"""The laws of `svckit.keyring`: what a file of keys says, and what it never holds."""

import hmac
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from handscroll.errors import InvalidRequest
from svckit import keyring
from svckit.keyring import Key, Keyring, Role, changed_keys, holds_key, new_key, read_keys


def add(path: Path, name: str = "Anna", **budgets: int) -> str:
    """A key that the file knows."""
    shown, key = new_key(name, "paint", **budgets)
    with changed_keys(path) as keys:
        keys[key.id] = key
    return shown


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is looked at each time."""
    monkeypatch.setattr(keyring, "LOOKED_S", -1.0)
    return tmp_path / "keys.json"


def test_roles_are_ordered() -> None:
    assert Role.NONE < Role.READ < Role.PAINT < Role.ADMIN


def test_key_that_was_made_is_found_and_no_other(file: Path) -> None:
    shown, other = add(file, patches_per_minute=7), new_key("Bert", "admin")[0]
    ring = Keyring(file)
    found = ring.find(shown)
    assert found is not None and (found.name, found.role) == ("Anna", "paint")
    assert (found.patches_per_minute, found.streams) == (7, None)
    last = "0" if shown[-1] != "0" else "1"
    mixed = f"{shown[:11]}_{other[12:]}"
    for wrong in (other, shown[:-1] + last, mixed, f"{shown} ", shown.upper(), shown[:-1], "", "é"):
        assert ring.find(wrong) is None, wrong


def test_file_holds_the_digest_and_not_the_secret_for_its_owner_alone(file: Path) -> None:
    shown = add(file)
    _, id, secret = shown.split("_")
    text = file.read_text()
    assert secret not in text and json.loads(text)[0]["id"] == id
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    add(file)
    assert file.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in file.parent.iterdir()] == ["keys.json"]


def test_known_and_unknown_ids_cost_the_same_comparison(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, compared = Keyring(_with_key(file)), 0
    compare = hmac.compare_digest

    def counted(one: Any, other: Any) -> bool:
        nonlocal compared
        compared += 1
        assert len(one) == len(other) == 64
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for number, shown in enumerate((add(file), new_key("x", "read")[0], "no key at all"), 1):
        ring.find(shown)
        assert compared == number


def _with_key(file: Path) -> Path:
    add(file)
    return file


def test_file_is_read_again_when_it_changes(file: Path) -> None:
    first = add(file)
    ring = Keyring(file)
    second = add(file)
    assert ring.find(first) and ring.find(second)
    with changed_keys(file) as keys:
        del keys[first[3:11]]
    assert ring.find(first) is None and ring.find(second)


def test_mounted_secret_changes_by_a_link(file: Path) -> None:
    """As Kubernetes does it: the file is a link into a folder, and that is a link too."""
    for name in ("one", "two"):
        (file.parent / name).mkdir()
    first, second = (add(file.parent / name / "keys.json") for name in ("one", "two"))
    data = file.parent / "..data"
    data.symlink_to("one")
    file.symlink_to("..data/keys.json")
    ring = Keyring(file)
    assert ring.find(first) and not ring.find(second)
    aside = file.parent / "aside"
    aside.symlink_to("two")
    aside.replace(data)
    assert ring.find(second) and not ring.find(first)


@pytest.mark.parametrize("damage", ["{", "[{}]", '[{"id": "0"}]', None])
def test_file_that_breaks_leaves_the_keys_as_they_were_and_is_told_once(
    file: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    shown = add(file)
    ring = Keyring(file)
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage)
    for _ in range(3):
        assert ring.find(shown)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    file.unlink(missing_ok=True)
    other = add(file)
    assert ring.find(other) and not ring.find(shown)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        ("", "is not one: the file: Invalid JSON"),
        ("{}", "is not one: the file: Input should be a valid array"),
        ('[{"id": "0123456"}]', "0.id: String should match"),
        ('[{"id": "01234567", "secret": "hunter2"}]', "0.secret: Extra inputs"),
    ],
)
def test_file_that_is_none_is_refused_in_words_without_its_values(
    file: Path, content: str | None, words: str
) -> None:
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidRequest, match="keys.json") as failure:
        Keyring(file)
    assert words in str(failure.value)
    assert "hunter2" not in str(failure.value)


def test_id_must_be_there_once(file: Path) -> None:
    add(file)
    file.write_text(json.dumps(json.loads(file.read_text()) * 2))
    with pytest.raises(InvalidRequest, match="an id twice"):
        read_keys(file)


def test_keys_made_at_the_same_time_are_all_there(file: Path) -> None:
    threads = [threading.Thread(target=add, args=(file, str(n))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read_keys(file).values()} == {str(n) for n in range(16)}


def test_file_stays_whole_where_a_change_fails(file: Path) -> None:
    add(file)
    before = file.read_bytes()
    with pytest.raises(ZeroDivisionError), changed_keys(file) as keys:
        keys.clear()
        raise ZeroDivisionError
    assert file.read_bytes() == before
    with pytest.raises(InvalidRequest, match="no folder"), changed_keys(file / "x" / "y"):
        pass
    assert os.listdir(file.parent) == ["keys.json"]


@pytest.mark.parametrize("changes", [{"name": ""}, {"name": "x" * 101}, {"streams": -1}])
def test_impossible_key_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="name|streams"):
        new_key(**{"name": "Anna", "role": "paint"} | changes)


def test_keys_are_recognised_wherever_they_stand() -> None:
    shown, key = new_key("Anna", "read")
    assert isinstance(key, Key)
    assert holds_key(shown) and holds_key(f"?key={shown}&z=1")
    assert (
        not holds_key("hs_0123") and not holds_key("") and not holds_key(shown.replace("hs_", ""))
    )
