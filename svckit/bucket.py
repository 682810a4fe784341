"""A bucket made ready: there, writable, and its tiles expiring.

This is done once, at deployment, with the `minio` client, which knows buckets and rules. It is
not for values: it cannot write under a condition. A header such as If-None-Match, given as
metadata, is stored as metadata, and the value there is overwritten.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.credentials.providers import (
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from minio.error import MinioException, S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

from handscroll.errors import InvalidRequest, StoreUnavailable
from svckit.store import TIMEOUT_S, S3Settings, bucket_of

RULE = "handscroll-tiles"


def prepare(url: str, s3: S3Settings | None = None, tile_days: int | None = None) -> list[str]:
    """Make a bucket ready for a store; this blocks, and may be repeated.

    The bucket is made if it is missing, and its rule for tiles is set or removed; the rules of
    others stay. Tiles may expire because they can be drawn again from patches.

    Args:
        url: ``s3://bucket/prefix``.
        s3: how to reach S3.
        tile_days: days after which a tile that nobody looked at expires; None to keep them.

    Returns:
        What works but should be known, a sentence each.

    Raises:
        InvalidRequest: the URL is not such, or the days are fewer than 1.
        StoreUnavailable: the service does not answer or refuses us.
    """
    if tile_days is not None and tile_days < 1:
        raise InvalidRequest(f"tiles must be kept for 1 day or more, not {tile_days}")
    bucket, prefix = bucket_of(url)
    client = _client(s3 or S3Settings())
    try:
        if not client.bucket_exists(bucket_name=bucket):
            client.make_bucket(bucket_name=bucket)
        _expire(client, bucket, f"{prefix}tiles/", tile_days)
        return _findings(client, bucket)
    except S3Error as error:
        hint = "; check access key, secret key and what they may do" if _refused(error) else ""
        raise StoreUnavailable(f"bucket {bucket}: {error.code}: {error.message}{hint}") from None
    except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise StoreUnavailable(f"bucket {bucket}: {error}") from None


def _client(s3: S3Settings) -> Minio:
    endpoint = urlsplit(s3.endpoint or os.environ.get("AWS_ENDPOINT_URL") or "")
    credentials: Provider
    if s3.access_key is not None and s3.secret_key is not None:
        credentials = StaticProvider(s3.access_key, s3.secret_key.get_secret_value())
    else:
        credentials = ChainedProvider([EnvAWSProvider(), IamAwsProvider()])
    return Minio(
        endpoint=endpoint.netloc or "s3.amazonaws.com",
        secure=endpoint.scheme != "http",
        region=s3.region,
        credentials=credentials,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(TIMEOUT_S), retries=urllib3.Retry(2, backoff_factor=0.1)
        ),
    )


def _expire(client: Minio, bucket: str, prefix: str, days: int | None) -> None:
    """Have our rule be there with these days, or not be there."""
    current = client.get_bucket_lifecycle(bucket_name=bucket)
    rules = list(current.rules) if current else []
    others = [rule for rule in rules if rule.rule_id != RULE]
    wanted = [] if days is None else [_rule(prefix, days)]
    if [_facts(rule) for rule in rules if rule.rule_id == RULE] == [_facts(r) for r in wanted]:
        # Writing replaces all rules, and a client may not know every part of another's.
        return
    if others or wanted:
        client.set_bucket_lifecycle(bucket_name=bucket, config=LifecycleConfig(others + wanted))
    else:
        client.delete_bucket_lifecycle(bucket_name=bucket)


def _rule(prefix: str, days: int) -> Rule:
    return Rule(
        status=ENABLED,
        rule_filter=Filter(prefix=prefix),
        rule_id=RULE,
        expiration=Expiration(days=days),
    )


def _facts(rule: Rule) -> tuple[Any, ...]:
    return (
        rule.status,
        rule.rule_filter.prefix if rule.rule_filter else None,
        rule.expiration.days if rule.expiration else None,
    )


def _findings(client: Minio, bucket: str) -> list[str]:
    findings = []
    if client.get_bucket_versioning(bucket_name=bucket).status == ENABLED:
        findings.append(
            f"bucket {bucket} keeps old versions: what is deleted, such as a canvas, is hidden "
            "but not gone, and tiles that are looked at are kept several times; suspend versioning "
            "or expire old versions"
        )
    try:
        client.get_object_lock_config(bucket_name=bucket)
    except S3Error as error:
        if error.code not in (
            "ObjectLockConfigurationNotFoundError",
            "NoSuchObjectLockConfiguration",
        ):
            raise
    else:
        findings.append(
            f"bucket {bucket} locks its objects: deleting a canvas may fail until the lock ends; "
            "use a bucket without object lock"
        )
    return findings


def _refused(error: S3Error) -> bool:
    return error.response.status in (401, 403)
