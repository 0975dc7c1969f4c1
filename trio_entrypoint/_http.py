"""One HTTP GET whose status is all that matters, for probes."""

from urllib.parse import urlsplit

import h11
import trio

__all__ = ["get_status"]


async def get_status(url: str) -> int:
    """Ask for a URL and give the status of the answer; its body is left unread.

    Raises:
        OSError: No connection, or it broke.
        h11.RemoteProtocolError: What answers does not speak HTTP.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    stream = await _connect(parts.scheme, host, port)
    async with stream:
        connection = h11.Connection(our_role=h11.CLIENT)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = h11.Request(
            method="GET",
            target=target,
            headers=[("Host", parts.netloc), ("User-Agent", "trio-entrypoint")],
        )
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        while True:
            match connection.next_event():
                case h11.NEED_DATA:
                    connection.receive_data(bytes(await stream.receive_some()))
                case h11.Response(status_code=status):
                    return status
                case h11.InformationalResponse():
                    pass
                case event:  # h11 gives nothing else before a response
                    raise h11.RemoteProtocolError(f"{url} answered with {event!r}")


async def _connect(scheme: str, host: str, port: int | None) -> trio.abc.Stream:
    if scheme == "http":
        return await trio.open_tcp_stream(host, port or 80)
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return await trio.open_ssl_over_tcp_stream(
        host, port or 443, ssl_context=context, https_compatible=True
    )
