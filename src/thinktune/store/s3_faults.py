"""What S3 and the way to it can refuse, in words for people. Used by `s3` alone.

Nothing the service wrote is repeated but its error code: messages may quote keys and signatures.
"""

from urllib.parse import urlsplit

from thinktune.schema.errors import ServiceUnavailable

RETRIED_CODES = frozenset(
    {
        "BadDigest",  # a byte flipped on the way; the next try sends the right ones
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
"""Refusals that pass, beside all that come with status 429 or 5xx."""

STALE_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "InvalidToken"})
"""Credentials that were right once, beside all that come with status 401 or 403."""

_CREDENTIALS = "set AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a web identity"
_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile they come from"
_ENDPOINT = "check the network and AWS_ENDPOINT_URL_S3"

_KNOWN: dict[str, tuple[str, str]] = {
    "NoCredentialsError": ("there are no credentials", _CREDENTIALS),
    "PartialCredentialsError": ("the credentials are incomplete", _CREDENTIALS),
    "CredentialRetrievalError": ("the credentials' provider does not answer", _CREDENTIALS),
    "ProfileNotFound": (
        "AWS_PROFILE names no profile",
        "check ~/.aws/config, or unset AWS_PROFILE",
    ),
    "InvalidAccessKeyId": ("the access key is unknown there", _KEYS),
    "SignatureDoesNotMatch": ("the secret key is wrong", _KEYS),
    "ExpiredToken": ("the session's credentials have expired", "log in again, or renew the secret"),
    "InvalidToken": ("the session token is not valid", "log in again, or renew the secret"),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "set it (NTP)"),
    "NoSuchBucket": ("there is no such bucket", "create it, or correct the store's address"),
    "PermanentRedirect": (
        "the bucket is in another region",
        "set AWS_DEFAULT_REGION to its region",
    ),
    "AuthorizationHeaderMalformed": (
        "the bucket is in another region",
        "set AWS_DEFAULT_REGION to its region",
    ),
    "NotImplemented": (
        "this server lacks something S3 has",
        "use one with conditional writes and SHA-256 checksums",
    ),
    "SSLError": ("its certificate is not trusted here", "set AWS_CA_BUNDLE to the CA's file"),
    "ProxyConnectionError": ("the proxy does not answer", "check HTTPS_PROXY and NO_PROXY"),
    "SlowDown": ("it asks to slow down, still after many tries", "run it again later"),
    "QuotaExceeded": ("its quota is used up", "delete old runs, or raise the quota"),
}

_DENIED = (
    "access is denied",
    "allow s3:ListBucket on the bucket; s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:AbortMultipartUpload below the prefix",
)

_UNREACHED = frozenset({"EndpointConnectionError", "ConnectTimeoutError", "ConnectionError"})
_BROKEN = frozenset(
    {
        "ConnectionClosedError",
        "FlexibleChecksumError",
        "HTTPClientError",
        "IncompleteReadError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
    }
)


def unavailable(place: str, name: str, status: int | None, endpoint: str) -> ServiceUnavailable:
    """`name` is the service's error code or the client's exception, `status` that of HTTP."""
    known = _KNOWN.get(name)
    if known:
        return ServiceUnavailable(place, *known)
    if status in (401, 403):
        return ServiceUnavailable(place, *_DENIED)
    if name in _UNREACHED:
        return ServiceUnavailable(place, f"{_host(endpoint)} cannot be reached", _ENDPOINT)
    if name in _BROKEN:
        fault = f"{_host(endpoint)} answers, but connections break or stall ({name})"
        return ServiceUnavailable(place, fault, _ENDPOINT)
    if status is not None:
        fault = f"the service answered {name} (HTTP {status})"
        return ServiceUnavailable(place, fault, "run it again; if it stays, look at its logs")
    return ServiceUnavailable(place, f"the S3 client failed ({name})", "check the AWS_… variables")


def _host(endpoint: str) -> str:
    parts = urlsplit(endpoint)  # not the whole: it may hold a password
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "the endpoint"
