"""The object store: django-storages' S3 with short patience, and failures that say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError
from storages.backends.s3 import S3Storage

from generation.faults import StoreUnavailable


class ObjectStore(S3Storage):
    """S3 or what speaks like it. An object is whole or not there; names are never changed."""

    def open(self, name: str, mode: str = "rb") -> Any:
        with _explained(self.bucket_name):
            return super().open(name, mode)

    def save(self, name: str | None, content: IO[Any], max_length: int | None = None) -> str:
        with _explained(self.bucket_name):
            return str(super().save(name, content, max_length))

    def delete(self, name: str) -> None:
        with _explained(self.bucket_name):
            super().delete(name)

    def exists(self, name: str) -> bool:
        with _explained(self.bucket_name):
            return bool(super().exists(name))

    def size(self, name: str) -> int:
        with _explained(self.bucket_name):
            return int(super().size(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        with _explained(self.bucket_name):
            found: tuple[list[str], list[str]] = super().listdir(path)
            return found

    def make_bucket(self) -> bool:
        """True where it was missing."""
        client = self.connection.meta.client
        with _explained(self.bucket_name):
            try:
                client.head_bucket(Bucket=self.bucket_name)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") not in ("404", "NoSuchBucket"):
                    raise
                client.create_bucket(Bucket=self.bucket_name)
                return True
        return False


@contextmanager
def _explained(bucket: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise StoreUnavailable(
            f"The object store refused the bucket {bucket} ({code}). Look at S3_BUCKET, the two "
            "S3 keys and what they may do."
        ) from error
    except BotoCoreError as error:
        raise StoreUnavailable(
            f"The object store does not answer ({error}). It is asked again at the next try; "
            "look at S3_ENDPOINT_URL and at the store itself."
        ) from error


def options(
    *,
    bucket: str,
    endpoint_url: str,
    region: str,
    access_key: str,
    secret_key: str,
    prefix: str,
    addressing_style: str,
    timeout_seconds: int,
) -> dict[str, Any]:
    from botocore.config import Config

    return {
        "bucket_name": bucket,
        "endpoint_url": endpoint_url or None,
        "region_name": region or None,
        # Without keys boto3 asks the machine, such as a pod's service account.
        "access_key": access_key or None,
        "secret_key": secret_key or None,
        "location": prefix,
        # A key is written once, or replaced whole; it never gets another name.
        "file_overwrite": True,
        "default_acl": None,
        "querystring_auth": True,
        # What is larger is read through a file, not through memory.
        "max_memory_size": 16 * 2**20,
        "client_config": Config(
            connect_timeout=min(5, timeout_seconds),
            read_timeout=timeout_seconds,
            retries={"mode": "standard", "total_max_attempts": 4},
            s3={"addressing_style": addressing_style},
            signature_version="s3v4",
        ),
    }
