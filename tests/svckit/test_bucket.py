import uuid
from urllib.parse import urlsplit

import pytest
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.versioningconfig import VersioningConfig
from pydantic import SecretStr

from handscroll.errors import InvalidRequest, StoreUnavailable
from svckit.bucket import RULE, prepare
from tests.support.seaweed import ACCESS_KEY, S3, SECRET_KEY


@pytest.fixture
def client(s3: S3) -> Minio:
    return Minio(
        endpoint=urlsplit(str(s3.settings.endpoint)).netloc,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        secure=False,
    )


@pytest.fixture
def bucket() -> str:
    return f"b-{uuid.uuid4().hex[:12]}"


def rules(client: Minio, bucket: str) -> dict[str | None, tuple[str | None, int | None]]:
    config = client.get_bucket_lifecycle(bucket_name=bucket)
    return {
        rule.rule_id: (
            rule.rule_filter.prefix if rule.rule_filter else None,
            rule.expiration.days if rule.expiration else None,
        )
        for rule in (config.rules if config else [])
    }


def test_a_missing_bucket_is_made_and_preparing_twice_is_fine(
    s3: S3, client: Minio, bucket: str
) -> None:
    for _ in range(2):
        assert prepare(f"s3://{bucket}", s3.settings) == []
        assert client.bucket_exists(bucket_name=bucket)
        assert rules(client, bucket) == {}


def test_tiles_alone_expire_and_the_rules_of_others_stay(
    s3: S3, client: Minio, bucket: str
) -> None:
    client.make_bucket(bucket_name=bucket)
    theirs = Rule(
        status=ENABLED,
        rule_filter=Filter(prefix="logs/"),
        rule_id="theirs",
        expiration=Expiration(days=3),
    )
    client.set_bucket_lifecycle(bucket_name=bucket, config=LifecycleConfig([theirs]))
    for days in (30, 30, 7):
        prepare(f"s3://{bucket}/eu", s3.settings, tile_days=days)
        assert rules(client, bucket) == {"theirs": ("logs/", 3), RULE: ("eu/tiles/", days)}
    for _ in range(2):
        prepare(f"s3://{bucket}/eu", s3.settings, tile_days=None)
        assert rules(client, bucket) == {"theirs": ("logs/", 3)}


def test_the_last_rule_can_be_removed(s3: S3, client: Minio, bucket: str) -> None:
    prepare(f"s3://{bucket}", s3.settings, tile_days=30)
    assert rules(client, bucket) == {RULE: ("tiles/", 30)}
    prepare(f"s3://{bucket}", s3.settings, tile_days=None)
    assert rules(client, bucket) == {}


def test_versioning_and_locks_are_told(s3: S3, client: Minio, bucket: str) -> None:
    client.make_bucket(bucket_name=bucket, object_lock=True)
    client.set_bucket_versioning(bucket_name=bucket, config=VersioningConfig(ENABLED))
    versions, locks = prepare(f"s3://{bucket}", s3.settings)
    assert "old versions" in versions and "locks its objects" in locks


def test_a_wrong_secret_is_said_in_plain_words(s3: S3, bucket: str) -> None:
    wrong = s3.settings.model_copy(update={"secret_key": SecretStr("not-the-secret")})
    with pytest.raises(StoreUnavailable, match="check access key, secret key") as caught:
        prepare(f"s3://{bucket}", wrong)
    assert "not-the-secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_said(s3: S3, bucket: str) -> None:
    gone = s3.settings.model_copy(update={"endpoint": "http://127.0.0.1:1"})
    with pytest.raises(StoreUnavailable, match=f"bucket {bucket}: .*127.0.0.1"):
        prepare(f"s3://{bucket}", gone)


def test_days_are_at_least_one_and_the_url_is_of_s3(s3: S3) -> None:
    with pytest.raises(InvalidRequest, match="1 day or more, not 0"):
        prepare(s3.url, s3.settings, tile_days=0)
    with pytest.raises(InvalidRequest, match="s3://bucket/prefix, not 'memory://'"):
        prepare("memory://", s3.settings)
