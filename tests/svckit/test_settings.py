"""The laws of `svckit.settings`: flags before the environment before the defaults."""

from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from handscroll.errors import InvalidRequest
from svckit.settings import ServiceSettings


class Told(ServiceSettings):
    """What a service of these tests is told."""

    model_config = SettingsConfigDict(env_prefix="HANDSCROLL_TOLD_")

    queue_length: int = Field(3, ge=1, description="how many")


def test_flags_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Told.read([]).queue_length == 3
    monkeypatch.setenv("HANDSCROLL_TOLD_QUEUE_LENGTH", "4")
    monkeypatch.setenv("HANDSCROLL_TOLD_HOST", "0.0.0.0")
    monkeypatch.setenv("HANDSCROLL_OTHER_PORT", "1")
    assert Told.read([]).queue_length == 4
    told = Told.read(["--queue-length", "5", "--metrics-port=9000"])
    assert (told.queue_length, told.metrics_port) == (5, 9000)
    assert (told.host, told.port) == ("0.0.0.0", 0)


def test_store_is_told_to_all_services_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HANDSCROLL_STORE_URL", str(tmp_path / "a"))
    monkeypatch.setenv("HANDSCROLL_STORE_S3_ACCESS_KEY", "key")
    monkeypatch.setenv("HANDSCROLL_STORE_S3_SECRET_KEY", "hunter2")
    store = Told.read(["--store.s3.endpoint", "http://127.0.0.1:8333"]).store
    assert (store.url, store.s3.access_key) == (str(tmp_path / "a"), "key")
    assert store.s3.endpoint == "http://127.0.0.1:8333" and store.s3.secret_key is not None
    assert "hunter2" not in repr(store)
    assert Told.read(["--store.url", "memory://"]).store.url == "memory://"
    store.open()
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--queue-length", "0"], "queue_length: Input should be greater than or equal to 1"),
        (["--queue-length", "many"], "queue_length: Input should be a valid integer"),
        (["--port", "65536"], "port: Input should be less than or equal to 65535"),
        (["--store.s3.endpoint", "ftp://x"], "store.s3.endpoint: .* must be http://host"),
        (["--log-level", "LOUD"], "log_level: Input should be 'DEBUG', 'INFO'"),
    ],
)
def test_setting_out_of_its_range_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Told.read(arguments)


def test_flag_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        Told.read(["--queue-lenght", "3"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --queue-lenght" in capsys.readouterr().err


def test_settings_are_described_and_do_not_change(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        Told.read(["--help"])
    printed = capsys.readouterr().out
    assert "--queue-length" in printed and "how many" in printed
    with pytest.raises(ValueError, match="frozen"):
        Told.read([]).queue_length = 7  # type: ignore[misc]


def test_notice_is_a_part_of_the_drain() -> None:
    assert Told(drain_s=20, notice_s=1).leave_s == (1, 19)
    assert Told(drain_s=0.5, notice_s=1).leave_s == (0.5, 0)
