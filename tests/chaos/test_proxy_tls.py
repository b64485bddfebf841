"""A proxy before a server that is reached by https only: clients speak plainly to it, and it asks the server by name."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interlock.chaos.addresses import read_address
from interlock.chaos.http_client import AnswerLost, HttpClient, HttpStatusError
from interlock.chaos.proxy import FaultProxy
from interlock.chaos.spoken import spoken_wire_fault
from interlock.core.errors import ConfigError

SAYS = {"choices": [{"message": {"role": "assistant", "content": "Restart it."}, "finish_reason": "stop"}]}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a key and the certificate of `localhost` that it has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
async def server(certificate):
    """`https://localhost:PORT` of a model, and the names under which it was asked."""
    hosts = []

    async def answer(request):
        hosts.append(request.headers["Host"])
        return web.json_response(SAYS)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://localhost:{runner.addresses[0][1]}", hosts
    await runner.cleanup()


async def ask(proxy):
    reply = await HttpClient(f"http://{proxy.address}").request("POST", "/v1/chat/completions", body={"messages": []})
    return reply.body["choices"][0]["message"]["content"]


async def test_a_client_speaks_plainly_and_the_server_hears_its_own_name(server, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    to, hosts = server
    faults = [spoken_wire_fault("model_empty calls=[2]"), spoken_wire_fault("429_errors calls=[3]")]
    async with FaultProxy(to, faults, framing="model") as proxy:
        await proxy.check()
        assert [await ask(proxy), await ask(proxy)] == ["Restart it.", ""]
        with pytest.raises(HttpStatusError):
            await ask(proxy)
    assert hosts == [to.removeprefix("https://")] * 2


async def test_a_server_that_nobody_here_trusts_is_not_asked(server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    failed = []
    to, hosts = server
    async with FaultProxy(to, framing="http", failed=failed.append) as proxy:
        with pytest.raises(AnswerLost):
            await ask(proxy)
        with pytest.raises(ConfigError, match="cannot be reached: self-signed certificate"):
            await proxy.check()
    assert failed == [f"connection 1: --to {to}: self-signed certificate"]
    assert hosts == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("https://api.example.com", "api.example.com"),
        ("https://api.example.com/", "api.example.com"),
        ("https://api.example.com:8443", "api.example.com:8443"),
        ("https://[::1]", "[::1]"),
        ("https://[::1]:444", "[::1]:444"),
    ],
)
def test_how_the_server_is_named(text, named):
    address = read_address(text, "--to", https=True)
    assert (address.tls, address.named, str(address)) == (True, named, f"https://{named}")
