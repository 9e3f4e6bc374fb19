"""What a client is told that asked for something it cannot have: OpenAI's form of an error."""

from typing import Any

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    411: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    503: "service_unavailable_error",
}


class ApiError(Exception):
    """An answer that is an error. Its message is for the client and repeats nothing secret."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self._param = param
        self._code = code

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        return {
            "error": {
                "message": str(self),
                "type": KINDS.get(self.status, "server_error"),
                "param": self._param,
                "code": self._code,
            }
        }


def unavailable(message: str, *, after_s: int = 5) -> ApiError:
    """The client may ask again after that time."""
    return ApiError(503, message, code="unavailable", headers={"Retry-After": str(after_s)})
