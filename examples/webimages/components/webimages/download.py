"""Fetching a URL that somebody else chose, without being led astray."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import httpx

from webimages.addresses import AllowList, refusal
from webimages.blobs import Blobs, BlobTooLarge, megabytes

__all__ = ["CannotFetch", "TryAgain", "VettedTransport", "download", "url_problem"]

Resolve = Callable[[str, int], Awaitable[list[str]]]

_REDIRECTS = 5
_HEADERS = {
    "User-Agent": "msgflo-webimages/1.0",
    "Accept": "image/jpeg, image/png, image/webp",
    # What is counted has to be what arrives: no compressed responses, no bombs in them.
    "Accept-Encoding": "identity",
}


class CannotFetch(Exception):
    """This URL will not give an image, now or later."""


class TryAgain(Exception):
    """It did not work, but may work in a while."""


def url_problem(url: str) -> str | None:
    """Say why a URL is not one to fetch, or return None. Its address is judged later."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises if it is not a number
    except ValueError as error:
        return f"{url!r} is not a URL: {error}"
    if parts.scheme not in ("http", "https"):
        return f"the URL's scheme is {parts.scheme or 'missing'!r}; expected http or https"
    if not parts.hostname:
        return "the URL names no host"
    if parts.username is not None or parts.password is not None:
        return "the URL holds a user name or password, which would be kept with the job"
    return None


async def _resolve(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class VettedTransport(httpx.AsyncBaseTransport):
    """Connects only to addresses that are allowed, and exactly to those that were judged.

    The name is resolved here, once, and the connection is made to the address: between judging and
    connecting nobody can make the name mean something else. TLS still checks the name. Every
    redirect passes through here again.
    """

    def __init__(self, allow: AllowList, resolve: Resolve = _resolve) -> None:
        self._allow = allow
        self._resolve = resolve
        # No connection is used twice: to the pool, hosts that share an address look the same, and
        # the certificate was checked for one of them only.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._inner = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Judge where a request leads, and send it there."""
        if problem := url_problem(str(request.url)):
            raise CannotFetch(problem)
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        address = await self._vetted(host, port)
        # A request of its own: the client goes on from the one it has, which must keep the name, or
        # a relative redirect would lead to an address without one.
        there = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return await self._inner.handle_async_request(there)

    async def _vetted(self, host: str, port: int) -> str:
        try:
            addresses = await self._resolve(host, port)
        except (socket.gaierror, UnicodeError) as error:
            if getattr(error, "errno", None) == socket.EAI_AGAIN:
                raise TryAgain(f"the name {host!r} cannot be resolved now: {error}") from None
            raise CannotFetch(f"there is no host {host!r}") from None
        reasons = []
        for address in addresses:
            reason = refusal(address, port, self._allow)
            if reason is None:
                return address
            reasons.append(reason)
        if not reasons:
            raise CannotFetch(f"{host!r} has no address")
        named = "" if reasons[0].endswith(f" {host}") else f"{host} is "
        raise CannotFetch(f"not allowed: {named}{reasons[0]}")

    async def aclose(self) -> None:
        """Close what is open."""
        await self._inner.aclose()


async def download(
    url: str,
    blobs: Blobs,
    allow: AllowList,
    *,
    most: int,
    timeout: float,
    resolve: Resolve = _resolve,
) -> str:
    """Fetch a URL into a file, and return the file's digest.

    Args:
        url: http or https.
        blobs: where the file goes.
        allow: addresses that are allowed although they are not public.
        most: so many bytes are taken, no more.
        timeout: seconds for all of it, redirects included.
        resolve: gives the addresses of a name.

    Raises:
        CannotFetch: and there is no use in trying again. The text says why.
        TryAgain: it may work later. The text says what went wrong.
    """
    try:
        async with (
            asyncio.timeout(timeout),
            httpx.AsyncClient(
                transport=VettedTransport(allow, resolve),
                follow_redirects=True,
                max_redirects=_REDIRECTS,
                timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
                headers=_HEADERS,
                trust_env=False,
            ) as client,
            client.stream("GET", url) as response,
        ):
            _check(response, most)
            with blobs.incoming(most) as incoming:
                async for chunk in response.aiter_raw(64 * 1024):
                    incoming.write(chunk)
                if not incoming.size:
                    raise CannotFetch("the server's answer is empty")
                return await asyncio.to_thread(incoming.keep)
    except BlobTooLarge:
        raise CannotFetch(f"the image is larger than {megabytes(most)}") from None
    except TimeoutError:
        raise TryAgain(f"it took longer than {timeout:g} s") from None
    except httpx.TooManyRedirects:
        raise CannotFetch(f"more than {_REDIRECTS} redirects") from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise CannotFetch(f"not a URL to fetch: {error}") from None
    except httpx.TimeoutException as error:
        raise TryAgain(f"no answer in time ({type(error).__name__})") from None
    except httpx.HTTPError as error:
        raise TryAgain(f"the connection failed: {error or type(error).__name__}") from None


def _check(response: httpx.Response, most: int) -> None:
    status = f"the server answers {response.status_code} {response.reason_phrase}".rstrip()
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise TryAgain(status)
    if response.status_code != 200:
        raise CannotFetch(status)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise CannotFetch("the server compresses its answer although it was asked not to")
    size = response.headers.get("Content-Length", "")
    if size.isdecimal() and int(size) > most:
        raise CannotFetch(f"the image has {megabytes(int(size))}; at most {megabytes(most)} go")
