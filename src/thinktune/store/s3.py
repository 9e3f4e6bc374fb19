"""Asking S3: the client, and how often to ask again. The only user of boto3; `s3_store` uses it.

Retries are here and not in boto3, because its own end where a body begins to be read, and because
an endpoint never reached should fail in seconds while one that worked deserves patience.
"""

import random
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from thinktune.store.s3_faults import RETRIED_CODES, STALE_CODES, unavailable

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

T = TypeVar("T")

CONNECTIONS = 32
"""Connections to the endpoint: more than there are threads that ask, so that none waits."""

CONNECT_TIMEOUT_S = 5

READ_TIMEOUT_S = 60
"""Seconds that the endpoint may be silent between two packets."""

FIRST_TRIES = 4
"""Tries of a request until the endpoint has answered once: a wrong address is told in seconds."""

TRIES = 10
"""Tries of a request after that: with the pauses, about a minute of nothing but failures."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 20.0

_BROKEN = (FlexibleChecksumError, HTTPClientError, IncompleteReadError, ResponseParserError)
_HOPELESS = (ProxyConnectionError, SSLError)


class Refused(Exception):
    """An answer that the caller expects: not there, or there already."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{code} (HTTP {status})")
        self.status = status
        self.code = code


class Connection:
    """Credentials as boto3 takes them from the environment; likewise the endpoint, where None.

    Raises ServiceUnavailable if they make no sense.
    """

    def __init__(self, place: str, endpoint: str | None) -> None:
        self._endpoint = endpoint
        self._reached = False
        self._renewing = threading.Lock()
        self._client = _new_client(place, endpoint)

    def ask(
        self, place: str, request: "Callable[[S3Client], T]", expected: Collection[int] = ()
    ) -> T:
        """What `request` returns, body read and all, after as many tries as it is worth.

        Raises Refused for an answer with an `expected` status, ServiceUnavailable for other faults.
        """
        client, renewed, tried = self._client, False, 0
        while True:
            tried += 1
            try:
                answer = request(client)
            except ClientError as error:
                self._reached = True
                code, status = _refusal(error)
                if status in expected and code != "NoSuchBucket":
                    raise Refused(status, code) from None
                if (status in (401, 403) or code in STALE_CODES) and not renewed:
                    client, renewed = self._renew(place, client), True
                    continue
                passing = code in RETRIED_CODES or status == 429 or status >= 500
                if not passing or code == "NotImplemented" or tried >= TRIES:
                    raise unavailable(place, code, status, client.meta.endpoint_url) from None
            except (BotoCoreError, ResponseParserError) as error:
                tries = TRIES if self._reached else FIRST_TRIES
                passing = isinstance(error, _BROKEN) and not isinstance(error, _HOPELESS)
                if not passing or tried >= tries:
                    name = type(error).__name__
                    raise unavailable(place, name, None, client.meta.endpoint_url) from None
            else:
                self._reached = True
                return answer
            _pause(tried)

    def _renew(self, place: str, stale: "S3Client") -> "S3Client":
        """Rereads the credentials: they may have been rotated since."""
        with self._renewing:
            if self._client is stale:
                self._client = _new_client(place, self._endpoint)
            return self._client


def _new_client(place: str, endpoint: str | None) -> "S3Client":
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        # Every put brings its own SHA-256; servers that are not AWS refuse unasked extras.
        request_checksum_calculation="when_required",
    )
    try:
        # A session of its own: the default one is shared and keeps old credentials.
        session = boto3.session.Session()
        client: S3Client = session.client("s3", config=config, endpoint_url=endpoint)
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        raise unavailable(place, type(error).__name__, None, "") from None
    return client


def _refusal(error: ClientError) -> tuple[str, int]:
    response = error.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return response.get("Error", {}).get("Code", "unknown"), status


def _pause(tried: int) -> None:
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tried - 1))
    time.sleep(random.uniform(0.5, 1.0) * longest)  # jitter, or all ranks come back at once
